"""A filesystem in a file: how ``size=`` volumes get a limit that holds and a ``df`` that is honest.

The file's blocks are reserved when it is made (unless it is asked to be thin), so a full host disk can never break
a write inside. XFS is chosen where it fits: it has reflinks, grows while mounted, and can be shut down at once.
mkfs.xfs refuses less than 300 MiB; smaller volumes are ext4.

In an XFS of ours the volume's files are in the folder ``data``, which alone is mounted: beside it is what snapshots
keep, which shares its blocks with the files (`orlop.volumes.shadow`). The label of the filesystem says so; one that an
earlier orlop made has none, and is mounted whole.
"""

import errno
import os
import subprocess
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orlop.errors import Invalid, NoSpace, Unavailable
from orlop.kernel import filesystems, freeze, loop, reflink
from orlop.mount import Mount

DATA = "data"
"""The folder of an XFS that has the volume's files."""
LABEL = "orlop.data"
"""The label of a filesystem that has them there."""
_XFS_LABEL = slice(108, 120)
"""Where the superblock has the label (``sb_fname`` of ``struct xfs_dsb``)."""
_UNIQUE = {"xfs": ("nouuid",), "ext4": ()}
"""A clone has its original's UUID: XFS may not refuse that. That no image is mounted twice is a loop device's care."""
_SMALL = 512 << 20
"""Bytes up to which an ext4 is made of small blocks."""
LEAST = {"xfs": 300 << 20, "ext4": 1 << 20}
"""The smallest size, in bytes, by filesystem (mkfs.xfs(8), mke2fs(8))."""


def choose(fs: str | None, size: int) -> str:
    """The filesystem for ``size`` bytes; raises `Invalid` where the wish ``fs`` does not fit."""
    chosen = fs or ("xfs" if size >= LEAST["xfs"] else "ext4")
    if chosen not in LEAST:
        raise Invalid(f"option 'fs' is {chosen!r}; it can be {', '.join(LEAST)} or host")
    if size < LEAST[chosen]:
        raise Invalid(f"option 'size' is less than the {LEAST[chosen] >> 20} MiB that {chosen} needs")
    return chosen


@dataclass(frozen=True, slots=True)
class Root:
    """Owner and permissions of a new filesystem's root folder."""

    uid: int = 0
    gid: int = 0
    mode: int = 0o755


def make(image: Path, fs: str, size: int, root: Root, *, thin: bool) -> None:
    """Make ``image``, complete or not at all; one that is there already is left alone."""
    if image.exists():
        return
    new = image.with_suffix(".new")
    new.unlink(missing_ok=True)
    try:
        _allocate(new, size, thin=thin)
        _FORMATS[fs](new, root)
        _sync(new)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    new.rename(image)


def kind(image: Path) -> str:
    """Which filesystem is in ``image``, by its superblock."""
    with image.open("rb") as file:
        return "xfs" if file.read(4) == b"XFSB" else "ext4"


def has_room_beside(image: Path) -> bool:
    """Whether the volume's files are in the folder ``data``, so that others can be kept beside it."""
    if kind(image) != "xfs":
        return False
    with image.open("rb") as file:
        return file.read(_XFS_LABEL.stop)[_XFS_LABEL].rstrip(b"\0") == LABEL.encode()


def as_mount(image: Path) -> Mount:
    """What to mount to see the volume's files."""
    inside = (f"X-mount.subdir={DATA}",) if has_room_beside(image) else ()
    return Mount(kind(image), str(image), ("loop", *_UNIQUE[kind(image)], *inside))


@contextmanager
def opened(image: Path) -> Iterator[Path]:
    """The whole filesystem in ``image`` as a folder that only this process sees, mounted elsewhere or not.

    Reading in there leaves no trace.
    """
    with loop.attached(image) as device:
        with filesystems.unseen(Mount(kind(image), device, ("noatime", *_UNIQUE[kind(image)]))) as folder:
            yield folder


def clone(source: Path, image: Path, size: int, *, thin: bool) -> None:
    """Make ``image`` at once, with ``size`` bytes and all that ``source`` has at one moment, in use or not.

    Both are on a filesystem whose files can share blocks. Raises `NoSpace` if ``size`` cannot be reserved.
    """
    new = image.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    with opened(source) as root, source.open("rb") as old, new.open("wb") as file, freeze.frozen(root):
        reflink.clone(old.fileno(), file.fileno())
    if size > new.stat().st_size or _pending(source).exists():
        _pending(image).touch()
    # What the source has reserved and never written to is a hole here.
    _allocate(new, max(size, new.stat().st_size), thin=thin)
    _cloned(image).touch()
    _sync(new)
    new.rename(image)


