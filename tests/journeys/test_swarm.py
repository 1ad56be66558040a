"""Volumes in a swarm of three nodes: shared by all tasks, or one for each, and there wherever a task runs next.

The commands are those of Cloudstor's page, with ``orlop`` as the driver's name. Nodes are drained, killed and cut off;
what each test waits for is bounded.
"""

import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.journeys.fleet import SERVER, SHARED, Fleet, Node, Place, check

from orlop.testing.waiting import eventually

pytestmark = [pytest.mark.part("E1"), pytest.mark.timeout(240)]

PING1 = """docker service create \\
  --replicas 5 \\
  --name ping1 \\
  --mount type=volume,volume-driver=orlop,source=sharedvol1,destination=/shareddata \\
  alpine ping docker.com"""
PING2 = """docker service create \\
  --replicas 5 \\
  --name ping2 \\
  --mount type=volume,volume-driver=orlop,source={{.Service.Name}}-{{.Task.Slot}}-vol,destination=/mydata \\
  alpine ping docker.com"""
PAGE = Path(__file__).parents[2] / "docs/shared.md"
MOVED = 40
"""Seconds in which a task runs elsewhere, of which the swarm takes at least five to believe that a node has gone."""


@pytest.mark.feature("P3")
def test_any_node_lists_the_volumes_of_all(fleet: Fleet) -> None:
    for node in fleet.nodes:
        node.sh(f"docker volume create -d orlop of-{node.name}")

    listed = [node.volumes() for node in fleet.nodes]
    scopes = {node.out("docker volume inspect -f '{{.Driver}} {{.Scope}}' of-n1") for node in fleet.nodes}

    assert listed == [{"of-n1", "of-n2", "of-n3"}] * 3
    assert scopes == {"orlop global"}


@pytest.mark.part("P3")
def test_any_node_removes_a_volume_for_all(fleet: Fleet) -> None:
    one, two, three = fleet.nodes
    one.sh("docker volume create -d orlop data && docker run --rm -v data:/data busybox touch /data/file")
    two.sh("docker volume ls")
    seen = two.out("docker run --rm -v data:/data busybox ls /data")

    three.sh("docker volume ls")
    three.sh("docker volume rm data")

    assert seen == "file"
    assert _volumes(fleet) == set()
    assert [node.volumes() for node in fleet.nodes] == [set()] * 3
    # The name is free, on every node, and means nothing of before.
    two.sh("docker volume create -d orlop -o uid=1000 data")
    assert one.out("docker volume ls -q && docker run --rm -v data:/data busybox ls -A /data") == "data"


@pytest.mark.feature("P4")
def test_tasks_on_all_nodes_share_one_volume(fleet: Fleet) -> None:
    fleet.sh(PING1)
    tasks = fleet.tasks("ping1")
    ((node, container),) = tasks[1]
    node.sh(f"docker exec {container} sh -c 'echo seen >/shareddata/file'")

    seen = {slot: _read(places, "/shareddata/file") for slot, places in tasks.items()}

    assert seen == dict.fromkeys(range(1, 6), "seen")
    assert {node.name for places in tasks.values() for node, _ in places} == {"n1", "n2", "n3"}
    assert _volumes(fleet) == {"sharedvol1"}


@pytest.mark.part("P4", "P8")
def test_all_nodes_take_the_options_of_the_first(fleet: Fleet) -> None:
    fleet.sh(
        "docker service create -d --replicas 5 --name ping1 --mount type=volume,volume-driver=orlop,source=sharedvol1,"
        "destination=/shareddata,volume-opt=uid=1000,volume-opt=backing=shared alpine ping docker.com"
    )
    eventually(lambda: fleet.runs("ping1", 5))

    owners = {
        node.out(f"docker exec {container} stat -c %u /shareddata")
        for places in fleet.tasks("ping1").values()
        for node, container in places
    }

    assert owners == {"1000"}


def test_nodes_that_create_one_name_at_once_make_one_folder(fleet: Fleet) -> None:
    names = {f"v{number}" for number in range(10)}
    command = f"set -e; for name in {' '.join(sorted(names))}; do docker volume create -d orlop $name; done"

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda node: node.sh(command), fleet.nodes))

    assert _volumes(fleet) == names
    assert all(names <= node.volumes() for node in fleet.nodes)


