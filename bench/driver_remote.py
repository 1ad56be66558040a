"""Remote volumes beside the same mounts made by hand: fio, and the unpacking of 10,000 files (of S3, 2,000).

Three mounts of each kind exist at once, of the same server on the same machine, by the same program with the same
options (what the kernel says of them is compared): ours, and two by hand. They take turns of a fraction of a second, in
all orders alike, so that what slows down one slows down all; the ratio is the median of the turns, and the peer is the
two by hand together. One process of fio goes from mount to mount itself. All is mounted anew six times, for two
processes of the same program are not equally fast, and runs on one processor, for where the kernel puts whom changes
more than is looked for. What rclone sends after a file was closed is not measured: files are deleted before that.

The control is one mount by hand beside the other: about as far from 1 as it is, the figure above it may be by chance.

S3 is held against s3fs with the options of a tutorial, too.

Of nfs, cifs and azurefile there is nothing to time: they are mounts of the kernel itself, and tests in a guest
(tests/guest/test_same_mount.py, test_cloudstor.py) show that the kernel says the same of ours as of one made by hand.
"""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import harmonic_mean

from tests.journeys.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed
from tests.journeys.sshd import Sshd

from figures import Figure, compare
from orlop.testing.machine import Machine
from plugin_verbs import Plugin, memory_disk, start_orlop, until
from turns import Rates, Unit

MOUNTS, ROUNDS = 6, 6
"""How often each is mounted, and how often it has its turn then: there are six orders of three."""
_ID = "1" * 64


@dataclass(frozen=True)
class Side:
    """One way to mount: ``up`` returns the place, ``down`` takes it away."""

    up: Callable[[], str]
    down: Callable[[], object]


@dataclass(frozen=True)
class Bench:
    """The machine with its servers, and orlop on it."""

    machine: Machine
    plugin: Plugin

    def volume(self, name: str, **options: str) -> Side:
        """A volume of orlop's."""
        self.plugin.call("Create", Name=name, Opts=options)
        return Side(
            lambda: str(self.plugin.call("Mount", Name=name, ID=_ID)["Mountpoint"]),
            lambda: self.plugin.call("Unmount", Name=name, ID=_ID),
        )

    def hand(self, name: str, *argv: str) -> Side:
        """What a person types; ``{place}`` is where it is mounted, ``{name}`` is ``name``.

        In a session of its own, as ours: the kernel shares the processors out between sessions.
        """
        place = f"/run/hand-{name}"
        self.machine.run(["mkdir", place])

        def up() -> str:
            start = 'setsid --fork "$@" </dev/null >/dev/null 2>&1'
            self.machine.run(["sh", "-c", start, "sh", *(word.format(place=place, name=name) for word in argv)])
            self.machine.run(["timeout", "20", "sh", "-c", f"until mountpoint -q {place}; do sleep 0.05; done"])
            return place

        return Side(up, lambda: self.machine.run(["umount", place]))

    def hands(self, name: str, *argv: str) -> list[Side]:
        """The same typed twice."""
        return [self.hand(f"{name}{number}", *argv) for number in range(2)]

    def secret(self, path: str, text: str) -> None:
        self.machine.run(["sh", "-c", f"umask 077; cat >{path}"], input=text)

    def options(self, place: str) -> str:
        """The type and the options of what is mounted there, as the kernel has them."""
        return self.machine.run(["findmnt", "-no", "FSTYPE,OPTIONS", place]).stdout


def measure() -> list[Figure]:
    with one_processor(), memory_disk("6G") as (machine, disk):
        plugin = Plugin(start_orlop(machine, disk / "orlop"))
        until(lambda: plugin.connect() is None)
        bench = Bench(machine, plugin)
        return [*_ssh(bench), *_gluster(bench, disk), *_rclone(bench, disk), *_s3(bench, disk)]


