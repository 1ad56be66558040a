"""Secrets that people typed as options: in the vault before anything is recorded, and gone with their volume.

A sealed secret is called ``VOLUME~OPTION~RANDOM``. People cannot give such names, so what is called that and belongs
to no volume is what a crash left, and may be deleted.
"""

import hmac
import re
import secrets as chance
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from orlop.errors import Invalid, NotFound
from orlop.kernel.locks import Locks
from orlop.state import State
from orlop.volumes import definitions, references
from orlop.volumes.vault import Vault

_SEALED = re.compile(r"[^~]+~[^~]+~[0-9a-f]{16}")
_LOCK = "~sealed secrets"
"""No volume is called that."""


class Seals:
    """The secrets in ``vault`` that belong to one volume each; those of people are left alone."""

    def __init__(self, vault: Vault, locks: Locks, state: State, folder: Path, step: Callable[[str], object] = str):
        """``folder`` holds the volumes' definitions; ``step`` is called between two durable changes."""
        self.vault, self._locks, self._state, self._folder, self._step = vault, locks, state, folder, step

    @contextmanager
    def sealed(self, volume: str, options: Mapping[str, str], secret: Collection[str]) -> Iterator[dict[str, str]]:
        """``options`` with a reference in place of each typed one that is ``secret``; record them inside.

        If that fails, nothing is left in the vault. Raises `Invalid` for another volume's sealed secret.
        """
        _refuse_sealed(options)
        typed = {name: text for name, text in options.items() if name in secret and not references.is_reference(text)}
        if not typed:
            yield dict(options)
            return
        names = {option: _name(volume, option) for option in typed}
        # Nobody must see a sealed secret whose volume is not recorded yet.
        with self._locks.hold(_LOCK):
            try:
                for option, text in typed.items():
                    self.vault.put(names[option], _bytes(text))
                self._step("create: sealed")
                yield {**options, **{option: f"secret:{name}" for option, name in names.items()}}
            except BaseException:
                self._delete(names.values())
                raise

    def same(self, recorded: str | None, given: str | None) -> bool:
        """Whether ``given`` is what was ``recorded``: the same reference, or what is sealed there."""
        if recorded is None or given is None or references.is_reference(given) or not is_sealed(_named(recorded)):
            return recorded == given
        try:
            content = self.vault.get(_named(recorded))
        except NotFound:
            return False
        return hmac.compare_digest(content, _bytes(given))

    @contextmanager
    def released(self, options: Mapping[str, str]) -> Iterator[None]:
        """Forget a volume with ``options`` inside; afterwards what was sealed for it is gone."""
        sealed = _sealed(references.named(options))
        if not sealed:
            yield
            return
        with self._locks.hold(_LOCK):
            yield
            self._step("delete: forgotten")
            self._delete(sealed)

    def orphans(self) -> list[str]:
        """Sealed secrets of volumes that there are not any more, or never were."""
        with self._locks.hold(_LOCK):
            return self._orphans()

    def sweep(self) -> list[str]:
        """Delete the orphans, and say which they were."""
        with self._locks.hold(_LOCK):
            found = self._orphans()
            self._delete(found)
            return found

    def _orphans(self) -> list[str]:
        found = _sealed(self.vault.names())
        if not found:
            return []
        rows = [row for _, row in definitions.read(self._folder)]
        if None in rows:
            return []  # who knows what is named in a definition that cannot be read
        rows += [*self._state.ready(), *self._state.unfinished()]
        owned = {name for row in rows if row for name in references.named(row.options)}
        return [name for name in found if name not in owned]

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            self.vault.delete(name)


def is_sealed(name: str) -> bool:
    """Whether the secret ``name`` is one that orlop made for a volume."""
    return _SEALED.fullmatch(name) is not None


def _named(reference: str) -> str:
    return reference.removeprefix("secret:")


def _sealed(names: Collection[str]) -> list[str]:
    return [name for name in names if is_sealed(name)]


def _refuse_sealed(options: Mapping[str, str]) -> None:
    for name in _sealed(references.named(options)):
        raise Invalid(f"secret {name!r} belongs to a volume and goes with it; 'orlop secret create' makes one of yours")


def _name(volume: str, option: str) -> str:
    """A new name: short enough for a file, whatever the volume and the option are called."""
    plain = re.sub(r"[^a-zA-Z0-9_.-]", "_", option)
    return f"{volume[:100]}~{plain[:50]}~{chance.token_hex(8)}"


def _bytes(text: str) -> bytes:
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # whose message would show a part of it
        raise Invalid("a secret among the options holds characters that are none") from None
