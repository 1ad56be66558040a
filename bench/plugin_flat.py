"""What ten thousand volumes cost: Get and List, the daemon's memory, and its first answer after a start."""

import statistics
import sys
import time
from functools import partial
from pathlib import Path

from figures import Figure, alone, compare
from orlop.testing.machine import Machine
from orlop.testing.process import Process
from plugin_verbs import Plugin, memory_disk, timed, until

FEW, MANY, RUNS = 10, 10_000, 5
# The daemon opens its state as it always does; only the ten thousand creations are spared.
_FILL = """
import sys
from pathlib import Path
from orlop import engine
from orlop.state import Row
service = engine.volumes(engine.Config(Path(sys.argv[1]), Path(sys.argv[1]) / "run"))
with service.state.change() as change:
    for number in range(int(sys.argv[2])):
        row = Row("", f"volume-{number}", "local", {"mode": "0750"}, {"team": "a"}, "2027-01-01T00:00:00Z", "ready")
        change.insert(row, lambda key: False)
"""


def measure() -> list[Figure]:
    with memory_disk() as (machine, disk):
        few, many = _start(machine, disk / "few", FEW), _start(machine, disk / "many", MANY)
        starts = [_restart(machine, many) for _ in range(RUNS)]
        plugins = [_connect(few.socket), _connect(many.socket)]
        gets = [
            [_median_get(plugin, count) for plugin, count in zip(plugins, (FEW, MANY), strict=True)]
            for _ in range(RUNS)
        ]
        lists = [timed(lambda: plugins[1].call("List")) * 1000 for _ in range(RUNS)]
        resident = _resident(many.process.pid)
    return [
        compare("Get with 10,000 volumes", "ms", [b for _, b in gets], [a for a, _ in gets], "with 10", "<= 1.5"),
        alone("List of 10,000 volumes", "ms", lists, "<= 100"),
        alone("first answer after start", "s", starts, "<= 0.5"),
        alone("resident memory", "MiB", [resident], "<= 80"),
    ]


class Daemon:
    """A daemon with so many volumes."""

    def __init__(self, root: Path, process: Process, socket: Path):
        self.root, self.process, self.socket = root, process, socket


def _start(machine: Machine, root: Path, volumes: int) -> Daemon:
    machine.run([sys.executable, "-c", _FILL, str(root), str(volumes)])
    socket = root.parent.parent / f"{root.name}.sock"
    return Daemon(root, _serve(machine, root, socket), socket)


def _serve(machine: Machine, root: Path, socket: Path) -> Process:
    argv = [sys.executable, "-m", "orlop", "serve", "--root", str(root), "--socket", str(socket)]
    return machine.spawn(argv, log=socket.with_suffix(".log"))


def _restart(machine: Machine, daemon: Daemon) -> float:
    """Seconds from the start of the process to its first answer about a volume."""
    _connect(daemon.socket)
    daemon.process.terminate()
    began = time.perf_counter()
    daemon.process = _serve(machine, daemon.root, daemon.socket)
    _connect(daemon.socket).call("Get", Name="volume-7")
    return time.perf_counter() - began


def _connect(socket: Path) -> Plugin:
    plugin = Plugin(socket)
    until(lambda: plugin.connect() is None)
    return plugin


def _median_get(plugin: Plugin, volumes: int) -> float:
    names = [f"volume-{number * 7 % volumes}" for number in range(300)]
    return statistics.median(timed(partial(plugin.call, "Get", Name=name)) for name in names) * 1000


def _resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024
