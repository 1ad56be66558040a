"""Snapshots beside restic and borg: the same data, each step a process of its own, everything in memory.

Ours is the library (`orlop.snapshots`), imported as orlop's commands import it, without the command line and the state
of volumes around it; theirs are their commands. Each may keep what it likes on this host, and does: borg a list of
files, restic indexes and trees, orlop the index. All have the same password, which is drawn, as the one of a host's own
repository is: orlop knows that such a one need not be made dear to guess, and saves a tenth of a second each time.

ORLOP_BENCH_MIB is the size of the mixed data (4096), ORLOP_BENCH_FILES the number of small files (50000),
ORLOP_BENCH_DATABASE_MIB the size of the database (1024), ORLOP_BENCH_ROUNDS how often everything is done (3). Beside
the time that passes stands the time of the processors, user and system, of all processes of a command: that hardly
depends on what else the machine does.
"""

import os
import random
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from figures import Figure, alone, compare
from orlop.volumes import image

HOME = Path(__file__).parent.parent
BORG = HOME / ".cache/peers/bin/borg"
MIB, ROUNDS = int(os.environ.get("ORLOP_BENCH_MIB", "4096")), int(os.environ.get("ORLOP_BENCH_ROUNDS", "3"))
FILES = int(os.environ.get("ORLOP_BENCH_FILES", "50000"))
DATABASE_MIB, PAGE = int(os.environ.get("ORLOP_BENCH_DATABASE_MIB", "1024")), 8192
PASSWORD = secrets.token_hex(32)
ORLOP = """
from orlop.kernel.lasting import lasting
with lasting():
    import json, os, resource, sys, time
    from pathlib import Path
    from orlop.objects.places import locate
    from orlop.snapshots.repository import Repository
    verb, address, folder, volume = sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4]
    if verb == "save":
        from orlop.snapshots.save import About, save
    if verb == "restore":
        from orlop.snapshots.restore import restore
    if volume:
        from orlop.volumes.comparing import by_blocks
        from orlop.volumes.sources import ShadowSource
place = locate(address, json.loads(os.environ.get("ORLOP_BENCH_STORE", "{{}}")))
password = {password!r}.encode()
if verb == "init":
    if address.startswith("/"):
        os.mkdir(address)
    Repository.create(place, password, is_random=True)
    sys.exit()
repository = Repository.open(place, password, cache=Path({cache!r}))
snapshots = repository.snapshots()
last = next(reversed(snapshots), None)
if verb == "save" and volume:
    source = ShadowSource(Path(volume), list)
    with source.still() as still:
        about, ours = About("data", time.time_ns()), dict(changed=by_blocks(source, last), clones=still.are_clones)
        saved = save(repository, still.folder, about, parent=last, **ours)
        assert saved.is_complete
    source.settle(saved.snapshot)
elif verb == "save":
    assert save(repository, folder, About("data", time.time_ns()), parent=last).is_complete
else:
    assert not restore(repository, snapshots[last], folder, path="data").problems
# What getrusage says of this process begins with the memory of the one that started it.
own = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
print(max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1000)
"""


@dataclass(frozen=True)
class Engine:
    """How to call one of them: ``command(verb, repository, folder)`` for init, save and restore."""

    name: str
    command: Callable[[str, Path, Path], list[str]]


