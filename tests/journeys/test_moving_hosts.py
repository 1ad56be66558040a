"""A volume moves from driver to driver and from host to host: by way of a bucket, as a backup, as an archive."""

import json

import pytest
from tests.journeys.fleet import SHARED, Fleet, Node, check

from orlop.testing.waiting import eventually

pytestmark = pytest.mark.timeout(240)

FILL = (
    "cd /data && echo here >file && chown 7:8 file && chmod 640 file && ln -s file link && mkdir -m 700 folder && "
    "head -c 3000000 /dev/zero >large"
)
LOOK = "cd /data && cat link && stat -c '%n %u:%g %a %F' file link folder && wc -c <large"
SEEN = [
    "here",
    "file 7:8 640 regular file",
    "link 0:0 777 symbolic link",
    "folder 0:0 700 directory",
    "3000000",
]


@pytest.fixture
def things(fleet: Fleet) -> str:
    """A volume of the first node's, in a folder there."""
    fleet["n1"].orlop("volume create -d local --label team=blue things")
    fleet["n1"].sh(f"docker run --rm -v things:/data alpine sh -c '{FILL}'")
    return "things"


def looked_at(node: Node, volume: str) -> list[str]:
    return node.out(f'docker run --rm -v {volume}:/data alpine sh -c "{LOOK}"').splitlines()


@pytest.mark.feature("S6")
def test_by_a_bucket_it_moves_to_another_driver_and_to_another_host(fleet: Fleet, things: str) -> None:
    first, second = fleet["n1"], fleet["n2"]

    first.orlop(f"volume migrate {things} --to bucket -o size=300m")
    first.orlop(f"volume migrate {things} --commit")
    eventually(lambda: things in second.volumes(), 10)
    assert looked_at(second, things) == SEEN
    second.orlop(f"volume migrate {things} --to local -o size=64m")
    second.orlop(f"volume migrate {things} --commit")

    eventually(lambda: things not in first.volumes(), 10)
    assert looked_at(second, things) == SEEN
    (inspected,) = json.loads(second.orlop(f"volume inspect {things}").stdout)
    assert inspected["Labels"] == {"team": "blue"}
    assert second.volume(things)["Status"]["Driver"] == "local"
    check(first), check(second)


@pytest.mark.part("S6", "S2")
def test_as_a_backup_or_an_archive_it_is_made_again_on_another_host(fleet: Fleet, things: str) -> None:
    first, second, third = fleet["n1"], fleet["n2"], fleet["n3"]
    first.sh(f"echo secret >{SHARED}/password; mkdir {SHARED}/kept")

    first.orlop(f"backup {things} --to {SHARED}/kept --init --password file:{SHARED}/password")
    second.orlop(f"restore {things} --from {SHARED}/kept --password file:{SHARED}/password")
    second.orlop(f"volume export {things} -o {SHARED}/{things}.tar.zst")
    third.orlop(f"volume import -o driver=local others {SHARED}/{things}.tar.zst")

    assert looked_at(second, things) == SEEN
    assert looked_at(third, "others") == SEEN
    check(second), check(third)
