"""Holds processes still for a moment, by the freezer of their control groups (cgroups(7)).

Whole groups are frozen, as an engine's ``pause`` does: a container stops and goes on as one.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orlop.errors import Unavailable
from orlop.kernel import mountinfo
from orlop.kernel.guard import guarded

_PATIENCE = 2.0
_NEW, _OLD = "cgroup.freeze", "freezer.state"
_THAW = """while [ $# -gt 1 ]; do echo "$1" >"$2"; shift 2; done"""


@contextmanager
def paused(pids: Iterable[int]) -> Iterator[None]:
    """The groups of these processes stand still meanwhile, unless they stood still before.

    Raises `Unavailable` where one of them cannot be: it is in no group of its own, or in ours.
    """
    ours = _group("self")
    groups = {group for pid in pids if (group := _group(str(pid)))}
    if ours in groups:
        raise Unavailable("a process that uses it is in the same control group as orlop")
    switches = [switch for group in sorted(groups) if not (switch := _switch(_place(group))).is_on]
    if not switches:
        yield
        return
    thaw = [word for switch in switches for word in (switch.off, str(switch.file))]
    with guarded(["sh", "-c", _THAW, "sh", *thaw]):
        try:
            for switch in switches:
                switch.set(switch.on)
            for switch in switches:
                switch.wait()
            yield
        finally:
            for switch in switches:
                switch.set(switch.off)


@dataclass(frozen=True, slots=True)
class _Switch:
    """The file that freezes a group, what to write to it and afterwards, and where one sees that it is done."""

    file: Path
    on: str
    off: str
    told: Path
    done: str

    @property
    def is_on(self) -> bool:
        return self.file.read_text().strip() == self.on

    def set(self, value: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # the container has ended
            self.file.write_text(value)

    def wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while self.done not in self.told.read_text():
            if time.monotonic() > deadline:
                raise Unavailable(f"control group '{self.told.parent}' does not come to rest")
            time.sleep(0.0005)


def _switch(group: Path) -> _Switch:
    new, old = group / _NEW, group / _OLD
    if new.exists():
        return _Switch(new, "1", "0", group / "cgroup.events", "frozen 1")
    return _Switch(old, "FROZEN", "THAWED", old, "FROZEN")


def _group(pid: str) -> tuple[str, str] | None:
    """The hierarchy (``freezer``, or empty for version 2) and the path in it; None for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    found = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
    old = next((names for names in found if "freezer" in names.split(",")), None)
    return ("", found.get("", "/")) if old is None else ("freezer", found[old])


def _place(group: tuple[str, str]) -> Path:
    """Where this process sees the group: an engine that has a group of its own may have mounted that as the root."""
    kind, name = ("cgroup", _OLD) if group[0] else ("cgroup2", _NEW)
    for entry in mountinfo.ours():
        if entry.type == kind and Path(group[1]).is_relative_to(entry.root):
            place = Path(entry.target, Path(group[1]).relative_to(entry.root))
            if (place / name).exists():
                return place
    raise Unavailable(f"control group {group[1]!r}, whose processes use it, cannot be held still from here")


def mapped(pids: Iterable[int], device: int) -> set[int]:
    """The inodes of files on ``device`` that these processes could be writing through shared mappings."""
    wanted, found = f"{os.major(device):02x}:{os.minor(device):02x}", set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
                _, mode, _, where, inode, *_ = line.split(maxsplit=5)
                if where == wanted and "w" in mode and mode.endswith("s"):
                    found.add(int(inode))
    return found
