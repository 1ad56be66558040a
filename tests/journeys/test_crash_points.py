"""kill -9 between any two durable steps, with real processes, a real kernel and a real filesystem in a file.

What was acknowledged is true afterwards, everything else is finished or undone, and nothing is left mounted.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.testing.machine import Machine

LIFE = Path(__file__).with_name("life.py")
STEPS = [
    "create: recorded", "create: made", "create: defined",
    "mount: recorded", "mount: attached", "mount: mounted",
    "update: recorded", "update: resized",
    "unmount: unmounted", "unmount: detached", "unmount: recorded",
    "remove: detached", "remove: recorded",
    "restore: recorded",
    "remove: detached", "remove: recorded",
    "purge: recorded", "delete: removed",
]  # fmt: skip


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("crash"), "crash") as machine:
        yield machine


def play(machine: Machine, root: Path, *words: str) -> list[str]:
    """What the process printed before it ended, or was killed."""
    done = machine.run([sys.executable, str(LIFE), str(root), *words], check=words[0] == "recover")
    return done.stdout.splitlines()


@pytest.mark.feature("P11")
@pytest.mark.parametrize("number", range(len(STEPS) + 1))
def test_a_kill_at_any_step_leaves_a_host_that_puts_itself_right(machine: Machine, number: int) -> None:
    root = machine.folder / f"root-{number}"

    told = play(machine, root, "live", str(number))
    found = json.loads(play(machine, root, "recover")[-1])

    # After the last step the process lives on to its end: so these are all the steps there are.
    assert told[-1] == (f"killed at {STEPS[number]}" if number < len(STEPS) else "purge")
    assert found["left"] == []
    assert found["mounted"] == []
    _compare(told[:-1] if number < len(STEPS) else told, told[-1], found)
    shutil.rmtree(root)


def _compare(told: list[str], end: str, found: dict[str, object]) -> None:
    last = told[-1] if told else ""
    if last in ("create", "mount", "write", "update", "unmount", "restore") and "remove" not in end:
        assert found["there"]
    if last in ("remove", "purge") and "restore" not in end:
        assert not found["there"]
    if found["there"] and "write" in told:
        assert found["file"] == "kept"
    if found["there"] and "update" in told:
        assert 8 << 20 < int(str(found["capacity"])) <= 12 << 20
    if last == "purge":
        assert found["folders"] == []
