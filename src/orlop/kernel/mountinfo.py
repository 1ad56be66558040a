"""What is mounted where, in every mount namespace of this host, as ``/proc/PID/mountinfo`` tells it (proc(5))."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of mountinfo: the folder ``root`` of filesystem ``device`` is seen at ``target``."""

    id: int
    device: str
    root: str
    target: str
    options: frozenset[str]
    type: str
    source: str

    def shows(self, other: "Entry") -> bool:
        """Whether this is ``other``'s filesystem and folder, or a folder below it."""
        if self.device != other.device:
            return False
        return self.root == other.root or self.root.startswith(other.root.rstrip("/") + "/")


def parse(text: str) -> Iterator[Entry]:
    """The entries of a mountinfo file, in the kernel's order: a later one may hide an earlier one."""
    for line in text.splitlines():
        fields = line.split(" ")
        dash = fields.index("-", 6)
        yield Entry(
            int(fields[0]),
            fields[2],
            _unescape(fields[3]),
            _unescape(fields[4]),
            frozenset(fields[5].split(",")),
            fields[dash + 1],
            _unescape(fields[dash + 2]),
        )


def ours() -> list[Entry]:
    """What this process's namespace has mounted."""
    return list(parse(_read(_PROC / "self/mountinfo")))


def filesystem_of(path: Path) -> str:
    """The type of filesystem that ``path`` is on, such as ``ext4``."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    return next((entry.type for entry in ours() if entry.device == wanted), "an unknown filesystem")


def namespaces() -> Iterator[tuple[int, str]]:
    """One process of each mount namespace, ours included, and its mountinfo as text.

    Processes that end meanwhile are passed over; so are those we may not look at.
    """
    seen = set()
    for pid in (int(name) for name in os.listdir(_PROC) if name.isdigit()):  # noqa: PTH208 - the fastest of all ways
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")  # noqa: PTH115
            if namespace in seen:
                continue
            text = _read(Path(f"/proc/{pid}/mountinfo"))
        except OSError:
            continue
        # A process that is just ending shows an empty table; another one of its namespace may still tell.
        if text:
            seen.add(namespace)
            yield pid, text


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def _unescape(field: str) -> str:
    """Space, tab, newline and backslash are written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