@dataclass
class Took:
    """What an engine needed in each round: seconds, also of processors; megabytes of memory (ours only), of growth."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    processors: dict[str, list[float]] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)
    grown: list[float] = field(default_factory=list)


def measure() -> list[Figure]:
    with in_memory() as root:
        small = _rounds(root, small_files(root / "small"), ("first", "unchanged", "restore"))
        mixed = _rounds(root, mixed_files(root / "mixed"), ("first", "unchanged", "restore"))
        with _volume(root / "volume", root / "database") as folder:
            database = _rounds(root, _database(folder), ("first", "changed"))
    return [
        *_compared("50,000 small files", small, {"first": "<= 0.4", "unchanged": "<= 0.2", "restore": "<= 0.5556"}),
        *_compared(f"{MIB} MiB mixed", mixed, {"first": "<= 0.5", "unchanged": "<= 0.2", "restore": "<= 0.5556"}),
        _growth(database),
        *_compared(f"{DATABASE_MIB} MiB database", database, {"first": "<= 0.5", "changed": "<= 0.1"}),
        alone("peak memory of a process", "MB", [max(took["orlop"].memory) for took in (small, mixed)], "<= 200"),
    ]


def _rounds(root: Path, source: Path, steps: tuple[str, ...]) -> dict[str, Took]:
    took = {engine.name: Took() for engine in ENGINES}
    for number in range(ROUNDS):
        for engine in ENGINES if number % 2 else ENGINES[::-1]:
            repository, target = root / "repository", root / "target"
            _run(engine.command("init", repository, source))
            for step in steps:
                _step(step, engine, repository, source, target, took[engine.name])
            shutil.rmtree(repository)
            shutil.rmtree(root / "cache", ignore_errors=True)
            shutil.rmtree(target, ignore_errors=True)
    return took


def _step(step: str, engine: Engine, repository: Path, source: Path, target: Path, took: Took) -> None:
    before = _size(repository)
    if step == "changed":
        _rewrite(source / "database")
    if step == "restore":
        target.mkdir()
    verb = "restore" if step == "restore" else "save"
    seconds, processors, shown = _run(engine.command(verb, repository, target if verb == "restore" else source))
    took.seconds.setdefault(step, []).append(seconds)
    took.processors.setdefault(step, []).append(processors)
    if engine.name == "orlop":
        took.memory.append(float(shown))
    if step == "changed":
        took.grown.append((_size(repository) - before) / 1e6)


def _compared(what: str, took: dict[str, Took], goals: dict[str, str]) -> Iterator[Figure]:
    for step, goal in goals.items():
        rivals = [engine.name for engine in ENGINES if engine.name != "orlop"]
        best = min(rivals, key=lambda name, step=step: sorted(took[name].seconds[step])[ROUNDS // 2])
        ours, theirs = took["orlop"], took[best]
        yield compare(f"{what}: {step}", "s", ours.seconds[step], theirs.seconds[step], best, goal)
        yield compare(f"{what}: {step}", "s of CPU", ours.processors[step], theirs.processors[step], best, goal)


def _growth(took: dict[str, Took]) -> Figure:
    name = f"{DATABASE_MIB} MiB database, 1 % of pages rewritten: stored"
    return compare(name, "MB", took["orlop"].grown, took["restic"].grown, "restic", "<= 0.125")


def _run(argv: list[str]) -> tuple[float, float, str]:
    """Seconds, seconds of processors, and what it printed."""
    began, before = time.perf_counter(), _processors()
    run = subprocess.run(argv, env=_environment(), capture_output=True, text=True, check=True)
    return time.perf_counter() - began, _processors() - before, run.stdout


def _processors() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _environment() -> dict[str, str]:
    borg = {"BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": tempfile.gettempdir()}
    return {**os.environ, "RESTIC_PASSWORD": PASSWORD, **borg}


def _orlop(verb: str, repository: Path, folder: Path) -> list[str]:
    program = ORLOP.format(password=PASSWORD, cache=str(repository.parent / "cache"))
    volume = folder.parent.parent / "volume"
    return [sys.executable, "-c", program, verb, str(repository), str(folder), str(volume) if volume.exists() else ""]


def _restic(verb: str, repository: Path, folder: Path) -> list[str]:
    start = ["restic", "--quiet", "--cache-dir", str(repository.parent / "cache"), "-r", str(repository)]
    end = {"init": ["init"], "save": ["backup", str(folder)], "restore": ["restore", "latest", "--target", str(folder)]}
    return [*start, *end[verb]]


def _borg(verb: str, repository: Path, folder: Path) -> list[str]:
    archive = f"{repository}::{time.monotonic_ns() if verb == 'save' else ''}"
    if verb == "init":
        return [str(BORG), "init", "-e", "repokey", str(repository)]
    if verb == "save":
        return [str(BORG), "create", "--compression", "zstd,3", archive, str(folder)]
    listing = [str(BORG), "list", "--short", "--last", "1", str(repository)]
    last = _run(listing)[2].strip()
    program = 'cd "$1" && exec "$2" extract "$3"'
    return ["sh", "-c", program, "sh", str(folder), str(BORG), f"{repository}::{last}"]


ENGINES = (Engine("orlop", _orlop), Engine("restic", _restic), Engine("borg", _borg))


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder in memory."""
    root = Path(tempfile.mkdtemp(prefix="orlop-bench-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90%", "tmpfs", root], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", "-l", root], check=True)
        root.rmdir()


@contextmanager
def _volume(file: Path, folder: Path) -> Iterator[Path]:
    """A volume of ours in ``file``, which can tell what was changed, mounted at ``folder``; the place of its files."""
    # Room for the database, and for what the shadow keeps of its changed blocks.
    image.make(file, "xfs", max(image.LEAST["xfs"], DATABASE_MIB * 2 << 20), image.Root(), thin=True)
    folder.mkdir()
    subprocess.run(["mount", "-o", "loop", file, folder], check=True)
    try:
        yield folder / image.DATA
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        file.unlink()


def small_files(folder: Path) -> Path:
    """`FILES` of up to some kilobytes: words, and a little that no program makes smaller."""
    chance = random.Random(1)
    words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(5000)]
    for number in range(FILES):
        place = folder / f"{number % 50}" / f"{number // 50 % 40}"
        place.mkdir(parents=True, exist_ok=True)
        content = b" ".join(chance.choices(words, k=chance.randint(50, 1300))) + chance.randbytes(200)
        (place / f"{number}").write_bytes(content)
    return folder


def mixed_files(folder: Path) -> Path:
    """A quarter each: a program as often as it fits, with a line changed; text; random; files of 64 KiB of both."""
    folder.mkdir()
    chance, part = random.Random(2), MIB // 4
    program = b"".join(path.read_bytes() for path in sorted(Path(sys.prefix, "lib").rglob("*.so"))[:200])
    words = [b"%x" % chance.getrandbits(40) for _ in range(3000)]
    with (folder / "programs").open("wb") as file:
        while file.tell() < part << 20:
            file.write(program[: (part << 20) - file.tell()] + chance.randbytes(99))
    with (folder / "text").open("wb") as text, (folder / "random").open("wb") as noise:
        for _ in range(part):
            text.write(b" ".join(chance.choices(words, k=100_000))[: 1 << 20])
            noise.write(chance.randbytes(1 << 20))
    for number in range(part * 16):
        half = b" ".join(chance.choices(words, k=3000))[: 32 << 10]
        (folder / f"file {number}").write_bytes(half + chance.randbytes(32 << 10))
    return folder


def _database(folder: Path) -> Path:
    chance = random.Random(3)
    with (folder / "database").open("wb") as file:
        file.write(b"SQLite format 3\0".ljust(PAGE, b"\0"))
        for _ in range((DATABASE_MIB << 20) // PAGE - 1):
            file.write((chance.randbytes(PAGE // 4) * 2).ljust(PAGE, b"\0"))
    return folder


def _rewrite(database: Path) -> None:
    pages = (DATABASE_MIB << 20) // PAGE
    with database.open("r+b") as file:
        for page in random.sample(range(1, pages), pages // 100):
            file.seek(page * PAGE)
            file.write(os.urandom(PAGE // 2))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
