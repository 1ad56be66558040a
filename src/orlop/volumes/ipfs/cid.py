"""Content identifiers (CIDs): names that say by which hash their bytes are checked.

Both versions, as https://github.com/multiformats/cid has them. A `Cid` that exists can be checked: names with a hash
that is not known here are refused when they are read.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from orlop.errors import Corrupt, Invalid

Slice = TypeVar("Slice", bytes, memoryview)
RAW, DAG_PB = 0x55, 0x70
"""The codecs of blocks: plain bytes, and nodes with links."""
LARGEST = 2 << 20
"""Bytes of a block: nodes exchange no larger ones."""
_IDENTITY, _SHA2_256 = 0x00, 0x12
_HASHES: Mapping[int, Callable[[bytes], bytes]] = {
    _IDENTITY: bytes,
    _SHA2_256: lambda data: hashlib.sha256(data).digest(),
    0x13: lambda data: hashlib.sha512(data).digest(),
    0x14: lambda data: hashlib.sha3_512(data).digest(),
    0x16: lambda data: hashlib.sha3_256(data).digest(),
    0xB220: lambda data: hashlib.blake2b(data, digest_size=32).digest(),
}
_UNSUPPORTED = {0x11: "sha1", 0x15: "sha3-384", 0x1E: "blake3", 0x1B: "keccak-256", 0xD5: "md5"}
_MOST = 200
"""Characters: longer ones hold the data itself, and would not do as the name of a folder."""
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Cid:
    """A name of content: the ``codec`` of its block, and the hash ``function`` with its ``digest``."""

    version: int
    codec: int
    function: int
    digest: bytes

    @classmethod
    def parse(cls, text: str) -> "Cid":
        """Read ``Qm...``, ``bafy...`` and the like. Raises `Invalid`."""
        if len(text) > _MOST:
            raise Invalid(f"{text[:40]!r}... is no CID: it has more than {_MOST} characters")
        try:
            if len(text) == 46 and text.startswith("Qm"):
                return cls.of_bytes(_digits(_BASE58, text))
            return cls.of_bytes(_BASES[text[:1]](text[1:]))
        except (KeyError, ValueError, Corrupt) as error:
            reason = f"it begins with {text[:1]!r}" if isinstance(error, KeyError) else str(error)
            raise Invalid(
                f"{text!r} is no CID that orlop knows ({reason}); it is written as Qm... or bafy..."
            ) from None

    @classmethod
    def of_bytes(cls, data: bytes) -> "Cid":
        """Read the binary form, which links have. Raises `Corrupt`."""
        if data[:2] == bytes([_SHA2_256, 32]):
            version, codec, rest = 0, DAG_PB, data
        else:
            version, rest = varint(data)
            codec, rest = varint(rest)
        function, rest = varint(rest)
        length, digest = varint(rest)
        if version not in (0, 1) or (version == 0 and rest[:1] != b"\x20"):
            raise Corrupt(f"a CID of version {version} is not known")
        if function not in _HASHES:
            raise Corrupt(f"its hash {_UNSUPPORTED.get(function, hex(function))!r} is not supported")
        if len(digest) != length or (function != _IDENTITY and length != len(_HASHES[function](b""))):
            raise Corrupt("its digest has a wrong length")
        return cls(version, codec, function, digest)

    @property
    def inline(self) -> bytes | None:
        """The block itself, where the name holds it instead of a hash."""
        return self.digest if self.function == _IDENTITY else None

    def matches(self, block: bytes) -> bool:
        """Whether these are the bytes that the name stands for."""
        return _HASHES[self.function](block) == self.digest

    def __bytes__(self) -> bytes:
        multihash = to_varint(self.function) + to_varint(len(self.digest)) + self.digest
        return multihash if self.version == 0 else to_varint(1) + to_varint(self.codec) + multihash

    def __str__(self) -> str:
        if self.version == 0:
            return _base58(bytes(self))
        return "b" + base64.b32encode(bytes(self)).decode().lower().rstrip("=")


def varint(data: Slice) -> tuple[int, Slice]:
    """The number that ``data`` begins with (seven bits a byte, the lowest first), and the rest. Raises `Corrupt`."""
    value = 0
    for place, byte in enumerate(data[:10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, data[place + 1 :]
    raise Corrupt("a number in it has no end")


def to_varint(value: int) -> bytes:
    """``value`` as `varint` reads it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _digits(alphabet: str, text: str) -> bytes:
    """``text`` as a number in the base of ``alphabet``; each zero it begins with is a zero byte."""
    value = 0
    for character in text:
        value = value * len(alphabet) + alphabet.index(character)
    zeros = len(text) - len(text.lstrip(alphabet[0]))
    return bytes(zeros) + value.to_bytes((value.bit_length() + 7) // 8, "big")


def _base58(data: bytes) -> str:
    value, text = int.from_bytes(data, "big"), ""
    while value:
        value, digit = divmod(value, len(_BASE58))
        text = _BASE58[digit] + text
    return text


def _base32(text: str) -> bytes:
    if not text.islower():
        raise ValueError("base32 has small letters here")
    return base64.b32decode(text.upper() + "=" * (-len(text) % 8))


def _base64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


_BASES: Mapping[str, Callable[[str], bytes]] = {
    "b": _base32,
    "f": binascii.unhexlify,
    "k": partial(_digits, _BASE36),
    "u": _base64,
    "z": partial(_digits, _BASE58),
}
"""By the letter that a CIDv1 begins with."""
