"""What only engines know: which containers, running or not, use which volume, and the labels that Docker keeps.

Engines are asked here, by commands, and never from service code: an engine that waits for our daemon must not be waited
for by it.
"""

import functools
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from orlop.errors import InUse, Invalid, OrlopError, Unavailable
from orlop.state import Row
from orlop.volumes.service import VolumeService

DEFAULT_SOCKET = Path("/run/docker.sock")
_LOOK, _LIST, _REMOVE = 20.0, 5.0, 130.0
"""Seconds. Docker asks plugins for their volumes, for 30 seconds if they are dead; removing waits for a backend."""
_POLL = 0.05
_FRAME = struct.Struct(">4xI")


@dataclass(frozen=True, slots=True)
class Container:
    """A container of an engine; ``state`` is the engine's word: running, exited, created, ..."""

    id: str
    name: str
    state: str

    def __str__(self) -> str:
        return f"container {self.name} ({self.id[:12]})"


@dataclass(frozen=True, slots=True)
class Known:
    """A volume as an engine has it."""

    labels: Mapping[str, str]
    mountpoint: Path


class Engine:
    """One engine, behind its unix socket. Every verb raises `Unavailable` if it does not answer."""

    def __init__(self, path: Path):
        """``path`` of the socket."""
        self.path = path

    @cached_property
    def containers(self) -> Mapping[str, Sequence[Container]]:
        """The containers that use each orlop volume, by its name."""
        found: dict[str, list[Container]] = {}
        for each in self._look("/containers/json?all=1", _LOOK):
            container = Container(each["Id"], (each.get("Names") or ["?"])[0].lstrip("/"), each.get("State", ""))
            for mount in each.get("Mounts") or []:
                if _is_ours(mount.get("Driver")):
                    found.setdefault(mount["Name"], []).append(container)
        return found

    @property
    def volumes(self) -> Mapping[str, Known]:
        """The orlop volumes that the engine has, by name. An engine that cannot reach our daemon does not answer."""
        if isinstance(self._volumes, Unavailable):
            raise self._volumes
        return self._volumes

    @cached_property
    def _volumes(self) -> Mapping[str, Known] | Unavailable:
        try:
            found = self._look("/volumes", _LIST).get("Volumes") or []
        except Unavailable as error:
            return error
        ours = (each for each in found if _is_ours(each.get("Driver")))
        return {each["Name"]: Known(each.get("Labels") or {}, Path(each.get("Mountpoint") or "/")) for each in ours}

    def remove(self, name: str) -> bool:
        """Have the engine remove its volume ``name``; whether it had one. Raises `InUse` as the engine says it."""
        status, answer = self._call("DELETE", f"/volumes/{quote(name)}", _REMOVE)
        if status == HTTPStatus.CONFLICT:
            raise InUse(f"volume {name!r}: the engine says: {_message(answer)}")
        if status >= HTTPStatus.BAD_REQUEST and status != HTTPStatus.NOT_FOUND:
            raise Unavailable(f"volume {name!r}: the engine says: {_message(answer)}")
        return status != HTTPStatus.NOT_FOUND

    def running(self, name: str) -> list[Container]:
        """The containers that use the orlop volume ``name`` and run now, the oldest first."""
        wanted = quote(json.dumps({"volume": [name], "status": ["running"]}))
        found = self._look(f"/containers/json?filters={wanted}", _LOOK)
        return [
            Container(each["Id"], (each.get("Names") or ["?"])[0].lstrip("/"), each.get("State", ""))
            for each in sorted(found, key=lambda each: (each.get("Created", 0), each["Id"]))
            if any(mount.get("Name") == name and _is_ours(mount.get("Driver")) for mount in each.get("Mounts") or [])
        ]

    def run(self, container: Container, command: str, patience: float) -> tuple[int, str]:
        """Run ``command`` by the shell in ``container``: its exit status, and what it said.

        Raises `Unavailable` if it says nothing for ``patience`` seconds; it may still run then.
        """
        asked = {"AttachStdout": True, "AttachStderr": True, "Cmd": ["/bin/sh", "-c", command]}
        made = self._ask("POST", f"/containers/{container.id}/exec", asked)
        status, content = exchange(self.path, "POST", f"/exec/{made['Id']}/start", patience, {"Detach": False})
        if status != HTTPStatus.OK:
            raise Unavailable(f"the engine says: {content.decode(errors='replace').strip()}")
        return self._exit_status(made["Id"]), b"".join(_frames(content)).decode(errors="replace").strip()

    def _exit_status(self, exec_: str) -> int:
        # What a command says may end a moment before the engine knows of its end.
        end = time.monotonic() + _LIST
        while True:
            state = self._ask("GET", f"/exec/{exec_}/json")
            if not state.get("Running") and state.get("ExitCode") is not None:
                return int(state["ExitCode"])
            if time.monotonic() > end:
                raise Unavailable("the command has closed its output and does not end")
            time.sleep(_POLL)

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        status, content = exchange(self.path, method, path, _LOOK, body)
        answer = json.loads(content)
        if status >= HTTPStatus.BAD_REQUEST:
            raise Unavailable(f"the engine says: {_message(answer)}")
        return answer

    def _look(self, path: str, patience: float) -> Any:
        status, answer = self._call("GET", path, patience)
        if status != HTTPStatus.OK:
            raise self._silent(_message(answer))
        return answer

    def _call(self, method: str, path: str, patience: float) -> tuple[int, Any]:
        try:
            return request(self.path, method, path, patience)
        except Unavailable as error:
            raise self._silent(str(error)) from error

    def _silent(self, why: str) -> Unavailable:
        return Unavailable(
            f"engine '{self.path}' does not answer ({why}), so nobody knows which containers use a volume; "
            "start it, or say --no-engine if it has none"
        )


