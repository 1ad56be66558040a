"""Named secrets at rest: a folder with one encrypted file for each, and the key in a file somewhere else.

Each file is AES-256-GCM under one key, with the secret's name as associated data, so that neither a changed file nor
one that was given another's name is taken for a secret.

What that protects: copies and backups of the folder that do not have the key file with them. What it does not: root
on this host, who can read the key as orlop does. Where the key file lies below the state root, a backup of all of that
has both: leave the key out of it, or keep it elsewhere (``$ORLOP_KEY_FILE``).
"""

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orlop.errors import Conflict, Corrupt, Invalid, NoSpace, NotFound, Unavailable
from orlop.volumes.definitions import sync

LIMIT = 500 * 1024
"""Most bytes that a secret may have, as in Docker."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.@+~-]*")
_LONGEST_NAME = 200
_FORMAT = b"orlop secret 1\n"
_KEY_BYTES, _NONCE_BYTES = 32, 12


class Vault:
    """The secrets in one folder; safe for threads, and for several processes at once."""

    def __init__(self, folder: Path, key_file: Path, step: Callable[[str], object] = str):
        """Both are made when the first secret is kept. ``step`` is called between two durable changes."""
        self._folder, self._key_file, self._step = folder, key_file, step

    def put(self, name: str, content: bytes, *, replace: bool = False) -> None:
        """Keep ``content`` under ``name``, on the disk before this returns.

        Raises `Conflict` if there is one of that name already, unless it is to be replaced.
        """
        place = self._place(name)
        if len(content) > LIMIT:
            raise Invalid(f"secret {name!r} is too large; it may have {LIMIT} bytes at most")
        with self._locked():
            if place.exists() and not replace:
                raise Conflict(f"a secret {name!r} exists already; choose another name")
            self._write(place, _FORMAT + _encrypt(self._key(make=not self.names()), name, content))

    def get(self, name: str) -> bytes:
        """The secret; raises `NotFound`, or `Corrupt` if it was changed or made with another key."""
        try:
            found = self._place(name).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"no secret {name!r}; 'orlop secret ls' shows which there are") from None
        content = _decrypt(self._key(make=False), name, found)
        if content is None:
            raise Corrupt(
                f"secret {name!r} cannot be read: its file was changed, or '{self._key_file}' is not the key it was "
                "made with; bring back the right file, or remove the secret"
            )
        return content

    def delete(self, name: str) -> None:
        """Forget the secret; none is fine."""
        place = self._place(name)
        if place.exists():
            with self._locked():
                place.unlink(missing_ok=True)
                sync(self._folder)

    def names(self) -> list[str]:
        """The secrets that there are, in order."""
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if _NAME.fullmatch(path.name))

    def changed(self, name: str) -> float:
        """When the secret was put here, in seconds since the epoch; raises `NotFound`."""
        try:
            return self._place(name).stat().st_mtime
        except FileNotFoundError:
            raise NotFound(f"no secret {name!r}; 'orlop secret ls' shows which there are") from None

    def _place(self, name: str) -> Path:
        return self._folder / secret_name(name)

    def _key(self, *, make: bool) -> bytes:
        """The key, made if there is none and nothing depends on it yet."""
        try:
            if self._key_file.stat().st_mode & 0o007:
                raise Unavailable(f"key file '{self._key_file}' is open to everybody; chmod 600 it")
            key = self._key_file.read_bytes()
        except FileNotFoundError:
            if not make:
                raise Unavailable(
                    f"key file '{self._key_file}' is missing, and secrets were made with it; bring it back"
                ) from None
            key = os.urandom(_KEY_BYTES)
            self._write(self._key_file, key)
            self._step("vault: key made")
        if len(key) != _KEY_BYTES:
            raise Corrupt(f"key file '{self._key_file}' does not hold {_KEY_BYTES} bytes; bring back the right one")
        return key

    def _write(self, place: Path, content: bytes) -> None:
        """All of it or nothing, whenever this process is killed; the caller holds the lock."""
        # It begins with a dot, as no secret's name does; what a killed process left is written over.
        new = place.with_name(f".{self._folder.name}.new")
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(fd)
            self._step("vault: written")
            new.rename(place)
            self._step("vault: renamed")
            sync(place.parent)
        except OSError as error:
            kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else Unavailable
            raise kind(f"'{place}' cannot be written: {error.strerror}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else changes the folder meanwhile; the kernel lets go when this process is killed."""
        if not self._folder.is_dir():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync(self._folder.parent)
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def is_name(text: str) -> bool:
    """Whether a secret may be called that."""
    return _NAME.fullmatch(text) is not None and len(text) <= _LONGEST_NAME


def secret_name(text: str) -> str:
    """``text`` itself, if a secret may be called that: as a volume, and ``@``, ``+``, ``~`` as well."""
    if not is_name(text):
        raise Invalid(
            f"secret name {text!r} is not allowed; it begins with a letter or digit, goes on with these and _.@+~- "
            f"and has {_LONGEST_NAME} of them at most"
        )
    return text


def _encrypt(key: bytes, name: str, content: bytes) -> bytes:
    # Imported here, as below: whoever has no secrets does not pay for it.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, _FORMAT + name.encode())


def _decrypt(key: bytes, name: str, found: bytes) -> bytes | None:
    """The content; None if it is not what was encrypted with ``key`` under ``name``."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    start = len(_FORMAT)
    nonce, sealed = found[start : start + _NONCE_BYTES], found[start + _NONCE_BYTES :]
    if not found.startswith(_FORMAT) or len(nonce) < _NONCE_BYTES:
        return None
    try:
        return AESGCM(key).decrypt(nonce, sealed, _FORMAT + name.encode())
    except InvalidTag:
        return None
