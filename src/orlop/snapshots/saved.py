"""What a save has done so far, and tells at its end."""

import errno
from dataclasses import dataclass, field
from typing import Final

from orlop.snapshots.nodes import Node
from orlop.snapshots.parent import contradicts
from orlop.snapshots.report import Kind, Problem

INCOMPLETE: Final = "orlop.incomplete"
"""The tag of a snapshot in which something is missing that was there."""


@dataclass(slots=True)
class Saved:
    """A snapshot that is durable: its id, what was in the folder, and what was wrong."""

    snapshot: str = ""
    files: int = 0
    unchanged: int = 0
    size: int = 0
    stored: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether everything that was there is in the snapshot."""
        return all(problem.kind in ("vanished", "changed") for problem in self.problems)

    def count_unchanged(self, files: int, size: int) -> None:
        """So many files, of ``size`` bytes in all, have the content that the parent has."""
        self.unchanged += files
        self.size += size

    def note(self, path: bytes, kind: Kind, why: str) -> None:
        """Something was wrong with the file."""
        self.problems.append(Problem(path, kind, why))

    def lose(self, path: bytes, error: OSError) -> None:
        """It is not in the snapshot."""
        vanished = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
        self.note(path, "vanished" if vanished else "unreadable", error.strerror or str(error))

    def audit(self, path: bytes, old: Node, encoded: bytes) -> None:
        """A file was read that the parent has: whoever says that it is as before is wrong if its content is another."""
        if contradicts(old, encoded):
            reason = "its content is another although size, times and inode are the same"
            self.note(path, "contradiction", reason)
