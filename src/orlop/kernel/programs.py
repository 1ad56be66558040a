"""FUSE programs: started for a mount, watched, and let go when it has been taken away.

A program is a process group of its own and outlives the daemon that started it: a restart of the daemon must not touch
anybody's files. So what is known about it is kept in a folder in memory, one record for each program of a mount point:
there may be several, each on a level of its own, and an upper one shows what a lower one serves. There it finds its
secrets too, for as long as it runs: it may have to log in again. What it says goes to a log, which errors quote.
"""

import contextlib
import hashlib
import json
import os
import secrets as chance
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orlop.errors import Busy, Unavailable
from orlop.kernel import memory, processes
from orlop.kernel.waiting import FAREWELL, MOUNT
from orlop.mount import Mount

_POLL = 0.001
_LOG_LIMIT = 1 << 20
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class _Record:
    """A process that serves ``target``, the files with its secrets, and whether it `Mount.holds_back`."""

    target: str
    pid: int
    started: int | None
    secrets: Sequence[str]
    level: int = 0
    holds_back: bool = True


class Programs:
    """The FUSE programs of this host's mounts; ``folder`` remembers them."""

    def __init__(self, folder: Path, patience: float = MOUNT, in_memory: Collection[int] = memory.MEMORY) -> None:
        """The folder is made when it is needed; secrets are put there only if its filesystem is one ``in_memory``."""
        self._folder, self._patience, self._in_memory = folder, patience, in_memory
        # Kept so that their ends are noticed; those of an earlier daemon have another parent.
        self._children: dict[int, processes.Child] = {}

    def begin(self, target: Path) -> None:
        """Nothing serves ``target`` yet; raises `Busy` while an earlier program of it has not finished writing."""
        records = self._records(target)
        if any(self._runs(record) for record in records):
            raise Busy(f"the program that served '{target}' is still writing; try again later")
        self._forget_all(records)

    def start(self, mount: Mount, target: Path, is_up: Callable[[], bool]) -> None:
        """Start ``mount``'s program, above those that serve ``target`` already, and wait until ``is_up``.

        Raises `Unavailable` with what it said if it ends or is not up in time; then it does not run.
        """
        if shutil.which(mount.program[0], path=_ENVIRONMENT["PATH"]) is None:
            raise Unavailable(f"program {mount.program[0]!r} is not installed on this host")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        level, places, child = len(self._records(target)), self._places(mount), None
        # Before there is a process: should this one end now, who comes next knows what to clean up.
        record = _Record(str(target), 0, None, list(places.values()), level, mount.holds_back)
        log = self._path(target, level, ".log")
        try:
            self._remember(record)
            _write_secrets(mount, places)
            child = self._spawn(mount, {"target": str(target), **places}, log)
            record = replace(record, pid=child.pid, started=processes.start_time(child.pid))
            self._remember(record)
            self._wait(mount, child, is_up, log)
        except BaseException:
            if child:
                self._kill(child)
            self._forget(record)
            raise

    def pids(self, target: Path) -> list[int]:
        """The processes that serve ``target`` now, the lowest first."""
        return [record.pid for record in self._records(target) if self._runs(record)]

    def _runs(self, record: _Record) -> bool:
        child = self._children.get(record.pid)
        if child is not None:
            # A process with threads is a corpse before the last of them has gone; only its parent can tell.
            return child.poll() is None
        return record.started is not None and processes.start_time(record.pid) == record.started

    def died(self) -> Iterator[Path]:
        """The mount points one of whose programs has ended although nobody took the mount away."""
        records = [record for path in self._folder.glob("*.json") if (record := _read(path)) is not None]
        yield from dict.fromkeys(Path(record.target) for record in records if not self._runs(record))
        self._cut_logs()

    def finish(self, target: Path, served_by: Collection[int] = ()) -> None:
        """The mount has gone: wait until its programs have written everything and ended, and forget them.

        Raises `Busy` if that takes long; what has not ended is left to finish. Raises `Unavailable` if one that still
        ran before, as ``served_by`` tells, did not end but crashed: nobody else would say that something may be lost.
        """
        records = self._records(target)
        self._wait_for_end(records)
        left = [record for record in records if record.holds_back and record.pid in served_by]
        crashes = [
            f"({end}) while it wrote what was left: look whether the last changes are there "
            f"({_last_words(self._path(target, record.level, '.log'))})"
            for record in left
            if (end := self._crash(record))
        ]
        self._forget_all(records)
        if crashes:
            raise Unavailable(f"'{target}' is unmounted, but its program crashed {crashes[0]}")

    def _crash(self, record: _Record) -> str:
        """The signal that ended this child of ours; empty if it ended by itself, or nobody knows."""
        child = self._children.get(record.pid)
        code = (child.poll() or 0) if child else 0
        return signal.Signals(-code).name if code < 0 else ""

    def settle(self, target: Path) -> None:
        """A program of ``target`` has died: end those above it, which show nothing now, and let those below finish.

        Their mounts went with what was above. Raises `Busy` if that takes long.
        """
        records = self._records(target)
        dead = next((record.level for record in records if not self._runs(record)), len(records))
        for record in records[dead + 1 :]:
            if self._runs(record):
                os.killpg(record.pid, signal.SIGKILL)
        if dead < len(records):
            self._wait_for_end(records)

    def rename(self, old: Path, new: Path) -> None:
        """The programs that were started for ``old`` serve ``new`` from now on; what served that is forgotten."""
        self.forget(new)
        for record in self._records(old):
            self._remember(replace(record, target=str(new)))
            self._path(old, record.level, ".log").rename(self._path(new, record.level, ".log"))
            self._path(old, record.level, ".json").unlink()

    def forget(self, target: Path) -> None:
        """No program serves ``target`` any more; none is fine."""
        self._forget_all(self._records(target))

    def _forget_all(self, records: Sequence[_Record]) -> None:
        for record in reversed(records):
            self._forget(record)

    def _wait_for_end(self, records: Sequence[_Record]) -> None:
        end = time.monotonic() + FAREWELL
        for record in records:
            while self._runs(record):
                if time.monotonic() > end:
                    what = f"'{record.target}' is unmounted, but process {record.pid}"
                    raise Busy(f"{what} is still writing what was changed there")
                time.sleep(_POLL)

    def _forget(self, record: _Record) -> None:
        child = self._children.pop(record.pid, None)
        if child is not None and child.poll() is None:
            # It ends when nobody sees its mount any more, and somebody has to notice.
            threading.Thread(target=child.wait, daemon=True, name=f"end of {record.pid}").start()
        for secret in record.secrets:
            Path(secret).unlink(missing_ok=True)
        for suffix in (".log", ".json"):
            self._path(Path(record.target), record.level, suffix).unlink(missing_ok=True)

    def _spawn(self, mount: Mount, places: Mapping[str, str], log: Path) -> processes.Child:
        log.unlink(missing_ok=True)
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
        if child.stdin:
            with contextlib.suppress(BrokenPipeError), child.stdin as stdin:
                stdin.write(dict(mount.secrets).get("stdin", "").encode(errors="surrogateescape"))
        self._children[child.pid] = child
        return child

    def _places(self, mount: Mount) -> dict[str, str]:
        """Where each of the secrets will be: a new place, since the program that is replaced has its own."""
        names = [name for name, _ in mount.secrets if name != "stdin"]
        if names:
            memory.refuse_disk(self._folder, self._in_memory)
        return {name: str(self._folder / f"{chance.token_hex(8)}.secret") for name in names}

    def _wait(self, mount: Mount, child: processes.Child, is_up: Callable[[], bool], log: Path) -> None:
        end = time.monotonic() + self._patience
        while not is_up():
            if child.poll() is not None:
                raise Unavailable(f"mount of {mount.source!r} by {mount.program[0]}: {_last_words(log)}")
            if time.monotonic() > end:
                raise Unavailable(
                    f"mount of {mount.source!r} by {mount.program[0]}: no answer within {self._patience:.0f} s "
                    f"({_last_words(log)})"
                )
            time.sleep(_POLL)

    def _kill(self, child: processes.Child) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    def _remember(self, record: _Record) -> None:
        path = self._path(Path(record.target), record.level, ".json")
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(record)))
        new.rename(path)

    def _records(self, target: Path) -> list[_Record]:
        """What is known of ``target``'s programs, the lowest first."""
        found: list[_Record] = []
        while record := _read(self._path(target, len(found), ".json")):
            found.append(record)
        return found

    def _path(self, target: Path, level: int, suffix: str) -> Path:
        key = hashlib.sha256(os.fsencode(target)).hexdigest()[:16]
        return self._folder / f"{key}{f'-{level}' if level else ''}{suffix}"

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


def _write_secrets(mount: Mount, places: Mapping[str, str]) -> None:
    """Each in a file for its owner only."""
    for name, place in places.items():
        with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(dict(mount.secrets)[name].encode(errors="surrogateescape"))


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
