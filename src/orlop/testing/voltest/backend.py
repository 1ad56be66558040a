"""A folder that plays the storage server behind a plugin, and that can stop answering."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from orlop.testing.machine import Machine


class Backend:
    """The folder ``backend`` of a machine's folder."""

    def __init__(self, machine: Machine) -> None:
        self.folder = machine.folder / "backend"
        self._machine = machine

    @contextmanager
    def hangs(self) -> Iterator[None]:
        """Meanwhile whoever looks into the folder waits: it is a FUSE filesystem whose server never answers."""
        device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
        # Machine.run closes inherited files, and this one is the filesystem.
        enter = ["nsenter", f"--target={self._machine.pid}", "--mount", "--"]
        mount = [*enter, "mount", "-i", "-t", "fuse", "-o", options, "silent", str(self.folder)]
        try:
            subprocess.run(mount, check=True, capture_output=True, text=True, pass_fds=[device])
            yield
        finally:
            os.close(device)
            self._machine.run(["umount", "-l", str(self.folder)], check=False)
