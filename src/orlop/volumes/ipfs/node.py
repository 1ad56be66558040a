"""A node of IPFS, asked through Kubo's RPC API (https://docs.ipfs.tech/reference/kubo/rpc/).

What a node says is believed nowhere: `Node.block` hands out bytes only if their hash is the one asked for. Everything
is bounded: a silent node is given up after `SILENCE` seconds, and `Node.close` ends all that is still being asked.
"""

import json
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast
from urllib.parse import urlencode, urlsplit

from orlop.errors import Corrupt, Invalid, OrlopError, Unavailable
from orlop.volumes.ipfs.cid import LARGEST, Cid

if TYPE_CHECKING:
    # Only who asks a node pays for it: starting has to be quick.
    from http.client import HTTPConnection, HTTPResponse

API = "IPFS_API"
"""The setting with the address of the node that is asked where a volume names none."""
DEFAULT = "http://127.0.0.1:5001"
SILENCE = 30.0
"""Seconds until a node that says nothing is given up; one that looks for a block is told to do so for a little less."""
_CONNECT = 10.0
"""Seconds until a node is reached."""
_OK = 200
_ANSWER = 1 << 20
"""Bytes of any other answer's line."""
_Line = tuple["HTTPConnection", socket.socket]
"""A connection, and its socket: the former may let go of it."""


class Node:
    """The node at ``api``; may be asked by several threads at once, each over another connection."""

    def __init__(self, api: str, silence: float = SILENCE):
        """Connects to nothing yet. Raises `Invalid` if ``api`` is no ``http://HOST:PORT``."""
        self.api, self._silence = api, silence
        self._host, self._port = _address(api)
        self._idle: list[_Line] = []
        self._busy: set[socket.socket] = set()
        self._lock, self._closed = threading.Lock(), False

    def block(self, cid: Cid) -> bytes:
        """The bytes of the block ``cid``. Raises `Corrupt` if the node has others, `Unavailable` if it has none."""
        if cid.inline is not None:
            return cid.inline
        patience = f"{max(1, int(self._silence * 0.8))}s"
        with self._asking("block/get", {"arg": str(cid), "timeout": patience}, f"block {str(cid)!r}") as answer:
            data = answer.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise Corrupt(
                f"node {self.api!r}: block {str(cid)!r} has more than the {LARGEST} bytes that nodes exchange"
            )
        if not cid.matches(data):
            raise Corrupt(
                f"node {self.api!r} answers with other bytes than those of block {str(cid)!r}: "
                "it is damaged, or it lies; repair it ('ipfs repo verify'), or ask another one"
            )
        return data

    def resolve(self, name: str) -> Cid:
        """What the IPNS name ``name`` stands for now."""
        path = str(self._only("name/resolve", {"arg": f"/ipns/{name}"}, f"name {name!r}").get("Path", ""))
        root, _, rest = path.removeprefix("/ipfs/").partition("/")
        if not path.startswith("/ipfs/") or rest:
            raise Unavailable(f"name {name!r} stands for {path!r}, which is no content by itself (/ipfs/CID)")
        return Cid.parse(root)

    def pin(self, cid: Cid) -> None:
        """Have the node get all of ``cid`` from the others, and keep it."""
        for line in self._lines("pin/add", {"arg": str(cid), "progress": "true"}, f"content {str(cid)!r}"):
            if str(cid) in map(str, cast("Iterable[object]", line.get("Pins") or ())):
                return
        raise Unavailable(f"node {self.api!r} does not say that it has pinned {str(cid)!r}")

    def publish(self, cid: Cid, key: str) -> str:
        """Let the IPNS name of the node's ``key`` stand for ``cid``; returns the name."""
        about = f"name of key {key!r}"
        return str(self._only("name/publish", {"arg": f"/ipfs/{cid}", "key": key}, about).get("Name", ""))

    def add(self, body: Iterable[bytes], content_type: str, root: str) -> Cid:
        """Give the node files, as ``multipart/form-data``; returns the CID of the one named ``root``."""
        options = {"cid-version": "1", "raw-leaves": "true", "pin": "true", "progress": "true"}
        found = None
        for line in self._lines("add", options, "what is published", body, content_type):
            if line.get("Name") == root and line.get("Hash"):
                found = str(line.get("Hash"))
        if found is None:
            raise Unavailable(f"node {self.api!r} does not say what it has added")
        return Cid.parse(found)

    def close(self) -> None:
        """End everything: threads that wait for an answer get `Unavailable` at once."""
        with self._lock:
            self._closed = True
            for sock in self._busy:
                _shut(sock)
            for connection, _ in self._idle:
                connection.close()
            self._idle.clear()

    def _only(self, verb: str, options: Mapping[str, str], what: str) -> Mapping[str, object]:
        for line in self._lines(verb, options, what):
            return line
        raise Unavailable(f"node {self.api!r} has no answer about {what}")

    def _lines(
        self, verb: str, options: Mapping[str, str], what: str, body: Iterable[bytes] = (), content_type: str = ""
    ) -> Iterator[Mapping[str, object]]:
        """The answer's lines, each a JSON object; an error in the middle is one of them."""
        with self._asking(verb, options, what, body, content_type) as answer:
            while line := answer.readline(_ANSWER):
                found = _parsed(line)
                if found is None or found.get("Type") == "error":
                    raise Unavailable(f"node {self.api!r}, {what}: {_message(line)}")
                yield found
            # Kubo's way to say that something went wrong after it had begun to answer.
            if answer.headers.get("X-Stream-Error"):
                raise Unavailable(f"node {self.api!r}, {what}: {answer.headers['X-Stream-Error']}")

    @contextmanager
    def _asking(
        self, verb: str, options: Mapping[str, str], what: str, body: Iterable[bytes] = (), content_type: str = ""
    ) -> Iterator["HTTPResponse"]:
        """Ask; yields the answer, whose errors are ours."""
        from http.client import HTTPException

        sender, line, keep = None, None, False
        try:
            connection, sock = line = self._take()
            connection.putrequest("POST", f"/api/v0/{verb}?{urlencode(options)}")
            for name, value in _headers(content_type):
                connection.putheader(name, value)
            connection.endheaders()
            sender = _Sender(sock, body) if content_type else None
            answer = connection.getresponse()
            if answer.status != _OK:
                raise Unavailable(f"node {self.api!r}, {what}: {_message(answer.read(_ANSWER), answer.status)}")
            yield answer
            keep = answer.isclosed() and not answer.will_close and not sender
        except (OSError, HTTPException) as error:
            if sender and isinstance(sender.failure, OrlopError):
                raise sender.failure from None
            reason = "it says nothing" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            raise Unavailable(f"node {self.api!r} does not answer about {what}: {reason}") from error
        finally:
            if line:
                self._give_back(line, keep=keep)
            if sender:
                sender.wait()
        # The node may have ended its answer properly before it noticed that there is no more to come.
        if sender and isinstance(sender.failure, OrlopError):
            raise sender.failure

    def _take(self) -> _Line:
        """A connection that nobody else uses, from now on or for the first time."""
        from http.client import HTTPConnection

        with self._lock:
            line = self._idle.pop() if self._idle else None
        if line is None:
            made = HTTPConnection(self._host, self._port, timeout=min(_CONNECT, self._silence))
            made.connect()
            made.sock.settimeout(self._silence)
            line = made, made.sock
        with self._lock:
            self._busy.add(line[1])
            closed = self._closed
        if closed:
            self._give_back(line, keep=False)
            raise TimeoutError
        return line

    def _give_back(self, line: _Line, *, keep: bool) -> None:
        with self._lock:
            self._busy.discard(line[1])
            if keep and not self._closed:
                self._idle.append(line)
                return
        _shut(line[1])
        line[0].close()


