"""Folders of drivers: what they take, and how they go."""

import os
import subprocess
from pathlib import Path

from orlop.errors import Unavailable
from orlop.kernel import freeze


def delete(folder: Path) -> None:
    """Never through a mount, wherever it came from: another filesystem's files are not ours to delete."""
    done = subprocess.run(["rm", "-rf", "--one-file-system", "--", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"'{folder}' could not be deleted: {done.stderr.strip()}")


def sync(folder: Path) -> None:
    """What was written below ``folder`` survives a power cut from here on; raises `Unavailable` if any was lost."""
    try:
        freeze.sync(folder)
    except OSError as error:
        raise Unavailable(f"'{folder}' could not be written back: {error.strerror}") from error


def is_empty(folder: Path) -> bool:
    """Whether nothing is in ``folder`` but what mkfs has made."""
    return all(entry.name == "lost+found" for entry in folder.iterdir())


def occupied(folder: Path) -> int:
    """Bytes of its filesystem that the files below ``folder`` take."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512  # noqa: PTH118 - Path costs 10x
            except FileNotFoundError:
                continue
    return total