def is_cloned(image: Path) -> bool:
    """Whether what is kept beside the files in ``image`` is the past of another volume."""
    return _cloned(image).exists()


def forget_clone(image: Path) -> None:
    """The past of another volume is not there any more."""
    _cloned(image).unlink(missing_ok=True)


def is_scarce(root: Path) -> bool:
    """Whether less than a tenth of the filesystem at ``root`` is free."""
    told = os.statvfs(root)
    return told.f_bavail * 10 < told.f_blocks


def extend(image: Path, size: int, *, thin: bool) -> None:
    """Make the file at least ``size`` bytes long; its filesystem follows in `fill`.

    A file beside the image remembers that, so a crash in between is made good at the next mount.
    """
    if image.stat().st_size < size:
        _pending(image).touch()
        _allocate(image, size, thin=thin)


def fill(image: Path, mountpoint: Path | None) -> None:
    """Make the filesystem as large as its file, if it is not: ext4 unmounted, both while they are mounted."""
    if not _pending(image).exists():
        return
    device = loop.refresh(image)
    if mountpoint is not None and kind(image) == "xfs":
        _run("xfs_growfs", "-d", str(mountpoint))
    elif mountpoint is not None and device is not None:
        _run("resize2fs", device)
    elif device is None and kind(image) == "ext4":
        _run("e2fsck", "-f", "-p", str(image), fine=(0, 1))
        _run("resize2fs", str(image))
    else:
        return
    _pending(image).unlink()


def _cloned(image: Path) -> Path:
    return image.with_suffix(".cloned")


def _pending(image: Path) -> Path:
    return image.with_suffix(".grow")


def _allocate(image: Path, size: int, *, thin: bool) -> None:
    fd = os.open(image, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    length = os.fstat(fd).st_size
    try:
        if thin:
            os.ftruncate(fd, size)
        else:
            os.posix_fallocate(fd, 0, size)
    except OSError as error:
        with suppress(OSError):
            os.ftruncate(fd, length)
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise NoSpace(
                f"no room for {size} bytes beside '{image}'; ask for less, or thin=true to reserve nothing"
            ) from error
        raise Unavailable(f"'{image}': {error.strerror}") from error
    finally:
        os.close(fd)


# Neither may discard blocks: that would give the reserved ones back.


def _make_xfs(image: Path, root: Root) -> None:
    # A prototype (mkfs.xfs(8), -p): what the root holds from the beginning.
    plan = image.with_suffix(".plan")
    plan.write_text(f"-\n0 0\nd--755 0 0\n{DATA} d--755 0 0\n$\n$\n")
    try:
        _run("mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=1", "-L", LABEL, "-p", str(plan), str(image))
    finally:
        plan.unlink()
    commands = (
        f"path /{DATA}",
        f"write core.mode 04{root.mode:04o}",
        f"write core.uid {root.uid}",
        f"write core.gid {root.gid}",
    )
    _run("xfs_db", "-x", *(word for command in commands for word in ("-c", command)), str(image))


def _make_ext4(image: Path, root: Root) -> None:
    features = f"nodiscard,lazy_itable_init=0,lazy_journal_init=0,root_owner={root.uid}:{root.gid}"
    # Distributions choose differently: small files waste less in small blocks, and the log is a thousand of them.
    block = "1024" if image.stat().st_size < _SMALL else "4096"
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-b", block, "-E", features, str(image))
    # A volume is filled from the image only while it is empty, and databases insist on an empty folder.
    commands = f"rmdir lost+found\nset_inode_field / mode 04{root.mode:04o}\n"
    _run("debugfs", "-w", "-f", "-", str(image), text=commands)


_FORMATS = {"xfs": _make_xfs, "ext4": _make_ext4}


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _run(*argv: str, text: str = "", fine: Container[int] = (0,)) -> None:
    environment = os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "LC_ALL": "C"}
    try:
        done = subprocess.run(argv, env=environment, input=text, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Unavailable(f"size= volumes need the program {argv[0]!r}; install e2fsprogs and xfsprogs") from error
    if done.returncode not in fine:
        raise Unavailable(f"{argv[0]} {argv[-1]}: {done.stderr.strip() or done.stdout.strip()}")
