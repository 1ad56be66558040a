"""Guides tell the truth: their commands run from top to bottom, and fail only where they say so."""

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.testing import images
from orlop.testing.engine import Engine
from orlop.testing.machine import Machine

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "guide", "guide") as machine:
        # The default root, empty whatever the host keeps there.
        machine.run(["sh", "-ec", "mkdir -p /var/lib/orlop; mount -t tmpfs none /var/lib/orlop"])
        machine.spawn([sys.executable, "-m", "orlop", "serve"], log=tmp_path / "serve.log")
        socket = machine.root / "run/docker/plugins/orlop.sock"
        end = time.monotonic() + 20
        while not socket.exists():
            assert time.monotonic() < end, (tmp_path / "serve.log").read_text()
            time.sleep(0.05)
        engine = Engine(machine)
        engine.start()
        engine.load(images.build("busybox"))
        yield machine
        engine.stop()


@pytest.mark.part("V5", "V6", "V15", "D1", "D12", "E5")
def test_the_guides_commands_do_what_it_says(machine: Machine) -> None:
    assert _play(machine, "guide.md") > 40


@pytest.mark.part("S1", "S2", "S3", "S4", "S5")
def test_the_commands_about_snapshots_do_what_their_page_says(machine: Machine) -> None:
    assert _play(machine, "snapshots.md") > 30


def _play(machine: Machine, page: str) -> int:
    """Run the commands of a page; how many there are."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    commands = re.findall(r"^\$ (.*)$", (DOCS / page).read_text(), re.MULTILINE)
    for command in commands:
        argv, _, remark = command.partition("    # ")
        done = machine.run(["sh", "-c", argv], check=False, env={"PATH": path})

        assert (done.returncode != 0) == remark.startswith("fails"), f"{command}\n{done.stdout}{done.stderr}"
    return len(commands)
