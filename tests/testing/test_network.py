import os
import time

import pytest

from orlop.errors import Unavailable
from orlop.testing import images
from orlop.testing.engine import Engine
from orlop.testing.machine import Machine
from orlop.testing.network import Switch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


def reaches(machine, address):
    """Whether a ping is answered; asked again for a while, because addresses are looked up once a second."""
    ping = ["busybox", "ping", "-c", "1", "-W", "1", address]
    return any(machine.run(ping, check=False).returncode == 0 for _ in range(4))


def test_machines_on_a_switch_reach_each_other_until_the_cable_is_pulled(tmp_path):
    with Switch() as switch:
        with (
            Machine(tmp_path / "n1", "n1", (switch, "10.88.0.1/24")) as one,
            Machine(tmp_path / "n2", "n2", (switch, "10.88.0.2/24")) as two,
        ):
            assert reaches(one, "10.88.0.2")
            assert reaches(two, "10.88.0.1")

            switch.cut("n2")
            assert not reaches(one, "10.88.0.2")

            switch.heal("n2")
            assert reaches(one, "10.88.0.2")

            two.power_off()
            assert not reaches(one, "10.88.0.2")

            two.boot()
            assert reaches(one, "10.88.0.2")


def test_a_switch_that_is_off_says_so(tmp_path):
    with Switch() as switch:
        pass

    with pytest.raises(Unavailable, match="switch is off"):
        Machine(tmp_path / "n1", "n1", (switch, "10.88.0.1/24")).boot()


def test_two_machines_make_a_swarm_that_runs_a_service_on_both(tmp_path):
    with Switch() as switch:
        with (
            Machine(tmp_path / "n1", "n1", (switch, "10.88.0.1/24")) as one,
            Machine(tmp_path / "n2", "n2", (switch, "10.88.0.2/24")) as two,
        ):
            engines = [Engine(one), Engine(two)]
            for engine in engines:
                engine.start()
                engine.load(images.build("busybox"))
            manager, worker = (engine.docker for engine in engines)

            manager("swarm", "init", "--advertise-addr", "10.88.0.1")
            token = manager("swarm", "join-token", "-q", "worker").stdout.strip()
            worker("swarm", "join", "--token", token, "--advertise-addr", "10.88.0.2", "10.88.0.1:2377")
            everywhere = ("--mode", "global", "--no-resolve-image", "--detach")
            manager("service", "create", "--name", "sleeper", *everywhere, "busybox", "sleep", "1000")

            until = time.monotonic() + 30
            while not all(docker("ps", "-q").stdout for docker in (manager, worker)):
                assert time.monotonic() < until, manager("service", "ps", "sleeper").stdout
                time.sleep(0.1)
            assert sorted(manager("node", "ls", "--format", "{{.Hostname}}").stdout.split()) == ["n1", "n2"]
