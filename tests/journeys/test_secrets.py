"""A secret reaches the container as a file in memory, and is nowhere else: not on disk, in a log, or in an answer."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from orlop.testing.engine import Engine
from orlop.testing.machine import Machine
from orlop.testing.process import Process

SECRET = "correct horse battery staple 8471"
TOKEN = "an-env-token-5520"
pytestmark = pytest.mark.feature("D12")


@pytest.fixture
def daemon(machine: Machine, serve) -> Process:
    key = machine.root / "run/keys/db"
    key.parent.mkdir(mode=0o700, exist_ok=True)
    key.write_text(SECRET)
    return serve("--run", "/run/orlop", "--debug", APP_TOKEN=TOKEN)


@pytest.fixture
def container(engine: Engine, daemon: Process) -> Iterator[str]:
    engine.docker("volume", "create", "-d", "orlop", "-o", "driver=secret", "-o", "db=file:/run/keys/db",
                  "-o", "token=env:APP_TOKEN", "keys")  # fmt: skip
    yield engine.docker("run", "-d", "-v", "keys:/keys", "shell", "sleep", "1000").stdout.strip()
    engine.docker("rm", "-f", "-v", *engine.docker("ps", "-aq").stdout.split())
    engine.docker("volume", "rm", "keys")


def below(folder: Path) -> Iterator[Path]:
    """Every file, of this filesystem and of those mounted in it."""
    yield from (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def with_secret(paths: Iterable[Path]) -> list[Path]:
    """The files whose bytes hold a secret."""
    needles = (SECRET.encode(), TOKEN.encode())
    found = []
    for path in paths:
        content = path.read_bytes()
        if any(needle in content for needle in needles):
            found.append(path)
    return found


def test_the_container_has_the_files_readable_for_their_owner_only_and_cannot_change_them(
    engine: Engine, container: str
) -> None:
    shown = engine.docker("exec", container, "cat", "/keys/db", "/keys/token")
    modes = engine.docker("exec", container, "stat", "-c", "%n %a %u", "/keys/db", "/keys/token")
    mounts = engine.docker("exec", container, "grep", " /keys ", "/proc/mounts")
    written = engine.docker("exec", container, "touch", "/keys/new", check=False)

    assert shown.stdout == SECRET + TOKEN
    assert modes.stdout.splitlines() == ["/keys/db 400 0", "/keys/token 400 0"]
    assert mounts.stdout.split()[2] == "tmpfs"
    assert "ro" in mounts.stdout.split()[3].split(",")
    assert "Read-only file system" in written.stderr


def test_nothing_is_left_in_memory_when_the_container_has_stopped(
    engine: Engine, machine: Machine, container: str
) -> None:
    during = with_secret(below(machine.root / "run/orlop"))

    engine.docker("stop", "-t", "0", container)

    assert [path.name for path in during] == ["db", "token"] or [path.name for path in during] == ["token", "db"]
    assert list(below(machine.root / "run/orlop")) == []


def test_it_is_nowhere_else(engine: Engine, machine: Machine, daemon: Process, container: str) -> None:
    on_disk = machine.root / str(machine.folder / "store").lstrip("/")
    answers = [
        engine.docker("volume", "inspect", "keys").stdout,
        engine.docker("inspect", container).stdout,
        machine.run(
            ["curl", "-sS", "--unix-socket", "/run/docker/plugins/orlop.sock", "http://orlop/metrics"], timeout=20
        ).stdout,
    ]
    engine.docker("rm", "-f", container)
    engine.docker("run", "-d", "-v", "keys:/keys", "shell", "sleep", "1000")

    assert len([path for path in below(on_disk) if "mounts" not in path.parts]) >= 2
    assert with_secret(path for path in below(on_disk) if "mounts" not in path.parts) == []
    assert (machine.folder / "serve.log").read_text().count("mount keys") >= 2
    assert with_secret([machine.folder / "serve.log", machine.folder / "dockerd.log"]) == []
    assert [SECRET in answer or TOKEN in answer for answer in answers] == [False] * 3
    assert '"db": "file:/run/keys/db"' in answers[0]


def test_no_process_shows_it_in_its_arguments_or_its_environment(
    engine: Engine, machine: Machine, container: str
) -> None:
    shown = []
    for process in (machine.root / "proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                content = (process / name).read_bytes()
            except OSError:
                continue
            if SECRET.encode() in content:
                shown.append((process.name, name))

    assert len(list((machine.root / "proc").glob("[0-9]*"))) > 3
    assert shown == []


def test_a_reference_that_leads_nowhere_is_named_without_starting_the_container(
    engine: Engine, daemon: Process
) -> None:
    engine.docker("volume", "create", "-d", "orlop", "-o", "driver=secret", "-o", "db=file:/run/keys/none", "lost")

    refused = engine.docker("run", "--rm", "-v", "lost:/keys", "shell", "true", check=False)
    engine.docker("volume", "rm", "lost")

    assert refused.returncode != 0
    assert "/run/keys/none" in refused.stderr
    assert SECRET not in refused.stderr