@contextmanager
def one_processor() -> Iterator[None]:
    """For all that is started inside."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _ssh(bench: Bench) -> list[Figure]:
    server = Sshd(bench.machine, "node2")
    server.start()
    ours = bench.volume("ssh", driver="sshfs", sshcmd="test@node2:/home/test", key=f"file:{server.key}")
    words = "nosuid,nodev,allow_other,reconnect,ServerAliveInterval=15,ServerAliveCountMax=4,ConnectTimeout=10"
    words += f",IdentityFile={server.key},IdentitiesOnly=yes,BatchMode=yes"
    words += ",StrictHostKeyChecking=accept-new,UserKnownHostsFile=/run/known"
    argv = ["sshfs", "-f", "-o", words, "test@node2:/home/test", "{place}"]
    found = alike(bench, "sshfs", ours, argv, Unit())
    server.stop()
    return found


def _gluster(bench: Bench, disk: Path) -> list[Figure]:
    start = f"""ip address add 10.77.0.1/32 dev lo; echo 10.77.0.1 gl1 >>/etc/hosts
    mkdir -p /var/lib/glusterd /run/gluster {disk}/brick"""
    bench.machine.run(["sh", "-ec", start])
    server = bench.machine.spawn(["glusterd", "--no-daemon"])
    make = f"""until gluster pool list; do sleep 0.1; done
    yes | gluster volume create gv gl1:{disk}/brick force; gluster volume start gv"""
    bench.machine.run(["timeout", "60", "sh", "-ec", make])
    ours = bench.volume("gluster", driver="gluster", share="gl1:/gv")
    words = ["--volfile-server=gl1", "--volfile-id=gv", "--fuse-mountopts=nosuid,nodev", "--log-level=ERROR"]
    argv = ["glusterfs", "--no-daemon", *words, "--process-name=fuse", "{place}"]
    found = alike(bench, "gluster", ours, argv, Unit())
    bench.machine.run(["sh", "-c", "yes | gluster volume stop gv"])
    server.kill9()
    return found


def _rclone(bench: Bench, disk: Path) -> list[Figure]:
    bench.machine.run(["mkdir", f"{disk}/remote"])
    bench.secret("/run/rclone.conf", f"[there]\ntype = alias\nremote = {disk}/remote\n")
    ours = bench.volume("rclone", driver="rclone", remote="there:", config="file:/run/rclone.conf")
    words = f"--config=/run/rclone.conf --allow-other --cache-dir={disk}/{{name}} --vfs-cache-mode=writes"
    words += " --vfs-write-back=1s --contimeout=10s"
    argv = ["rclone", "mount", *words.split(), "there:", "{place}"]
    # What it does besides makes for more chance.
    return alike(bench, "rclone", ours, argv, Unit(file=128))


def _s3(bench: Bench, disk: Path) -> list[Figure]:
    # Room for what all rounds leave.
    store = Seaweed(bench.machine, volumes=300)
    store.start()
    store.make("bench")
    bench.secret("/run/key", SECRET_KEY)
    bench.secret("/run/passwd", f"{ACCESS_KEY}:{SECRET_KEY}")
    keys = {"access_key": ACCESS_KEY, "secret_key": "file:/run/key"}
    ours = bench.volume("s3", driver="s3", bucket="bench", endpoint=store.endpoint, **keys)
    tutorial = f"passwd_file=/run/passwd,nonempty,url={store.endpoint},use_path_request_style"
    same = (
        f"passwd_file=/run/passwd,url={store.endpoint},use_path_request_style,nosuid,nodev,allow_other"
        ",notsup_compat_dir,enable_noobj_cache,listobjectsv2,max_stat_cache_size=100000,multireq_max=50,parallel_count=10"
        ",connect_timeout=10,readwrite_timeout=60,ensure_diskfree=1024,stat_cache_expire=60"
    )
    argv = ["s3fs", "bench", "{place}", "-f", "-o", f"{same},use_cache={disk}/{{name}}"]
    # A fifth of the files: a minute more for each side would be all that this shows.
    found = alike(bench, "s3", ours, argv, Unit(unpacked=60))
    slow = bench.hand("tutorial", "s3fs", "bench", "{place}", "-f", "-o", tutorial)
    a, b = _work(bench, [ours, slow], Unit(unpacked=0, small=30, written=0), alike=False)
    store.stop()
    return [*found, *_compared("s3: {}", a, b, "s3fs, the tutorial's options", ">= 1.5")]


def alike(bench: Bench, name: str, ours: Side, argv: Sequence[str], unit: Unit) -> list[Figure]:
    """Ours beside the two that ``argv`` mounts, and one of these beside the other."""
    mine, hand, again = _work(bench, [ours, *bench.hands(name, *argv)], unit)
    both = {what: [harmonic_mean(pair) for pair in zip(hand[what], again[what], strict=True)] for what in hand}
    figures = _compared(f"{name}: {{}}", mine, both, "mount by hand", ">= 0.97")
    controls = _compared(f"{name}: {{}}, by hand", again, hand, "mount by hand", "")
    return [figure for pair in zip(figures, controls, strict=True) for figure in pair]


def _compared(name: str, ours: Rates, peer: Rates, peer_name: str, goal: str) -> list[Figure]:
    return [compare(name.format(what), "ops/s", ours[what], peer[what], peer_name, goal) for what in ours]


def _work(bench: Bench, sides: Sequence[Side], unit: Unit, *, alike: bool = True) -> list[Rates]:
    """What each side did in each turn, in operations a second."""
    found: list[Rates] = [defaultdict(list) for _ in sides]
    for _ in range(MOUNTS):
        with _mounted(sides) as places:
            if alike and len(options := {bench.options(place) for place in places}) > 1:
                raise RuntimeError(f"mounts that should be alike differ: {options}")
            folders = [f"{place}/side{number}" for number, place in enumerate(places)]
            words = [json.dumps(word) for word in (folders, asdict(unit), ROUNDS)]
            argv = [sys.executable, str(Path(__file__).with_name("turns.py")), *words]
            for all_rates, more in zip(found, json.loads(bench.machine.run(argv, timeout=600).stdout), strict=True):
                for what, rates in more.items():
                    all_rates[what] += rates
    return found


@contextmanager
def _mounted(sides: Sequence[Side]) -> Iterator[list[str]]:
    """All of them at once."""
    with ExitStack() as stack:
        places = []
        for side in sides:
            places.append(side.up())
            stack.callback(side.down)
        yield places
