"""A folder made equal to another on the same filesystem, sharing its blocks: cheap where little has changed.

A file of the mirror that has changed is cloned anew, or follows if it is large (`orlop.volumes.following`). What it was
made from is told by its access time, which nobody needs: a fingerprint of the original's inode and change time, which
every change moves. An original that changed just now may change again without moving its clock, so it gets none.
"""

import errno
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from orlop.kernel import reflink
from orlop.kernel import syscalls as sc
from orlop.volumes import following

_JUST_NOW = 50_000_000
"""Nanoseconds in which two changes may have the same time; the kernel's clock ticks every 1 to 10 ms."""
_TRIES = 5
_TEMPORARY = "new"
_OWN = {following.HISTORY}
"""Attributes that say something of the clone, and nothing of its original."""
Ours = Mapping[int, Collection[int]]
NOBODY: Ours = {}


class Mirror:
    """Keeps ``mirror`` equal to ``source``; files that are replaced are put into ``before``, named by `version`.

    Names are relative to the three folders; ``.`` is all.
    """

    def __init__(self, source: Path, mirror: Path, before: Path, since: int = 0, ours: Ours = NOBODY):
        """All three are on one filesystem with reflinks; ``mirror`` and ``before`` are made if they are missing.

        Files and folders that changed after ``since`` (nanoseconds; 0: nobody asks) are remembered in ``touched``,
        but for files that were changed last by orlop itself: ``ours`` has their inodes, and when that was.
        """
        self._since, self._ours = since, ours
        self.touched: set[str] = set()
        self._source, self._mirror, self._before = str(source), str(mirror), str(before)
        self._linked: dict[int, tuple[str, int]] = {}
        self._names: dict[int, set[str]] = {}
        self.sought: dict[int, str] = {}
        """Where files of these inodes were seen: whoever seeks them puts the inodes in."""
        self.may_follow = True
        """Whether a file may be made what its original is piece by piece: not if that is written to meanwhile."""
        self.changed = 0
        """How many names were made anew or removed."""
        for folder in (mirror, before):
            folder.mkdir(mode=0o700, exist_ok=True)

    def update_all(self) -> None:
        """Make the mirror as the source is."""
        self._linked, self._names = {}, {}
        self._update(".")

    def update(self, names: Iterable[str]) -> None:
        """Make ``names``, and all below them, as they are in the source; not there is fine, in either.

        Other names of the same files follow.
        """
        self._linked = {}
        wanted = set(names)
        for name in list(wanted):
            wanted |= self._names.get(_inode(f"{self._source}/{name}"), set())
        for name in sorted(wanted):
            self._update_steadily(name)
        for parent in {os.path.dirname(name) or "." for name in wanted}:  # noqa: PTH120
            self._settle(parent)

    def _update_steadily(self, name: str) -> None:
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):  # it went after it had been looked at, and another may be there by now
                self._update(name)
                return
        self._update(name)

    def _update(self, name: str) -> None:
        for parent in _parents(name):
            if not stat.S_ISDIR(_mode(f"{self._source}/{parent}")):
                return  # it went with a folder, whose own change is told too
            if not stat.S_ISDIR(_mode(f"{self._mirror}/{parent}")):
                name = parent  # a folder that came just now, whose own change will be told
                break
        try:
            original = os.lstat(f"{self._source}/{name}")
        except FileNotFoundError:
            self._remove(name)
            return
        if stat.S_ISDIR(original.st_mode):
            self._update_folder(name, original)
        else:
            self._update_file(name, original)

    def _settle(self, folder: str) -> None:
        """Give a folder the times of its original: what happens in it moves them."""
        with suppress(FileNotFoundError):
            self._describe(folder, os.lstat(f"{self._source}/{folder}"))

    def _touch(self, name: str, original: os.stat_result) -> None:
        changed = original.st_ctime_ns
        if self._since and changed > self._since and changed not in self._ours.get(original.st_ino, ()):
            self.touched.add(name)

    def _update_folder(self, name: str, original: os.stat_result) -> None:
        self._touch(name, original)
        if not stat.S_ISDIR(_mode(f"{self._mirror}/{name}")):
            self._remove(name)
            os.mkdir(f"{self._mirror}/{name}", 0o700)  # noqa: PTH102
        try:
            with os.scandir(f"{self._source}/{name}") as entries:
                there = {entry.name for entry in entries}
        except FileNotFoundError:
            return
        with os.scandir(f"{self._mirror}/{name}") as entries:
            gone = [entry.name for entry in entries if entry.name not in there]
        above = "" if name == "." else f"{name}/"
        for each in gone:
            self._remove(above + each)
        for each in there:
            with suppress(FileNotFoundError):
                child = os.lstat(f"{self._source}/{above}{each}")
                update = self._update_folder if stat.S_ISDIR(child.st_mode) else self._update_file
                update(above + each, child)
        self._describe(name, original)

    def _update_file(self, name: str, original: os.stat_result) -> None:
        if original.st_ino in self.sought:
            self.sought[original.st_ino] = name
        if original.st_nlink > 1:
            self._names.setdefault(original.st_ino, set()).add(name)
        copy = _lstat(f"{self._mirror}/{name}")
        if copy is None or copy.st_atime_ns != _fingerprint(original) or copy.st_mtime_ns != original.st_mtime_ns:
            self._replace(name, original, copy)
        elif original.st_nlink > 1:
            self._linked.setdefault(original.st_ino, (name, copy.st_ino))

    def _replace(self, name: str, original: os.stat_result, copy: os.stat_result | None) -> None:
        self.changed += 1
        self._touch(name, original)
        told = _told(original)
        if copy is not None and self.may_follow:
            if following.follow(f"{self._source}/{name}", f"{self._mirror}/{name}", original, copy):
                _dress(f"{self._source}/{name}", f"{self._mirror}/{name}", original, told)
                return
            copy = os.lstat(f"{self._mirror}/{name}")
        new = f"{self._before}/{_TEMPORARY}"
        try:
            self._make(name, new, original, told)
        except FileExistsError:  # a crash left it
            os.unlink(new)  # noqa: PTH108
            self._make(name, new, original, told)
        if copy is not None and stat.S_ISREG(copy.st_mode):
            os.rename(f"{self._mirror}/{name}", f"{self._before}/{version(copy.st_ino, copy.st_ctime_ns)}")  # noqa: PTH104
        elif copy is not None:
            self._remove(name)
        os.rename(new, f"{self._mirror}/{name}")  # noqa: PTH104
        if original.st_nlink > 1:
            self._linked[original.st_ino] = (name, _inode(f"{self._mirror}/{name}"))

    def _make(self, name: str, new: str, original: os.stat_result, told: int) -> None:
        linked, inode = self._linked.get(original.st_ino, ("", 0)) if original.st_nlink > 1 else ("", 0)
        # It may have gone meanwhile, or be another file by now.
        if inode and _inode(f"{self._mirror}/{linked}") == inode:
            os.link(f"{self._mirror}/{linked}", new, follow_symlinks=False)
        elif stat.S_ISREG(original.st_mode):
            _clone(f"{self._source}/{name}", new, original, told)
        else:
            _copy(f"{self._source}/{name}", new, original)
            _dress(f"{self._source}/{name}", new, original, told)

    def _describe(self, name: str, original: os.stat_result) -> None:
        """Owner, mode, attributes and times of a folder."""
        copy = os.lstat(f"{self._mirror}/{name}")
        if copy.st_atime_ns != _fingerprint(original) or copy.st_mtime_ns != original.st_mtime_ns:
            self.changed += 1
            _dress(f"{self._source}/{name}", f"{self._mirror}/{name}", original, _told(original))

    def _remove(self, name: str) -> None:
        path = f"{self._mirror}/{name}"
        mode = _mode(path)
        if stat.S_ISDIR(mode):
            shutil.rmtree(path)
        elif mode:
            os.unlink(path)  # noqa: PTH108
        self.changed += bool(mode)


