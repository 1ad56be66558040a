"""Reading a volume's options: nothing unknown, nothing ill-formed, and an error that says what was meant."""

import re
from collections.abc import Iterable, Mapping, Sequence

from orlop.errors import Invalid, meant
from orlop.grammar import size
from orlop.volumes.driver import Volume


def refuse_unknown(options: Mapping[str, str], known: Iterable[str], driver: str) -> None:
    """Raises `Invalid` for an option that is not ``known``, with the nearest that is; ``*`` knows all."""
    names = list(known)
    for name in options:
        if name not in names and "*" not in names:
            raise Invalid(f"unknown option {name!r} for driver {driver!r}{meant(name, names)}")


def number(volume: Volume, name: str, default: int, base: int = 10) -> int:
    """Option ``name`` as a number that is not negative."""
    text = volume.options.get(name)
    if text is None:
        return default
    try:
        value = int(text, base)
    except ValueError:
        value = -1
    if value < 0:
        kind = "an octal mode such as 0755" if base == 8 else "a number"
        raise Invalid(f"option {name!r} of volume {volume.name!r} is {text!r}, which is not {kind}")
    return value


def mode(volume: Volume, name: str, default: int) -> int:
    """Option ``name`` as permission bits, written in octal."""
    bits = number(volume, name, default, base=8)
    if bits > 0o7777:
        raise Invalid(f"option {name!r} of volume {volume.name!r} is {volume.options[name]!r}, which is no file mode")
    return bits


def capacity(volume: Volume, name: str = "size") -> int | None:
    """Option ``name`` in bytes, written as ``64m``, ``10g``, ...; None where it is not given."""
    text = volume.options.get(name)
    if text is None:
        return None
    bytes_ = size(text)
    if bytes_ <= 0:
        raise Invalid(f"option {name!r} of volume {volume.name!r} must be more than nothing")
    return bytes_


def flag(volume: Volume, name: str) -> bool:
    """Option ``name`` as yes or no; no where it is not given."""
    text = volume.options.get(name, "false").lower()
    if text in ("true", "1", "yes", ""):
        return True
    if text in ("false", "0", "no"):
        return False
    raise Invalid(f"option {name!r} of volume {volume.name!r} is {text!r}, which is neither true nor false")


def choice(volume: Volume, name: str, known: Sequence[str], default: str) -> str:
    """Option ``name``, which is one of ``known``."""
    text = volume.options.get(name, default)
    if text not in known:
        raise Invalid(f"option {name!r} of volume {volume.name!r} is {text!r}; it must be one of {', '.join(known)}")
    return text


def matching(volume: Volume, name: str, pattern: re.Pattern[str], what: str) -> re.Match[str]:
    """Option ``name``, all of which must match ``pattern``; ``what`` says how it is written."""
    text = volume.options.get(name, "")
    found = pattern.fullmatch(text)
    if found is None:
        raise Invalid(f"option {name!r} of volume {volume.name!r} is {text!r}; it is written as {what}")
    return found
