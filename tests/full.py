"""A volume whose server has no room left, as whoever writes there sees it: the same story for every driver."""

import errno
import os
import time
from pathlib import Path

MORE = 64 << 20
"""More bytes than any server of these tests has room for."""


def fill(place: Path) -> int:
    """Write until there is no room, and return the error's number; what was there before is kept."""
    (place / "kept").write_text("kept")
    return overflow(place / "big")


def overflow(path: Path) -> int:
    """Write more into a file than there is room for, and return the error's number; 0 if it all went there."""
    big = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    error = 0
    try:
        for _ in range(MORE >> 16):
            os.write(big, os.urandom(1 << 16))
        os.fsync(big)
    except OSError as full:
        error = full.errno or errno.EIO
    try:
        os.close(big)
    except OSError as full:
        error = error or full.errno or errno.EIO
    return error


def goes_on(place: Path, patience: float = 30) -> None:
    """Make room, which a server may give back a little later, and find that all is well again."""
    (place / "big").unlink(missing_ok=True)
    end = time.monotonic() + patience
    # Asked for, not tried out: the kernel's NFS client lets go of a deleted file when it has sent all of it once more
    # and no write was refused meanwhile, so that who tries again and again waits for ever.
    while _is_full(place):
        assert time.monotonic() < end, "there is no room again"
        time.sleep(0.5)
    while missing := _missing(place / "new"):
        assert time.monotonic() < end, f"nothing can be written again: {missing}"
        time.sleep(0.5)
    assert (place / "kept").read_text() == "kept"
    assert (place / "new").read_text() == "new"


def _is_full(place: Path) -> bool:
    """Whether the server says that there is no room; one that says nothing has no blocks at all."""
    told = os.statvfs(place)
    return told.f_blocks > 0 and told.f_bavail == 0


def _missing(path: Path) -> str:
    """Why a file cannot be written, or is not what was written; empty if it can and is."""
    try:
        path.write_text("new")
        text = path.read_text()
    except OSError as error:
        return str(error)
    return "" if text == "new" else f"{path} has {text!r}"
