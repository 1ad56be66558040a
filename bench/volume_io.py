"""File I/O on orlop's volumes beside the filesystem of the host they lie on: fio, and unpacking an archive.

A volume with a size is a filesystem in a file: its log lies in a file whose filesystem has a log too. What that costs
is seen where such a file is made by hand, with mkfs.xfs and mount: orlop adds nothing to it. The control is another
folder of the same filesystem: how far that is from 1 tells how much of the rest is chance.
"""

import json
import shlex
import statistics
import sys
import tarfile
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from figures import Figure, compare
from orlop.testing.machine import Machine
from plugin_verbs import Plugin, memory_disk, start_orlop, until

ROUNDS, FILES = 6, 4000
JOBS = {
    "sequential write": "--rw=write --bs=1M --size=768M --end_fsync=1",
    "random write 4k": "--rw=randwrite --bs=4k --size=256M --io_size=512M --end_fsync=1",
    "random read 4k": "--rw=randread --bs=4k --size=256M --io_size=256M",
    "synced overwrite 4k": "--rw=write --bs=4k --size=32M --overwrite=1 --fsync=1",
    "synced append 4k": "--rw=write --bs=4k --size=32M --fsync=1 --filename=append --unlink=1",
}


def measure() -> list[Figure]:
    with memory_disk("6G", "xfs") as (machine, disk):
        plugin = Plugin(start_orlop(machine, disk / "orlop"))
        until(lambda: plugin.connect() is None)
        places = {"host": disk / "host", **{name: _volume(plugin, name, options) for name, options in VOLUMES.items()}}
        places["control"] = disk / "another"
        machine.run(["mkdir", str(places["host"]), str(places["control"])])
        places["by hand"] = _by_hand(machine, disk)
        archive(disk.parent / "files.tar")
        rounds = [_all_places(machine, places, disk.parent, turn) for turn in range(ROUNDS)]
    return [figure for ours, peer, goal in COMPARED for figure in _figures(rounds, ours, peer, goal)]


VOLUMES: Mapping[str, Mapping[str, str]] = {"local": {}, "sized": {"size": "2g", "fs": "xfs"}}
COMPARED = (
    ("local", "host", ">= 0.97"),
    ("control", "host", ""),
    ("sized", "host", ">= 0.9"),
    ("sized", "by hand", ">= 0.97"),
)
LABELS = {("sized", "by hand"): "sized, beside one by hand", ("control", "host"): "another folder of the host's"}
PEERS = {"host": "host's filesystem", "by hand": "XFS in a file, by hand"}


def _volume(plugin: Plugin, name: str, options: Mapping[str, str]) -> Path:
    plugin.call("Create", Name=name, Opts=dict(options))
    return Path(str(plugin.call("Mount", Name=name, ID="1" * 64)["Mountpoint"]))


def _by_hand(machine: Machine, disk: Path) -> Path:
    """The same as the volume ``sized``, made without us."""
    image, folder = disk / "by-hand.img", disk / "by hand"
    size, place = VOLUMES["sized"]["size"], shlex.quote(str(folder))
    make = f"mkdir {place}; fallocate -l {size} {image}; mkfs.xfs -q {image}; mount -o loop {image} {place}"
    machine.run(["sh", "-ec", make])
    return folder


def archive(path: Path, files: int = FILES) -> None:
    """Files of 4 KiB in 50 folders."""
    with tarfile.open(path, "w") as packed:
        for number in range(files):
            entry = tarfile.TarInfo(f"{number % 50}/{number}")
            entry.size = 4096
            packed.addfile(entry, BytesIO(bytes(4096)))


def _all_places(machine: Machine, places: Mapping[str, Path], folder: Path, turn: int) -> dict[str, dict[str, float]]:
    """One round over all places, each round beginning with another: whoever comes first finds an emptier cache."""
    names = list(places)
    names = names[turn % len(names) :] + names[: turn % len(names)]
    return {name: _round(machine, places[name], folder) for name in names}


def _round(machine: Machine, place: Path, folder: Path) -> dict[str, float]:
    """Operations (or files) a second, by what was done."""
    found = {name: _fio(machine, place, options) for name, options in JOBS.items()}
    here = shlex.quote(str(place))
    unpack = f"mkdir {here}/untar; tar -xf {folder}/files.tar -C {here}/untar; sync -f {here}"
    began = time.perf_counter()
    machine.run(["sh", "-ec", unpack])
    found["unpacking"] = FILES / (time.perf_counter() - began)
    machine.run(["rm", "-rf", f"{place}/untar", f"{place}/fio.0.0"])
    return found


def _fio(machine: Machine, place: Path, options: str) -> float:
    argv = ["fio", "--name=fio", f"--directory={place}", "--output-format=json", "--fallocate=none", "--randseed=7"]
    job = json.loads(machine.run([*argv, *shlex.split(options)]).stdout)["jobs"][0]
    return float(job["read" if "read" in options else "write"]["iops"])


def _figures(rounds: list[dict[str, dict[str, float]]], name: str, peer: str, goal: str) -> list[Figure]:
    figures = []
    for what in rounds[0][name]:
        ours, theirs = [found[name][what] for found in rounds], [found[peer][what] for found in rounds]
        figures.append(compare(f"{LABELS.get((name, peer), name)}: {what}", "ops/s", ours, theirs, PEERS[peer], goal))
    print(f"{name}: median of all {statistics.median(f.ratio or 0 for f in figures):.2f}", file=sys.stderr)
    return figures
