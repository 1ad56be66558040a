"""Which mount namespaces there are on this host, and which processes live in each.

Asking every process for its namespace costs the more, the more processes run. Linux 6.11 and newer go from one mount
namespace to the next (``NS_MNT_GET_NEXT``, linux/include/uapi/linux/nsfs.h); there processes are asked only when a
namespace is new, or when nobody who was known to live in one lives there any more. From inside a process namespace the
kernel does not let us go, and everybody there is asked: containers have few processes.
"""

import fcntl
import os
import struct
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_INFO, _NEXT, _PREVIOUS = (2 << 30 | 16 << 16 | 0xB7 << 8 | number for number in (10, 11, 12))
_ID = 2 << 30 | 8 << 16 | 0xB7 << 8 | 5
_MNT_NS_INFO = struct.Struct("=IIQ")
_OWN = "/proc/self/ns/mnt"
_PATIENCE = 1.0
"""Seconds after which somebody may have entered a namespace that nobody lived in."""


@dataclass(frozen=True, slots=True)
class Inhabited:
    """A mount namespace, named as readlink(2) shows it below ``/proc/PID/ns``, and ``pids`` that live in it.

    ``number`` is its own for all time, and 0 where the kernel does not tell.
    """

    name: str
    number: int
    pids: Sequence[int]


class _Look:
    """What a look at all processes found: where they live, and which namespaces seemed empty."""

    def __init__(self, names: Iterable[str]) -> None:
        self.residents = _ask_everybody()
        # Those of containers' hosts, of which we see no process, and those that only an open file keeps.
        self._empty = set(names) - self.residents.keys()
        self._until = time.monotonic() + _PATIENCE

    def still_tells(self, names: set[str]) -> bool:
        """Whether every namespace of ``names`` has an inhabitant that is known."""
        if names & self._empty and time.monotonic() > self._until:
            return False
        return all(_lives_in(name, self.residents.get(name, ())) for name in names - self._empty)


_last: _Look | None = None


def residents() -> Sequence[Inhabited]:
    """Every mount namespace in which a process that we may look at lives, ours included.

    Processes may have left since they were asked: `namespace` tells.
    """
    global _last
    numbers = _numbers()
    if numbers is None:
        return [Inhabited(name, _number(name, pids[0]), pids) for name, pids in _ask_everybody().items()]
    if _last is None or not _last.still_tells(set(numbers)):
        _last = _Look(numbers)
    found = _last.residents.items()
    return [Inhabited(name, numbers[name], pids) for name, pids in found if name in numbers]


def _numbers() -> Mapping[str, int] | None:
    """The mount namespaces that the kernel lists, with the number of each; None where it cannot."""
    try:
        return dict([*_walk(_PREVIOUS), *_walk(_NEXT)])
    except OSError:
        return None


def _number(name: str, pid: int) -> int:
    """The number of the namespace ``name``, in which ``pid`` lived; 0 where that is not known."""
    try:
        fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        is_it = name == f"mnt:[{os.fstat(fd).st_ino}]"
        return int.from_bytes(fcntl.ioctl(fd, _ID, bytes(8)), sys.byteorder) if is_it else 0
    except OSError:
        return 0
    finally:
        os.close(fd)


def _walk(direction: int) -> Iterable[tuple[str, int]]:
    """Our namespace, and those on that side of it."""
    fd, info = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC), bytearray(_MNT_NS_INFO.size)
    try:
        fcntl.ioctl(fd, _INFO, info)
        while True:
            yield f"mnt:[{os.fstat(fd).st_ino}]", _MNT_NS_INFO.unpack(info)[2]
            following = fcntl.ioctl(fd, direction, info)
            os.close(fd)
            fd = following
    except FileNotFoundError:  # that was the last one
        return
    finally:
        os.close(fd)


def namespace(pid: int | str) -> str | None:
    """Where ``pid`` lives; None if it has ended, or may not be looked at."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")  # noqa: PTH115
    except OSError:
        return None


def _lives_in(name: str, pids: Sequence[int]) -> bool:
    return any(namespace(pid) == name for pid in pids)


def _ask_everybody() -> Mapping[str, Sequence[int]]:
    """By namespace, who lives there."""
    found: dict[str, list[int]] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - half the cost
        name = namespace(pid)
        if name is not None:
            found.setdefault(name, []).append(int(pid))
    return found


def companions(pids: Iterable[int]) -> list[int]:
    """All processes that live in the mount namespaces of ``pids``, which are not ours."""
    wanted = {namespace(pid) for pid in pids} - {namespace("self")}
    return [pid for name, found in _ask_everybody().items() if name in wanted for pid in found]