def test_a_node_that_has_not_mounted_the_filesystem_takes_no_data(fleet: Fleet) -> None:
    node = fleet["n3"]
    fleet.sh("docker volume create -d orlop sharedvol1")
    node.sh(f"umount {SHARED}")

    refused = node.refused("docker run --rm -v sharedvol1:/data --volume-driver orlop busybox touch /data/lost")
    below = node.out(f"ls -A {SHARED}")
    node.mount_shared()
    node.sh("docker run --rm -v sharedvol1:/data --volume-driver orlop busybox touch /data/found")

    assert "mount the filesystem that all hosts share" in refused
    assert below == ""
    assert [path.name for path in (fleet.shared / "sharedvol1/data").iterdir()] == ["found"]


@pytest.mark.feature("P5")
@pytest.mark.part("P6")
def test_task_n_has_volume_n_after_an_update_after_scaling_and_on_another_node(fleet: Fleet) -> None:
    fleet.sh(PING2)
    assert _volumes(fleet) == {f"ping2-{slot}-vol" for slot in range(1, 6)}
    first = fleet.tasks("ping2")
    for slot, places in first.items():
        for node, container in places:
            node.sh(f"docker exec {container} sh -c 'echo slot {slot} >>/mydata/who'")

    fleet.sh("docker service update --force --update-parallelism 0 -d ping2")
    fleet.end(first)
    old = _containers(first)
    eventually(lambda: fleet.runs("ping2", 5) and _containers(fleet.tasks("ping2")).isdisjoint(old))
    assert _who(fleet, "ping2") == {slot: f"slot {slot}" for slot in range(1, 6)}

    fleet.sh("docker service scale -d ping2=2")
    fleet.end({slot: places for slot, places in fleet.tasks("ping2").items() if slot > 2})
    eventually(lambda: fleet.runs("ping2", 2))
    fleet.sh("docker service scale -d ping2=5")
    eventually(lambda: fleet.runs("ping2", 5))
    assert _who(fleet, "ping2") == {slot: f"slot {slot}" for slot in range(1, 6)}

    drained = fleet["n2"]
    assert drained.tasks("ping2")
    fleet.sh("docker node update --availability drain n2")
    fleet.end({slot: [(drained, container)] for slot, container in drained.tasks("ping2").items()})
    eventually(lambda: fleet.runs("ping2", 5, without=[drained]), MOVED)

    assert _who(fleet, "ping2") == {slot: f"slot {slot}" for slot in range(1, 6)}
    _nothing_left(drained)


@pytest.mark.feature("P6")
def test_a_task_of_a_node_that_was_killed_finds_its_data_on_another(fleet: Fleet) -> None:
    _create_keepers(fleet)
    killed = fleet["n3"]
    assert killed.tasks("keep")

    killed.machine.power_off()
    eventually(lambda: fleet.runs("keep", 3), MOVED)

    assert _who(fleet, "keep") == {slot: f"slot {slot}" for slot in range(1, 4)}
    fleet.power_on(killed)
    # Whatever the swarm makes of the node that came back, it does now.
    time.sleep(3)
    assert fleet.runs("keep", 3, without=[killed])
    _nothing_left(killed)