def version(inode: int, changed: int) -> str:
    """The name of a file as it was when it had changed last, nanoseconds since 1970: inodes are used again."""
    return f"{inode}.{changed}"


def _fingerprint(original: os.stat_result) -> int:
    """Nanoseconds that tell this state of this file from others, small enough for any filesystem."""
    told = b"%d %d %d" % (original.st_ino, original.st_ctime_ns, original.st_mode)
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest()) % (1 << 31) * 1_000_000_000 + (
        original.st_ctime_ns % 1_000_000_000
    )


def _told(original: os.stat_result) -> int:
    """The fingerprint of an original that was looked at just now; 0 if its clock may stand still for a change."""
    return 0 if time.time_ns() - original.st_ctime_ns < _JUST_NOW else _fingerprint(original)


def _copy(source: str, target: str, original: os.stat_result) -> None:
    if stat.S_ISLNK(original.st_mode):
        os.symlink(os.readlink(source), target)  # noqa: PTH115, PTH211
    else:
        os.mknod(target, stat.S_IFMT(original.st_mode) | 0o600, original.st_rdev)


def _clone(source: str, target: str, original: os.stat_result, told: int) -> None:
    """A file with everything: what `_dress` does, in fewer steps."""
    with (
        sc.closing(os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOATIME)) as old,
        sc.closing(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)) as new,
    ):
        reflink.clone(old, new)
        os.fchown(new, original.st_uid, original.st_gid)
        os.fchmod(new, stat.S_IMODE(original.st_mode))
        for name in set(os.listxattr(old)) - _OWN:
            os.setxattr(new, name, os.getxattr(old, name))
        os.utime(new, ns=(told, original.st_mtime_ns))


def _dress(source: str, target: str, original: os.stat_result, told: int) -> None:
    """Everything but the content, and the fingerprint ``told`` last: without it, all is done again."""
    os.chown(target, original.st_uid, original.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(original.st_mode):
        os.chmod(target, stat.S_IMODE(original.st_mode))  # noqa: PTH101
    _copy_attributes(source, target)
    os.utime(target, ns=(told, original.st_mtime_ns), follow_symlinks=False)


def _copy_attributes(source: str, target: str) -> None:
    here, there = (set(os.listxattr(path, follow_symlinks=False)) - _OWN for path in (source, target))
    for name in there - here:
        os.removexattr(target, name, follow_symlinks=False)
    for name in here:
        try:
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _mode(path: str) -> int:
    found = _lstat(path)
    return 0 if found is None else found.st_mode


def _inode(path: str) -> int:
    found = _lstat(path)
    return 0 if found is None else found.st_ino
