"""Remote volumes beside the same mount made by hand: small files, fio, the unpacking of 20,000 files in eight parts.

The servers run on the same machine, so that the network hides nothing. S3 is held against s3fs with the options of a
tutorial, too. Sides take turns: each is first in every other round, and rounds are short, for servers get slower with
what they have.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from figures import Figure, compare
from plugin_verbs import Plugin, memory_disk, start_orlop, until

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.journeys.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed
from tests.journeys.sshd import Sshd

from orlop.testing.machine import Machine

ROUNDS, FILES = 8, 2_500
JOBS = {
    "sequential write": "--rw=write --bs=1M --size=64M --end_fsync=1",
    "sequential read": "--rw=read --bs=1M --size=64M",
    "random read 4k": "--rw=randread --bs=4k --size=32M --io_size=16M",
}
_ID = "1" * 64
ARCHIVE = """
import io, tarfile
def archive(files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as packed:
        for number in range(files):
            entry = tarfile.TarInfo(f"{number % 50}/{number}")
            entry.size = 2048
            packed.addfile(entry, io.BytesIO(bytes(2048)))
    return content.getvalue()
"""
_WORK = (
    ARCHIVE
    + """
import json, os, shlex, subprocess, sys, time
place, small, files, jobs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
found = {}
def took(name, amount, work):
    began = time.perf_counter(); work(); found[name] = amount / (time.perf_counter() - began)
def write():
    for number in range(small):
        with open(f"{place}/d{number % 10}/f{number}", "wb") as file: file.write(b"x" * 2048)
def read():
    for number in range(small):
        with open(f"{place}/d{number % 10}/f{number}", "rb") as file: file.read()
def unpack():
    packed, tar = archive(files), ["tar", "-x", "--no-same-owner", "-C", f"{place}/untar"]
    os.mkdir(f"{place}/untar")
    took("unpacking", files, lambda: subprocess.run(tar, input=packed, check=True))
for number in range(10): os.mkdir(f"{place}/d{number}")
took("small files written", small, write)
took("small files read", small, read)
if files: unpack()
for name, options in jobs.items():
    fio = ["fio", "--name=fio", f"--directory={place}", "--output-format=json", "--fallocate=none", "--randseed=7"]
    done = subprocess.run([*fio, *shlex.split(options)], capture_output=True, check=True)
    found[name] = json.loads(done.stdout)["jobs"][0]["write" if "rw=write" in options else "read"]["iops"]
subprocess.run(f"rm -rf {place}/*", shell=True, check=True)
print(json.dumps(found))
"""
)


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
        """What a person types; ``{place}`` is where it is mounted."""
        place = f"/run/hand-{name}"
        self.machine.run(["mkdir", place])

        def up() -> str:
            self.machine.run([word.format(place=place) for word in argv])
            self.machine.run(["timeout", "20", "sh", "-c", f"until mountpoint -q {place}; do sleep 0.05; done"])
            return place

        return Side(up, lambda: self.machine.run(["umount", place]))

    def secret(self, path: str, text: str) -> None:
        self.machine.run(["sh", "-c", f"umask 077; cat >{path}"], input=text)


def measure() -> list[Figure]:
    with memory_disk("6G") as (machine, disk):
        plugin = Plugin(start_orlop(machine, disk / "orlop"))
        until(lambda: plugin.connect() is None)
        bench = Bench(machine, plugin)
        return [*_ssh(bench), *_gluster(bench, disk), *_rclone(bench, disk), *_s3(bench)]


def _ssh(bench: Bench) -> list[Figure]:
    server = Sshd(bench.machine, "node2")
    server.start()
    ours = bench.volume("ssh", driver="sshfs", sshcmd="test@node2:/home/test", key=f"file:{server.key}")
    words = f"nosuid,nodev,allow_other,reconnect,ServerAliveInterval=15,IdentityFile={server.key}"
    words += ",StrictHostKeyChecking=no,UserKnownHostsFile=/run/known"
    hand = bench.hand("ssh", "sshfs", "test@node2:/home/test", "{place}", "-o", words)
    found = _paths(bench.machine, "sshfs", ours, hand)
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
    hand = bench.hand("gluster", "glusterfs", "--volfile-server=gl1", "--volfile-id=gv", "{place}")
    found = _paths(bench.machine, "gluster", ours, hand)
    bench.machine.run(["sh", "-c", "yes | gluster volume stop gv"])
    server.kill9()
    return found


def _rclone(bench: Bench, disk: Path) -> list[Figure]:
    bench.machine.run(["mkdir", f"{disk}/remote"])
    bench.secret("/run/rclone.conf", f"[there]\ntype = alias\nremote = {disk}/remote\n")
    ours = bench.volume("rclone", driver="rclone", remote="there:", config="file:/run/rclone.conf")
    words = f"--config=/run/rclone.conf --allow-other --cache-dir={disk}/cache --vfs-cache-mode=writes"
    argv = ["rclone", "mount", *words.split(), "--vfs-write-back=1s", "--daemon", "there:", "{place}"]
    return _paths(bench.machine, "rclone", ours, bench.hand("rclone", *argv))


def _s3(bench: Bench) -> list[Figure]:
    # Room for what all rounds leave.
    store = Seaweed(bench.machine, volumes=150)
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
        ",connect_timeout=10,readwrite_timeout=60,use_cache=/run/s3cache,ensure_diskfree=1024,stat_cache_expire=60"
    )
    hand = bench.hand("s3", "s3fs", "bench", "{place}", "-o", same)
    slow = bench.hand("tutorial", "s3fs", "bench", "{place}", "-o", tutorial)
    # A tenth of the files: a minute for each side and round would be all that this shows.
    found = _paths(bench.machine, "s3", ours, hand, small=200, files=FILES // 10)
    more = _paths(bench.machine, "s3", ours, slow, "s3fs, the tutorial's options", ">= 1.5", 200, 0, {})
    store.stop()
    return [*found, *more]


def _paths(
    machine: Machine,
    name: str,
    ours: Side,
    hand: Side,
    peer: str = "mount by hand",
    goal: str = ">= 0.97",
    small: int = 500,
    files: int = FILES,
    jobs: dict[str, str] = JOBS,
) -> list[Figure]:
    rounds = []
    for number in range(ROUNDS):
        found = {}
        # Each is first in every other round: a server gets slower, or warmer.
        for side in (ours, hand) if number % 2 else (hand, ours):
            with _mounted(side) as place:
                argv = [sys.executable, "-c", _WORK, place, str(small), str(files), json.dumps(jobs)]
                found[side] = json.loads(machine.run(argv, timeout=600).stdout)
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
