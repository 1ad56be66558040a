r"""File names in JSON: any bytes, as restic writes them (Go's quoted strings: ``\"``, ``\\``, ``\n``, ``\xff``)."""

import os
import re
import sys
from typing import Final

from orlop.errors import Corrupt

OWN_ATTRIBUTES: Final = "trusted.orlop."
"""How the extended attributes begin that say something to us of one file on one host: no snapshot has them."""
_IS_UTF8 = sys.getfilesystemencoding() == "utf-8"
_SPECIAL = {'"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
            "\v": "\\v"}  # fmt: skip
_PLAIN = {quoted[1]: raw for raw, quoted in _SPECIAL.items()} | {"'": "'"}
_ESCAPE = re.compile(r"""\\(?:([abfnrtv\\'"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|())""")


def quoted(name: bytes) -> str:
    """The name as text; what is printable stays as it is."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        text = name.decode(errors="surrogateescape")
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(map(_quoted_character, text))


def unquoted(text: str) -> bytes:
    """The name that was written so; raises `Corrupt`."""
    if "\\" not in text:
        return _encoded(text)
    parts, end = [], 0
    for found in _ESCAPE.finditer(text):
        parts += [_encoded(text[end : found.start()]), _unescaped(found)]
        end = found.end()
    return b"".join([*parts, _encoded(text[end:])])


def listed(text: str) -> str:
    """The same as Python lists a folder: text, with surrogates for the bytes that are none; raises `Corrupt`."""
    return text if _IS_UTF8 and "\\" not in text else os.fsdecode(unquoted(text))


def is_safe(name: bytes) -> bool:
    """Whether it can be the name of one entry of a folder, and cannot mean anything else."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name and len(name) <= 255


def _quoted_character(character: str) -> str:
    number = ord(character)
    if character in _SPECIAL:
        return _SPECIAL[character]
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x20 or number == 0x7F:
        return f"\\x{number:02x}"
    if character.isprintable():
        return character
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _unescaped(found: re.Match[str]) -> bytes:
    plain, byte, octal, short, long, _ = found.groups()
    try:
        if plain:
            return _PLAIN[plain].encode()
        if byte or octal:
            return bytes([int(byte, 16) if byte else int(octal, 8)])
        return chr(int(short or long, 16)).encode()
    except (TypeError, ValueError):
        raise Corrupt(f"{found.string!r} is no file name: nothing is written as {found.group()!r}") from None


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Corrupt(f"{text!r} is no file name") from None
