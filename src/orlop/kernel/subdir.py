"""A folder of a filesystem as a mount of its own, where the filesystem's root is mounted nowhere.

Linux 6.15 and newer clone it from a mount that is nowhere; older ones only from one of the caller's namespace. There a
thread has a namespace for itself for a moment, which goes with the thread whatever happens.
"""

import errno
from pathlib import Path

from orlop.kernel import syscalls as sc
from orlop.kernel.aside import in_a_thread


def clone(tree: int, folder: str, place: Path) -> int:
    """A mount that is nowhere yet, of the ``folder`` of another such mount ``tree``; ``place`` is any folder.

    Raises `OSError`.
    """
    try:
        return sc.clone_tree(Path(folder), folder=tree)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return in_a_namespace(tree, folder, place)


def in_a_namespace(tree: int, folder: str, place: Path) -> int:
    """What `clone` does for kernels before 6.15."""

    def work() -> int:
        sc.unshare(sc.CLONE_FS | sc.CLONE_NEWNS)
        sc.keep_mounts_private()
        sc.move_tree(tree, place)
        return sc.clone_tree(place / folder)

    found = in_a_thread(work, "subdir")
    assert found is not None  # noqa: S101 - work returns a file
    return found
