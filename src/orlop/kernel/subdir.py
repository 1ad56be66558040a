"""A folder of a filesystem as a mount of its own, where the filesystem's root is mounted nowhere.

Linux 6.15 and newer clone it from a mount that is nowhere; older ones only from one of the caller's namespace. There a
thread has a namespace for itself for a moment, which goes with the thread whatever happens.
"""

import errno
import threading
from pathlib import Path

from orlop.kernel import syscalls as sc

_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000


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
    result: list[int | OSError] = []

    def work() -> None:
        try:
            sc.unshare(_CLONE_FS | _CLONE_NEWNS)
            sc.keep_mounts_private()
            sc.move_tree(tree, place)
            result.append(sc.clone_tree(place / folder))
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=work, name="subdir")
    thread.start()
    thread.join()
    if isinstance(result[0], OSError):
        raise result[0]
    return result[0]
