"""Calls of the kernel that wait for a server, made so that nobody waits for ever with them.

A server that is silent holds up whoever asks it, and only the end of the process ends that. So a mount is made by a
thread that can be left behind, and taken away by a process that can: what the kernel is at, it ends by itself.
"""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from orlop.errors import Busy
from orlop.kernel import syscalls as sc
from orlop.kernel.processes import Child

REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph"})
"""The kernel's filesystems that have a server."""
MOUNT = 25.0
"""Seconds that a server, or its program, has until it is mounted; a managed plugin's engine waits 30 for a verb."""
FAREWELL = 20.0
"""Seconds that the kernel, or a program, has to write what was changed and to take leave of the server."""

# In C's words, since whatever else a process does may ask the server too: so does umount(8).
_UNMOUNT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os._exit(ctypes.get_errno() if libc.umount2(os.fsencode(sys.argv[1]), int(sys.argv[2])) else 0)
"""
_POLL = 0.005


class Opening(threading.Thread):
    """Opens something, in a thread: ``open_`` returns the file descriptor."""

    def __init__(self, open_: Callable[[], int]) -> None:
        super().__init__(daemon=True, name="mount")
        self._open = open_
        self._lock = threading.Lock()
        self._outcome: int | OSError | None = None
        self._given_up = False

    def within(self, seconds: float) -> int:
        """The file descriptor; raises what ``open_`` does, or `TimeoutError`: then it is closed when it comes."""
        self.start()
        self.join(seconds)
        with self._lock:
            if self._outcome is None:
                self._given_up = True
                raise TimeoutError(errno.ETIMEDOUT, f"no answer within {seconds:.0f} s")
            if isinstance(self._outcome, OSError):
                raise self._outcome
            return self._outcome

    def run(self) -> None:
        """See `threading.Thread.run`."""
        try:
            outcome: int | OSError = self._open()
        except OSError as error:
            outcome = error
        with self._lock:
            self._outcome = outcome
            if self._given_up and isinstance(outcome, int):
                os.close(outcome)


def unmount(target: Path, flags: int, is_there: Callable[[], bool], patience: float = FAREWELL) -> None:
    """Take the topmost mount off ``target``, as `orlop.kernel.syscalls.umount`.

    Raises `Busy` if the mount has gone and the server is not told within ``patience`` seconds: the kernel goes on.
    """
    end = time.monotonic() + patience
    argv = [sys.executable, "-ISc", _UNMOUNT, str(target), str(flags | sc.UMOUNT_NOFOLLOW)]
    child = Child(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    # Somebody has to see it end, however late.
    threading.Thread(target=child.wait, daemon=True, name=f"unmount {target.name}").start()
    while child.returncode is None and time.monotonic() < end:
        time.sleep(_POLL)
    if child.returncode:
        raise OSError(child.returncode, os.strerror(child.returncode), str(target))
    if child.returncode is None:
        state = "is still mounted" if is_there() else "is unmounted, but what was changed last may not be there yet"
        raise Busy(f"the server of '{target}' does not answer: it {state}; the kernel goes on trying")
