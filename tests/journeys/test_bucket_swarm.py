"""Volumes of driver ``bucket`` in a swarm of three nodes, in a real S3 store that all of them reach over the network.

A task writes numbers and says which it has written; its node is killed, cut off, frozen or drained. The task comes up
elsewhere, with everything that was there ``sync`` seconds before, and what the old node still writes goes nowhere.
"""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.journeys.fleet import Fleet, Node, check

from orlop.testing.waiting import eventually

pytestmark = [pytest.mark.part("E1", "D9"), pytest.mark.timeout(240)]

PAGE = Path(__file__).parents[2] / "docs/bucket.md"
SYNC, LEASE = 1, 6
MOVED = 60
"""Seconds in which a task runs elsewhere: the swarm has to notice, and the lease has to end."""
COUNT = "n=0; while echo $n >>/data/log && sync; do n=$((n+1)); sleep 0.1; done; echo stopped; exec sleep 1000"


def start(fleet: Fleet, name: str, source: str, command: str = COUNT, replicas: int = 1) -> None:
    fleet.sh(
        f"docker service create -d --name {name} --replicas {replicas} --constraint node.role==worker "
        f"--stop-grace-period 1s --mount type=volume,volume-driver=orlop,source={source},destination=/data,"
        f"volume-opt=driver=bucket,volume-opt=size=300m,volume-opt=sync={SYNC},volume-opt=lease={LEASE} "
        f"alpine sh -c '{command}'"
    )
    eventually(lambda: fleet.runs(name, replicas))


def execute(node: Node, container: str, command: str) -> str:
    """What a command in the container printed."""
    while True:
        run = node.sh(f"docker exec {container} {command}", check=False)
        # A shipment lets it stand still for some milliseconds, in which nobody is let in.
        if "in a paused container" not in run.stdout + run.stderr:
            assert run.returncode == 0, run.stdout + run.stderr
            return run.stdout.rstrip("\n")


def numbers(node: Node, container: str) -> list[int]:
    return [int(line) for line in execute(node, container, "cat /data/log").split()]


def counted(fleet: Fleet, name: str, least: int) -> tuple[Node, str]:
    """Where the task runs, once it has counted that far and a shipment has had time to follow."""
    ((node, container),) = fleet.tasks(name)[1]
    eventually(lambda: len(numbers(node, container)) > least)
    return node, container


def moved(fleet: Fleet, name: str, old: Node) -> tuple[Node, str]:
    """Where the task runs, once that is another node; the old one is not asked."""

    def away() -> list[tuple[Node, str]]:
        others = [node for node in fleet.running if node is not old]
        return [(node, container) for node in others for container in node.tasks(name).values()]

    eventually(away, MOVED)
    return away()[0]


def goes_on_from(before: list[int], after: list[int]) -> None:
    """What was there has stayed, but for the last seconds; then the new task began to count."""
    end = next(place for place in range(len(after)) if after[place] != place)
    assert after[end] == 0
    lost = len(before) - end
    assert lost <= (SYNC * 3 + 2) * 10, f"{lost} numbers of {len(before)} are lost"


@pytest.mark.feature("P6", "D9")
def test_a_task_of_a_node_that_was_killed_goes_on_elsewhere(fleet: Fleet) -> None:
    start(fleet, "count", "numbers")
    node, container = counted(fleet, "count", 60)
    before = numbers(node, container)

    node.machine.power_off()
    other, successor = moved(fleet, "count", node)

    eventually(lambda: numbers(other, successor)[-1] > 3)
    goes_on_from(before, numbers(other, successor))
    fleet.power_on(node)
    assert "numbers" not in node.mounted()


@pytest.mark.feature("P11")
def test_a_writer_does_not_notice_that_orlop_and_its_keeper_are_killed(fleet: Fleet) -> None:
    start(fleet, "count", "numbers")
    node, container = counted(fleet, "count", 10)

    node.sh("pkill -9 -f 'orlop keep'")
    time.sleep(LEASE * 1.5)
    node.restart_orlop()
    time.sleep(LEASE * 1.5)

    assert "stopped" not in node.out(f"docker logs {container}")
    written = numbers(node, container)
    assert written == list(range(len(written)))
    assert fleet.tasks("count") == {1: [(node, container)]}


@pytest.mark.feature("P10")
def test_a_node_that_was_cut_off_cannot_write_any_more(fleet: Fleet) -> None:
    start(fleet, "count", "numbers")
    node, container = counted(fleet, "count", 60)

    fleet.switch.cut(node.name)
    other, successor = moved(fleet, "count", node)
    stopped = node.out(f"docker logs {container}")
    refused = node.refused(f"docker exec {container} touch /data/late")
    eventually(lambda: numbers(other, successor)[-1] > 3)
    fleet.switch.heal(node.name)
    eventually(lambda: fleet.runs("count", 1, without=[node]), MOVED)

    assert "stopped" in stopped
    assert "Input/output error" in refused
    eventually(lambda: "numbers" not in node.mounted(), 30)
    after = numbers(other, successor)
    end = next(place for place in range(len(after)) if after[place] != place)
    assert end > 20
    assert after[end:] == list(range(len(after) - end))


