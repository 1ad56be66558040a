"""A DAG becomes a folder: block after block, checked, and written where it belongs.

Blocks are fetched by a few threads; everything is decided and written by one. What lies in the folder already, since an
earlier attempt was interrupted, is checked like what a node says, and not fetched again.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from orlop.errors import Corrupt, NoSpace, Unavailable
from orlop.volumes.ipfs import dagpb
from orlop.volumes.ipfs.cid import LARGEST, Cid
from orlop.volumes.ipfs.dagpb import Node

_AT_ONCE = 8
"""Blocks that are asked for at the same time: each may take 2 MiB of memory."""
_ENTRY = 4096
"""Bytes that a file, folder or link counts at least: a million empty ones fill a disk too."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class Limits:
    """How much may come, in bytes; and until when, in seconds of the monotonic clock."""

    bytes: int
    until: float

    def take(self, size: int) -> None:
        """``size`` bytes more are needed. Raises `NoSpace`."""
        self.bytes -= size
        if self.bytes < 0:
            raise NoSpace("the content is larger than option 'limit' allows")

    def left(self) -> float:
        """Seconds until the end. Raises `Unavailable` after it."""
        seconds = self.until - time.monotonic()
        if seconds <= 0:
            raise Unavailable("it is not all here in time; what came is kept: ask again, and the rest is fetched")
        return seconds


@dataclass(frozen=True, slots=True)
class _Job:
    """A block that has a place: it is a new ``entry``, a ``part`` of a file, or a ``shard`` of a folder."""

    cid: Cid
    path: Path
    kind: Literal["entry", "part", "shard"] = "entry"
    offset: int = 0
    size: int = 0
    names: set[str] = field(default_factory=set)
    """Those that the folder of a shard has already."""


def materialise(root: Cid, target: Path, fetch: Callable[[Cid], bytes], owner: tuple[int, int], limits: Limits) -> None:
    """Write all that ``root`` leads to below the folder ``target``, which may hold a part of it already.

    A root that is a file becomes a file of that name in it. ``owner`` is user and group. ``fetch`` is called by several
    threads, and hands out bytes that are those of the CID. Raises what it raises, `Corrupt` for a DAG that makes no
    sense, and `NoSpace` and `Unavailable` for the ``limits``.
    """
    jobs, running = [_Job(root, target)], dict[Future[bytes], _Job]()
    pool = ThreadPoolExecutor(_AT_ONCE, "ipfs")
    try:
        while jobs or running:
            # The last first: what waits stays as small as the folders that lead to it.
            while jobs and len(running) < _AT_ONCE:
                job = jobs.pop()
                running[pool.submit(_block, job, fetch)] = job
            for done in wait(running, limits.left(), FIRST_COMPLETED).done:
                jobs += _Step(running.pop(done), target, owner, limits).take(done.result())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _block(job: _Job, fetch: Callable[[Cid], bytes]) -> bytes:
    """``job``'s block, of what is there already or from the node."""
    piece = _present(job)
    if piece is not None:
        for block in dagpb.leaves(job.cid.codec, piece):
            if job.cid.matches(block):
                return block
    return fetch(job.cid)


def _present(job: _Job) -> bytes | None:
    """What lies at ``job``'s place, if it can be the content of one block."""
    if job.kind == "shard" or job.size > LARGEST:
        return None
    try:
        fd = os.open(job.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        size = job.size or found.st_size
        return os.pread(fd, size, job.offset) if stat.S_ISREG(found.st_mode) and size <= LARGEST else None
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class _Step:
    """One block has come: what is written, and what has to come next."""

    job: _Job
    root: Path
    owner: tuple[int, int]
    limits: Limits

    def take(self, block: bytes) -> Sequence[_Job]:
        """Write what ``block`` says; returns the jobs that follow."""
        job = self.job
        try:
            node = dagpb.decode(job.cid, block)
            if job.kind == "part":
                return self._part(node)
            if job.kind == "shard":
                self.limits.take(_ENTRY)
                return self._entries(node, "shard", job.names)
            self.limits.take(node.size + _ENTRY)
            return self._entry(node)
        except (Corrupt, NoSpace) as error:
            where = job.path.relative_to(self.root)
            raise type(error)(f"block {str(job.cid)!r}, for '{where}': {error}") from None
        except OSError as error:
            kind = NoSpace if error.errno in _FULL else Unavailable
            raise kind(f"block {str(job.cid)!r} cannot be written to '{job.path}': {error.strerror}") from error

    def _entry(self, node: Node) -> Sequence[_Job]:
        path = self.job.path
        if node.kind in ("directory", "shard"):
            path.mkdir(exist_ok=True)
            self._own(path, 0o755)
            return self._entries(node, node.kind, set())
        if path == self.root:
            if node.kind == "symlink":
                raise Corrupt("a symbolic link by itself is no content for a volume")
            path.mkdir(exist_ok=True)
            self._own(path, 0o755)
            path /= str(self.job.cid)
        if node.kind == "symlink":
            _link(path, node.data)
            os.lchown(path, *self.owner)
            return []
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.truncate(node.size)
        self._own(path, 0o644)
        return self._pieces(node, path, 0)

    def _part(self, node: Node) -> Sequence[_Job]:
        if node.kind != "file" or node.size != self.job.size:
            raise Corrupt(f"it is no part of a file with {self.job.size} bytes")
        return self._pieces(node, self.job.path, self.job.offset)

    def _pieces(self, node: Node, path: Path, offset: int) -> Sequence[_Job]:
        """Write the bytes that the node holds itself; its links hold the rest."""
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            done = 0
            while done < len(node.data):
                done += os.pwrite(fd, node.data[done:], offset + done)
        finally:
            os.close(fd)
        offset += len(node.data)
        jobs = []
        for link in node.links:
            jobs.append(_Job(link.cid, path, "part", offset, link.size))
            offset += link.size
        return jobs[::-1]  # the last is done first

    def _entries(self, node: Node, kind: str, names: set[str]) -> Sequence[_Job]:
        """The entries of a folder, or of one shard of a large one; ``names`` are those that it has already."""
        if node.kind != kind:
            raise Corrupt("it is no shard of a folder")
        width = _prefix(node) if kind == "shard" else 0
        jobs = []
        for link in node.links:
            name = link.name[width:]
            if kind == "shard" and not name:
                jobs.append(_Job(link.cid, self.job.path, "shard", names=names))
                continue
            _refuse_name(name, names)
            names.add(name)
            jobs.append(_Job(link.cid, self.job.path / name))
        return jobs

    def _own(self, path: Path, mode: int) -> None:
        os.chown(path, *self.owner, follow_symlinks=False)
        path.chmod(mode)


def _prefix(node: Node) -> int:
    """How many digits stand before each name of a shard: as many as the number of its last place has, in hex."""
    if not 8 <= node.fanout <= 1024 or node.fanout & (node.fanout - 1):
        raise Corrupt(f"a shard of {node.fanout} places is not known")
    return len(f"{node.fanout - 1:x}")


def _refuse_name(name: str, taken: set[str]) -> None:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise Corrupt(f"{name!r} is no file name")
    if name in taken:
        raise Corrupt(f"the name {name!r} is there twice")


def _link(path: Path, target: bytes) -> None:
    """A symbolic link, which leads where it says in the container: nothing here follows it."""
    if not target or b"\0" in target:
        raise Corrupt(f"a symbolic link to {target!r} makes no sense")
    if path.is_symlink() and os.fsencode(path.readlink()) == target:
        return
    path.unlink(missing_ok=True)
    path.symlink_to(os.fsdecode(target))
