"""HTTP/1.1 over blocking sockets, a thread for each connection: for small requests that may hang for long.

Engines keep a few connections open and send one request at a time over each. A thread that waits for its own
connection answers without waking anybody else, which is most of what a small request costs; and what hangs in a backend
holds up its own connection only. Parsing is llhttp's, through httptools.
"""

import contextlib
import logging
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import httptools

from orlop.frontends.listeners import Listener
from orlop.kernel import processes

_LARGEST_REQUEST = 1 << 20
_MOST_CONNECTIONS = 1024
_PAUSE = 0.1
_PATIENCE = 30.0
"""Seconds that a client has for a TLS handshake, and for sending the rest of a request."""
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 413: "Content Too Large", 500: "Internal Server Error"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected: a process of this host (pid 0 if it cannot be seen), or an ``address``.

    ``started`` tells the process from a later one with its number, ``command`` is its name.
    """

    pid: int = 0
    uid: int = 0
    started: int = 0
    command: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: status, type and content."""

    status: int
    content_type: str
    body: bytes


Handler = Callable[[str, bytes, Peer], Answer]
"""Called with the path and body of a request, in its connection's thread."""


class Server:
    """Answers requests on any number of listeners."""

    def __init__(self, handler: Handler) -> None:
        """Nothing is answered before `serve`."""
        self._handler = handler
        self._slots = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._idle = threading.Condition()
        self.busy = 0
        """Requests under way."""

    def serve(self, listener: Listener) -> None:
        """Answer whoever connects to ``listener``, in threads, until the process ends."""
        threading.Thread(target=self._accept, args=(listener,), daemon=True, name="accept").start()

    def wait_until_idle(self, patience: float) -> bool:
        """Wait up to ``patience`` seconds for the requests under way; whether all have ended."""
        with self._idle:
            return self._idle.wait_for(lambda: self.busy == 0, patience)

    def _accept(self, listener: Listener) -> None:
        while True:
            try:
                self._welcome(*listener.socket.accept(), listener.tls)
            except (OSError, RuntimeError) as error:
                # Out of file descriptors or threads: others will end, and the next one is heard again.
                _log.warning("a connection is not answered: %s", error)
                time.sleep(_PAUSE)

    def _welcome(self, connection: socket.socket, address: object, tls: ssl.SSLContext | None) -> None:
        if not self._slots.acquire(blocking=False):
            connection.close()
            raise OSError(f"{_MOST_CONNECTIONS} are open")
        try:
            peer = Peer(address=address[0]) if isinstance(address, tuple) else _process_behind(connection)
            arguments = (connection, tls, peer)
            threading.Thread(target=self._converse, args=arguments, daemon=True, name="connection").start()
        except BaseException:
            connection.close()
            self._slots.release()
            raise

    def _converse(self, connection: socket.socket, tls: ssl.SSLContext | None, peer: Peer) -> None:
        try:
            with contextlib.suppress(OSError):  # the client went, or never spoke TLS
                connection.settimeout(_PATIENCE)
                with tls.wrap_socket(connection, server_side=True) if tls else connection as stream:
                    while self._exchange(stream, peer):
                        pass
        finally:
            connection.close()
            self._slots.release()

    def _exchange(self, stream: socket.socket, peer: Peer) -> bool:
        """Answer one request; whether the connection stays."""
        request = _Request()
        stream.settimeout(None)  # between requests, engines are silent for as long as they like
        try:
            while not request.complete:
                part = stream.recv(65536)
                if not part:
                    return False
                stream.settimeout(_PATIENCE)
                request.feed(part)
        except httptools.HttpParserError:
            _send(stream, Answer(413 if request.too_large else 400, "text/plain", b"not understood\n"), stay=False)
            return False
        _send(stream, self._answer(request, peer), stay=request.stays)
        return request.stays

    def _answer(self, request: "_Request", peer: Peer) -> Answer:
        with self._idle:
            self.busy += 1
        try:
            return self._handler(request.path, b"".join(request.parts), peer)
        finally:
            with self._idle:
                self.busy -= 1
                self._idle.notify_all()


class _Request:
    """What the parser has found so far (httptools calls the methods that begin with ``on_``)."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.path = ""
        self.parts: list[bytes] = []
        self.complete = self.stays = self.too_large = False
        self._received = 0

    def feed(self, data: bytes) -> None:
        """Raises `httptools.HttpParserError` for what is no HTTP, or too large."""
        self._received += len(data)
        self._refuse_more_than(self._received)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.path += url.decode("latin-1").partition("?")[0]

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-length" and value.isdigit():
            self._refuse_more_than(int(value))

    def on_body(self, part: bytes) -> None:
        self.parts.append(part)

    def on_message_complete(self) -> None:
        self.complete, self.stays = True, self.parser.should_keep_alive()

    def _refuse_more_than(self, length: int) -> None:
        if length > _LARGEST_REQUEST:
            self.too_large = True
            raise httptools.HttpParserError("the request is too large")


def _send(stream: socket.socket, answer: Answer, *, stay: bool) -> None:
    connection = "keep-alive" if stay else "close"
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, '')}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\nConnection: {connection}\r\n\r\n"
    )
    # At once: a second write would wake the client twice.
    stream.sendall(head.encode() + answer.body)


def _process_behind(connection: socket.socket) -> Peer:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    started = processes.start_time(pid) if pid else None
    # Without a start time, it lives in a process namespace that we cannot see.
    return Peer(pid, uid, started, processes.command(pid)) if started is not None else Peer(uid=uid)


def leave() -> None:
    """End the process although threads wait in backends or for clients."""
    logging.shutdown()
    os._exit(0)
