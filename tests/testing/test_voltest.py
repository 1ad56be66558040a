import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orlop.testing.voltest import suite
from orlop.testing.voltest.__main__ import main
from orlop.testing.voltest.bench import Bench
from orlop.testing.voltest.subject import ORLOP, Subject
from orlop.testing.voltest.wire import DOCKER, PODMAN, Answer, Wire

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")

PLUGIN = Path(__file__).with_name("sloppy_plugin.py")
SLOPPY = Subject(
    name="sloppy",
    command=(sys.executable, str(PLUGIN), "{socket}", "{state}"),
    other_options={"colour": "blue"},
    sized_options={"size": "32m"},
    backend_options={"folder": "{backend}/{name}"},
)
WORSE = Subject(name="worse", command=(*SLOPPY.command, "worse"), options={"colour": "red"})
# Each with words of what has to be reported, so that no check fails for another reason.
MISTAKES = {
    "P3": "Create with body",
    "P4": "has status 200",
    "P8": "Levitate: 200",
    "P9": "create '../../escape': 200",
    "P10": "no-such-option=1: 200",
    "P11": "the slowest took",
    "P12": "timed out",
    "P14": "CreatedAt was ",
    "I2": "'colour': 'blue'} over {}: 200",
    "I4": "remove while mounted: 200",
    "I5": "already mounted by this id",
    "I6": "removed although its holder never unmounted",
    "I8": "already mounted by this id",
    "I9": "already mounted by this id",
    "S1": "already mounted by this id",
    "S2": "already mounted by this id",
    "S5": "are listed: []",
    "S7": "no such volume",
    "S8": "gone",
    "S9": "gone after a kill",
    "S10": "the volume is gone",
    "S11": "acknowledged volumes are gone",
    "D4": "is not listed",
    "D14": "48 MiB into a volume of 32",
}
WORSE_MISTAKES = {
    "P1": "415",
    "P2": "create: 415",
    "P5": "null: ",
    "P6": "answers an error and a volume",
    "P7": "path says 200",
    "P13": "planet",
    "I1": "second create: 200",
    "I3": "second remove: 500 <!DOCTYPE",
    "I7": "31 of 32 creates were refused",
    "S3": "volume is in use",
    "S4": "can't open '/data/early'",
}
# Where it makes no mistake: the same suite must not cry wolf.
FINE = ("P1", "P2", "P5", "P6", "P7", "P13", "I1", "I3", "I7", "S3", "S4", "S6", "D1", "D2", "D3", "D5", "D6", "D13")


@pytest.fixture(scope="module")
def bench():
    with Bench(SLOPPY, kills=3) as bench:
        yield bench


@needs_root
@pytest.mark.parametrize("identity", MISTAKES)
def test_a_sloppy_plugin_is_found_out(bench, identity):
    [check] = suite.select([identity])

    result = suite.run(check, bench)

    assert result.outcome == "FAIL"
    assert MISTAKES[identity] in result.seen


@pytest.fixture(scope="module")
def bench_of_the_worse():
    with Bench(WORSE) as bench:
        yield bench


@needs_root
@pytest.mark.parametrize("identity", WORSE_MISTAKES)
def test_a_worse_plugin_is_found_out(bench_of_the_worse, identity):
    [check] = suite.select([identity])

    result = suite.run(check, bench_of_the_worse)

    assert result.outcome == "FAIL"
    assert WORSE_MISTAKES[identity] in result.seen


@needs_root
@pytest.mark.parametrize("identity", FINE)
def test_what_a_sloppy_plugin_does_right_passes(bench, identity):
    [check] = suite.select([identity])

    result = suite.run(check, bench)

    assert (result.outcome, result.seen) == ("pass", "")


def test_there_are_all_the_checks_in_their_order_each_with_its_reason():
    ids = [check.id for check in suite.all_checks()]

    assert ids == [
        f"{group}{n + 1}" for group, many in (("P", 14), ("I", 9), ("S", 12), ("D", 15)) for n in range(many)
    ]
    assert all(check.function.__doc__ for check in suite.all_checks())


