"""A cgroup for each machine, in every hierarchy that the host has: version 1, version 2 or both.

A machine sees its own cgroup where the host's root cgroup is mounted, so what its engines make there is found
again, and removed.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from orlop.errors import InUse

_INIT = "init"


def make(name: str) -> list[str]:
    """Make the cgroup; for each hierarchy, return its folder and then where the machine mounts it."""
    pairs = []
    for hierarchy in _hierarchies():
        own = hierarchy / name
        for folder in (own, own / _INIT):
            folder.mkdir(exist_ok=True)
            _allow_processes(folder)
        pairs += [str(own), str(hierarchy)]
    return pairs


def move(name: str, pids: Iterable[int]) -> None:
    """Put processes of the machine where they are not in the way.

    In version 2 a cgroup has either processes or limits for those below it.
    """
    for hierarchy in _hierarchies():
        for pid in pids:
            (hierarchy / name / _INIT / "cgroup.procs").write_text(str(pid))


def freeze(name: str) -> None:
    """Let everything in the cgroup stand still."""
    for switch, on, _ in _switches(name, ""):
        switch.write_text(on)


def thaw(name: str) -> None:
    """Let everything in the cgroup go on: whoever froze a part of it may be dead, and what is frozen cannot die."""
    for switch, _, off in _switches(name, "**/"):
        with suppress(OSError):
            switch.write_text(off)


def _switches(name: str, below: str) -> Iterator[tuple[Path, str, str]]:
    """The files that freeze the cgroup, or all below it too; and what to write to them."""
    for hierarchy in _hierarchies():
        for file, on, off in (("freezer.state", "FROZEN", "THAWED"), ("cgroup.freeze", "1", "0")):
            for switch in (hierarchy / name).glob(below + file):
                yield switch, on, off


def remove(name: str) -> None:
    """Remove the cgroup and all below it; not there is fine. `InUse` if it is not empty in 5 seconds."""
    for hierarchy in _hierarchies():
        own = hierarchy / name
        # Only an empty one can go, so the innermost goes first.
        for folder in sorted((own, *own.glob("**/")), key=lambda path: len(path.parts), reverse=True):
            _remove_folder(folder)


def _hierarchies() -> list[Path]:
    """The mount points of the host's cgroup filesystems."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(where) for _, where, kind, *_ in mounts if kind in ("cgroup", "cgroup2")]


def _allow_processes(folder: Path) -> None:
    # Version 1 starts with empty sets, in which no process may run.
    for limit in ("cpuset.cpus", "cpuset.mems"):
        if (folder / limit).exists() and (folder.parent / limit).exists():
            (folder / limit).write_text((folder.parent / limit).read_text())


def _remove_folder(folder: Path) -> None:
    for _ in range(250):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            # The kernel takes a moment to let killed processes go.
            time.sleep(0.02)
        else:
            return
    raise InUse(f"processes still run in cgroup {str(folder)!r}")
