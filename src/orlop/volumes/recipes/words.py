"""What recipes have in common: patterns of what people write, and options that many kinds of mount know.

Whatever an option says becomes one word of one option of the mount, or one word of a program's command line. Values
that could be read as more than that (a comma, a leading dash, the end of a line, a way up) are refused.
"""

import re
from collections.abc import Iterable, Mapping

from orlop.volumes.options import flag, matching, number
from orlop.volumes.remote import Asked

HOST = r"(?P<host>[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])"
"""A host's name or address; one of IPv6 in brackets."""
PATH = r"(?!(?:.*/)?\.\.(?:/|$))[^,\\\x00-\x1f\x7f]*"
"""A path without a way up; more may stand before it in a pattern."""
WORD = re.compile(r"[A-Za-z0-9_.+@][A-Za-z0-9_.+@:/=-]*")

SAFE = ("nosuid", "nodev")
"""No server makes a process of this host more than it is."""
READ_ONLY = {"ro": "true to refuse every write (default false)"}
PROGRAM = "its program runs, and answers within 5 s when asked for free space; one that died is started again in place"
"""How the health of what a program serves is seen."""
SOFT = {"soft": "true to give an error when the server is away for long, instead of waiting for it (default false)"}


def safe(asked: Asked) -> tuple[str, ...]:
    """The words that every mount begins with."""
    return (*SAFE, "ro") if flag(asked.volume, "ro") else SAFE


def switched_on(asked: Asked, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are true."""
    return [name for name in names if flag(asked.volume, name)]


def numbers(asked: Asked, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are given, as ``NAME=NUMBER``."""
    return [f"{name}={number(asked.volume, name, 0)}" for name in names if name in asked.volume.options]


def texts(asked: Asked, names: Mapping[str, str]) -> list[str]:
    """Those of ``names`` that are given, as ``WORD=TEXT``; ``names`` maps the option to the program's word for it."""
    given = ((word, name) for name, word in names.items() if name in asked.volume.options)
    return [f"{word}={matching(asked.volume, name, WORD, 'a single word')[0]}" for word, name in given]
