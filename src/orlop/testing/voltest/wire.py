"""The volume-plugin protocol as engines really send it, byte for byte, over a unix socket.

HTTP libraries are too polite to test a plugin: dockerd 20.10 sends no Content-Type, an empty Host, a newline after the
JSON, and, when it repeats a call whose connection broke, no body at all.
"""

import gzip
import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PODMAN_ID = "2f73349cfc4630255319c6c8dfc1b46a8996ace9d14d8e07563b165915918ec2"
"""The one ID with which Podman makes all its mounts, because it counts users itself."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one engine phrases its requests: its headers, and what it sends where there is nothing to say."""

    headers: tuple[tuple[str, str], ...]
    nothing: bytes
    tail: bytes


DOCKER = Dialect(
    headers=(
        ("Host", ""),
        ("User-Agent", "Go-http-client/1.1"),
        ("Accept", "application/vnd.docker.plugins.v1.2+json"),
        ("Accept-Encoding", "gzip"),
    ),
    nothing=b"{}\n",
    tail=b"\n",
)
"""dockerd 20.10; newer ones differ only in their Host, ``plugin.moby.localhost``."""

PODMAN = Dialect(
    headers=(
        ("Host", "plugin"),
        ("User-Agent", "Go-http-client/1.1"),
        ("Content-Type", "application/vnd.docker.plugins.v1.1+json"),
        ("Accept-Encoding", "gzip"),
    ),
    nothing=b"",
    tail=b"",
)
"""Podman 4 and 5."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the plugin answered: the status, the body, and what the engines make of it."""

    status: int
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty if it is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def err(self) -> str:
        """The ``Err`` of the body, or nothing."""
        return str(self.json.get("Err") or "")

    @property
    def ok(self) -> bool:
        """Whether dockerd takes this for success: status 200 and no ``Err``."""
        return self.status == http.client.OK and not self.err

    def __str__(self) -> str:
        text = self.body.decode(errors="replace").strip()
        return f"{self.status} {text[:200]}"


class Wire:
    """One keep-alive connection to a plugin, with the verbs as methods.

    Connects at the first call, and again after the plugin closed the connection. Raises OSError or
    `http.client.HTTPException` if the plugin does not answer within ``timeout`` seconds: for a check that is a failure.
    Not for several threads: each takes its own.
    """

    def __init__(self, path: Path, dialect: Dialect = DOCKER, timeout: float = 20) -> None:
        self._dialect = dialect
        self._connection = _UnixConnection(path, timeout)

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the next call connects again."""
        self._connection.close()

    def send(self, path: str, payload: bytes) -> None:
        """Ask, and leave the answer in the socket."""
        connection = self._connection
        connection.putrequest("POST", path, skip_host=True, skip_accept_encoding=True)
        for name, value in (*self._dialect.headers, ("Content-Length", str(len(payload)))):
            connection.putheader(name, value)
        connection.endheaders(payload)

    def raw(self, path: str, payload: bytes) -> Answer:
        """Ask with exactly these bytes as the body."""
        try:
            self.send(path, payload)
            reply = self._connection.getresponse()
            body = reply.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        return Answer(reply.status, gzip.decompress(body) if reply.headers["Content-Encoding"] == "gzip" else body)

    def call(self, verb: str, fields: Mapping[str, object] | None = None) -> Answer:
        """Ask ``VolumeDriver.<verb>`` the way the engine does."""
        return self.raw(f"/VolumeDriver.{verb}", self.encode(fields))

    def encode(self, fields: Mapping[str, object] | None) -> bytes:
        """The body that the engine would send for these fields."""
        if fields is None:
            return self._dialect.nothing
        return json.dumps(fields).encode() + self._dialect.tail

    def activate(self) -> Answer:
        """The handshake, with its empty body."""
        return self.raw("/Plugin.Activate", b"")

    def create(self, name: str, options: Mapping[str, str] | None = None) -> Answer:
        """Define a volume; no options are sent as null, as dockerd does."""
        return self.call("Create", {"Name": name, "Opts": dict(options) if options else None})

    def get(self, name: str) -> Answer:
        """Ask for one volume."""
        return self.call("Get", {"Name": name})

    def path(self, name: str) -> Answer:
        """Ask where a volume is mounted."""
        return self.call("Path", {"Name": name})

    def mount(self, name: str, holder: str) -> Answer:
        """Mount for ``holder``."""
        return self.call("Mount", {"Name": name, "ID": holder})

    def unmount(self, name: str, holder: str) -> Answer:
        """Let go of one of ``holder``'s mounts."""
        return self.call("Unmount", {"Name": name, "ID": holder})

    def remove(self, name: str) -> Answer:
        """Remove a volume."""
        return self.call("Remove", {"Name": name})

    def names(self) -> list[str]:
        """The names in List, in its order."""
        return [volume["Name"] for volume in self.call("List").json.get("Volumes") or []]


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("plugin", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect; the base class calls this before the first request and after a close."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise
