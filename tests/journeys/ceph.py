"""A real CephFS on a machine: one monitor, one store in memory, one metadata server; with keys, and open to none."""

import signal
from pathlib import Path

from orlop.testing.machine import Machine
from orlop.testing.process import Process, stand_still

USER, MONITOR = "orlop", "127.0.0.1:6789"
_FSID = "7c1c3f5e-6f7a-4f0e-9c55-0c1f4f1f0a11"
_CONFIG = f"""\
[global]
fsid = {_FSID}
mon_host = [v1:{MONITOR}]
auth_cluster_required = cephx
auth_service_required = cephx, none
auth_client_required = cephx, none
keyring = {{folder}}/keyring
ms_bind_msgr2 = false
osd_objectstore = memstore
osd_heartbeat_interval = 1
memstore_device_bytes = {{room}}
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_data = {{folder}}/mon
osd_data = {{folder}}/osd
mds_data = {{folder}}/mds
run_dir = {{folder}}
osd_crush_update_on_start = false
osd_class_update_on_start = false
admin_socket = {{folder}}/$name.asok
log_file = {{folder}}/$name.log
mon_data_avail_crit = 1
mon_data_avail_warn = 1
"""
_ALL = "--cap mon 'allow *' --cap osd 'allow *' --cap mds 'allow *' --cap mgr 'allow *'"
_START = f"""
mkdir mon osd mds
ceph-authtool --create-keyring keyring --gen-key -n mon. --cap mon 'allow *'
for name in client.admin osd.0 mds.a mgr.a; do ceph-authtool keyring --gen-key -n $name {_ALL}; done
ceph-authtool keyring --gen-key -n client.{USER} --cap mon 'allow r' --cap osd 'allow rw' --cap mds 'allow rw'
ceph-authtool keyring -p -n client.{USER} >key
monmaptool --create --addv a '[v1:{MONITOR}]' --fsid {_FSID} --clobber monmap
ceph-mon -c ceph.conf --mkfs -i a --monmap monmap --keyring keyring
"""
_MAKE = """
until $ceph mon stat; do sleep 0.2; done
$ceph osd new 11111111-2222-4333-8444-555555555555 0
$ceph osd crush add osd.0 1 root=default host=ceph
ceph-osd -c ceph.conf --mkfs -i 0 --osd-uuid 11111111-2222-4333-8444-555555555555
"""
_FILESYSTEM = """
until $ceph osd stat | grep -q '1 up'; do sleep 0.2; done
$ceph osd pool create meta 1; $ceph osd pool create data 1
$ceph fs new cephfs meta data
"""
_UP = "until $ceph mds stat | grep -q up:active; do sleep 0.2; done"


class Ceph:
    """The cluster, with ``room`` bytes; its monitor is `MONITOR`, its account `USER` has the key in the file `key`."""

    def __init__(self, machine: Machine, room: int = 256 << 20) -> None:
        self.machine, self.folder = machine, machine.folder / "cluster"
        self.folder.mkdir()
        self._daemons: list[Process] = []
        (self.folder / "ceph.conf").write_text(_CONFIG.format(folder=self.folder, room=room))

    def start(self) -> None:
        """Make it, and wait until files can be kept in it."""
        self.ask(_START)
        self._spawn("ceph-mon", "a")
        self.ask(_MAKE)
        self._spawn("ceph-osd", "0")
        self.ask(_FILESYSTEM)
        self._spawn("ceph-mds", "a")
        self.ask(_UP)

    @property
    def key(self) -> Path:
        """The file with the account's key."""
        return self.folder / "key"

    def fill(self) -> None:
        """Somebody else takes all the room: up to the ratio at which a cluster takes no more."""
        self.ask("""
        $ceph osd set-nearfull-ratio 0.08; $ceph osd set-backfillfull-ratio 0.09; $ceph osd set-full-ratio 0.1
        head -c 33554432 /dev/zero >more; rados -c ceph.conf -p data put more more
        until $ceph osd dump | grep -q '^osd.0.*exists,full'; do sleep 0.5; done
        """)

    def free(self) -> None:
        """That is gone again."""
        self.ask("rados -c ceph.conf -p data rm --force-full more")

    def silence(self) -> None:
        """From now on it is there and says nothing."""
        for daemon in self._daemons:
            stand_still(daemon.pid)

    def speak(self) -> None:
        """It goes on where it was."""
        for daemon in self._daemons:
            daemon.send(signal.SIGCONT)
            daemon.go_on()

    def ask(self, script: str) -> str:
        """What a script prints; ``$ceph`` is the command."""
        ceph = "ceph='ceph -c ceph.conf --connect-timeout 20'"
        return self.machine.run(["timeout", "100", "sh", "-ec", f"cd {self.folder}; {ceph}\n{script}"]).stdout

    def _spawn(self, program: str, name: str) -> None:
        argv = [program, "-c", str(self.folder / "ceph.conf"), "-f", "-i", name]
        self._daemons.append(self.machine.spawn(argv, log=self.folder / f"{program}.out"))
