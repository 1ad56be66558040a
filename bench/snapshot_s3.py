"""Snapshots beside restic as in `snapshot_engines`, into an S3 store (SeaweedFS) on the same machine, all in memory.

Fewer data: the store takes its time from the same processors. borg knows no S3.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.journeys.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

import snapshot_engines as engines
from figures import Figure, compare
from orlop.testing.machine import Machine
from plugin_verbs import memory_disk

ROUNDS, FILES, MIB = 3, 10_000, 512
_STEPS = {
    "small files": {"first": "<= 0.4", "unchanged": "<= 0.2", "restore": "<= 0.5556"},
    "mixed": {"first": "<= 0.5", "unchanged": "<= 0.2", "restore": "<= 0.5556"},
}


def measure() -> list[Figure]:
    with stage() as (machine, store, small, mixed):
        return [
            *compared(machine, store, f"{FILES:,} small files over S3", small, _STEPS["small files"]),
            *compared(machine, store, f"{MIB} MiB mixed over S3", mixed, _STEPS["mixed"]),
        ]


@contextmanager
def stage() -> Iterator[tuple[Machine, Seaweed, Path, Path]]:
    """A machine, a store on it with the bucket ``bench``, small files and mixed data, all in memory."""
    engines.FILES, engines.MIB = FILES, MIB
    with engines.in_memory() as root, memory_disk("8G", "xfs") as (machine, _):
        # Room for what all rounds leave.
        store = Seaweed(machine, volumes=300)
        store.start()
        store.make("bench")
        yield machine, store, engines.small_files(root / "small"), engines.mixed_files(root / "mixed")
        store.stop()


def compared(machine: Machine, store: Seaweed, what: str, source: Path, goals: dict[str, str]) -> Iterator[Figure]:
    """Seconds that orlop and restic need for each step, in turns."""
    took: dict[str, dict[str, list[float]]] = {name: {step: [] for step in goals} for name in ("orlop", "restic")}
    for number in range(ROUNDS):
        for name, command in _ENGINES if number % 2 else _ENGINES[::-1]:
            repository, target = f"{name}-{source.name}-{number}", source.parent / "target"
            target.mkdir()
            _run(machine, store, command("init", store, repository, source))
            for step in goals:
                verb, folder = ("restore", target) if step == "restore" else ("save", source)
                took[name][step].append(_run(machine, store, command(verb, store, repository, folder)))
            machine.run(["rm", "-rf", str(target), str(source.parent / "cache")])
    for step, goal in goals.items():
        yield compare(f"{what}: {step}", "s", took["orlop"][step], took["restic"][step], "restic", goal)


def _orlop(verb: str, store: Seaweed, repository: str, folder: Path) -> list[str]:
    del store
    program = engines.ORLOP.format(password=engines.PASSWORD, cache=str(folder.parent / "cache"))
    return [sys.executable, "-c", program, verb, f"s3://bench/{repository}", str(folder), ""]


def _restic(verb: str, store: Seaweed, repository: str, folder: Path) -> list[str]:
    start = ["restic", "--quiet", "--cache-dir", str(folder.parent / "cache"), "-r"]
    end = {"init": ["init"], "save": ["backup", str(folder)], "restore": ["restore", "latest", "--target", str(folder)]}
    return [*start, f"s3:{store.endpoint}/bench/{repository}", *end[verb]]


_Command = Callable[[str, Seaweed, str, Path], list[str]]
_ENGINES: tuple[tuple[str, _Command], ...] = (("orlop", _orlop), ("restic", _restic))


def _run(machine: Machine, store: Seaweed, argv: list[str]) -> float:
    """Seconds."""
    ours = {"endpoint": store.endpoint, "region": "us-east-1", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    theirs = {
        "RESTIC_PASSWORD": engines.PASSWORD,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    began = time.perf_counter()
    machine.run(argv, env={**os.environ, **theirs, "ORLOP_BENCH_STORE": json.dumps(ours)}, timeout=600)
    return time.perf_counter() - began
