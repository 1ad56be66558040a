"""A CephFS volume beside the same mount made by hand: as in `driver_remote`, with a cluster in memory of its own.

The cluster is one monitor, one store and one metadata server, on the machine that mounts.
"""

from tests.journeys.ceph import MONITOR, USER, Ceph

from driver_remote import Bench, alike, one_processor
from figures import Figure
from plugin_verbs import Plugin, memory_disk, start_orlop, until
from turns import Unit


def measure() -> list[Figure]:
    with one_processor(), memory_disk("2G") as (machine, disk):
        plugin = Plugin(start_orlop(machine, disk / "orlop"))
        until(lambda: plugin.connect() is None)
        bench = Bench(machine, plugin)
        plugin.sock.settimeout(120)  # what was deleted is waited for at the end
        cluster = Ceph(machine, 8 << 30)
        cluster.start()
        ours = bench.volume("ceph", driver="ceph", monitors=MONITOR, user=USER, key=f"file:{cluster.key}")
        words = ["-m", MONITOR, "--id", USER, "--keyfile", str(cluster.key), "-r", "/", "--no-mon-config"]
        argv = ["ceph-fuse", "-f", "-c", "/dev/null", *words, "-o", "nosuid,nodev,allow_other", "{place}"]
        return alike(bench, "ceph", ours, argv, Unit(file=128))
