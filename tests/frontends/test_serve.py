"""The daemon as a process: what it logs and counts, what it refuses, how it ends."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from orlop.errors import Conflict
from orlop.frontends import listeners
from orlop.kernel.locks import Locks


class Daemon:
    def __init__(self, folder: Path, *options: str):
        self.root, self.socket, self.log = folder / "root", folder / "orlop.sock", folder / "log"
        argv = [
            sys.executable,
            "-m",
            "orlop",
            "serve",
            "--root",
            str(self.root),
            "--socket",
            str(self.socket),
            *options,
        ]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(argv, stderr=log)
        end = time.monotonic() + 20
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end
            time.sleep(0.02)

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """The status and body of the answer to a request as it goes over the wire."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self.socket))
            connection.sendall(request)
            head, _, body = _read_all(connection).partition(b"\r\n\r\n")
            return int(head.split()[1]), body

    def call(self, verb: str, **body: object) -> tuple[int, dict[str, object]]:
        content = json.dumps(body).encode()
        head = f"POST /VolumeDriver.{verb} HTTP/1.1\r\nHost: \r\nConnection: close\r\n"
        status, reply = self.ask(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        return status, json.loads(reply)


def _read_all(connection: socket.socket) -> bytes:
    content = b""
    while part := connection.recv(65536):
        content += part
    return content


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, "--log-format", "json", "--debug")
    yield daemon
    daemon.process.kill()
    daemon.process.wait()


@pytest.mark.part("E5")
def test_metrics_count_verbs_by_outcome_and_volumes_by_driver(daemon: Daemon) -> None:
    daemon.call("Create", Name="data")
    daemon.call("Create", Name="../x")
    daemon.call("Explode", Name="data")

    status, text = daemon.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    lines = text.decode().splitlines()
    assert status == 200
    assert 'orlop_verbs_total{outcome="ok",verb="Create"} 1.0' in lines
    assert 'orlop_verbs_total{outcome="error",verb="Create"} 1.0' in lines
    assert 'orlop_verbs_total{outcome="error",verb="unknown"} 1.0' in lines
    assert 'orlop_volumes{driver="local"} 1.0' in lines
    assert 'orlop_verb_seconds_count{verb="Create"} 2.0' in lines


@pytest.mark.part("E5")
def test_logs_are_one_json_object_a_line_that_say_what_they_are_about(daemon: Daemon) -> None:
    daemon.call("Create", Name="data")

    lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    (created,) = (line for line in lines if line["message"] == "create data")
    assert (created["level"], created["volume"], created["driver"]) == ("info", "data", "local")
    assert any(line["message"] == "/VolumeDriver.Create answered with 200" for line in lines)


def test_a_request_that_is_too_large_is_refused_unread(daemon: Daemon) -> None:
    request = b"POST /VolumeDriver.Create HTTP/1.1\r\nHost: \r\nConnection: close\r\nContent-Length: 9999999\r\n\r\n"

    assert daemon.ask(request)[0] in (413, 500)
    assert daemon.call("List")[1]["Volumes"] == []


def test_what_is_no_http_is_refused_and_the_next_one_answered(daemon: Daemon) -> None:
    assert daemon.ask(b"\x16\x03\x01\x02\x00 hello\r\n\r\n")[0] == 400
    assert daemon.call("List")[0] == 200


def test_only_root_can_reach_the_socket(daemon: Daemon) -> None:
    assert daemon.socket.stat().st_mode & 0o777 == 0o600


def test_a_second_daemon_does_not_take_the_socket_away(daemon: Daemon) -> None:
    with pytest.raises(Conflict, match="another process listens"):
        listeners.unix(daemon.socket)

    assert daemon.call("List")[0] == 200


def test_a_dead_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "orlop.sock"
    with closing(listeners.unix(path).socket):
        pass

    with closing(listeners.unix(path).socket):
        assert path.is_socket()


def test_it_ends_when_told_and_takes_its_socket_away(daemon: Daemon) -> None:
    daemon.call("List")
    daemon.process.send_signal(signal.SIGTERM)

    assert daemon.process.wait(20) == 0
    assert not daemon.socket.exists()


def test_a_verb_that_hangs_does_not_keep_it_from_ending(daemon: Daemon) -> None:
    daemon.call("Create", Name="data")
    with Locks(daemon.root / "locks").hold("data"), socket.socket(socket.AF_UNIX) as hangs:
        hangs.connect(str(daemon.socket))
        hangs.sendall(b'POST /VolumeDriver.Remove HTTP/1.1\r\nHost: \r\nContent-Length: 15\r\n\r\n{"Name":"data"}')
        hundred = [daemon.call("Get", Name="data")[0] for _ in range(100)]
        daemon.process.send_signal(signal.SIGTERM)

        assert daemon.process.wait(30) == 0
    assert hundred == [200] * 100
    assert "did not end in time" in daemon.log.read_text()


def test_running_out_of_file_descriptors_does_not_make_it_deaf(daemon: Daemon) -> None:
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (30, 30))
    with ExitStack() as connections:
        for _ in range(60):
            connections.enter_context(socket.socket(socket.AF_UNIX)).connect(str(daemon.socket))
        end = time.monotonic() + 20
        while "is not answered" not in daemon.log.read_text():
            assert time.monotonic() < end
            time.sleep(0.05)

    assert daemon.call("List")[0] == 200


def test_a_damaged_state_file_is_named_and_nothing_is_served(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/state.db").write_bytes(os.urandom(8192))
    argv = [sys.executable, "-m", "orlop", "serve", "--root", tmp_path / "root", "--socket", tmp_path / "s"]

    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 1
    assert f"state file '{tmp_path}/root/state.db' is damaged" in done.stderr
    assert "orlop system check --repair" in done.stderr
    assert not (tmp_path / "s").exists()
