"""A bucket volume beside the mounts that others make of a bucket, rclone's and s3fs', on one SeaweedFS.

They keep every file as an object, so that others can read it there; a bucket volume keeps snapshots. What it costs a
program to unpack an archive, and a database to commit.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.journeys.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

from driver_remote import Bench, Side
from figures import Figure, compare
from plugin_verbs import Plugin, memory_disk, start_orlop, until
from volume_io import archive

ROUNDS, FILES, COMMITS = 3, 500, 50
_WORK = """
import json, os, sqlite3, subprocess, sys, time
place, archive, files, commits = *sys.argv[1:3], *map(int, sys.argv[3:])
os.makedirs(f"{place}/untar")
began = time.perf_counter()
subprocess.run(["tar", "-xf", archive, "--no-same-owner", "-C", f"{place}/untar"], check=True)
unpacked = time.perf_counter() - began
db = sqlite3.connect(f"{place}/db", isolation_level=None)
db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)")
began = time.perf_counter()
for number in range(commits):
    db.execute("INSERT INTO t VALUES (?, ?)", (number, "x" * 200))
committed = time.perf_counter() - began
db.close()
print(json.dumps({"unpacking": files / unpacked, "SQLite commits": commits / committed}))
"""


def measure() -> list[Figure]:
    with memory_disk("6G", "xfs") as (machine, disk):
        plugin = Plugin(start_orlop(machine, disk / "orlop"))
        until(lambda: plugin.connect() is None)
        bench = Bench(machine, plugin)
        store = Seaweed(machine)
        store.start()
        for bucket in ("ours", "rclone", "s3fs"):
            store.make(bucket)
        sides = {"ours": _ours(bench, store), "rclone": _rclone(bench, store, disk), "s3fs": _s3fs(bench, store)}
        packed = disk.parent / "files.tar"
        archive(packed, FILES)
        rounds = [{name: _round(bench, side, packed, turn) for name, side in sides.items()} for turn in range(ROUNDS)]
        store.stop()
    return list(_compared(rounds))


def _compared(rounds: list[dict[str, dict[str, float]]]) -> Iterator[Figure]:
    for peer in ("rclone", "s3fs"):
        for what in ("unpacking", "SQLite commits"):
            ours, theirs = ([found[side][what] for found in rounds] for side in ("ours", peer))
            yield compare(f"{what}, beside {peer}", "ops/s", ours, theirs, f"{peer} mount", ">= 10")


def _round(bench: Bench, side: Side, packed: Path, turn: int) -> dict[str, float]:
    place = side.up()
    try:
        # A folder of its own for each: what was deleted in a mount may come back with the next one.
        argv = [sys.executable, "-c", _WORK, f"{place}/{turn}", str(packed), str(FILES), str(COMMITS)]
        found: dict[str, float] = json.loads(bench.machine.run(argv, timeout=600).stdout)
        return found
    finally:
        side.down()


def _ours(bench: Bench, store: Seaweed) -> Side:
    bench.secret("/run/key", SECRET_KEY)
    bench.secret("/run/password", "a password")
    where = {"store": "s3://ours/volumes", "endpoint": store.endpoint, "region": "us-east-1"}
    keys = {"access_key": ACCESS_KEY, "secret_key": "file:/run/key", "password": "file:/run/password"}
    return bench.volume("ours", driver="bucket", size="1g", **where, **keys)


def _rclone(bench: Bench, store: Seaweed, disk: object) -> Side:
    remote = f"type = s3\nprovider = SeaweedFS\nendpoint = {store.endpoint}\nregion = us-east-1\n"
    remote += f"access_key_id = {ACCESS_KEY}\nsecret_access_key = {SECRET_KEY}\n"
    bench.secret("/run/rclone.conf", f"[there]\n{remote}")
    words = f"--config=/run/rclone.conf --cache-dir={disk}/cache --vfs-cache-mode=writes --vfs-write-back=1s --daemon"
    return bench.hand("rclone", "rclone", "mount", *words.split(), "there:rclone", "{place}")


def _s3fs(bench: Bench, store: Seaweed) -> Side:
    bench.secret("/run/passwd", f"{ACCESS_KEY}:{SECRET_KEY}")
    words = f"passwd_file=/run/passwd,url={store.endpoint},use_path_request_style"
    return bench.hand("s3fs", "s3fs", "s3fs", "{place}", "-o", words)
