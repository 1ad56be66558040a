"""docs/remote.md tells the truth: its commands run from top to bottom, and fail only where it says so."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.journeys.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed
from tests.journeys.sshd import Sshd

from orlop.testing import images
from orlop.testing.engine import Engine
from orlop.testing.machine import Machine

PAGE = Path(__file__).parents[2] / "docs/remote.md"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[tuple[Machine, dict[str, str]]]:
    """A machine with an engine, orlop on its default root, and the servers of the page; and what its commands know."""
    with Machine(tmp_path / "remote", "remote") as machine:
        machine.run(["sh", "-ec", "mkdir -p /var/lib/orlop; mount -t tmpfs none /var/lib/orlop"])
        machine.spawn([sys.executable, "-m", "orlop", "serve"], log=tmp_path / "serve.log")
        ssh, s3, engine = Sshd(machine, "node2"), Seaweed(machine), Engine(machine)
        ssh.start(), s3.start(), engine.start()
        s3.make("photos")
        engine.load(images.build("busybox"))
        machine.run(["sh", "-ec", f"mount -t tmpfs none /mnt; cp {ssh.key} /mnt/nas; cat >/mnt/s3"], input=SECRET_KEY)
        yield machine, {"ENDPOINT": s3.endpoint, "KEY": ACCESS_KEY}
        engine.stop()
        s3.stop()


@pytest.mark.part("D5", "D6", "S6")
@pytest.mark.timeout(240)
def test_the_pages_commands_do_what_it_says(machine: tuple[Machine, dict[str, str]]) -> None:
    host, known = machine
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # Where the page's reader keeps his keys, the host of the tests keeps its own.
    page = PAGE.read_text().replace("/root/keys/", "/mnt/")
    commands = re.findall(r"^\$ (.*)$", page, re.MULTILINE)

    for command in commands:
        argv, _, remark = command.partition("    # ")
        done = host.run(["sh", "-c", argv], check=False, env={"PATH": path, **known})

        assert (done.returncode != 0) == remark.startswith("fails"), f"{command}\n{done.stdout}{done.stderr}"
    assert len(commands) > 12
