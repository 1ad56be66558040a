"""FUSE programs: started for a mount, watched, and let go when it has been taken away.

A program is a process group of its own and outlives the daemon that started it: a restart of the daemon must not touch
anybody's files. So what is known about it is kept in a folder in memory, one record for each mount point. Secrets reach
it through files without a name (memfd_create(2)), and what it says goes to a log, from which errors are quoted.
"""

import contextlib
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from orlop.errors import Busy, Unavailable
from orlop.kernel import processes
from orlop.mount import Mount

PATIENCE = 25.0
"""Seconds that a program has until its mount answers; a managed plugin's engine waits 30 for the whole verb."""
_FAREWELL = 20.0
"""Seconds that it has to write what it holds, after its mount has gone."""
_POLL = 0.005
_LOG_LIMIT = 1 << 20
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class _Child(subprocess.Popen[bytes]):
    """A process that may outlive this one."""

    def __del__(self) -> None:
        """Popen's would warn of just that."""


class Programs:
    """The FUSE programs of this host's mounts; ``folder``, which should be in memory, remembers them."""

    def __init__(self, folder: Path, patience: float = PATIENCE) -> None:
        """The folder is made when the first program is started."""
        self._folder, self._patience = folder, patience
        # Kept so that their ends are noticed; those of an earlier daemon have another parent.
        self._children: dict[Path, _Child] = {}

    def start(self, mount: Mount, target: Path, is_up: Callable[[], bool]) -> None:
        """Start ``mount``'s program and wait until ``is_up``.

        Raises `Unavailable` with what it said if it ends or is not up in time; then it does not run. Raises `Busy`
        while an earlier program of the place has not finished writing.
        """
        if self.runs(target):
            raise Busy(f"the program that served '{target}' is still writing; try again later")
        if shutil.which(mount.program[0], path=_ENVIRONMENT["PATH"]) is None:
            raise Unavailable(f"program {mount.program[0]!r} is not installed on this host")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        child = self._spawn(mount, target)
        try:
            self._remember(target, child.pid, processes.start_time(child.pid))
            self._wait(mount, target, child, is_up)
        except BaseException:
            self._kill(child)
            self.forget(target)
            raise

    def runs(self, target: Path) -> bool:
        """Whether a program that was started for ``target`` still runs."""
        return self.pid(target) is not None

    def pid(self, target: Path) -> int | None:
        """The process that serves ``target``; None if there is none."""
        child = self._children.get(target)
        if child is not None and child.poll() is not None:
            del self._children[target]
        record = self._record(target)
        if record is None or processes.start_time(record[0]) != record[1]:
            return None
        return record[0]

    def died(self) -> Iterator[Path]:
        """The mount points whose program has ended although nobody took the mount away."""
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                target = Path(json.loads(path.read_text())["target"])
                if not self.runs(target):
                    yield target
        self._cut_logs()

    def why(self, target: Path) -> str:
        """The last thing that the program of ``target`` said."""
        return _last_words(self._path(target, ".log"))

    def finish(self, target: Path) -> None:
        """The mount has gone: wait until its program has written everything and ended.

        Raises `Busy` if that takes long; the program is left to finish.
        """
        if self._record(target) is None:
            return
        end = time.monotonic() + _FAREWELL
        while (pid := self.pid(target)) is not None:
            if time.monotonic() > end:
                raise Busy(f"'{target}' is unmounted, but process {pid} is still writing what was changed there")
            time.sleep(_POLL)
        self.forget(target)

    def rename(self, old: Path, new: Path) -> None:
        """The program that was started for ``old`` serves ``new`` from now on; what served that is forgotten."""
        self.forget(new)
        record = self._record(old)
        if record is not None:
            self._remember(new, *record)
            self._path(old, ".log").rename(self._path(new, ".log"))
            if old in self._children:
                self._children[new] = self._children[old]
        self.forget(old)

    def forget(self, target: Path) -> None:
        """No program serves ``target`` any more; none is fine."""
        self._children.pop(target, None)
        for suffix in (".json", ".log"):
            self._path(target, suffix).unlink(missing_ok=True)

    def _spawn(self, mount: Mount, target: Path) -> "_Child":
        path = self._path(target, ".log")
        path.unlink(missing_ok=True)
        with contextlib.ExitStack() as files, path.open("ab") as log:
            fds = {name: files.enter_context(_nameless(value)) for name, value in mount.secrets}
            places = {"target": str(target), **{name: f"/dev/fd/{fd}" for name, fd in fds.items()}}
            child = _Child(
                [_filled(word, places) for word in mount.program],
                stdin=fds.get("stdin", subprocess.DEVNULL),
                stdout=log,
                stderr=log,
                env={**_ENVIRONMENT, "HOME": str(Path.home())},
                cwd="/",
                pass_fds=list(fds.values()),
                start_new_session=True,
            )
        with contextlib.suppress(ProcessLookupError):  # its memory holds the secrets
            resource.prlimit(child.pid, resource.RLIMIT_CORE, (0, 0))
        self._children[target] = child
        return child

    def _wait(self, mount: Mount, target: Path, child: "_Child", is_up: Callable[[], bool]) -> None:
        end = time.monotonic() + self._patience
        while not is_up():
            if child.poll() is not None:
                raise Unavailable(f"mount of {mount.source!r} by {mount.program[0]}: {self.why(target)}")
            if time.monotonic() > end:
                said = self.why(target)
                raise Unavailable(
                    f"mount of {mount.source!r} by {mount.program[0]}: no answer within {self._patience:.0f} s ({said})"
                )
            time.sleep(_POLL)

    def _kill(self, child: "_Child") -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    def _remember(self, target: Path, pid: int, started: int | None) -> None:
        path = self._path(target, ".json")
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"target": str(target), "pid": pid, "started": started}))
        new.rename(path)

    def _record(self, target: Path) -> tuple[int, int] | None:
        try:
            record = json.loads(self._path(target, ".json").read_text())
            return record["pid"], record["started"]
        except (OSError, ValueError, KeyError):
            return None

    def _path(self, target: Path, suffix: str) -> Path:
        return self._folder / (hashlib.sha256(os.fsencode(target)).hexdigest()[:16] + suffix)

    def _cut_logs(self) -> None:
        """A program that complains for months must not fill the memory; it appends, so it goes on at the start."""
        for path in self._folder.glob("*.log"):
            with contextlib.suppress(OSError):
                if path.stat().st_size > _LOG_LIMIT:
                    os.truncate(path, 0)


@contextlib.contextmanager
def _nameless(value: str) -> Iterator[int]:
    """A file in memory that only its descriptor reaches."""
    fd = os.memfd_create("secret", os.MFD_CLOEXEC)
    try:
        os.fchmod(fd, 0o600)
        os.write(fd, value.encode(errors="surrogateescape"))
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def _filled(word: str, places: Mapping[str, str]) -> str:
    for name, place in places.items():
        word = word.replace(f"{{{name}}}", place)
    return word


def _last_words(log: Path) -> str:
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return "; ".join(lines[-3:]) or "it said nothing"
