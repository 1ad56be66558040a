"""``--filter key=value``: which volumes, or events, are meant."""

from collections.abc import Callable, Collection, Mapping, Sequence

from orlop.errors import Invalid

_TRUE, _FALSE = ("true", "1"), ("false", "0")


class Filters:
    """What was asked for; a key that was not named lets everything pass."""

    def __init__(self, texts: Sequence[str], known: Collection[str]):
        """Raises `Invalid` for a key that is not ``known``; ``label!`` stands for ``label!=value``."""
        self._wanted: dict[str, list[str]] = {}
        for text in texts:
            key, equals, value = text.partition("=")
            if not equals:
                raise Invalid(f"filter {text!r} is not KEY=VALUE")
            if key not in known:
                raise Invalid(f"invalid filter {key!r}; there are {', '.join(name + '=' for name in known)}")
            self._wanted.setdefault(key, []).append(value)

    def any_of(self, key: str, test: Callable[[str], bool]) -> bool:
        """Whether one of the values of ``key`` passes."""
        return key not in self._wanted or any(map(test, self._wanted[key]))

    def all_of(self, key: str, test: Callable[[str], bool]) -> bool:
        """Whether every value of ``key`` passes."""
        return all(map(test, self._wanted.get(key, ())))

    def flag(self, key: str, test: Callable[[], bool]) -> bool:
        """Whether ``test`` comes out as ``key`` says, true or false."""
        return self.all_of(key, lambda value: test() == _flag(key, value))

    def names(self, key: str) -> bool:
        """Whether ``key`` was asked for."""
        return key in self._wanted


def labelled(labels: Mapping[str, str], text: str) -> bool:
    """Whether ``labels`` have ``text``: ``key``, whatever its value, or ``key=value``."""
    key, equals, value = text.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _flag(key: str, value: str) -> bool:
    if value.lower() not in (*_TRUE, *_FALSE):
        raise Invalid(f"filter {key!r} is {value!r}, which is neither true nor false")
    return value.lower() in _TRUE
