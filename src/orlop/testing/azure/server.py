"""The stand-in's HTTP server: checks who asks, has `Shares` answer, and adds what every response of the service has."""

import re
import threading
import uuid
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qsl, urlsplit

from orlop.testing.azure.messages import Refused, Reply, Request
from orlop.testing.azure.sharedkey import Credentials
from orlop.testing.azure.shares import Shares

_VERSION = re.compile(r"\d{4}-\d\d-\d\d")


class AzureFiles:
    """The stand-in on a port of its own, from entering to leaving; ``shares`` is there for tests to change."""

    def __init__(
        self,
        folder: Path,
        credentials: Credentials,
        address: tuple[str, int] = ("127.0.0.1", 0),
        changed: Callable[[str, Path | None], object] | None = None,
    ) -> None:
        self.credentials = credentials
        self.shares = Shares(folder)
        if changed is not None:
            self.shares.changed = changed
        self.asked: list[Request] = []
        """Every request so far."""
        self._http = _Http(address, self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """For the setting ``AZURE_STORAGE_ENDPOINT``."""
        host, port = self._http.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> "AzureFiles":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, request: Request) -> Reply:
        """The reply to ``request``, a refusal too."""
        self.asked.append(request)
        try:
            if not _VERSION.fullmatch(request.headers.get("x-ms-version", "")):
                raise Refused(
                    400, "InvalidHeaderValue" if "x-ms-version" in request.headers else "MissingRequiredHeader"
                )
            self.credentials.check(request, self.shares.now)
            reply = self.shares.answer(request)
        except Refused as refused:
            reply = refused.reply()
        return Reply(reply.status, {**_common(request), **reply.headers}, reply.body)


def _common(request: Request) -> dict[str, str]:
    headers = {
        "x-ms-request-id": str(uuid.uuid4()),
        "x-ms-version": request.headers.get("x-ms-version", ""),
        "Date": formatdate(usegmt=True),
        "Server": "orlop-stand-in-for-azure-files",
    }
    client = request.headers.get("x-ms-client-request-id")
    return {**headers, **({"x-ms-client-request-id": client} if client else {})}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], azure: AzureFiles) -> None:
        super().__init__(address, _Handler)
        self.azure = azure


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def _do(self) -> None:
        url = urlsplit(self.path)
        query = {name.lower(): value for name, value in parse_qsl(url.query, keep_blank_values=True)}
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.rfile.read(int(headers.get("content-length", "0")))
        self._say(self.server.azure.answer(Request(self.command, url.path, query, headers)))

    def _say(self, reply: Reply) -> None:
        body = reply.body.encode()
        self.send_response_only(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_DELETE = _do  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Nothing is logged: ``asked`` has it."""
