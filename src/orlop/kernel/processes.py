"""Which processes run, told apart from later ones that get the same number."""

import subprocess
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Child(subprocess.Popen[bytes]):
    """A process that may outlive this one."""

    def __del__(self) -> None:
        """Popen's would warn of just that."""


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
