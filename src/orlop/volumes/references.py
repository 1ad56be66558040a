"""Secrets by reference: ``file:PATH`` or ``env:NAME``, looked up only at the moment of use.

orlop stores, shows and logs the reference; the secret itself is never part of a volume's definition.
"""

import os
from collections.abc import Callable
from pathlib import Path

from orlop.errors import Invalid, Unavailable

KINDS = ("file:", "env:")
Resolve = Callable[[str, str], bytes]
"""From an option and the reference it holds to the secret, as `resolve` does it."""


def is_reference(text: str) -> bool:
    """Whether ``text`` names a secret instead of being one."""
    return text.startswith(KINDS)


def check(option: str, text: str) -> None:
    """Raises `Invalid`, which never shows ``text``, unless it is a reference."""
    if not is_reference(text):
        raise Invalid(f"option {option!r} must name a secret (file:PATH or env:NAME), not be one")
    if text.startswith("file:") and not text[5:].startswith("/"):
        raise Invalid(f"option {option!r}: the path of a secret must be absolute")


def resolve(option: str, text: str) -> bytes:
    """The secret that ``text`` names; raises `Unavailable` if it is not there."""
    check(option, text)
    kind, _, name = text.partition(":")
    if kind == "env":
        if name not in os.environ:
            raise Unavailable(f"option {option!r}: the daemon has no environment variable {name!r}")
        return os.environ[name].encode(errors="surrogateescape")
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Unavailable(f"option {option!r}: secret '{name}': {error.strerror}") from error
