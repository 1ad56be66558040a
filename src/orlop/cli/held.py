"""A volume's files in the hands of a command: held while it works, and let go whatever ends it."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orlop.kernel import processes
from orlop.state import Holder, Row
from orlop.volumes.service import VolumeService


def holder(what: str) -> Holder:
    """This process, while it does ``what``."""
    pid = os.getpid()
    return Holder("orlop", f"{what}-{pid}", pid, processes.start_time(pid) or 0)


@contextmanager
def mounted(service: VolumeService, row: Row, what: str) -> Iterator[Path]:
    """The volume's files, held by this process: it is neither removed nor detached meanwhile."""
    me = holder(what)
    folder = service.mount(row.name, me)
    try:
        # However long it takes: the kernel does not unmount what is open.
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield folder
        finally:
            os.close(fd)
    finally:
        service.unmount(row.name, me)


@contextmanager
def asked_to_end() -> Iterator[None]:
    """SIGTERM is an error like others, so that what was begun is undone."""

    def end(number: int, frame: object) -> None:
        del frame
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
