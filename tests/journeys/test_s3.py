"""A bucket as a volume: on a real store, through s3fs, beside the mount that the tutorial makes by hand."""

import errno
import sys
from collections.abc import Iterator

import pytest
from tests.full import fill, goes_on
from tests.guest.plugin import Plugin
from tests.journeys.lab import Lab
from tests.journeys.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

from orlop.testing.waiting import eventually

pytestmark = [pytest.mark.feature("D6"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def store(computer: Lab) -> Iterator[Seaweed]:
    server = Seaweed(computer.machine)
    server.start()
    server.make("aws-s3-bucket-docker")
    computer.inside("/run/s3.key").write_text(SECRET_KEY + "\n")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def small_store(computer: Lab) -> Iterator[Seaweed]:
    """Another store, on a disk of 64 MB."""
    server = Seaweed(computer.machine, name="small", room="64m")
    server.start()
    server.make("small")
    computer.inside("/run/s3.key").write_text(SECRET_KEY + "\n")
    yield server
    server.stop()


@pytest.fixture
def options(store: Seaweed) -> str:
    return (
        f"-o driver=s3 -o bucket=aws-s3-bucket-docker -o endpoint={store.endpoint} "
        f"-o access_key={ACCESS_KEY} -o secret_key=file:/run/s3.key"
    )


def test_the_tutorials_bucket_is_seen_by_hand_and_as_a_volume(lab: Lab, store: Seaweed, options: str) -> None:
    lab.sh(f"echo {ACCESS_KEY}:{SECRET_KEY} >.s3fs-access; chmod 600 .s3fs-access; mkdir -p /s3")
    lab.sh(f"s3fs aws-s3-bucket-docker /s3 -o passwd_file=.s3fs-access,url={store.endpoint},use_path_request_style")
    lab.sh("echo '<h1>Hello</h1>' >/s3/index.html")
    lab.sh(f"docker volume create -d orlop {options} web")

    shown = lab.out("docker run --rm -v web:/web ubuntu cat /web/index.html")
    lab.sh("docker run --rm -v web:/web ubuntu sh -c 'mkdir /web/d && echo new >/web/d/file'")

    assert shown == "<h1>Hello</h1>"
    assert lab.out("cat /s3/d/file") == "new"
    lab.sh("docker volume rm web")
    assert lab.out("cat /s3/d/file") == "new"
    lab.sh("umount /s3")


def test_two_volumes_are_two_folders_of_one_bucket(lab: Lab, options: str) -> None:
    lab.sh(f"docker volume create -d orlop {options} all && docker run --rm -v all:/a ubuntu mkdir -p /a/one /a/two")
    for name in ("one", "two"):
        lab.sh(f"docker volume create -d orlop {options} -o prefix={name} {name}")
        lab.sh(f"docker run --rm -v {name}:/data ubuntu sh -c 'echo {name} >/data/file'")

    assert lab.out("docker run --rm -v all:/a ubuntu cat /a/one/file /a/two/file").split() == ["one", "two"]


def test_files_keep_owner_mode_and_links(lab: Lab, options: str) -> None:
    lab.sh(f"docker volume create -d orlop {options} v1")

    lab.sh(
        "docker run --rm -v v1:/v ubuntu sh -c "
        "'echo x >/v/f && chown 7:8 /v/f && chmod 640 /v/f && ln -s f /v/l && echo y >>/v/f'"
    )

    assert lab.out("docker run --rm -v v1:/v ubuntu sh -c 'stat -c %u:%g:%a /v/f; cat /v/l'") == "7:8:640\nx\ny"


def test_a_wrong_key_is_refused_when_it_is_used_and_shown_nowhere(lab: Lab, options: str) -> None:
    lab.inside("/run/wrong.key").write_text("not-the-key-of-the-store")
    lab.sh(f"docker volume create -d orlop {options.replace('s3.key', 'wrong.key')} v1")

    said = lab.refused("docker run --rm -v v1:/v ubuntu true")

    assert "s3fs" in said
    assert "not-the-key" not in said + lab.log.read_text() + lab.out("docker volume inspect v1")
    assert "s3fs" not in lab.out("cat /proc/mounts")


def test_a_store_that_is_away_is_an_error_in_time(lab: Lab, store: Seaweed, options: str) -> None:
    lab.sh(f"docker volume create -d orlop {options} v1")
    store.stop()
    try:
        assert "s3fs" in lab.refused("docker run --rm -v v1:/v ubuntu true", timeout=60)
    finally:
        store.start()
    lab.sh("docker run --rm -v v1:/v ubuntu touch /v/back")


@pytest.mark.part("D6")
def test_rclone_mounts_what_its_configuration_names(lab: Lab, store: Seaweed, options: str) -> None:
    config = f"[there]\ntype = s3\nprovider = Other\nendpoint = {store.endpoint}\nforce_path_style = true\n"
    keys = f"access_key_id = {ACCESS_KEY}\nsecret_access_key = {SECRET_KEY}\n"
    lab.inside("/run/rclone.conf").write_text(config + keys)
    lab.sh(
        "docker volume create -d orlop -o driver=rclone -o remote=there:aws-s3-bucket-docker/r "
        "-o config=file:/run/rclone.conf r1"
    )

    lab.sh("docker run --rm -v r1:/r ubuntu sh -c 'echo sent >/r/file; sleep 3'")

    lab.sh(f"docker volume create -d orlop {options} bucket")
    assert lab.out("docker run --rm -v r1:/r ubuntu cat /r/file") == "sent"
    assert lab.out("docker run --rm -v bucket:/b ubuntu cat /b/r/file") == "sent"
    python = f"{sys.executable} -m orlop"
    assert SECRET_KEY not in lab.out(f"{python} volume inspect r1 --root {lab.root}; cat {lab.log}")
    assert not lab.out("pgrep rclone || true")


def test_a_full_store_is_an_error_for_the_writer_and_freeing_room_heals_it(lab: Lab, small_store: Seaweed) -> None:
    plugin = Plugin(lab)
    keys = {"access_key": ACCESS_KEY, "secret_key": "file:/run/s3.key"}
    plugin.create("full", driver="s3", bucket="small", endpoint=small_store.endpoint, retries="2", **keys)
    place = plugin.mount("full")
    small_store.fill()

    error = fill(place)
    left = [path.name for path in place.iterdir()]
    verbs = [plugin.ask(verb, Name="full", ID="c2")[0] for verb in ("Get", "List", "Path", "Mount", "Unmount")]
    small_store.free()
    goes_on(place)
    plugin.unmount("full")
    kept = (plugin.mount("full") / "kept").read_text()
    plugin.unmount("full")

    assert error == errno.EIO, "S3 has no word for it"
    assert left == ["kept"], "what did not fit is not there"
    assert verbs == [200] * 5
    assert kept == "kept"
    assert plugin.mounts() == []


@pytest.mark.part("D6")
def test_what_does_not_fit_on_rclones_remote_goes_there_when_there_is_room(lab: Lab) -> None:
    lab.sh("mkdir -p /run/small && mount -t tmpfs -o size=4m none /run/small")
    lab.sh("dd if=/dev/zero of=/run/small/x bs=1M count=3")
    lab.inside("/run/alias.conf").write_text("[there]\ntype = alias\nremote = /run/small\n")
    lab.sh("docker volume create -d orlop -o driver=rclone -o remote=there: -o config=file:/run/alias.conf r1")
    write = "echo kept >/r/kept; dd if=/dev/zero of=/r/big bs=1M count=2; sleep 1000"

    lab.sh(f"docker run -d --name c1 -v r1:/r ubuntu sh -c '{write}'")
    eventually(lambda: lab.out("cat /run/small/kept || true") == "kept")
    eventually(lambda: lab.out("grep -rl 'too big for remaining disk space' /run/orlop || true"))
    lab.sh("docker run --rm -v r1:/r ubuntu cat /r/kept")
    lab.sh("rm /run/small/x")

    eventually(lambda: lab.out("stat -c %s /run/small/big || true") == str(2 << 20))
    lab.sh("docker rm -f c1 && docker volume rm r1 && umount /run/small")


def test_a_store_that_dies_under_a_container_is_an_error_in_time_and_back_again_all_goes_on(
    lab: Lab, store: Seaweed, options: str
) -> None:
    lab.sh(f"docker volume create -d orlop {options} -o retries=2 v1 && docker volume create -d orlop other")
    lab.sh("docker run -d --name c1 -v v1:/v ubuntu sleep 1000 && docker exec c1 sh -c 'echo before >/v/before'")

    store.stop()
    try:
        said = lab.refused("docker exec c1 sh -c 'echo while >/v/while'", timeout=60)
        lab.sh("docker run --rm -v other:/data ubuntu touch /data/x", timeout=30)
    finally:
        store.start()

    assert "error" in said
    eventually(lambda: not lab.sh("docker exec c1 sh -c 'echo after >/v/after'", check=False).returncode)
    assert lab.out("docker exec c1 cat /v/before /v/after").split() == ["before", "after"]


@pytest.mark.part("D6")
@pytest.mark.parametrize("fault", ["wrong key", "away"])
def test_a_store_that_rclone_cannot_use_is_an_error_in_time_and_its_key_is_not_shown(
    lab: Lab, store: Seaweed, fault: str
) -> None:
    key = "a-wrong-key-0815" if fault == "wrong key" else SECRET_KEY
    config = f"[there]\ntype = s3\nprovider = Other\nendpoint = {store.endpoint}\nforce_path_style = true\n"
    lab.inside("/run/other.conf").write_text(f"{config}access_key_id = {ACCESS_KEY}\nsecret_access_key = {key}\n")
    bucket = "-o remote=there:aws-s3-bucket-docker/faults"
    lab.sh(f"docker volume create -d orlop -o driver=rclone {bucket} -o config=file:/run/other.conf r1")
    if fault == "away":
        store.stop()
    try:
        said = lab.refused("docker run --rm -v r1:/r ubuntu sh -c 'ls /r && cat /r/file'", timeout=100)
    finally:
        if fault == "away":
            store.start()

    if fault == "away":
        eventually(lambda: not lab.sh("docker run --rm -v r1:/r ubuntu ls /r", check=False).returncode)
    assert key not in said + lab.log.read_text() + lab.out("docker volume inspect r1")
    lab.sh("docker volume rm r1")
    assert not lab.out("pgrep rclone || true")


@pytest.mark.part("D6")
def test_what_is_written_while_rclones_store_is_dead_goes_there_when_it_is_back(
    lab: Lab, store: Seaweed, options: str
) -> None:
    keys = f"access_key_id = {ACCESS_KEY}\nsecret_access_key = {SECRET_KEY}\n"
    config = f"[there]\ntype = s3\nprovider = Other\nendpoint = {store.endpoint}\nforce_path_style = true\n{keys}"
    lab.inside("/run/late.conf").write_text(config)
    bucket = "-o remote=there:aws-s3-bucket-docker/late"
    lab.sh(f"docker volume create -d orlop -o driver=rclone {bucket} -o config=file:/run/late.conf r1")
    lab.sh("docker run -d --name c1 -v r1:/r ubuntu sleep 1000 && docker exec c1 sh -c 'echo first >/r/first; ls /r'")
    lab.sh(f"docker volume create -d orlop {options} -o prefix=late bucket")
    eventually(lambda: lab.out("docker run --rm -v bucket:/b ubuntu cat /b/first || true") == "first")

    store.stop()
    try:
        lab.sh("docker exec c1 sh -c 'echo late >/r/file'")
    finally:
        store.start()

    eventually(lambda: lab.out("docker run --rm -v bucket:/b ubuntu cat /b/file || true") == "late", 120)


def test_a_container_of_an_ordinary_user_has_the_buckets_files(lab: Lab, options: str) -> None:
    owner = "-o uid=1000 -o gid=7 -o filemode=0640 -o dirmode=0750 -o prefix=annas"
    lab.sh(f"docker volume create -d orlop {options} all && docker run --rm -v all:/a ubuntu mkdir -p /a/annas")
    lab.sh(f"docker volume create -d orlop {options} {owner} annas")

    seen = lab.out(
        "docker run --rm -u 1000 -v annas:/v ubuntu sh -c "
        "'echo text >/v/file && mkdir -p /v/d && stat -c \"%u %g %a\" /v /v/file /v/d'"
    )

    assert seen.splitlines() == ["1000 7 750", "1000 7 640", "1000 7 750"]
    assert lab.out("docker run --rm -v all:/a ubuntu cat /a/annas/file") == "text"
    assert not lab.out("pgrep 's3fs|bindfs' || true")
