"""Secrets by reference: ``file:PATH``, ``env:NAME`` or ``secret:NAME``, looked up only at the moment of use.

orlop stores, shows and logs the reference; the secret itself is never part of a volume's definition. The third kind
is kept by orlop, encrypted: `orlop.volumes.vault`.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from orlop.errors import Invalid, NotFound, Unavailable
from orlop.volumes.vault import Vault, is_name

KINDS = ("file:", "env:", "secret:")
Resolve = Callable[[str, str], bytes]
"""From an option and the reference it holds to the secret, as `resolve` does it."""

_NAMED = re.compile(r"(?:^|[,=])secret:([^,]+)")


def is_reference(text: str) -> bool:
    """Whether ``text`` names a secret instead of being one."""
    return text.startswith(KINDS)


def named(options: Mapping[str, str]) -> set[str]:
    """The secrets of the vault that ``options`` refer to, also amidst other words as in ``o=user=u,password=...``."""
    return {name for text in options.values() for name in _NAMED.findall(text)}


def check(option: str, text: str) -> None:
    """Raises `Invalid`, which never shows ``text``, unless it is a reference."""
    if not is_reference(text):
        raise Invalid(f"option {option!r} must name a secret (file:PATH, env:NAME or secret:NAME), not be one")
    kind, _, name = text.partition(":")
    if kind == "file" and not name.startswith("/"):
        raise Invalid(f"option {option!r}: the path of a secret must be absolute")
    if kind == "secret" and not is_name(name):
        raise Invalid(f"option {option!r}: what follows 'secret:' cannot be the name of a secret")


def resolve(option: str, text: str) -> bytes:
    """The secret that ``text`` names outside of the vault; raises `Unavailable` if it is not there."""
    check(option, text)
    kind, _, name = text.partition(":")
    if kind == "secret":
        raise Unavailable(f"option {option!r}: secret {name!r} is in a vault, and there is none here")
    if kind == "env":
        if name not in os.environ:
            raise Unavailable(f"option {option!r}: the daemon has no environment variable {name!r}")
        return os.environ[name].encode(errors="surrogateescape")
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Unavailable(f"option {option!r}: secret '{name}': {error.strerror}") from error


def resolver(vault: Vault) -> Resolve:
    """As `resolve`, for the secrets in ``vault`` as well."""

    def resolve_all(option: str, text: str) -> bytes:
        check(option, text)
        kind, _, name = text.partition(":")
        if kind != "secret":
            return resolve(option, text)
        try:
            return vault.get(name)
        except NotFound as error:
            raise Unavailable(f"option {option!r}: {error}") from None

    return resolve_all
