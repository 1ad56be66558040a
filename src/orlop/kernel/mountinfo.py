"""What is mounted where, in every mount namespace of this host, as ``/proc/PID/mountinfo`` tells it (proc(5))."""

import functools
import itertools
import os
import re
import time
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orlop.kernel import syscalls as sc
from orlop.kernel.namespaces import Inhabited, namespace, residents

_FEW = 8
_PATIENCE = 30.0
"""Seconds after which a folder may have been given another name, while what is mounted is the same."""
_SPECIAL = re.compile(r"[ \t\n\\]")


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

    def shows(self) -> Iterator[tuple[str, str]]:
        """The filesystem with the folder it shows, then with each folder above that."""
        root = self.root
        yield self.device, root
        while root != "/":
            root = root.rpartition("/")[0] or "/"
            yield self.device, root


def parse(text: str, devices: Container[str] | None = None) -> Iterator[Entry]:
    """The entries of a mountinfo file, in the kernel's order: a later one may hide an earlier one.

    Only those of ``devices`` are taken apart, if they are given: there may be thousands of others.
    """
    for line in text.splitlines():
        fields = line.split(" ", 6)
        if devices is None or fields[2] in devices:
            type_, source = fields[6].partition("- ")[2].split(" ")[:2]
            paths = _unescape(fields[3]), _unescape(fields[4])
            yield Entry(int(fields[0]), fields[2], *paths, frozenset(fields[5].split(",")), type_, _unescape(source))


def lines(text: str, words: Sequence[str]) -> str:
    """The lines of a mountinfo file in which any of ``words`` stands; all of them if more than a few are looked for.

    Taking lines apart costs more, and a host may have thousands.
    """
    if len(words) > _FEW:
        return text
    starts = set()
    for word in words:
        found = text.find(word)
        while found >= 0:
            starts.add(text.rfind("\n", 0, found) + 1)
            found = text.find(word, text.find("\n", found))
    return "".join(text[start : text.find("\n", start) + 1] for start in sorted(starts))


def ours() -> list[Entry]:
    """What this process's namespace has mounted."""
    return list(parse(_read("/proc/self/mountinfo")))


def of(pid: int, devices: Container[str]) -> list[Entry]:
    """What the namespace of process ``pid`` has mounted of ``devices``; empty if it has ended."""
    return list(parse(_table(pid), devices))


def at(targets: Collection[str]) -> Iterator[Entry]:
    """The topmost mount of this process's namespace at each of ``targets``."""
    text = lines(_read("/proc/self/mountinfo"), [f" {escaped(target)} " for target in targets])
    return iter({entry.target: entry for entry in parse(text) if entry.target in targets}.values())


def below(folders: Sequence[Path]) -> Iterator[tuple[tuple[str, str], Path]]:
    """For each of ``folders`` that is there: the filesystem which it is on with its path in that, and itself."""
    by_id = functools.cache(lambda: {entry.id: entry for entry in ours()})
    for folder in folders:
        with suppress(OSError, KeyError):  # the folder has gone, or its mount
            found = _mount_of(folder, by_id)
            inside = os.path.relpath(os.path.realpath(folder), found.target)
            yield (found.device, str(Path(found.root, inside))), folder


def _mount_of(path: Path, by_id: Callable[[], Mapping[int, Entry]]) -> sc.MountShown | Entry:
    """The mount which ``path`` is in: asked of the kernel, or looked up in a table that is read once for many."""
    with suppress(OSError):
        return sc.mount_of(path)
    # The kernel is older, or whoever has put us into a container does not let us ask.
    return by_id()[sc.mount_id(path)]


def type_of(device: str) -> str:
    """The type of the filesystem with this device number, such as ``nfs4``; empty if it is not mounted here."""
    return next((entry.type for entry in parse(_read("/proc/self/mountinfo"), {device})), "")


def filesystem_of(path: Path) -> str:
    """The type of filesystem that ``path`` is on, such as ``ext4``."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    return next((entry.type for entry in ours() if entry.device == wanted), "an unknown filesystem")


def namespaces() -> Iterator[tuple[int, str]]:
    """One process of each mount namespace, ours included, and its mountinfo as text.

    Processes that end meanwhile are passed over.
    """
    found = residents()
    for gone in _remembered.keys() - {inhabited.number for inhabited in found}:
        _remembered.pop(gone, None)
    for inhabited in found:
        # A process that is just ending shows an empty table; another one of its namespace may still tell.
        told = ((pid, text) for pid in inhabited.pids if (text := _told(inhabited, pid)))
        yield from itertools.islice(told, 1)


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What process ``pid`` told about a namespace when that had the mounts ``ids``; good for a while."""

    ids: bytes
    pid: int
    text: str
    until: float


_remembered: dict[int, _Remembered] = {}
"""By the number of the namespace. Writing a table costs the kernel the more, the more mounts there are."""


def _told(inhabited: Inhabited, pid: int) -> str:
    """The table of ``pid``; empty if it lives there no more. It is not read again while the same mounts are there."""
    if namespace(pid) != inhabited.name:
        return ""
    # Before the table, which may be newer: then it is read once too often.
    ids = _ids(inhabited.number)
    known, now = _remembered.get(inhabited.number), time.monotonic()
    if known and (known.ids, known.pid) == (ids, pid) and now < known.until:
        return known.text
    text = _table(pid)
    if ids and text:
        _remembered[inhabited.number] = _Remembered(ids, pid, text, now + _PATIENCE)
    return text


def _ids(number: int) -> bytes:
    """The ids of a namespace's mounts; none where the kernel does not tell."""
    try:
        return sc.mount_ids(number) if number else b""
    except OSError:
        return b""


def _table(pid: int) -> str:
    try:
        return _read(f"/proc/{pid}/mountinfo")
    except OSError:
        return ""


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
        return file.read()


def escaped(path: str) -> str:
    """A path as it stands in a mountinfo file."""
    return _SPECIAL.sub(lambda match: f"\\{ord(match[0]):03o}", path)


def _unescape(field: str) -> str:
    """Space, tab, newline and backslash are written in octal."""
    if "\\" not in field:
        return field
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
