"""What a save or a restore tells while it runs and when it has ended."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orlop.errors import Corrupt

Kind = Literal["vanished", "changed", "unreadable", "contradiction", "damaged", "unwritable"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that is not, or not surely, as it was.

    ``vanished``: removed before it was read. ``changed``: written while it was read. ``unreadable``: it is missing from
    the snapshot. ``contradiction``: said to be unchanged, and was not; it was read in full, and whatever said so is not
    to be trusted. ``damaged``: the repository does not have all of it. ``unwritable``: something of it could not be
    restored here.
    """

    path: bytes
    kind: Kind
    reason: str


def refuse(problems: Sequence[Problem], what: str) -> None:
    """Raises `Corrupt`, naming ``what`` and the first of the problems, if there are any."""
    for problem in problems:
        raise Corrupt(f"{what}: {os.fsdecode(problem.path)!r}: {problem.reason}")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: files and bytes that are done, and the path it is at."""

    files: int
    size: int
    current: bytes
