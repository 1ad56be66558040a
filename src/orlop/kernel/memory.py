"""Whether a folder is in memory: the only place where secrets are written down."""

from collections.abc import Collection
from pathlib import Path

from orlop.errors import Unavailable
from orlop.kernel import mountinfo
from orlop.kernel import syscalls as sc

MEMORY = frozenset({0x01021994, 0x858458F6})
"""What `orlop.kernel.syscalls.magic` says of tmpfs and ramfs (linux/magic.h)."""


def refuse_disk(folder: Path, in_memory: Collection[int] = MEMORY) -> None:
    """Raises `Unavailable` if the filesystem of ``folder`` is none of those ``in_memory``.

    Costs the same however many mounts there are: somebody waits for a mount.
    """
    if sc.magic(folder) not in in_memory:
        kind = mountinfo.filesystem_of(folder)
        raise Unavailable(f"secrets are kept in memory only, and '{folder}' is on {kind}; mount a tmpfs there")
