"""What Docker's users rely on and the documents do not spell out, through a real engine, with orlop's volumes."""

import os
import subprocess
import sys

import pytest
from tests.journeys.lab import every_engine

from orlop.testing.waiting import eventually

pytestmark = pytest.mark.timeout(180)

# A folder's size and time are its filesystem's business.
LOOK = r"find /data -type d -printf '%P|%y|%m|%U:%G|%n\n' -o -printf '%P|%y|%m|%U:%G|%n|%l|%s|%T@\n' | sort"
FURNISH = (
    "mkdir -p /data/sub/empty && echo hello >/data/file && ln /data/file /data/sub/hard && "
    "ln -s ../file /data/sub/soft && "
    "ln -s /nowhere /data/broken && mkfifo /data/pipe && head -c 3000000 /dev/zero >/data/zeros && "
    "touch -d 2001-02-03 /data/old && chown 7:8 /data/sub /data/file && chown -h 9 /data/sub/soft && "
    "chmod 4751 /data/file && chmod 1770 /data/sub && chmod 2705 /data && chown 33:44 /data"
)
IN_MEMORY = "volume-driver=orlop,volume-opt=driver=tmpfs,volume-opt=size=1m,volume-opt=mode=700"
# cap_net_raw=ep as the kernel stores it (VFS_CAP_REVISION_2).
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.fixture(params=["local", "orlop", "orlop size=64m"])
def volume(request, lab):
    """A new volume ``vol`` of Docker's own driver, or of orlop: a folder, or a filesystem of its own."""
    driver, *options = request.param.split()
    lab.sh(f"docker volume create -d {driver} {' '.join(f'-o {option}' for option in options)} volol")
    return driver


@pytest.fixture
def furnished(lab):
    """An image that has at ``/data`` all that files can be."""
    lab.sh(f'docker run --name maker ubuntu bash -c "{FURNISH}"')
    upper = lab.out("docker inspect -f '{{.GraphDriver.Data.UpperDir}}' maker")
    os.setxattr(lab.inside(f"{upper}/data/zeros"), "security.capability", CAPABILITY)
    lab.sh("docker commit maker furnished")
    yield "furnished"
    lab.sh("docker ps -aq | xargs -r docker rm -f; docker rmi -f furnished")


@pytest.mark.feature("V1")
@every_engine
def test_a_volume_a_bind_and_a_tmpfs_look_the_same_from_inside(lab):
    use = (
        "cd /data && echo text >f && chmod 640 f && ln -s f l && mkdir d && mv f d/ && ln d/f h && chown 5:6 h && "
        "find . | sort && stat -c '%n %a %u:%g %s %h' d/f && cat h && mkdir x && rmdir x && rm l && ls -A"
    )
    kinds = (
        "-v named:/data",
        "-v /data",
        "--volume-driver orlop -v orlops:/data",
        "--mount type=volume,source=sized,target=/data,volume-driver=orlop,volume-opt=size=16m",
        "-v /srv/bound:/data",
        "--tmpfs /data",
        "--mount type=tmpfs,target=/data",
        "--mount type=volume,source=memory,target=/data,volume-driver=orlop,volume-opt=driver=tmpfs",
    )

    seen = {lab.out(f'docker run --rm {kind} busybox sh -c "{use}"') for kind in kinds}

    assert seen == {".\n./d\n./d/f\n./h\n./l\nd/f 640 5:6 5 2\ntext\nd\nh"}


@pytest.mark.part("V2")
@every_engine
def test_a_missing_bind_source_is_made_for_v_and_refused_for_mount(lab):
    lab.sh("docker run --rm -v /srv/made/for/you:/data:rprivate,z busybox touch /data/mark")

    error = lab.refused("docker run --rm --mount type=bind,source=/srv/missing,target=/data busybox true")

    assert lab.out("ls /srv/made/for/you") == "mark"
    assert "bind source path does not exist: /srv/missing" in error
    assert not lab.inside("/srv/missing").exists()


