"""Containers with a bucket volume that is used before its files are here, through a real engine."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.journeys.lab import Lab
from tests.journeys.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

from orlop.kernel import precontent
from orlop.testing.waiting import eventually

pytestmark = [
    pytest.mark.part("D9", "P8"),
    pytest.mark.timeout(240),
    pytest.mark.skipif(not precontent.is_possible(Path("/tmp")), reason="readers can wait since Linux 6.14"),
]
LARGE = os.urandom(100 << 20)


@pytest.fixture(scope="module")
def seaweed(computer: Lab) -> Iterator[Seaweed]:
    store = Seaweed(computer.machine, name="lazy")
    store.start()
    store.make("lazy")
    (computer.folder / "access").write_text(ACCESS_KEY)
    (computer.folder / "secret").write_text(SECRET_KEY)
    yield store
    store.stop()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, lab: Lab) -> str:
    """The options that name the store; another place each time: processes of an earlier test may know theirs."""
    name = os.urandom(4).hex()
    if request.param == "folder":
        (lab.folder / name).mkdir()
        return f"-o store={lab.folder}/{name}"
    keys = f"-o access_key=file:{lab.folder}/access -o secret_key=file:{lab.folder}/secret"
    return f"-o store=s3://lazy/{name} -o endpoint={request.getfixturevalue('seaweed').endpoint} {keys}"


@pytest.fixture
def moved(lab: Lab, store: str) -> Iterator[Callable[[], None]]:
    """A volume ``data`` with a large file, small ones and a program; again and again it comes to a host without it."""
    password = lab.folder / "lazy-password"
    password.write_text("secret")
    (lab.folder / "large").write_bytes(LARGE)
    lab.sh(
        f"docker volume create -d orlop -o driver=bucket {store} -o password=file:{password} "
        "-o size=600m -o lazy=true data"
    )
    lab.sh(
        f"docker run --rm -v data:/data -v {lab.folder}/large:/large:ro ubuntu bash -c "
        "'cp /large /data/large; cp /bin/echo /data/program; for n in {1..500}; do echo $n >/data/$n; done'"
    )

    def leave() -> None:
        lab.sh(f"rm -rf {lab.root}/drivers/bucket/data")

    leave()
    yield leave
    lab.sh("docker ps -aq | xargs -r docker rm -f; docker volume rm data")
    password.unlink()


def test_containers_read_write_and_run_what_is_not_here_yet(lab: Lab, moved: Callable[[], None]) -> None:
    for how in ("data:/data:ro", "data:/data"):
        sums = lab.out(
            f"docker run --rm -v {how} ubuntu sh -c 'cat /data/499 && /data/program ran && sha256sum /data/large'"
        )

        assert sums.split() == ["499", "ran", hashlib.sha256(LARGE).hexdigest(), "/data/large"]
        moved()

    lab.sh("docker run --rm -v data:/data ubuntu sh -c 'echo more >>/data/large; mv /data/7 /data/seven; >/data/8'")
    moved()

    found = lab.out(
        "docker run --rm -v data:/data ubuntu sh -c 'tail -c 5 /data/large; cat /data/seven /data/8 /data/9'"
    )
    assert found.split() == ["more", "7", "9"]


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_orlop_can_be_killed_while_a_container_reads(lab: Lab, moved: Callable[[], None]) -> None:
    reader = lab.start(
        "docker run --rm -v data:/data ubuntu sh -c 'sleep 1; sha256sum /data/large; cat /data/*9' >sums"
    )
    # Not as soon as it is mounted: the engine has to have been told, or there will be no container.
    eventually(lambda: lab.out("docker ps -q"))

    lab.kill_orlop()
    lab.sh("pkill -9 -f 'orlop [h]ydrate' || true")
    lab.serve()

    assert reader.wait(60) == 0
    assert hashlib.sha256(LARGE).hexdigest() in (lab.home / "sums").read_text()


@pytest.mark.part("V14")
@pytest.mark.parametrize("store", ["folder"], indirect=True)
def test_a_backup_with_tar_of_what_is_not_here_yet_is_byte_for_byte(lab: Lab, moved: Callable[[], None]) -> None:
    lab.sh("docker run --name user -v data:/data ubuntu true")
    moved()
    backup = f"-v {lab.folder}:/backup ubuntu tar -cSf /backup/lazy.tar -C /data large 1 499"
    # Status 1: the large file has changed its ctime while it was read, which is what fetching it does.
    lab.sh(f"docker run --rm --volumes-from user {backup} || test $? = 1")

    found = lab.out(f"tar -xOf {lab.folder}/lazy.tar large | sha256sum && tar -xOf {lab.folder}/lazy.tar 1 499")

    assert found.split() == [hashlib.sha256(LARGE).hexdigest(), "-", "1", "499"]


@pytest.mark.parametrize("store", ["folder"], indirect=True)
def test_how_much_is_here_is_shown(lab: Lab, moved: Callable[[], None]) -> None:
    lab.sh("docker run -d --name user -v data:/data ubuntu sleep 1000")
    inspect = f"{sys.executable} -m orlop volume inspect data --root {lab.root}"

    eventually(lambda: '"Fetched"' not in lab.out(inspect))

    assert lab.out("docker exec user cat /data/123") == "123"
