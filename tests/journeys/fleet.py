"""A swarm on one host: machines with an engine and orlop each, on one switch whose cables can be pulled."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shlex import quote

from tests.journeys.lab import Lab
from tests.journeys.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed
from tests.journeys.sshd import Sshd

from orlop.testing import images
from orlop.testing.machine import Machine
from orlop.testing.network import Switch
from orlop.testing.waiting import eventually

SERVER = "nas"
SHARED = "/mnt/shared"
BUCKET = "volumes"
_ADDRESS = "10.88.0.{}"


class Node(Lab):
    """One machine of the fleet, which mounts the folder ``shared`` of the host when it boots."""

    def __init__(self, machine: Machine, shared: Path, store: Seaweed) -> None:
        super().__init__(machine)
        self.name, self._shared = machine.name, shared
        self._env = {"ORLOP_SHARED": SHARED, "ORLOP_DRIVER": "shared", "ORLOP_HOLD_GRACE": "0"}
        self._env |= {"ORLOP_BUCKET": f"s3://{BUCKET}/swarm", "ORLOP_BUCKET_PASSWORD": "a password of the swarm"}
        self._env |= {"ORLOP_BUCKET_ENDPOINT": store.endpoint, "ORLOP_BUCKET_REGION": "us-east-1"}
        self._env |= {"ORLOP_BUCKET_ACCESS_KEY": ACCESS_KEY, "ORLOP_BUCKET_SECRET_KEY": SECRET_KEY}

    def start_up(self) -> None:
        """What a booted machine starts by itself: orlop first, then the engine."""
        self.mount_shared()
        # The kernel is the host's, and was not booted.
        self._env["ORLOP_BOOT_ID"] = str(time.time_ns())
        self.serve(**self._env)
        self.engine.start()
        self.answer_names()
        with (self.machine.root / "etc/hosts").open("a") as hosts:
            hosts.write(f"{_ADDRESS.format(9)} {SERVER}\n")
        # An engine tells the swarm about the volume plugins that it has talked to, and about no others.
        self.sh("docker volume ls")

    def restart_orlop(self) -> None:
        """kill -9, and a new one that has what is in memory still."""
        self.kill_orlop()
        self.serve(**self._env)

    def mount_shared(self) -> None:
        """Mount the shared filesystem, as at boot."""
        self.sh(f"mkdir -p {SHARED} && mount --bind {self._shared} {SHARED}")

    def orlop(self, command: str, **how: object) -> subprocess.CompletedProcess[str]:
        """A command of orlop's, as its host's administrator types it."""
        env = " ".join(f"{name}={quote(value)}" for name, value in self._env.items())
        return self.sh(f"{env} {sys.executable} -m orlop {command} --root {self.root}", **how)

    def tasks(self, service: str) -> dict[int, str]:
        """The containers here that run for ``service``, by the number of their task."""
        lines = self.out(f"docker ps --format '{{{{.Names}}}} {{{{.ID}}}}' --filter name=^{service}\\.").splitlines()
        return {int(name.split(".")[1]): container for name, container in (line.split() for line in lines)}

    def mounted(self) -> set[str]:
        """The volumes that are mounted here, as the kernel says."""
        places = [line.split()[1] for line in self.inside("/proc/1/mounts").read_text().splitlines()]
        return {Path(place).name for place in places if Path(place).parent == self.root / "mounts"}


Place = tuple[Node, str]
"""Where a task runs: the node, and its container there."""


class Fleet:
    """The machines ``n1``, which manages the swarm, ``n2`` and ``n3``; and ``nas``, which serves files by SSH.

    ``shared`` is a folder of the host that all of them have mounted at `SHARED`: it stands for a network filesystem.
    """

    def __init__(self, switch: Switch, nodes: Sequence[Node], server: Sshd, shared: Path, store: Seaweed) -> None:
        self.switch, self.nodes, self.server, self.shared, self.store = switch, nodes, server, shared, store
        self.manager = nodes[0]

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    @property
    def running(self) -> list[Node]:
        """The nodes that are switched on."""
        return [node for node in self.nodes if node.machine.running]

    def sh(self, command: str, **how: object) -> subprocess.CompletedProcess[str]:
        """A command line on the manager."""
        return self.manager.sh(command, **how)

    def tasks(self, service: str) -> dict[int, list[Place]]:
        """What runs for ``service`` anywhere, by the number of the task."""
        found: dict[int, list[Place]] = {}
        for node in self.running:
            for slot, container in node.tasks(service).items():
                found.setdefault(slot, []).append((node, container))
        return found

    def runs(self, service: str, replicas: int, without: Sequence[Node] = ()) -> bool:
        """Whether each of the tasks 1..``replicas`` runs exactly once, and none of it on the nodes ``without``."""
        tasks = self.tasks(service)
        once = all(len(places) == 1 for places in tasks.values())
        away = all(node not in without for places in tasks.values() for node, _ in places)
        return once and away and sorted(tasks) == list(range(1, replicas + 1))

    def state(self, node: Node) -> str:
        """What the manager thinks of ``node``: ready or down."""
        return self.manager.out(f"docker node inspect -f '{{{{.Status.State}}}}' {node.name}")

    def power_on(self, node: Node) -> None:
        """The machine boots with the disk it had, and joins the swarm again by itself."""
        node.machine.boot()
        node.start_up()
        eventually(lambda: self.state(node) == "ready", 30)

    def end(self, tasks: Mapping[int, Sequence[Place]]) -> None:
        """Kill what the swarm has told to end: as process 1, ping ignores polite signals, and would get ten seconds."""
        for places in tasks.values():
            for node, container in places:
                node.sh(f"docker kill {container}", check=False)

    def clean(self) -> None:
        """All machines on and joined; no service, container, volume."""
        for node in self.nodes:
            if node.machine.running:
                self.switch.heal(node.name)
            else:
                self.power_on(node)
            self.sh(f"docker node update --availability active {node.name}")
        self.sh("docker service ls -q | xargs -r docker service rm")
        for node in self.nodes:
            eventually(lambda node=node: self.state(node) == "ready", 30)
            node.sh("docker ps -aq | xargs -r docker rm -fv", check=False)
            eventually(lambda node=node: not node.out("docker ps -aq"))
        for node in self.nodes:
            node.sh("docker volume ls -q | xargs -r docker volume rm -f")


def check(node: Node) -> str:
    """What ``orlop system check`` says, which must find nothing."""
    done = node.orlop("system check", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def fleet_of_three(folder: Path) -> Iterator[Fleet]:
    """Three nodes and a server, booted and joined."""
    shared = folder / "shared"
    (shared / ".orlop-shared").mkdir(parents=True)
    with ExitStack() as stack:
        switch = stack.enter_context(Switch())

        def machine(name: str, number: int) -> Machine:
            return stack.enter_context(Machine(folder / name, name, (switch, f"{_ADDRESS.format(number)}/24")))

        server = Sshd(machine(SERVER, 9), SERVER, address="0.0.0.0")
        server.start()
        store = Seaweed(server.machine, _ADDRESS.format(9))
        stack.callback(store.stop)
        store.start()
        store.make(BUCKET)
        nodes = [Node(machine(f"n{number}", number), shared, store) for number in (1, 2, 3)]
        image = images.build("busybox")

        def start(node: Node) -> None:
            node.start_up()
            node.engine.load(image)

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(start, nodes))
        _join(nodes)
        yield Fleet(switch, nodes, server, shared, store)


def _join(nodes: Sequence[Node]) -> None:
    """The first manages. It notices within seconds that a node has gone: nodes call it every second."""
    manager, *workers = nodes
    manager.sh(f"docker swarm init --advertise-addr {_ADDRESS.format(1)} --dispatcher-heartbeat 1s")
    token = manager.out("docker swarm join-token -q worker")
    for number, node in enumerate(workers, 2):
        node.sh(f"docker swarm join --token {token} --advertise-addr {_ADDRESS.format(number)} {_ADDRESS.format(1)}")
    eventually(lambda: manager.out("docker node ls").count(" Ready ") == len(nodes), 30)