@pytest.mark.part("V2", "V3")
@every_engine
def test_v_and_mount_say_the_same_about_orlops_volumes(lab):
    lab.sh("docker volume create -d orlop vol")
    pairs = (
        ("-v vol:/data:ro", "--mount readonly,target=/data,source=vol"),
        ("-v vol:/data:ro", "--mount dst=/data,ro,type=volume,src=vol"),
        ("-v vol:/data:nocopy", "--mount destination=/data,volume-nocopy=true,source=vol"),
        ("-v vol:/data:z", "--mount src=vol,dst=/data"),
    )

    for by_v, by_mount in pairs:
        one, other = (lab.out(f"docker create {flag} busybox") for flag in (by_v, by_mount))
        first, second = lab.mounts(one)["/data"], lab.mounts(other)["/data"]
        assert {**first, "Mode": ""} == {**second, "Mode": ""}
        assert first["Driver"] == "orlop"


@pytest.mark.feature("V4")
@pytest.mark.parametrize(
    "flag",
    [
        "--tmpfs /secret:size=1m,mode=0700",
        "--mount type=tmpfs,target=/secret,tmpfs-size=1m,tmpfs-mode=0700",
        f"--mount source=memory,target=/secret,{IN_MEMORY}",
    ],
)
@every_engine
def test_what_is_in_a_tmpfs_never_touches_the_disk_and_goes_with_the_container(lab, flag):
    marker = f"marker-{os.urandom(16).hex()}"
    lab.sh(f"docker run -d --name holder --init {flag} -v control:/control busybox sleep 600")

    lab.sh("docker exec -i holder sh -c 'cat >/secret/file'", typed=marker)
    lab.sh("sync")
    nowhere = _files_with(lab, marker)
    kept = lab.out("docker exec holder cat /secret/file")
    looks = lab.out("docker exec holder sh -c 'stat -c %a /secret; df -k /secret'").split()
    lab.sh("docker exec -i holder sh -c 'cat >/control/file'", typed=marker)
    found = _files_with(lab, marker)
    lab.sh("docker restart -t 1 holder")

    assert (kept, nowhere, len(found)) == (marker, [], 1)
    assert (looks[0], looks[-6], looks[-5]) == ("700", "tmpfs", "1024")
    assert lab.out("docker exec holder ls -A /secret") == ""


@pytest.mark.feature("V5")
@every_engine
def test_volumes_are_named_listed_by_filter_and_refused_while_in_use(lab):
    generated = lab.out("docker volume create -d orlop")
    lab.sh("docker volume create -d orlop --label team=blue data1; docker volume create data2")
    user = lab.out("docker run -d --name user --init -v data1:/data busybox sleep 600")

    def listed(filter_):
        return set(lab.out(f"docker volume ls -q --filter {filter_}").split())

    assert len(generated) == 64
    assert listed("name=data") == {"data1", "data2"}
    assert listed("driver=orlop") == {generated, "data1"}
    assert listed("dangling=true") == {generated, "data2"}
    assert listed("dangling=false") == {"data1"}
    assert listed("label=team=blue") == {"data1"}
    assert lab.out("docker volume ls --filter name=data1 --format '{{.Driver}}:{{.Name}}'") == "orlop:data1"
    assert f"volume is in use - [{user}]" in lab.refused("docker volume rm data1")
    assert "volume is in use" in lab.refused("docker volume rm -f data1")
    lab.sh("docker rm -f user; docker volume rm data1; docker volume rm -f never-there")
    assert "no such volume" in lab.refused("docker volume rm never-there").lower()


@pytest.mark.feature("V7")
@every_engine
def test_a_new_volume_gets_all_that_the_image_has_there(lab, volume, furnished):
    original = lab.out(f'docker run --rm {furnished} bash -c "{LOOK}"')

    copied = lab.out(f'docker run --name first -v vol:/data {furnished} bash -c "{LOOK}"')
    lab.sh("docker run -d --name holder --init -v vol:/data busybox sleep 600")
    mountpoint = lab.inside(lab.volume("vol")["Mountpoint"])

    assert copied == original
    assert "file|f|4751|7:8|2||6|" in copied
    assert (mountpoint / "file").stat().st_ino == (mountpoint / "sub/hard").stat().st_ino
    assert os.getxattr(mountpoint / "zeros", "security.capability") == CAPABILITY


@pytest.mark.part("V7", "V3")
@pytest.mark.parametrize("flag", ["-v vol:/data:nocopy", "--mount source=vol,target=/data,volume-nocopy"])
@every_engine
def test_nocopy_leaves_a_new_volume_empty(lab, volume, furnished, flag):
    assert lab.out(f"docker run --rm {flag} {furnished} ls -A /data") == ""


@pytest.mark.part("V7")
def test_a_volume_that_holds_something_obscures_what_the_image_has_there(lab, volume, furnished):
    lab.sh("docker run --rm -v vol:/anywhere busybox touch /anywhere/mine")

    seen = lab.out(f"docker run --rm -v vol:/data {furnished} ls -A /data")
    bound = lab.out(f"docker run --rm -v /srv/bound:/data {furnished} ls -A /data")

    assert (seen, bound) == ("mine", "")
    assert "hello" in lab.out(f"docker run --rm {furnished} cat /data/file")


@pytest.mark.feature("V8")
@every_engine
def test_one_container_reads_only_while_another_writes(lab, volume):
    lab.sh("docker run -d --name writer --init -v vol:/data busybox sleep 600")
    lab.sh("docker run -d --name reader --init -v vol:/data:ro busybox sleep 600")

    lab.sh("docker exec writer sh -c 'echo first >/data/file'")
    first = lab.out("docker exec reader cat /data/file")
    refused = lab.refused("docker exec reader sh -c 'echo mine >/data/file'")
    lab.sh("docker exec writer sh -c 'echo second >/data/file'")

    assert first == "first"
    assert "Read-only file system" in refused
    assert lab.out("docker exec reader cat /data/file") == "second"


@pytest.mark.part("V12")
@every_engine
def test_a_missing_option_is_refused_with_dockers_words(lab):
    for options in ("-o type=tmpfs", "-o device=tmpfs", "-o o=size=1m", "-o type=tmpfs -o o=size=1m"):
        theirs = lab.refused(f"docker volume create {options} vol")
        ours = lab.refused(f"docker volume create -d orlop {options} vol")

        words = theirs.strip().rsplit(": ", 2)[-2:]
        assert words[0] == "missing required option"
        assert ours.strip().endswith(": ".join(words))
    assert lab.volumes() == set()


@pytest.mark.part("V12")
@every_engine
def test_type_device_and_o_mount_a_tmpfs_and_a_bind(lab, driver):
    lab.sh("mkdir -p /srv/shared && echo here >/srv/shared/file")
    lab.sh(f"docker volume create -d {driver} -o type=tmpfs -o device=tmpfs -o o=size=2m,uid=7,noexec memory")
    lab.sh(f"docker volume create -d {driver} -o type=none -o device=/srv/shared -o o=bind shared")

    looks = lab.out("docker run --rm -v memory:/m busybox sh -c 'df -k /m; stat -c %u /m; grep /m /proc/mounts'")
    lab.sh("docker run --rm -v shared:/s busybox cp /s/file /s/copy")
    lab.sh("docker volume rm memory shared")

    assert "2048" in looks
    assert "\n7\n" in looks
    assert "noexec" in looks
    assert lab.out("cat /srv/shared/copy") == "here"


@pytest.mark.part("V12")
def test_type_device_and_o_mount_a_btrfs(lab, driver):
    lab.sh("truncate -s 128m disk && mkfs.btrfs -q disk")
    device = lab.out("losetup --find --show disk")
    try:
        lab.sh(f"docker volume create -d {driver} -o type=btrfs -o device={device} -o o=compress=zstd,noatime tree")
        lab.sh("docker run --rm -v tree:/data busybox touch /data/kept")
        seen = lab.out("docker run --rm -v tree:/data busybox sh -c 'grep /data /proc/mounts; ls /data'")
        lab.sh("docker volume rm tree")
    finally:
        lab.sh(f"losetup -d {device}")

    assert " btrfs " in seen
    assert "compress=zstd" in seen
    assert seen.endswith("\nkept")


@pytest.mark.part("V12")
@pytest.mark.parametrize(
    ("kind", "device", "o"),
    [("nfs", ":/export", "addr=127.0.0.1,vers=4"), ("cifs", "//127.0.0.1/share", "addr=127.0.0.1")],
)
def test_nfs_and_cifs_reach_the_kernel_and_its_answer_reaches_the_user(lab, driver, kind, device, o):
    lab.sh(f"docker volume create -d {driver} -o type={kind} -o device={device} -o o={o} far")

    error = lab.refused("docker run --rm -v far:/data busybox true")

    # No server is there; on many kernels the filesystem is not either.
    assert any(word in error.lower() for word in ("no such device", "refused", "timed out", "unknown filesystem"))
    if driver == "orlop" and kind not in lab.out("cat /proc/filesystems").split():
        assert f"this kernel has no filesystem '{kind}'" in error
    assert lab.sh("grep -c ' /export \\|/share ' /proc/mounts", check=False).stdout.strip() == "0"
    lab.sh("docker volume rm far")


