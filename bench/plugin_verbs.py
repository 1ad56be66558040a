"""The verbs of the plugin protocol over the socket, one client with keep-alive, beside ``rclone serve docker``.

Both keep state and data on one ext4 in a file in memory, so that syncs cost what they cost the program, not the disk.
The control is what nobody can leave out who wants a volume to survive a power cut: four answers of this server to a
verb that does nothing, and the syncs: of a definition and the folders that lead to it when a volume is created, of a
line when it is removed.
"""

import http.client
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import Figure, compare
from orlop.testing.machine import Machine
from orlop.testing.voltest.subject import rclone

ROUNDS, VOLUMES = 5, 60
RCLONE = Path(__file__).parent.parent / ".cache/peers/bin/rclone"
CYCLE = ("Create", "Mount", "Unmount", "Remove")
_LEAST = """
import os, sys, time
from pathlib import Path
root, count = Path(sys.argv[1]), int(sys.argv[2])
root.mkdir()
log = os.open(root / "log", os.O_WRONLY | os.O_CREAT)
began = time.perf_counter()
for number in range(count):
    folder = root / f"v{number}"
    os.mkdir(folder)
    os.mkdir(folder / "_data")
    for place_to_sync, flags in ((folder / "volume.json", os.O_WRONLY | os.O_CREAT), (folder, 0), (root, 0)):
        fd = os.open(place_to_sync, flags)
        if flags:
            os.write(fd, bytes(200))
        os.fsync(fd)
        os.close(fd)
    os.write(log, bytes(4096))
    os.fdatasync(log)
    os.rename(folder / "volume.json", folder / "trashed.json")
print((time.perf_counter() - began) / count)
"""


class Plugin(http.client.HTTPConnection):
    """A plugin on a unix socket."""

    def __init__(self, path: Path):
        super().__init__("plugin", timeout=20)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self.path))

    def call(self, verb: str, **request: object) -> dict[str, object]:
        self.request("POST", f"/VolumeDriver.{verb}", json.dumps(request))
        reply = json.loads(self.getresponse().read())
        if reply.get("Err"):
            raise RuntimeError(f"{verb} {request}: {reply['Err']}")
        return reply


def measure() -> list[Figure]:
    with memory_disk() as (machine, disk):
        started = time.perf_counter()
        ours = Plugin(start_orlop(machine, disk / "orlop"))
        until(lambda: ours.connect() is None)
        print(f"orlop answered after {time.perf_counter() - started:.2f} s", file=sys.stderr)
        peer = Rclone(machine, disk)
        rounds, least = [], []
        for number in range(ROUNDS):
            rounds.append((one_round(ours, {}), peer.one_round()))
            least.append(_least(machine, disk / f"least{number}", ours))
    figures = [
        compare(f"{verb}", "ms", [a[verb] for a, _ in rounds], [b[verb] for _, b in rounds], "rclone", "<= 1.3")
        for verb in ("Get", "List", "Path")
    ]
    rates = [[1000 / sum(found[verb] for verb in CYCLE) for found in side] for side in zip(*rounds, strict=True)]
    return [
        *figures,
        compare("create+mount+unmount+remove", "cycles/s", rates[0], rates[1], "rclone", ">= 3"),
        compare("create+mount+unmount+remove, the least of it", "cycles/s", least, rates[1], "rclone", ""),
    ]


def _least(machine: Machine, folder: Path, plugin: Plugin) -> float:
    """Cycles in a second, if a plugin had nothing to do of its own."""
    empty = statistics.median(timed(lambda: plugin.call("Capabilities")) for _ in range(VOLUMES * len(CYCLE)))
    work = float(machine.run([sys.executable, "-c", _LEAST, str(folder), str(VOLUMES)]).stdout)
    return 1 / (empty * len(CYCLE) + work)


def one_round(plugin: Plugin, options: dict[str, str]) -> dict[str, float]:
    """Median milliseconds of each verb, over volumes that are all there but mounted one after the other."""
    times: dict[str, list[float]] = {verb: [] for verb in (*CYCLE, "Get", "List", "Path")}

    def call(verb: str, **request: object) -> None:
        times[verb].append(timed(lambda: plugin.call(verb, **request)))

    names = [f"v{number}" for number in range(VOLUMES)]
    for name in names:
        call("Create", Name=name, Opts={key: value.format(name=name) for key, value in options.items()})
    for name in names:
        call("Get", Name=name)
        call("List")
        call("Mount", Name=name, ID="1" * 64)
        call("Path", Name=name)
        call("Unmount", Name=name, ID="1" * 64)
    for name in names:
        call("Remove", Name=name)
    return {verb: statistics.median(found) * 1000 for verb, found in times.items()}


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def until(condition: Callable[[], bool], patience: float = 20) -> None:
    """Wait for ``condition``; an error of the network is a no."""
    end = time.monotonic() + patience
    while True:
        try:
            if condition():
                return
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.005)


def start_orlop(machine: Machine, root: Path, *more: str) -> Path:
    """The daemon, and the socket it will answer at."""
    path = root.parent.parent / f"{root.name}.sock"
    argv = [sys.executable, "-m", "orlop", "serve", "--root", str(root), "--socket", str(path), *more]
    machine.spawn(argv, log=path.with_suffix(".log"))
    return path


class Rclone:
    """``rclone serve docker`` as voltest judges it; where it hangs in a Mount, a new one plays the round."""

    def __init__(self, machine: Machine, disk: Path):
        self.machine, self.disk, self.number = machine, disk, 0
        self._start()

    def one_round(self) -> dict[str, float]:
        for _ in range(5):
            try:
                return one_round(self.plugin, self.options)
            except TimeoutError:
                print("rclone hangs: the round is played again with a new one", file=sys.stderr)
                self.process.kill9()
                self._start()
        raise TimeoutError("rclone hung five times over")

    def _start(self) -> None:
        self.number += 1
        subject, path = rclone(RCLONE), self.disk.parent / f"rclone{self.number}.sock"
        places = {"socket": path, "state": self.disk / f"rclone{self.number}"}
        self.machine.run(["sh", "-ec", subject.setup.format(**places)])
        argv = [word.format(**places) for word in subject.command]
        self.process = self.machine.spawn(argv, log=path.with_suffix(".log"))
        self.options = {key: value.format(**places, name="{name}") for key, value in subject.options.items()}
        self.plugin = plugin = Plugin(path)
        until(lambda: plugin.connect() is None)


@contextmanager
def memory_disk(size: str = "2G", fs: str = "ext4", options: str = "loop") -> Iterator[tuple[Machine, Path]]:
    """A machine with a filesystem in a file in memory; only the machine sees it, but both see the folder around."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="orlop-bench-") as folder:
        image, disk = Path(folder, "disk.img"), Path(folder, "disk")
        disk.mkdir()
        with Machine(Path(folder, "machine"), "bench") as machine:
            machine.run(["truncate", "-s", size, str(image)])
            machine.run([f"mkfs.{fs}", "-q", str(image)])
            machine.run(["mount", "-o", options, str(image), str(disk)])
            yield machine, disk