@pytest.mark.part("P6", "D5")
def test_a_task_of_a_node_that_was_cut_off_finds_its_data_on_another(fleet: Fleet) -> None:
    fleet.sh(
        f"docker service create -d --name keep --constraint node.role==worker --stop-grace-period 1s --mount "
        f"type=volume,volume-driver=orlop,source=files,destination=/keep,volume-opt=driver=sshfs,"
        f"volume-opt=sshcmd=test@{SERVER}:/home/test,volume-opt=key=file:{fleet.server.key} alpine sleep 1000"
    )
    eventually(lambda: fleet.runs("keep", 1))
    ((old, container),) = fleet.tasks("keep")[1]
    old.sh(f"docker exec {container} sh -c 'echo kept >/keep/file'")

    fleet.switch.cut(old.name)
    eventually(lambda: len(fleet.tasks("keep")[1]) == 2, MOVED)
    ((new, successor),) = [place for place in fleet.tasks("keep")[1] if place[0] is not old]

    assert new.out(f"docker exec {successor} cat /keep/file") == "kept"
    assert (fleet.server.inside / "file").read_text() == "kept\n"

    # The swarm has given it up; it does not know that, and goes on until somebody tells it.
    assert old.tasks("keep")
    fleet.switch.heal(old.name)
    eventually(lambda: fleet.runs("keep", 1, without=[old]), MOVED)
    _nothing_left(old)
    assert old.out("pgrep -x sshfs || true") == ""
    assert new.out(f"docker exec {successor} cat /keep/file") == "kept"


@pytest.mark.part("P4", "D5")
def test_tasks_share_a_volume_over_the_network(fleet: Fleet) -> None:
    fleet.sh(
        f"docker service create -d --mode global --name web --stop-grace-period 1s --mount "
        f"type=volume,volume-driver=orlop,source=web,destination=/web,volume-opt=driver=sshfs,"
        f"volume-opt=sshcmd=test@{SERVER}:/home/test,volume-opt=key=file:{fleet.server.key} alpine sleep 1000"
    )
    names = "docker ps -q --filter name=^web"
    eventually(lambda: all(node.out(names) for node in fleet.nodes))

    for node in fleet.nodes:
        node.sh(f"docker exec $({names}) sh -c 'echo {node.name} >>/web/from-{node.name}'")

    for node in fleet.nodes:
        assert node.out(f"docker exec $({names}) sh -c 'cat /web/from-*'").split() == ["n1", "n2", "n3"]
    assert {path.name for path in fleet.server.inside.glob("from-*")} == {"from-n1", "from-n2", "from-n3"}


def test_the_pages_commands_do_what_it_says(fleet: Fleet) -> None:
    shutil.rmtree(fleet.shared / ".orlop-shared")
    commands = re.findall(r"^\$ (.*)$", PAGE.read_text(), re.MULTILINE)

    for command in commands:
        argv, _, remark = command.partition("    # ")
        node = fleet["n2"] if "on another host" in remark else fleet.manager
        done = node.sh(f"PATH={Path(sys.executable).parent}:$PATH; {argv}", check=False)

        assert (done.returncode != 0) == remark.startswith("fails"), f"{command}\n{done.stdout}{done.stderr}"
    assert len(commands) > 10


def _create_keepers(fleet: Fleet) -> None:
    """A service of three tasks, one on each node, whose volumes hold the number of their task."""
    fleet.sh(
        "docker service create -d --replicas 3 --name keep --stop-grace-period 1s --mount type=volume,"
        "volume-driver=orlop,source={{.Service.Name}}-{{.Task.Slot}}-vol,destination=/mydata alpine sleep 1000"
    )
    eventually(lambda: fleet.runs("keep", 3))
    for slot, places in fleet.tasks("keep").items():
        for node, container in places:
            node.sh(f"docker exec {container} sh -c 'echo slot {slot} >>/mydata/who; sync'")


def _nothing_left(node: Node) -> None:
    """No task's volume is mounted on ``node``, and orlop finds nothing to complain about."""
    eventually(lambda: not node.mounted(), 20)
    check(node)


def _read(places: Sequence[Place], path: str) -> str:
    """A file as the one task at ``places`` sees it."""
    ((node, container),) = places
    return node.out(f"docker exec {container} cat {path}")


def _who(fleet: Fleet, service: str) -> dict[int, str]:
    """What each task of ``service`` finds in its volume."""
    return {slot: _read(places, "/mydata/who") for slot, places in fleet.tasks(service).items()}


def _containers(tasks: Mapping[int, Sequence[Place]]) -> set[str]:
    return {container for places in tasks.values() for _, container in places}


def _volumes(fleet: Fleet) -> set[str]:
    """The volumes' folders on the shared filesystem."""
    return {path.name for path in fleet.shared.iterdir() if not path.name.startswith(".")}