@pytest.mark.feature("V13")
def test_postgresql_that_is_killed_has_every_row_that_it_acknowledged(lab):
    run = "-v pgdata:/var/lib/postgresql/data -e POSTGRES_PASSWORD=secret postgres"
    lab.sh("docker volume create -d orlop pgdata")
    lab.sh(f"docker run -d --name db1 {run}")
    _wait_for_postgres(lab, "db1")
    lab.sh('docker exec db1 psql -qc "create table dummy (id int primary key)"')
    insert = 'i=0; while :; do i=$((i+1)); psql -qc "insert into dummy values ($i)" && echo $i; done'
    log = lab.home / "acknowledged"
    writer = lab.start(f"docker exec db1 sh -c '{insert}' >{log} 2>/dev/null")
    eventually(lambda: log.exists() and log.read_text().count("\n") > 20)

    lab.sh("docker kill -s KILL db1")
    writer.wait()
    acknowledged = [int(number) for number in log.read_text().split()]
    lab.sh("docker rm db1")
    lab.sh(f"docker run -d --name db2 {run}")
    _wait_for_postgres(lab, "db2")
    rows = [int(row) for row in lab.out('docker exec db2 psql -Atc "select id from dummy order by id"').split()]

    assert acknowledged == list(range(1, len(acknowledged) + 1))
    assert rows[: len(acknowledged)] == acknowledged
    assert len(rows) <= len(acknowledged) + 1
    lab.sh("docker exec db2 psql -qc 'reindex table dummy'")


@pytest.mark.part("V15")
@pytest.mark.parametrize(("size", "fs"), [("16m", "ext4"), ("320m", "xfs")])
def test_a_size_is_a_limit_inside_and_no_burden_outside(lab, size, fs):
    lab.sh(f"docker volume create -d orlop -o size={size} vol")
    limit = int(size[:-1]) << 20
    image = lab.root / "volumes" / os.path.basename(lab.volume("vol")["Mountpoint"]) / "image"
    reserved = image.stat().st_blocks * 512

    df = lab.out("docker run --rm -v vol:/data busybox sh -c 'grep /data /proc/mounts; df -k /data; ls -A /data'")
    fill = "docker run --rm -v vol:/data busybox dd if=/dev/zero of=/data/big bs=1M count=400"
    full = lab.refused(fill)
    got = int(lab.out("docker run --rm -v vol:/data busybox stat -c %s /data/big"))
    free = lab.out("docker run --rm -v vol:/data busybox df -k /data").split()

    total, available = int(df.split()[-5]), int(df.split()[-3])
    assert f" {fs} " in df
    assert df.endswith("/data")
    assert 0.75 * limit < total * 1024 <= limit
    assert "No space left on device" in full
    # What df promised is what a file could get.
    assert 0.95 * available * 1024 < got <= available * 1024
    assert int(free[-3]) < 1024
    # The host gave all of it at the beginning, and nothing since.
    assert limit <= reserved <= 1.05 * limit + (1 << 20)
    assert image.stat().st_blocks * 512 <= reserved + (1 << 16)


@pytest.mark.feature("D1")
def test_a_folder_of_yours_outlives_the_volume(lab):
    lab.sh("docker volume create -d orlop -o mountpoint=/srv/precious vol")
    lab.sh("docker run --rm -v vol:/data busybox touch /data/kept")

    lab.sh("docker volume rm vol")
    after = lab.out("ls /srv/precious")
    lab.sh("docker volume create -d orlop -o mountpoint=/srv/precious again")

    assert after == "kept"
    assert lab.out("docker run --rm -v again:/data busybox ls /data") == "kept"


