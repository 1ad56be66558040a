"""Engines that are not there, or answer nonsense; what real ones say is in `tests/journeys/test_both_sides.py`."""

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

ASK = {"ORLOP_NO_ENGINE": "0"}


class Server(socketserver.ThreadingUnixStreamServer):
    """Answers like an engine: ``answers`` by method and path."""

    daemon_threads = True

    def __init__(self, path: Path, answers: dict[str, tuple[int, object]]):
        self.path, self.answers, self.asked = path, answers, []
        super().__init__(str(path), Handler)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        status, content = self.server.answers.get(self.server.asked[-1], (404, {"message": "no such thing"}))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

    do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return "test"


def container(name: str, volume: str, driver: str = "orlop") -> dict[str, object]:
    mount = {"Type": "volume", "Name": volume, "Driver": driver}
    return {"Id": name * 20, "Names": [f"/{name}"], "State": "exited", "Mounts": [mount, {"Type": "bind"}]}


@pytest.fixture
def engine(tmp_path) -> Iterator[object]:
    """Start engines that say what they are told to."""
    servers: list[Server] = []

    def start(containers: object = (), volumes: object = (), **more: tuple[int, object]) -> Server:
        answers = {
            "GET /containers/json?all=1": (200, list(containers)),
            "GET /volumes": (200, {"Volumes": list(volumes)}),
            **more,
        }
        servers.append(Server(tmp_path / f"engine{len(servers)}.sock", answers))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.02}).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.feature("V5")
def test_containers_of_every_engine_that_is_named_keep_a_volume(orlop, engine):
    one, two = engine([container("web", "data")]), engine([container("db", "data", "registry/orlop:latest")])
    orlop("volume", "create", "data")

    named = orlop(
        "volume", "rm", "data", "--engine", str(one.path), "--engine", f"unix://{two.path}", env=ASK, status=1
    )
    from_environment = orlop("volume", "rm", "data", env=ASK | {"ORLOP_ENGINE": f"{one.path} {two.path}"}, status=1)

    users = "container web (webwebwebweb), container db (dbdbdbdbdbdb)"
    in_use = f"orlop: volume 'data' is in use by {users}; remove that first\n"
    assert named.stderr == from_environment.stderr == in_use


def test_containers_with_a_volume_of_another_plugin_do_not_count(orlop, engine):
    other = engine([container("web", "data", "local")])
    orlop("volume", "create", "data")

    assert orlop("volume", "rm", "data", env=ASK | {"DOCKER_HOST": f"unix://{other.path}"}).stdout == "data\n"


def test_an_engine_that_has_a_volume_of_that_name_somewhere_else_is_not_told_to_remove_it(
    orlop, engine, root, tmp_path
):
    elsewhere, here = tmp_path / "elsewhere", root / "volumes/data/_data"
    elsewhere.mkdir()
    foreign = engine(volumes=[{"Name": "data", "Driver": "orlop", "Mountpoint": str(elsewhere / "data")}])
    own = engine(volumes=[{"Name": "data", "Driver": "orlop", "Mountpoint": str(here)}])
    orlop("volume", "create", "data")

    orlop("volume", "rm", "data", "--engine", str(foreign.path), "--engine", str(own.path), env=ASK)

    # Ours was told; it knew no such volume after all, so orlop removed it itself.
    assert "DELETE /volumes/data" not in foreign.asked
    assert "DELETE /volumes/data" in own.asked
    assert orlop("volume", "ls", "-q").stdout == ""


@pytest.mark.parametrize(("status", "why"), [(409, "in use"), (500, "boom")])
def test_what_the_engine_says_against_a_removal_is_passed_on(orlop, engine, root, status, why):
    volumes = [{"Name": "data", "Driver": "orlop", "Mountpoint": str(root / "volumes/data/_data")}]
    server = engine(volumes=volumes, **{"DELETE /volumes/data": (status, {"message": why})})
    orlop("volume", "create", "data")

    refused = orlop("volume", "rm", "data", "--engine", str(server.path), env=ASK, status=1)

    assert refused.stderr == f"orlop: volume 'data': the engine says: {why}\n"
    assert orlop("volume", "ls", "-q").stdout == "data\n"


@pytest.mark.parametrize("answer", [(500, {"message": "boom"}), (200, b"<html>")])
@pytest.mark.parametrize("verb", [("rm", "data"), ("prune", "-af"), ("ls", "--filter", "dangling=1")])
def test_an_engine_that_answers_nonsense_stops_whatever_relies_on_it(orlop, engine, verb, answer):
    server = engine(**{"GET /containers/json?all=1": answer})
    orlop("volume", "create", "data")

    refused = orlop("volume", *verb, "--engine", str(server.path), env=ASK, status=1)

    assert f"engine '{server.path}' does not answer" in refused.stderr
    assert "--no-engine" in refused.stderr
    assert orlop("volume", "ls", "-q").stdout == "data\n"


def test_what_only_shows_something_goes_on_and_says_what_may_be_missing(orlop, tmp_path):
    orlop("volume", "create", "data", "--label", "a=1")
    silent = {"ORLOP_NO_ENGINE": "0", "ORLOP_ENGINE": str(tmp_path / "none.sock")}

    shown = orlop("volume", "inspect", "-f", "{{.Labels}} {{json .Containers}}", "data", env=silent)
    listed = orlop("volume", "ls", "--format", "{{.Labels}}", env=silent)

    assert shown.stdout == "map[a:1] null\n"
    assert "containers may be missing: engine " in shown.stderr
    assert listed.stdout == "a=1\n"
    assert "labels may be missing: engine " in listed.stderr


def test_an_engine_of_another_host_cannot_be_asked(orlop):
    refused = orlop("volume", "prune", "-f", env=ASK | {"DOCKER_HOST": "tcp://10.0.0.1:2375"}, status=1)

    assert "'tcp:/10.0.0.1:2375' is not a unix socket of this host" in refused.stderr
