"""What is left of a program that crashes: no secret, wherever the kernel writes the memory of processes.

Where that is, one setting says for the whole host, so this is tried on a host of the tests' own.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.guest.plugin import Plugin
from tests.guest.test_remote import everything_told
from tests.journeys.sshd import PASSWORD, Sshd

from orlop.testing.waiting import eventually

KEY = "rclones-own-key-9917"
PATTERN = Path("/proc/sys/kernel/core_pattern")
# It has both secrets in its memory, puts them together only there, and crashes.
_CONTROL = f"import os; held = {PASSWORD[::-1]!r}[::-1] + {KEY[::-1]!r}[::-1]; os.abort()"


@pytest.fixture(scope="module")
def sshd(machine) -> Iterator[Sshd]:
    server = Sshd(machine, "node2")
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["program", "file"])
def dumps(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The folder that gets the memory of whatever crashes: by a program that the kernel starts, or as files."""
    folder, catcher, before = tmp_path / "dumps", tmp_path / "catcher", PATTERN.read_text()
    folder.mkdir()
    catcher.write_text(f'#!/bin/sh\nexec cat >"{folder}/$1.$2"\n')
    catcher.chmod(0o755)
    PATTERN.write_text(f"|{catcher} %e %p" if request.param == "program" else f"{folder}/%e.%p")
    yield folder
    PATTERN.write_text(before)


def processes(plugin: Plugin, name: str) -> list[int]:
    """The machine's processes of that name, by its own numbers."""
    return [int(pid) for pid in plugin.lab.out(f"pgrep -x {name} || true").split()]


@pytest.mark.part("D5", "D6")
def test_programs_and_the_daemon_that_crash_leave_no_memory_behind(
    plugin: Plugin, sshd: Sshd, dumps: Path, tmp_path: Path
) -> None:
    lab = plugin.lab
    (tmp_path / "rclone").write_text(f"[there]\ntype = alias\nremote = {tmp_path}\n[other]\ntype = s3\nkey = {KEY}\n")
    (tmp_path / "key").write_text(KEY)
    plugin.create("ssh", driver="sshfs", sshcmd="test@node2:/home/test", password=PASSWORD)
    plugin.create("clone", driver="rclone", remote="there:", config=f"file:{tmp_path}/rclone", cache="off")
    silent = lab.machine.spawn([sys.executable, "-c", _SILENT])
    bucket = {"bucket": "photos", "endpoint": "http://127.0.0.1:4999", "access_key": "ID"}
    plugin.create("bucket", driver="s3", secret_key=f"file:{tmp_path}/key", **bucket)
    plugin.mount("ssh"), plugin.mount("clone")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Plugin(lab).refused, "Mount", "bucket")
        eventually(lambda: processes(plugin, "s3fs"))
        told = everything_told(plugin)

        crash(plugin, "s3fs", signal.SIGABRT)
        told["error of Mount"] = waiting.result(120).encode()
    silent.terminate()
    for name, number in (("ssh", signal.SIGSEGV), ("sshfs", signal.SIGSEGV), ("rclone", signal.SIGABRT)):
        crash(plugin, name, number)
    lab.machine.run(["sh", "-c", f"ulimit -c unlimited; exec {sys.executable} -c {_quoted(_CONTROL)}"], check=False)
    lab.crash_orlop()
    eventually(lambda: list(dumps.iterdir()))
    lab.serve()
    told |= {"log": lab.log.read_bytes(), "inspect": repr(plugin.ask("Get", Name="ssh")).encode()}

    found = [path.read_bytes() for path in dumps.iterdir()]
    secrets = [PASSWORD.encode(), KEY.encode()]
    assert [sum(secret in dump for dump in found) for secret in secrets] == [1, 1], "only what is not orlop's"
    assert [where for where, text in told.items() if any(secret in text for secret in secrets)] == []
    assert "s3fs" in told["error of Mount"].decode()
    for name in ("ssh", "clone"):
        plugin.unmount(name)
    assert plugin.mounts() == []


# It takes connections, and says nothing.
_SILENT = "import socket, time; s = socket.create_server(('127.0.0.1', 4999)); time.sleep(1000)"


def crash(plugin: Plugin, name: str, number: signal.Signals) -> None:
    """Have every program of that name crash, and wait until it has."""
    pids = processes(plugin, name)
    assert pids, f"no {name} runs"
    plugin.lab.sh(f"kill -{number.value} {' '.join(map(str, pids))}")
    eventually(gone(plugin, name, pids))


def gone(plugin: Plugin, name: str, pids: list[int]) -> Callable[[], bool]:
    return lambda: not {*pids} & {*processes(plugin, name)}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