@pytest.mark.part("P3")
@every_engine
def test_ls_shows_orlops_volumes_and_rm_removes_one_only(lab):
    lab.sh("docker volume create -d orlop one; docker volume create -d orlop two; docker volume create three")

    before = lab.out("docker volume ls --format '{{.Driver}} {{.Name}}'").splitlines()
    removed = lab.out("docker volume rm one")

    assert sorted(before) == ["local three", "orlop one", "orlop two"]
    assert removed == "one"
    assert lab.volumes() == {"two", "three"}


@pytest.mark.part("P11")
@every_engine
def test_a_killed_plugin_is_not_missed_by_running_containers_and_knows_all_when_it_is_back(lab):
    lab.sh("docker volume create -d orlop --label a=b -o size=16m vol")
    lab.sh("docker run -d --name user --init -v vol:/data busybox sleep 600")
    before = lab.volume("vol")

    lab.kill_orlop()
    lab.sh("docker exec user sh -c 'echo meanwhile >/data/file'")
    lab.serve()

    assert lab.volume("vol") == before
    lab.sh("docker rm -f user")
    assert lab.out("docker run --rm -v vol:/data busybox cat /data/file") == "meanwhile"
    lab.sh("docker volume rm vol")
    assert str(lab.root) not in lab.out("cat /proc/mounts")


_SHELF = '''
"""A driver from elsewhere: folders in a folder of its own, with a colour."""

from orlop.errors import Invalid
from orlop.mount import Mount


class Shelf:
    scope = "local"

    def __init__(self, folder):
        self._folder = folder

    def options(self):
        return {"colour": "red or blue"}

    def create(self, volume):
        colour = volume.options.get("colour", "red")
        if colour not in ("red", "blue"):
            raise Invalid(f"option 'colour' is {colour!r}; it can be red or blue")
        self._place(volume).mkdir(parents=True, exist_ok=True)
        self._place(volume).joinpath("colour").write_text(colour)

    def remove(self, volume):
        place = self._place(volume)
        for file in place.iterdir() if place.exists() else ():
            file.unlink()
        if place.exists():
            place.rmdir()

    def attach(self, volume):
        return [Mount.bind(self._place(volume))]

    def detach(self, volume):
        pass

    def _place(self, volume):
        return self._folder / volume.key
'''
_SHELF_TEST = """
import pytest
from shelf import Shelf
from orlop.testing.drivers import VolumeDriverContract


class TestShelf(VolumeDriverContract):
    options = {"colour": "blue"}
    refused = {"colour": "green"}

    @pytest.fixture
    def driver(self, tmp_path):
        return Shelf(tmp_path / "shelf")
"""


@pytest.mark.feature("D11")
def test_a_driver_from_another_package_passes_the_contract_and_serves_docker(lab, tmp_path):
    package = tmp_path / "site"
    information = package / "shelf-1.0.dist-info"
    information.mkdir(parents=True)
    (package / "shelf.py").write_text(_SHELF)
    (package / "test_shelf.py").write_text(_SHELF_TEST)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[orlop.volume_drivers]\nshelf = shelf:Shelf\n")
    environment = {**os.environ, "PYTHONPATH": str(package)}

    contract = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", package],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert contract.returncode == 0, contract.stdout
    assert "passed" in contract.stdout

    lab.kill_orlop()
    lab.serve(PYTHONPATH=str(package))
    refused = lab.refused("docker volume create -d orlop -o driver=shelf -o colour=green books")
    lab.sh("docker volume create -d orlop -o driver=shelf -o colour=blue books")
    colour = lab.out("docker run --rm -v books:/data busybox cat /data/colour")
    lab.sh("docker volume rm books")
    lab.kill_orlop()
    lab.serve()

    assert "option 'colour' is 'green'; it can be red or blue" in refused
    assert colour == "blue"
    assert "no volume driver 'shelf'" in lab.refused("docker volume create -d orlop -o driver=shelf books")


def _files_with(lab, marker):
    """Files on the machine's disk that hold the marker, as the host finds them."""
    found = subprocess.run(["grep", "-rlF", "--devices=skip", marker, str(lab.folder)], capture_output=True, text=True)
    assert found.returncode in (0, 1), found.stderr
    return found.stdout.split()


def _wait_for_postgres(lab, container):
    eventually(lambda: lab.sh(f"docker exec {container} pg_isready -h 127.0.0.1", check=False).returncode == 0)
