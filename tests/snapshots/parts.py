"""What tests of snapshots share: a folder as a store, stock restic beside us, folders with everything in them."""

import contextlib
import hashlib
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from orlop.errors import Conflict, NotFound
from orlop.objects.store import ObjectInfo, check_key

PASSWORD = b"correct horse"


class FolderStore:
    """A folder as restic's local backend has it; no durability, no atomic conditions."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def stat(self, key: str) -> ObjectInfo:
        try:
            found = (self.root / check_key(key)).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"no object {key!r}") from None
        return ObjectInfo(key, found.st_size, str(found.st_mtime_ns), found.st_mtime)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        try:
            with (self.root / check_key(key)).open("rb") as file:
                file.seek(start)
                yield file.read(-1 if end is None else end - start)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"no object {key!r}") from None

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        path = self.root / check_key(key)
        if only_if == "" and path.exists():
            raise Conflict(f"object {key!r} is there")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.urandom(4).hex()}~")
        with temporary.open("wb") as file:
            for part in data:
                file.write(part)
        temporary.rename(path)
        return self.stat(key)

    def delete(self, key: str) -> None:
        (self.root / check_key(key)).unlink(missing_ok=True)

    def walk(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = self.root / prefix.rpartition("/")[0]
        found = [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
        keys = sorted(str(path.relative_to(self.root)) for path in found if not path.name.endswith("~"))
        for key in keys:
            if key.startswith(prefix):
                with contextlib.suppress(NotFound):
                    yield self.stat(key)


def restic(repository: Path, *arguments: str, check: bool = True, password: bytes = PASSWORD) -> str:
    """Stock restic on the repository; its output."""
    run = subprocess.run(
        ["restic", "--no-cache", "-r", str(repository), *arguments],
        env={**os.environ, "RESTIC_PASSWORD": password.decode(), "RESTIC_PROGRESS_FPS": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
    )
    output = run.stdout.decode(errors="surrogateescape") + run.stderr.decode(errors="surrogateescape")
    assert not check or run.returncode == 0, output
    return output


def checked(repository: Path) -> None:
    """Stock restic finds no fault in any byte of it."""
    restic(repository, "unlock")
    output = restic(repository, "check", "--read-data")
    assert "no errors were found" in output, output


def everything(folder: Path) -> dict[bytes, tuple[object, ...]]:
    """What a folder is made of, to be compared: content, kinds, owners, modes, times, attributes, links, holes."""
    found: dict[bytes, tuple[object, ...]] = {}
    links: dict[int, bytes] = {}
    root = os.fsencode(folder)
    for parent, folders, files in os.walk(root):
        folders.sort()
        for name in [b"", *sorted(files), *(f for f in folders if os.path.islink(os.path.join(parent, f)))]:
            path = os.path.join(parent, name) if name else parent
            found[os.path.relpath(path, root)] = _described(path, root, links)
    return found


def _described(path: bytes, root: bytes, links: dict[int, bytes]) -> tuple[object, ...]:
    status = os.lstat(path)
    attributes = {
        name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
    }
    content: object = None
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            content = (status.st_size, hashlib.sha256(file.read()).hexdigest())
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    elif not stat.S_ISDIR(status.st_mode):
        content = status.st_rdev
    twin = links.setdefault(status.st_ino, os.path.relpath(path, root)) if status.st_nlink > 1 else None
    if stat.S_ISDIR(status.st_mode):
        twin = None
    return (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, attributes, content, twin)


def zoo(folder: Path) -> Path:
    """A folder with one of everything that can be in one; root is needed."""
    folder.mkdir()
    for name in (b"plain", b"two\nlines", b"caf\xe9 no utf-8", "snow ☃".encode(), b'quo"ted \\ back', b"\x01\x7f"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(name * 3)
    (folder / "empty").touch()
    (folder / "empty folder").mkdir(mode=0o711)
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "file").write_text("deep")
    (folder / "large").write_bytes(os.urandom(3 << 20))
    with (folder / "sparse").open("wb") as file:
        file.truncate(30 << 20)
        file.seek(20 << 20)
        file.write(b"island")
    (folder / "database").write_bytes(b"SQLite format 3\0" + os.urandom(1 << 20) + bytes(100_000))
    (folder / "link").symlink_to("plain")
    os.symlink(b"no\xffwhere", os.fsencode(folder / "dangling"))
    os.link(folder / "plain", folder / "deep" / "twin")
    os.link(folder / "large", folder / "large twin")
    os.mkfifo(folder / "pipe", 0o640)
    os.mknod(folder / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(folder / "disk", stat.S_IFBLK | 0o660, os.makedev(7, 200))
    (folder / "deep" / "setuid").write_text("#!/bin/true")
    os.chown(folder / "deep" / "setuid", 12345, 54321)
    (folder / "deep" / "setuid").chmod(0o6755)
    os.chown(folder / "link", 1, 2, follow_symlinks=False)
    os.setxattr(folder / "plain", "user.colour", b"\x00green\xff")
    os.setxattr(folder / "deep", "user.folder", b"yes")
    os.setxattr(folder / "plain", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    os.setxattr(folder / "large", "system.posix_acl_access", ACL)
    os.utime(folder / "plain", ns=(1_000_000_007, 1_234_567_890_123_456_789))
    os.utime(folder / "link", ns=(5, 1_111_111_111_000_000_001), follow_symlinks=False)
    os.utime(folder / "empty", ns=(0, -1_500_000_000))
    (folder / "deep" / "er").chmod(0o1777)
    os.utime(folder / "deep" / "er", ns=(0, 1_000_000_000_999_999_999))
    folder.chmod(0o750)
    os.chown(folder, 70, 70)
    return folder


# Version 2; user rw, the user 1234 r, group r, mask r, others none (linux/posix_acl_xattr.h).
ACL = bytes.fromhex(
    "0200000001000600ffffffff02000400d204000004000400ffffffff10000400ffffffff20000000ffffffff"
)  # fmt: skip
