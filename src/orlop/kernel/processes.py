"""Which processes run, told apart from later ones that get the same number; and that they leave no memory behind."""

import contextlib
import os
import resource
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from orlop.kernel import syscalls as sc

T = TypeVar("T")
_GENTLE = 5
"""How nice (sched(7)): the kernel gives each step a fifth less."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Child(subprocess.Popen[bytes]):
    """A process that may outlive this one."""

    def __del__(self) -> None:
        """Popen's would warn of just that."""


def reap(child: Child) -> None:
    """Let nothing of ``child`` be left when it has ended, if that is before we do."""
    threading.Thread(target=child.wait, daemon=True, name="reap").start()


def gently(work: Callable[[], T]) -> T:
    """Do ``work`` in a thread that lets others have the processors first: it, and all threads and processes it starts.

    It gets a third of what somebody else gets who wants as much, and everything that nobody wants.
    """
    with ThreadPoolExecutor(1, "gently", lambda: os.setpriority(os.PRIO_PROCESS, 0, _GENTLE)) as thread:
        return thread.submit(work).result()


def leave_no_core() -> None:
    """From now on no memory of this process, and of those it starts, is kept when they crash: secrets are in it."""
    with contextlib.suppress(OSError, ValueError):
        # One byte, and not none: that holds for a core_pattern (core(5)) which is a program, too.
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    with contextlib.suppress(OSError):
        # For ssh, which makes it none: such a program is given a dump without memory.
        Path("/proc/self/coredump_filter").write_text("0")
    sc.prctl(sc.PR_SET_DUMPABLE, 0)


def boot_id() -> str:
    """A value that differs after every boot."""
    return BOOT_ID.read_text().strip()


def start_time(pid: int) -> int | None:
    """When process ``pid`` started, in clock ticks after boot; None if there is none (or only its corpse)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold anything, so the fields are counted from its end.
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def command(pid: int) -> str:
    """The name of process ``pid``, ``?`` if it has gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"
