"""A volume of a real CephFS: one monitor, one store in memory, one metadata server."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.testing.machine import Machine

pytestmark = [pytest.mark.feature("D8"), pytest.mark.timeout(240)]

_CONFIG = """\
[global]
fsid = 7c1c3f5e-6f7a-4f0e-9c55-0c1f4f1f0a11
mon_host = [v1:127.0.0.1:6789]
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_bind_msgr2 = false
osd_objectstore = memstore
memstore_device_bytes = 268435456
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_data = {folder}/mon
osd_data = {folder}/osd
mds_data = {folder}/mds
run_dir = {folder}
osd_crush_update_on_start = false
osd_class_update_on_start = false
admin_socket = {folder}/$name.asok
log_file = {folder}/$name.log
mon_data_avail_crit = 1
mon_data_avail_warn = 1
"""
_START = """
cd {folder}; mkdir mon osd mds
monmaptool --create --addv a '[v1:127.0.0.1:6789]' --fsid 7c1c3f5e-6f7a-4f0e-9c55-0c1f4f1f0a11 --clobber monmap
ceph-mon -c ceph.conf --mkfs -i a --monmap monmap
"""
_MAKE = """
cd {folder}; ceph="ceph -c ceph.conf --connect-timeout 20"
until $ceph mon stat; do sleep 0.2; done
$ceph osd new 11111111-2222-4333-8444-555555555555 0
$ceph osd crush add osd.0 1 root=default host=ceph
ceph-osd -c ceph.conf --mkfs -i 0 --osd-uuid 11111111-2222-4333-8444-555555555555
"""
_FILESYSTEM = """
cd {folder}; ceph="ceph -c ceph.conf --connect-timeout 20"
until $ceph osd stat | grep -q '1 up'; do sleep 0.2; done
$ceph osd pool create meta 1; $ceph osd pool create data 1
$ceph fs new cephfs meta data
"""
_UP = """
cd {folder}; until ceph -c ceph.conf --connect-timeout 20 mds stat | grep -q up:active; do sleep 0.2; done
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with a CephFS of its own."""
    with Machine(tmp_path_factory.mktemp("ceph") / "ceph", "ceph") as machine:
        folder = machine.folder / "cluster"
        folder.mkdir()
        (folder / "ceph.conf").write_text(_CONFIG.format(folder=folder))

        def ask(script: str) -> None:
            machine.run(["timeout", "100", "sh", "-ec", script.format(folder=folder)])

        def start(program: str, name: str) -> None:
            machine.spawn([program, "-c", str(folder / "ceph.conf"), "-f", "-i", name], log=folder / f"{program}.out")

        ask(_START)
        start("ceph-mon", "a")
        ask(_MAKE)
        start("ceph-osd", "0")
        ask(_FILESYSTEM)
        start("ceph-mds", "a")
        ask(_UP)
        yield machine


def orlop(machine: Machine, *words: str, check: bool = True) -> str:
    """The command, on a root of the machine's own."""
    done = machine.run([sys.executable, "-m", "orlop", *words], check=check, env={"ORLOP_NO_ENGINE": "1"}, timeout=100)
    return done.stdout + done.stderr


def test_files_go_to_the_cluster_and_come_back(machine: Machine, tmp_path: Path) -> None:
    subprocess.run(["sh", "-ec", "mkdir -p sub/d; echo text >sub/d/file; tar cf in.tar sub"], cwd=tmp_path, check=True)
    monitor = ["-o", "driver=ceph", "-o", "monitors=127.0.0.1:6789"]

    orlop(machine, "volume", "import", "all", f"{tmp_path}/in.tar", *monitor)
    orlop(machine, "volume", "create", "part", *monitor, "-o", "path=/sub")
    orlop(machine, "volume", "export", "part", "-o", f"{tmp_path}/out.tar")

    shown = subprocess.run(["tar", "xOf", "out.tar", "./d/file"], cwd=tmp_path, capture_output=True, text=True)
    assert shown.stdout == "text\n"
    assert not machine.run(["pgrep", "ceph-fuse"], check=False).stdout
    assert orlop(machine, "system", "check") == "all is well\n"


def test_a_cluster_that_does_not_answer_is_an_error_in_time(machine: Machine, tmp_path: Path) -> None:
    orlop(machine, "volume", "create", "away", "-o", "driver=ceph", "-o", "monitors=127.0.0.1:6788")

    begun = time.monotonic()
    said = orlop(machine, "volume", "export", "away", "-o", f"{tmp_path}/out.tar", check=False)

    assert "mount of '127.0.0.1:6788:/' by ceph-fuse" in said
    assert time.monotonic() - begun < 60
    assert not machine.run(["pgrep", "ceph-fuse"], check=False).stdout
    assert orlop(machine, "system", "check") == "all is well\n"
