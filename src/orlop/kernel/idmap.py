"""Binds on which the kernel shows other owners than are stored (mount_setattr(2), "ID-mapped mounts").

Which filesystems can is found out by trying: ext4, xfs, btrfs and tmpfs can, NFS, FUSE and overlays mostly cannot.
"""

import contextlib
import ctypes
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from orlop.kernel import syscalls as sc

OPTION = "X-mount.idmap="
"""How a bind's option begins that says how: ``u:STORED:SHOWN:COUNT g:STORED:SHOWN:COUNT ...``, as mount(8) has it."""
_MOUNT_ATTR_IDMAP = 0x100000
_EVERYBODY = 2**32 - 1


def swap(kind: str, stored: int, shown: int) -> str:
    """The words that show ``stored`` as ``shown`` and the other way round, and leave everybody else alone.

    ``kind`` is ``u`` for users, ``g`` for groups. Nobody is left out: what has no owner cannot be made.
    """
    low, high = sorted((stored, shown))
    pieces = [(0, 0, low), (low + 1, low + 1, high - low - 1), (high + 1, high + 1, _EVERYBODY - high - 1)]
    pieces += [(low, high, 1), (high, low, 1)] if low != high else [(low, low, 1)]
    return " ".join(f"{kind}:{first}:{second}:{count}" for first, second, count in sorted(pieces) if count > 0)


def works_on(folder: Path) -> bool:
    """Whether the kernel can do it for what ``folder`` is on; tried on a mount that is nowhere."""
    try:
        with sc.closing(sc.clone_tree(folder)) as tree:
            apply(tree, f"{swap('u', 0, 1)} {swap('g', 0, 1)}")
    except OSError:
        return False
    return True


def apply(tree: int, words: str) -> None:
    """Map the owners on the mount ``tree``, which must be nowhere yet; raises `OSError` where that cannot be."""
    with _namespace(words) as namespace:
        buffer = ctypes.create_string_buffer(struct.pack("=QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, namespace), 32)
        sc.syscall(sc.MOUNT_SETATTR, tree, b"", sc.AT_EMPTY_PATH, buffer, 32)


@contextlib.contextmanager
def _namespace(words: str) -> Iterator[int]:
    """A user namespace with that map: the kernel takes it from one. Nobody is in it for longer than needed."""
    argv = ["unshare", "--user", "--", "sh", "-c", "echo; read end"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            if not process.stdout.readline():
                raise OSError("this process may make no user namespace")
            for kind in "ug":
                lines = [word[2:].replace(":", " ") for word in words.split() if word.startswith(f"{kind}:")]
                Path(f"/proc/{process.pid}/{kind}id_map").write_text("\n".join(lines))
            with sc.closing(os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
                yield namespace
        finally:
            process.kill()