class Engines:
    """All the engines that may use orlop's volumes on this host."""

    def __init__(self, engines: Sequence[Engine]):
        """None at all is fine: then nothing is known but what the kernel tells."""
        self._engines = engines

    def users(self, name: str) -> list[Container]:
        """The containers that use volume ``name``, running or not."""
        return [container for engine in self._engines for container in engine.containers.get(name, ())]

    def running(self, name: str) -> list[tuple[Engine, Container]]:
        """The containers that use volume ``name`` and run now, those of each engine by age; asked anew."""
        return [(engine, container) for engine in self._engines for container in engine.running(name)]

    def labels(self, row: Row) -> dict[str, str]:
        """The labels of ``row``: those that an engine keeps, and ours."""
        found: dict[str, str] = {}
        for engine in self._engines:
            if row.name in engine.volumes:
                found |= engine.volumes[row.name].labels
        return {**found, **row.labels}

    def remove(self, service: VolumeService, row: Row) -> None:
        """Remove ``row`` by way of the engines that have it, so that their records stay right.

        Raises `InUse`, naming the containers.
        """
        users = self.users(row.name)
        if users:
            raise InUse(f"volume {row.name!r} is in use by {', '.join(map(str, users))}; remove that first")
        # An engine passes it on to our daemon, so then it has gone.
        removed = [engine.remove(row.name) for engine in self._engines if _has(engine, service, row)]
        if not any(removed):
            service.remove(row.name)


def asking(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``command`` the options that name engines; it is called with ``engines=`` `Engines`."""

    @click.option("--engine", "sockets", multiple=True, metavar="SOCKET", envvar="ORLOP_ENGINE",
                  help=f"Engine to ask which containers use a volume; repeatable.  [default: $DOCKER_HOST or "
                       f"{DEFAULT_SOCKET}]")  # fmt: skip
    @click.option("--no-engine", is_flag=True, envvar="ORLOP_NO_ENGINE",
                  help="Ask no engine: stopped containers then count for nothing.")  # fmt: skip
    @functools.wraps(command)
    def with_engines(*args: object, sockets: Sequence[str], no_engine: bool, **rest: object) -> object:
        chosen = [] if no_engine else _choose(sockets, os.environ.get("DOCKER_HOST", ""))
        return command(*args, engines=Engines([Engine(path) for path in chosen]), **rest)

    return with_engines


def request(path: Path, method: str, target: str, patience: float) -> tuple[int, Any]:
    """Status and JSON that the server on the unix socket ``path`` answers; `Unavailable` after ``patience`` seconds."""
    status, content = exchange(path, method, target, patience)
    try:
        return status, json.loads(content) if content else {}
    except ValueError as error:
        raise Unavailable(str(error)) from error


def exchange(path: Path, method: str, target: str, patience: float, body: object = None) -> tuple[int, bytes]:
    """As `request`, with the answer as it is; ``body`` is sent as JSON."""
    # Imported here: most commands ask nobody, and this takes as long as all of their own.
    import http.client

    connection = http.client.HTTPConnection("engine")
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(patience)
        connection.sock.connect(str(path))
        sent = None if body is None else json.dumps(body)
        connection.request(method, target, sent, {"Content-Type": "application/json"} if sent else {})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unavailable(str(error) or type(error).__name__) from error
    finally:
        connection.close()


def _choose(sockets: Sequence[str], docker_host: str) -> list[Path]:
    if not sockets and not docker_host:
        return [DEFAULT_SOCKET] if DEFAULT_SOCKET.exists() else []
    paths = [Path(text.removeprefix("unix://")) for text in sockets or (docker_host,)]
    for path in paths:
        if not path.is_absolute():
            raise Invalid(
                f"engine '{path}' is not a unix socket of this host; name one by --engine, or say --no-engine"
            )
    return paths


def _has(engine: Engine, service: VolumeService, row: Row) -> bool:
    """Whether the engine's volume of that name is ours, not that of another orlop with another root."""
    try:
        known = engine.volumes.get(row.name)
    except OrlopError:
        # It cannot reach our daemon, so it cannot remove either, and forgets the volume when it next looks for it.
        return False
    try:
        return known is not None and known.mountpoint.parent.samefile(service.path(row).parent)
    except OSError:
        return False


def _is_ours(driver: str | None) -> bool:
    """Managed plugins are called like images: ``registry/orlop:latest``."""
    return (driver or "").rpartition("/")[2].partition(":")[0] == "orlop"


def _frames(stream: bytes) -> Iterator[bytes]:
    """What a container wrote: each piece comes after a byte for its channel, three for nothing, and its length."""
    while len(stream) >= _FRAME.size:
        (length,) = _FRAME.unpack_from(stream)
        yield stream[_FRAME.size : _FRAME.size + length]
        stream = stream[_FRAME.size + length :]


def _message(answer: object) -> str:
    return str(answer.get("message", answer)) if isinstance(answer, Mapping) else str(answer)
