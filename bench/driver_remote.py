"""Remote volumes beside the same mount made by hand: the data path, and what mounting costs.

An SSH server and an S3 store run on the same machine, so that the network hides nothing. The store's volume is held
against s3fs with the options of a tutorial.
"""

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from figures import Figure, alone, compare
from plugin_verbs import Plugin, memory_disk, start_orlop, timed, until

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.journeys.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed
from tests.journeys.sshd import Sshd

from orlop.testing.machine import Machine

ROUNDS, MOUNTS = 5, 15
_ID = "1" * 64
_WORK = """
import io, json, os, sys, tarfile, time
place, files = sys.argv[1], int(sys.argv[2])
found = {}
def took(name, amount, work):
    began = time.perf_counter(); work(); found[name] = amount / (time.perf_counter() - began)
def write():
    for number in range(files):
        with open(f"{place}/d{number % 10}/f{number}", "wb") as file: file.write(b"x" * 2048)
def read():
    for number in range(files):
        with open(f"{place}/d{number % 10}/f{number}", "rb") as file: file.read()
def big():
    with open(f"{place}/big", "wb") as file:
        for _ in range(64): file.write(bytes(1 << 20))
        os.fsync(file.fileno())
for number in range(10): os.mkdir(f"{place}/d{number}")
took("small files written", files, write)
took("small files read", files, read)
took("sequential write", 64, big)
os.system(f"rm -rf {place}/*")
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Side:
    """One way to mount: ``up`` returns the place, ``down`` takes it away."""

    up: Callable[[], str]
    down: Callable[[], object]


def measure() -> list[Figure]:
    with memory_disk("4G") as (machine, disk):
        plugin = Plugin(start_orlop(machine, disk / "orlop"))
        until(lambda: plugin.connect() is None)
        return [*_ssh(machine, plugin), *_s3(machine, plugin)]


def _ssh(machine: Machine, plugin: Plugin) -> list[Figure]:
    server = Sshd(machine, "node2")
    server.start()
    options = {"driver": "sshfs", "sshcmd": "test@node2:/home/test", "key": f"file:{server.key}"}
    plugin.call("Create", Name="ssh", Opts=options)
    place = _made(machine, "/run/hand")
    words = (
        f"nosuid,nodev,allow_other,reconnect,ServerAliveInterval=15,IdentityFile={server.key},StrictHostKeyChecking=no"
    )
    argv = ["sshfs", "test@node2:/home/test", place, "-o", words + ",UserKnownHostsFile=/run/known"]
    ours = _volume(plugin, "ssh")
    hand = Side(lambda: (machine.run(argv), place)[1], lambda: machine.run(["umount", place]))
    took = {side: [] for side in ("ours", "hand")}
    for _ in range(MOUNTS):
        for name, side in (("ours", ours), ("hand", hand)):
            took[name].append(timed(side.up) * 1000)
            side.down()
    # Entering the machine is what the other side pays on top.
    enter = statistics.median(timed(lambda: machine.run(["true"])) * 1000 for _ in range(MOUNTS))
    more = statistics.median(took["ours"]) - (statistics.median(took["hand"]) - enter)
    figures = _paths(machine, "sshfs", ours, hand, 500, "mount by hand", ">= 0.97")
    return [*figures, alone("sshfs: mounting, beyond the program's own time", "ms", [more], "<= 5")]


def _s3(machine: Machine, plugin: Plugin) -> list[Figure]:
    store = Seaweed(machine)
    store.start()
    store.make("bench")
    for name, text in (("key", SECRET_KEY), ("passwd", f"{ACCESS_KEY}:{SECRET_KEY}")):
        machine.run(["sh", "-c", f"umask 077; cat >/run/{name}"], input=text)
    keys = {"access_key": ACCESS_KEY, "secret_key": "file:/run/key"}
    plugin.call("Create", Name="s3", Opts={"driver": "s3", "bucket": "bench", "endpoint": store.endpoint, **keys})
    place = _made(machine, "/run/s3")
    words = f"passwd_file=/run/passwd,nonempty,url={store.endpoint},use_path_request_style"
    hand = Side(
        lambda: (machine.run(["s3fs", "bench", place, "-o", words]), place)[1], lambda: machine.run(["umount", place])
    )
    figures = _paths(machine, "s3", _volume(plugin, "s3"), hand, 200, "s3fs, the tutorial's options", ">= 1.5")
    store.stop()
    return [figure for figure in figures if "small" in figure.name]


def _paths(machine: Machine, name: str, ours: Side, hand: Side, files: int, peer: str, goal: str) -> list[Figure]:
    rounds = []
    for number in range(ROUNDS):
        found = {}
        # Each is first in every other round: a server gets slower, or warmer.
        for side in (ours, hand) if number % 2 else (hand, ours):
            with _mounted(side) as place:
                found[side] = json.loads(machine.run([sys.executable, "-c", _WORK, place, str(files)]).stdout)
        rounds.append((found[ours], found[hand]))
    return [
        compare(f"{name}: {what}", "ops/s", [a[what] for a, _ in rounds], [b[what] for _, b in rounds], peer, goal)
        for what in rounds[0][0]
    ]


@contextmanager
def _mounted(side: Side) -> Iterator[str]:
    place = side.up()
    try:
        yield place
    finally:
        side.down()


def _volume(plugin: Plugin, name: str) -> Side:
    return Side(
        lambda: str(plugin.call("Mount", Name=name, ID=_ID)["Mountpoint"]),
        lambda: plugin.call("Unmount", Name=name, ID=_ID),
    )


def _made(machine: Machine, folder: str) -> str:
    machine.run(["mkdir", folder])
    return folder
