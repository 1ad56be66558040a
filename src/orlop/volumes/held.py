"""A volume's files in the hands of this process: held while it works, and let go whatever ends it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orlop.volumes.service import VolumeService
from orlop.volumes.uses import holder


@contextmanager
def mounted(service: VolumeService, name: str, what: str) -> Iterator[Path]:
    """The volume's files, held by this process: it is neither removed nor detached meanwhile."""
    me = holder(what)
    folder = service.mount(name, me)
    try:
        # However long it takes: the kernel does not unmount what is open.
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield folder
        finally:
            os.close(fd)
    finally:
        service.unmount(name, me)
