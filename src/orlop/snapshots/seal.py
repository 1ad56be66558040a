"""How bytes are sealed before they leave this machine: compressed by zstd, encrypted by AES-256-CTR, authenticated.

The construction is that of restic's repositories: a random nonce of 16 bytes, the ciphertext, and 16 bytes of
Poly1305-AES over the ciphertext. What comes back was written by somebody who has the key, and is unchanged.
"""

import os
import threading
from typing import Final, Self

import msgspec
import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

from orlop.errors import Corrupt

OVERHEAD: Final = 32
"""Bytes that sealing adds: the nonce and the tag."""
LEVEL: Final = 2
"""Of zstd: three quarters of the time of level 3 for 0 to 4 % more bytes, which is about the size that restic makes."""
_SMALL: Final = 32 << 10
"""Up to here level 1 takes half the time and makes hardly a difference: 0 to 5 % of the size."""
_NONCE = 16


class SealingKeys(msgspec.Struct, frozen=True):
    """The three keys of a repository: ``encrypt`` (32 bytes), and for the tag ``mac_k`` and ``mac_r`` (16 each)."""

    encrypt: bytes
    mac_k: bytes
    mac_r: bytes

    @classmethod
    def random(cls) -> Self:
        """Keys that nobody else has."""
        return cls(os.urandom(32), os.urandom(16), os.urandom(16))

    @classmethod
    def split(cls, material: bytes) -> Self:
        """The keys in 64 derived bytes."""
        return cls(material[:32], material[32:48], material[48:64])

    def __repr__(self) -> str:
        return "SealingKeys(...)"


class Seal:
    """Seals and opens with one set of keys; many threads may share it."""

    def __init__(self, keys: SealingKeys) -> None:
        self._keys = keys
        self._contexts = threading.local()

    def seal(self, plain: bytes) -> bytes:
        """The bytes, unreadable and unchangeable for others."""
        tools = self._tools()
        nonce = os.urandom(_NONCE)
        tools.counter.reset_nonce(nonce)
        cipher = tools.counter.update(plain)
        return b"".join((nonce, cipher, Poly1305.generate_tag(self._tag_key(tools, nonce), cipher)))

    def open(self, sealed: bytes | memoryview) -> bytes:
        """The bytes that were sealed; raises `Corrupt` if one bit of them has changed, or the key is another."""
        if len(sealed) < OVERHEAD:
            raise Corrupt("sealed data is too short")
        tools = self._tools()
        view = memoryview(sealed)
        nonce, cipher, tag = bytes(view[:_NONCE]), view[_NONCE:-16], bytes(view[-16:])
        try:
            Poly1305.verify_tag(self._tag_key(tools, nonce), cipher, tag)
        except InvalidSignature:
            raise Corrupt("the seal is broken") from None
        tools.counter.reset_nonce(nonce)
        return tools.counter.update(cipher)

    def blob(self, plain: bytes, *, compress: bool) -> tuple[bytes, int]:
        """The sealed form of a blob, and its length if it was compressed, else 0."""
        packed = self.compress(plain) if compress else plain
        # What does not shrink is sealed as it is; 0 cannot say that an empty blob was compressed.
        if not compress or len(packed) >= len(plain):
            return self.seal(plain), 0
        return self.seal(packed), len(plain)

    def compress(self, plain: bytes) -> bytes:
        """One zstd frame that says how long its content is."""
        tools = self._tools()
        return (tools.quick if len(plain) <= _SMALL else tools.compressor).compress(plain)

    def decompress(self, packed: bytes, size: int | None = None) -> bytes:
        """The content of a zstd frame; raises `Corrupt` for no frame, or one that is not ``size`` bytes long inside.

        Nothing is believed of a length inside the frame: the memory used is ``size``, or what really comes out.
        """
        try:
            if size is None:
                return zstandard.ZstdDecompressor().decompressobj().decompress(packed)
            declared = zstandard.frame_content_size(packed)
            if declared not in (-1, size):
                raise Corrupt(f"compressed data of {declared} bytes where there should be {size}")
            plain = self._tools().decompressor.decompress(packed, max_output_size=size) if size else b""
        except zstandard.ZstdError as error:
            raise Corrupt(f"compressed data is damaged: {error}") from None
        if len(plain) != size:
            raise Corrupt(f"compressed data of {len(plain)} bytes where there should be {size}")
        return plain

    def _tools(self) -> "_Tools":
        tools: _Tools | None = getattr(self._contexts, "tools", None)
        if tools is None:
            tools = self._contexts.tools = _Tools(self._keys)
        return tools

    def _tag_key(self, tools: "_Tools", nonce: bytes) -> bytes:
        return self._keys.mac_r + tools.block.update(nonce)


class _Tools:
    """What costs more to make than to use, and can be used by one thread at a time."""

    def __init__(self, keys: SealingKeys) -> None:
        self.counter: CipherContext = Cipher(algorithms.AES(keys.encrypt), modes.CTR(bytes(_NONCE))).encryptor()
        # One block at a time, each a nonce of its own: the tag's second half is AES of the nonce.
        self.block: CipherContext = Cipher(algorithms.AES(keys.mac_k), modes.ECB()).encryptor()  # noqa: S305
        self.compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
        self.quick = zstandard.ZstdCompressor(level=1, write_content_size=True)
        self.decompressor = zstandard.ZstdDecompressor()
