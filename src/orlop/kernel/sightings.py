"""Who sees a mount: in other mount namespaces, at other places, from a working folder in it."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from orlop.kernel import mountinfo
from orlop.kernel.namespaces import namespace
from orlop.kernel.processes import command


def shown(dead: mountinfo.Entry) -> Iterator[tuple[int, mountinfo.Entry]]:
    """Where else the filesystem of ``dead`` is seen, or a folder in it: a process of the namespace, and the entry."""
    inside = dead.root.rstrip("/") + "/"
    for pid, text in mountinfo.namespaces():
        for entry in mountinfo.parse(text, {dead.device}):
            if (entry.root == dead.root or entry.root.startswith(inside)) and entry.target != dead.target:
                yield pid, entry


def seen(tops: Mapping[tuple[str, str], Path]) -> dict[Path, list[int]]:
    """By target: the processes that see its filesystem and folder (the keys of ``tops``) at another place."""
    found: dict[Path, list[int]] = {}
    devices = {device for device, _ in tops}
    words = [f" {device} {mountinfo.escaped(root)}" for device, root in tops]
    for pid, text in mountinfo.namespaces():
        for entry in mountinfo.parse(mountinfo.lines(text, words), devices):
            target = next((tops[above] for above in entry.shows() if above in tops), None)
            if target is not None and pid not in found.get(target, ()) and not _is_itself(pid, entry, target):
                found.setdefault(target, []).append(pid)
    return found


def _is_itself(pid: int, entry: mountinfo.Entry, target: Path) -> bool:
    """Whether ``entry`` of process ``pid``'s namespace is on the very folder ``target`` where we mount."""
    # The names first: only then is it sure that no server which is silent is asked.
    if Path(entry.target).name != target.name:
        return False
    try:
        return Path(f"/proc/{pid}/root", entry.target.lstrip("/")).parent.samefile(target.parent)
    except OSError:
        return False


def users_of(target: Path) -> str:
    """`` by sleep (123), ...``: the processes of our namespace with their working folder below ``target``."""
    found = []
    ours = namespace("self")
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            # Read, and not followed: that could ask a server, perhaps another one, which is silent.
            if link.readlink().is_relative_to(target) and namespace(link.parent.name) == ours:
                pid = int(link.parent.name)
                found.append(f"{command(pid)} ({pid})")
    return " by " + ", ".join(found) if found else ""