def test_checks_are_chosen_by_id_and_by_group():
    ids = [check.id for check in suite.select(["S2", "I"])]

    assert ids == [*(f"I{n}" for n in range(1, 10)), "S2"]
    with pytest.raises(KeyError, match="no check 'X1'"):
        suite.select(["P1", "X1"])


@pytest.fixture
def running(tmp_path):
    """The sloppy plugin as somebody else started it: its socket."""
    process = subprocess.Popen([sys.executable, str(PLUGIN), str(tmp_path / "p.sock"), str(tmp_path)])
    while not (tmp_path / "p.sock").exists():
        time.sleep(0.02)
    yield tmp_path / "p.sock"
    process.kill()
    process.wait()


def test_a_running_plugin_is_only_talked_to(running, capsys):
    status = main(["--socket", str(running), "--format", "json", "--only", "P1,P4,P12,S4"])

    report = json.loads(capsys.readouterr().out)
    assert status == 1
    assert [(one["id"], one["outcome"]) for one in report["checks"]] == [
        ("P1", "pass"), ("P4", "FAIL"), ("P12", "n/a"), ("S4", "n/a")
    ]  # fmt: skip
    assert report["totals"] == {"pass": 1, "FAIL": 1, "n/a": 2}


def test_the_exit_status_is_zero_if_nothing_failed(running, capsys):
    status = main(["--socket", str(running), "--only", "P1"])

    assert status == 0
    assert "P1   pass  activation says volume driver" in capsys.readouterr().out


@needs_root
def test_a_bench_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with Bench(ORLOP) as bench:
        bench.prepare("control")
        bench.mount(bench.create(), bench.holder())

    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@needs_root
def test_any_command_line_is_tested_on_a_machine_of_its_own(capsys):
    status = main(["--plugin-cmd", f"{sys.executable} {PLUGIN} {{socket}} {{state}}", "--only", "P13,S2"])

    out = capsys.readouterr().out
    assert status == 1
    assert "P13  pass" in out
    assert "S2   FAIL" in out
    assert "1 pass, 1 FAIL, 0 n/a" in out


def test_requests_are_dockers_byte_for_byte(listener):
    path, received = listener(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with Wire(path, DOCKER) as wire:
        wire.create("v")

    assert received() == (
        b"POST /VolumeDriver.Create HTTP/1.1\r\n"
        b"Host: \r\n"
        b"User-Agent: Go-http-client/1.1\r\n"
        b"Accept: application/vnd.docker.plugins.v1.2+json\r\n"
        b"Accept-Encoding: gzip\r\n"
        b"Content-Length: 28\r\n"
        b"\r\n"
        b'{"Name": "v", "Opts": null}\n'
    )


def test_podman_lists_with_no_body(listener):
    path, received = listener(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with Wire(path, PODMAN) as wire:
        wire.names()

    assert b"Content-Type: application/vnd.docker.plugins.v1.1+json\r\n" in received()
    assert received().endswith(b"Content-Length: 0\r\n\r\n")


def test_an_answer_is_judged_as_dockerd_does():
    assert Answer(200, b'{"Err": ""}').ok
    assert Answer(200, b"null").ok
    assert not Answer(200, b'{"Err": "no"}').ok
    assert not Answer(500, b"").ok
    assert Answer(500, b"not json").err == ""


@pytest.fixture
def listener(tmp_path):
    """Make a socket that answers one request with fixed bytes; returns its path and what it received."""
    made = []

    def listen(reply):
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "l.sock"))
        server.listen()
        received = []

        def serve():
            connection, _ = server.accept()
            with connection:
                received.append(whole_request(connection))
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        made.append((server, thread))
        return tmp_path / "l.sock", lambda: received[0]

    yield listen
    for server, thread in made:
        thread.join(5)
        server.close()


def whole_request(connection):
    """Its headers and its body, which may come one after the other."""
    request = b""
    while True:
        request += connection.recv(65536)
        head, separator, body = request.partition(b"\r\n\r\n")
        if separator and len(body) == int(head.rpartition(b"Content-Length: ")[2].split()[0]):
            return request
