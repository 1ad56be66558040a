"""Loop devices that a machine attached: the kernel keeps them when the machine has gone."""

import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop device, and the file behind it by device and inode: its path differs from place to place."""

    name: str
    device: str
    inode: int
    path: str


def of(root: Path, folders: Iterable[Path]) -> list[Loop]:
    """Those attached by the machine whose ``/`` is ``root`` to files below ``folders``."""
    return [loop for loop in _all(root) if any(_is_below(loop, root, folder) for folder in folders)]


def detach(loops: Sequence[Loop]) -> None:
    """Detach those that have not gone by themselves, and are not used for another file meanwhile."""
    if not loops:
        return
    now = {(loop.name, loop.device, loop.inode) for loop in _all(Path("/"))}
    for loop in loops:
        if (loop.name, loop.device, loop.inode) in now:
            subprocess.run(["losetup", "--detach", loop.name], check=False, capture_output=True)


def _all(root: Path) -> list[Loop]:
    # The path of the file is told as the asker sees it, so ask from inside the machine.
    argv = ["chroot", str(root), "losetup", "--json", "--output", "NAME,BACK-MAJ:MIN,BACK-INO,BACK-FILE"]
    listed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    devices = json.loads(listed)["loopdevices"] if listed.strip() else []
    return [Loop(d["name"], d["back-maj:min"].strip(), int(d["back-ino"]), d["back-file"]) for d in devices]


def _is_below(loop: Loop, root: Path, folder: Path) -> bool:
    if not loop.path or not Path(loop.path).is_relative_to(folder):
        return False
    try:
        found = (root / loop.path.lstrip("/")).stat()
    except FileNotFoundError:
        # Deleted, but attached: the path is all there is to tell it by.
        return True
    return (f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}", found.st_ino) == (loop.device, loop.inode)
