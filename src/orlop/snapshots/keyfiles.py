"""How a password becomes the keys of a repository: key files, one for each password."""

import base64
import binascii
import hashlib
import os
from typing import Final

import msgspec

from orlop.errors import Corrupt, Invalid
from orlop.snapshots import documents, times
from orlop.snapshots.documents import KeyFile
from orlop.snapshots.seal import Seal, SealingKeys

_COST: Final = (1 << 15, 8, 1)
"""A tenth of a second and 32 MiB: what a thief pays for each guess, and the owner whenever it is opened."""
_COST_OF_KEY: Final = (1 << 10, 8, 1)
"""Three milliseconds: 256 random bits cannot be guessed, whatever a guess costs."""
# A key file comes from the store: it may not make us work for minutes or take the machine's memory.
_MOST_MEMORY: Final = 1 << 30


class _Mac(msgspec.Struct):
    k: bytes
    r: bytes


class _Keys(msgspec.Struct):
    mac: _Mac
    encrypt: bytes


def wrap(keys: SealingKeys, password: bytes, *, is_random: bool, created: int, username: str, hostname: str) -> bytes:
    """A key file that gives ``keys`` to whoever has ``password``; ``created`` is in nanoseconds since 1970.

    A password that ``is_random`` was drawn by a program, with 256 bits of chance, and is cheap to use.
    """
    n, r, p = _COST_OF_KEY if is_random else _COST
    salt = os.urandom(64)
    plain = msgspec.json.encode(_Keys(_Mac(keys.mac_k, keys.mac_r), keys.encrypt))
    data = Seal(_derived(password, salt, n, r, p)).seal(plain)
    return msgspec.json.encode(
        KeyFile(times.written(created), username, hostname, "scrypt", n, r, p, _text(salt), _text(data))
    )


def unwrap(content: bytes, password: bytes, name: str) -> SealingKeys | None:
    """The keys in the key file ``name``, or None where ``password`` is not its password; raises `Corrupt`."""
    file = documents.decode(content, KeyFile, name)
    if file.kdf != "scrypt" or 128 * file.N * file.r > _MOST_MEMORY or file.p > 64:
        raise Corrupt(f"{name!r} asks for another derivation than scrypt, or for too much of it")
    try:
        salt, data = base64.b64decode(file.salt, validate=True), base64.b64decode(file.data, validate=True)
        derived = _derived(password, salt, file.N, file.r, file.p)
    except (binascii.Error, ValueError) as error:
        raise Corrupt(f"{name!r} is damaged: {error}") from None
    try:
        plain = Seal(derived).open(data)
    except Corrupt:
        return None
    found = documents.decode(plain, _Keys, name)
    return SealingKeys(found.encrypt, found.mac.k, found.mac.r)


def check_password(password: bytes) -> bytes:
    """The password itself; raises `Invalid` for an empty one."""
    if not password:
        raise Invalid("the password of a repository cannot be empty")
    return password


def _derived(password: bytes, salt: bytes, n: int, r: int, p: int) -> SealingKeys:
    memory = 128 * r * (n + p + 2) + (1 << 20)
    return SealingKeys.split(hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=64))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
