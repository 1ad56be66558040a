"""FUSE programs: started for a mount, watched, and let go when it has been taken away.

A program is a process group of its own and outlives the daemon that started it: a restart of the daemon must not touch
anybody's files. So what is known about it is kept in a folder in memory, one record for each mount point. There it
finds its secrets too, for as long as it runs: it may have to log in again. What it says goes to a log, which errors
quote.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orlop.errors import Busy, Unavailable
from orlop.kernel import mountinfo, processes
from orlop.kernel.waiting import FAREWELL, MOUNT
from orlop.mount import Mount

_POLL = 0.001
_LOG_LIMIT = 1 << 20
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class _Record:
    """The process that serves ``target``, and the files with its secrets."""

    target: str
    pid: int
    started: int | None
    secrets: Sequence[str]


class Programs:
    """The FUSE programs of this host's mounts; ``folder`` remembers them."""

    def __init__(self, folder: Path, patience: float = MOUNT, in_memory: Sequence[str] = ("tmpfs", "ramfs")) -> None:
        """The folder is made when it is needed; secrets are put there only if its filesystem is one ``in_memory``."""
        self._folder, self._patience, self._in_memory = folder, patience, in_memory
        # Kept so that their ends are noticed; those of an earlier daemon have another parent.
        self._children: dict[Path, processes.Child] = {}

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
        secrets = self._write_secrets(mount, target)
        child = self._spawn(mount, target, secrets)
        try:
            started = processes.start_time(child.pid)
            self._remember(_Record(str(target), child.pid, started, list(secrets.values())))
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
        record, child = self._record(target), self._children.get(target)
        if record is None:
            return None
        if child is not None and child.pid == record.pid:
            # A process with threads is a corpse before the last of them has gone; only its parent can tell.
            return child.pid if child.poll() is None else None
        return record.pid if processes.start_time(record.pid) == record.started else None

    def died(self) -> Iterator[Path]:
        """The mount points whose program has ended although nobody took the mount away."""
        for path in self._folder.glob("*.json"):
            record = _read(path)
            if record is not None and not self.runs(Path(record.target)):
                yield Path(record.target)
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
        end = time.monotonic() + FAREWELL
        while (pid := self.pid(target)) is not None:
            if time.monotonic() > end:
                raise Busy(f"'{target}' is unmounted, but process {pid} is still writing what was changed there")
            time.sleep(_POLL)
        self.forget(target)

    def rename(self, old: Path, new: Path) -> None:
        """The program that was started for ``old`` serves ``new`` from now on; what served that is forgotten."""
        self.forget(new)
        record = self._record(old)
        if record is None:
            return
        if old in self._children:
            self._children[new] = self._children.pop(old)
        self._remember(replace(record, target=str(new)))
        self._path(old, ".log").rename(self._path(new, ".log"))
        self._path(old, ".json").unlink()

    def forget(self, target: Path) -> None:
        """No program serves ``target`` any more; none is fine."""
        self._children.pop(target, None)
        record = self._record(target)
        for secret in record.secrets if record else ():
            Path(secret).unlink(missing_ok=True)
        for path in self._folder.glob(self._path(target, ".*").name):
            path.unlink(missing_ok=True)

    def _spawn(self, mount: Mount, target: Path, secrets: Mapping[str, str]) -> processes.Child:
        log = self._path(target, ".log")
        log.unlink(missing_ok=True)
        places = {"target": str(target), **secrets}
        with log.open("ab") as said:
            child = processes.Child(
                [_filled(word, places) for word in mount.program],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                env={**_ENVIRONMENT, "HOME": str(Path.home())},
                cwd="/",
                start_new_session=True,
            )
        with contextlib.suppress(ProcessLookupError):  # its memory holds the secrets
            resource.prlimit(child.pid, resource.RLIMIT_CORE, (0, 0))
        if child.stdin:
            with contextlib.suppress(BrokenPipeError), child.stdin as stdin:
                stdin.write(dict(mount.secrets).get("stdin", "").encode(errors="surrogateescape"))
        self._children[target] = child
        return child

    def _write_secrets(self, mount: Mount, target: Path) -> dict[str, str]:
        """Put each into a file for its owner only; returns where they are."""
        places = {}
        for name, value in mount.secrets:
            if name != "stdin":
                self._refuse_disk()
                place = self._path(target, f".{name}")
                place.unlink(missing_ok=True)
                with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
                    file.write(value.encode(errors="surrogateescape"))
                places[name] = str(place)
        return places

    def _refuse_disk(self) -> None:
        kind = mountinfo.filesystem_of(self._folder)
        if kind not in self._in_memory:
            raise Unavailable(
                f"secrets are kept in memory only, and '{self._folder}' is on {kind}; mount a tmpfs there"
            )

    def _wait(self, mount: Mount, target: Path, child: processes.Child, is_up: Callable[[], bool]) -> None:
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

    def _kill(self, child: processes.Child) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    def _remember(self, record: _Record) -> None:
        path = self._path(Path(record.target), ".json")
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(record)))
        new.rename(path)

    def _record(self, target: Path) -> _Record | None:
        return _read(self._path(target, ".json"))

    def _path(self, target: Path, suffix: str) -> Path:
        return self._folder / (hashlib.sha256(os.fsencode(target)).hexdigest()[:16] + suffix)

    def _cut_logs(self) -> None:
        """A program that complains for months must not fill the memory; it appends, so it goes on at the start."""
        for path in self._folder.glob("*.log"):
            with contextlib.suppress(OSError):
                if path.stat().st_size > _LOG_LIMIT:
                    os.truncate(path, 0)


def _read(path: Path) -> _Record | None:
    try:
        return _Record(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


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