class _Sender:
    """A request's body on its way, in a thread: a node begins to answer before it has read all."""

    def __init__(self, sock: socket.socket, body: Iterable[bytes]):
        self._sock, self._body = sock, body
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until it has ended."""
        self._thread.join()

    def _send(self) -> None:
        try:
            for piece in self._body:
                if piece:
                    self._sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            self._sock.sendall(b"0\r\n\r\n")
        except Exception as error:  # noqa: BLE001 - for the thread that reads the answer, which ends now
            self.failure = error
            _shut(self._sock)


def _shut(sock: socket.socket) -> None:
    """Wake whoever waits for it, which closing would not."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _headers(content_type: str) -> Sequence[tuple[str, str]]:
    if not content_type:
        return [("Content-Length", "0")]
    return [("Content-Type", content_type), ("Transfer-Encoding", "chunked")]


def _address(api: str) -> tuple[str, int]:
    try:
        url = urlsplit(api)
        host, port = url.hostname, url.port or 80
    except ValueError:
        url, host, port = urlsplit(""), None, 0
    plain = url.path in ("", "/") and not (url.query or url.fragment or url.username)
    if url.scheme != "http" or not host or not plain:
        raise Invalid(f"{api!r} is no address of a node's RPC API; it is written as {DEFAULT}")
    return host, port


def _parsed(line: bytes) -> Mapping[str, object] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _message(answer: bytes, status: int = 0) -> str:
    """What an error says, in a line."""
    found = _parsed(answer)
    text = str(found.get("Message")) if found else answer.decode(errors="replace").strip()[:200]
    return " ".join(text.split()) or f"status {status}"
