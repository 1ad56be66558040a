"""What the kernel says of a mount: one of orlop's, and one that was made by hand with mount(8)."""

from pathlib import Path
from typing import NamedTuple

from orlop.testing.machine import Machine


class Said(NamedTuple):
    """The fields of a line of mountinfo (proc(5)) that tell what is mounted, and how.

    The others must differ between two mounts of the same: their numbers, the number of the device (a filesystem that is
    mounted anew gets another), the place, and the group in which mounts of that place are passed on.
    """

    root: str
    mount: frozenset[str]
    """The options of this mount."""
    type: str
    source: str
    superblock: frozenset[str]
    """The options of the filesystem, but for the port of NFS 3's mount protocol.

    mount(8) asks the server's port mapper for it and tells the kernel, which otherwise asks by itself and does not say
    what it was told. No file's bytes go there.
    """


def of_ours(machine: Machine, root: Path) -> Said:
    """Of the only mount that the daemon with this state has."""
    (said,) = _said(machine, f"{root}/mounts/")
    return said


def of_one_by_hand(machine: Machine, type_: str, options: str, source: str) -> Said:
    """Of what a person mounts by ``mount -t TYPE -o OPTIONS SOURCE``; it is gone again afterwards."""
    place = str(machine.folder / "by_hand")
    machine.run(["mkdir", place])
    machine.run(["mount", "-t", type_, "-o", options, source, place])
    try:
        (said,) = _said(machine, place)
    finally:
        machine.run(["umount", place])
        machine.run(["rmdir", place])
    return said


def _said(machine: Machine, place: str) -> list[Said]:
    lines = (machine.root / "proc/1/mountinfo").read_text().splitlines()
    fields = [line.split(" - ") for line in lines if line.split()[4].startswith(place)]
    return [_parsed(first.split(), last.split()) for first, last in fields]


def _parsed(first: list[str], last: list[str]) -> Said:
    superblock = frozenset(word for word in last[2].split(",") if not word.startswith("mountport="))
    return Said(first[3], frozenset(first[5].split(",")), last[0], last[1], superblock)
