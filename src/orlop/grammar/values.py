"""Which volume names, sizes and switches are legal; how Docker quotes what is not."""

import re
from decimal import Decimal

from orlop.errors import Invalid

_LONGEST_NAME = 255  # bytes; a name is a folder's name for most drivers, and no filesystem allows more
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")

_SIZE = re.compile(r"(\d+\.?\d*|\.\d+) ?(?:([kmgtp])(?:i?b)?|b)?", re.IGNORECASE | re.ASCII)
_LARGEST_SIZE = 2**63 - 1  # what the kernel and Docker can count

_SWITCH = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}

_ESCAPES = {'"': r"\"", "\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}


def volume_name(text: str) -> str:
    """``text`` itself, if a volume may be called that; the one rule for every driver and front end.

    Docker asks only its own driver and passes ``../../etc`` on to plugins, so orlop looks itself. A name of
    one letter is fine: that it takes two is a rule of Docker's local driver alone.

    Raises:
        Invalid: In Docker's words.
    """
    if not _NAME.fullmatch(text):
        raise Invalid(
            f"create {text}: {quoted(text)} includes invalid characters for a local volume name, "
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
            "If you intended to pass a host directory, use absolute path"
        )
    if len(text) > _LONGEST_NAME:
        raise Invalid(f"create {text}: volume name is too long, names should be at most {_LONGEST_NAME} bytes")
    return text


def size(text: str) -> int:
    """How many bytes ``10m``, ``1.5GiB``, ``64 kb`` or ``4096`` are; units are powers of 1024, as for Docker.

    Raises:
        Invalid: For anything else, and for more than a kernel can count.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Invalid(f"invalid size: '{text}'")
    number, unit = match.groups(default="")
    result = int(Decimal(number) * 1024 ** " kmgtp".index(unit.lower() or " "))
    if result > _LARGEST_SIZE:
        raise Invalid(f"invalid size: '{text}'")
    return result


def switch(text: str) -> bool:
    """Whether ``text`` says yes (``true``, ``1``, ``t``) or no (``false``, ``0``, ``f``).

    Raises:
        Invalid: For anything else, ``yes`` and ``on`` among it.
    """
    if text not in _SWITCH:
        raise Invalid(f"invalid value: {text}")
    return _SWITCH[text]


def octal(text: str) -> int:
    """The permissions that ``text`` writes in octal digits, with or without a leading zero.

    Raises:
        Invalid: For anything else, ``0o700`` among it, and for more than 32 bits.
    """
    if not re.fullmatch("[0-7]+", text) or int(text, 8) >= 2**32:
        raise Invalid(f"invalid value: {text}")
    return int(text, 8)


def quoted(text: str) -> str:
    """``text`` in double quotes, escaped as Docker's messages escape it."""
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else _code(c)) for c in text) + '"'


def _code(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x80 else f"\\u{number:04x}"