@pytest.mark.feature("P10")
def test_a_node_that_was_frozen_cannot_write_any_more(fleet: Fleet) -> None:
    start(fleet, "count", "numbers")
    node, container = counted(fleet, "count", 60)

    with node.machine.frozen():
        other, successor = moved(fleet, "count", node)
        eventually(lambda: numbers(other, successor)[-1] > 3)
    eventually(lambda: "numbers" not in node.mounted() or "stopped" in node.out(f"docker logs {container}"), 30)
    eventually(lambda: fleet.runs("count", 1, without=[node]), MOVED)

    eventually(lambda: "numbers" not in node.mounted(), 30)
    after = numbers(other, successor)
    end = next(place for place in range(len(after)) if after[place] != place)
    assert after[end:] == list(range(len(after) - end))
    check(other)


@pytest.mark.feature("P5", "P8")
def test_task_n_has_volume_n_on_whichever_node_it_runs(fleet: Fleet) -> None:
    start(fleet, "keep", "{{.Service.Name}}-{{.Task.Slot}}-vol", "sleep 1000", replicas=2)
    for slot, places in fleet.tasks("keep").items():
        for node, container in places:
            execute(node, container, f"sh -c 'echo slot {slot} >>/data/who'")
    drained = fleet["n2"]
    assert drained.tasks("keep")

    fleet.sh("docker node update --availability drain n2")
    fleet.end({slot: [(drained, container)] for slot, container in drained.tasks("keep").items()})
    eventually(lambda: fleet.runs("keep", 2, without=[drained]), MOVED)

    for slot, ((node, container),) in fleet.tasks("keep").items():
        # Everything, for a node that is drained ships before it lets go.
        assert execute(node, container, "cat /data/who") == f"slot {slot}"
    assert not drained.mounted()
    check(drained)


@pytest.mark.feature("D9")
def test_nodes_that_create_one_name_at_once_make_one_volume(fleet: Fleet) -> None:
    names = {f"v{number}" for number in range(5)}
    create = "docker volume create -d orlop -o driver=bucket -o size=300m $name"
    command = f"set -e; for name in {' '.join(sorted(names))}; do {create}; done"

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda node: node.sh(command), fleet.nodes))
    one, two, three = fleet.nodes
    one.sh("docker run --rm -v v1:/data --volume-driver orlop busybox sh -c 'echo seen >/data/file'")

    assert all(names <= node.volumes() for node in fleet.nodes)
    assert two.out("docker run --rm -v v1:/data --volume-driver orlop busybox cat /data/file") == "seen"
    three.sh("docker volume rm v1")
    assert "v1" not in one.volumes()


@pytest.mark.feature("D9")
def test_a_database_in_a_service_moves_with_its_volume(fleet: Fleet) -> None:
    from orlop.testing import images

    image = images.build("postgres")
    for node in fleet.nodes[1:]:
        node.engine.load(image)
    fleet.sh(
        "docker service create -d --name db --constraint node.role==worker -e POSTGRES_PASSWORD=secret --mount "
        f"type=volume,volume-driver=orlop,source=pg,destination=/var/lib/postgresql/data,volume-opt=driver=bucket,"
        f"volume-opt=size=1g,volume-opt=sync={SYNC},volume-opt=lease={LEASE} postgres"
    )
    eventually(lambda: fleet.runs("db", 1))
    ((node, container),) = fleet.tasks("db")[1]

    def sql(node: Node, container: str, text: str) -> str:
        return execute(node, container, f"psql -U postgres -Atc '{text}'")

    def answers(node: Node, container: str) -> bool:
        return node.sh(f"docker exec {container} psql -U postgres -c 'select 1'", check=False).returncode == 0

    eventually(lambda: answers(node, container))
    sql(node, container, "create table t (n int); insert into t select generate_series(1, 10000)")
    sql(node, container, "checkpoint")
    base = node.inside(f"{node.root}/drivers/bucket/pg/base.json")
    for _ in range(2):  # one shipment may have been under way
        before = json.loads(base.read_text())["snapshot"]
        execute(node, container, "touch /var/lib/postgresql/data/again")
        eventually(lambda before=before: json.loads(base.read_text())["snapshot"] != before, 30)

    node.machine.power_off()
    other, successor = moved(fleet, "db", node)

    eventually(lambda: answers(other, successor))
    assert sql(other, successor, "select count(*), sum(n) from t") == "10000|50005000"


def test_the_pages_commands_do_what_it_says(fleet: Fleet) -> None:
    commands = re.findall(r"^\$ (.*)$", PAGE.read_text(), re.MULTILINE)

    for command in commands:
        argv, _, remark = command.partition("    # ")
        node = fleet["n2"] if "on another host" in remark else fleet.manager
        done = node.sh(argv, timeout=150)
        if "cat /data/file" in argv:
            assert done.stdout == "hello\n"
    assert len(commands) > 6


@pytest.mark.feature("P8")
def test_cloudstors_words_for_a_volume_that_moves(fleet: Fleet) -> None:
    one, two, _ = fleet.nodes
    create = "docker volume create -d orlop -o backing=relocatable -o size=1g -o ebstype=gp2 mylocalvol1"

    one.sh(create)
    one.sh("docker run --rm -v mylocalvol1:/data busybox sh -c 'echo moved >/data/file'")

    two.sh("docker volume ls")
    assert two.out("docker run --rm -v mylocalvol1:/data busybox cat /data/file") == "moved"
    assert one.volume("mylocalvol1")["Status"]["Driver"] == "bucket"
