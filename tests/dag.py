"""DAGs made by hand, and a node of the tests that hands out their blocks: well, or not at all, or lying.

This encodes what `orlop.volumes.ipfs` decodes, from the same specifications and with no code of it.
"""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

Blocks = dict[str, bytes]


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def name_of(cid: bytes) -> str:
    if cid[:2] != b"\x12\x20":
        return "b" + base64.b32encode(cid).decode().lower().rstrip("=")
    number, text = int.from_bytes(cid, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[digit] + text
    return text


class Dag:
    """Blocks, added from the leaves up; each verb returns a binary CID."""

    def __init__(self) -> None:
        self.blocks: Blocks = {}

    def block(self, data: bytes, codec: int = 0x70, function: int = 0x12, digest: bytes | None = None) -> bytes:
        digest = hashlib.sha256(data).digest() if digest is None else digest
        cid = b"\x01" + varint(codec) + varint(function) + varint(len(digest)) + digest
        self.blocks[name_of(cid)] = data
        return cid

    def old(self, data: bytes) -> bytes:
        """The same under a CID of version 0."""
        cid = b"\x12\x20" + hashlib.sha256(data).digest()
        self.blocks[name_of(cid)] = data
        return cid

    def raw(self, data: bytes) -> bytes:
        return self.block(data, 0x55)

    @staticmethod
    def node(kind: int, links: list[tuple[str | bytes, bytes]] = (), unixfs: bytes = b"") -> bytes:
        made = b""
        for name, cid in links:
            text = name.encode() if isinstance(name, str) else name
            made += field(2, field(1, cid) + field(2, text) + field(3, 1))
        return made + field(1, field(1, kind) + unixfs)

    def leaf(self, data: bytes) -> bytes:
        """A small file as Kubo makes it by default: CIDv0, no raw leaves."""
        return self.old(self.node(2, unixfs=(field(2, data) if data else b"") + field(3, len(data))))

    def file(self, parts: list[tuple[bytes, int]]) -> bytes:
        sizes = b"".join(field(4, size) for _, size in parts)
        links = [("", cid) for cid, _ in parts]
        return self.block(self.node(2, links, field(3, sum(size for _, size in parts)) + sizes))

    def folder(self, *entries: tuple[str | bytes, bytes]) -> bytes:
        return self.block(self.node(1, list(entries)))

    def symlink(self, target: bytes) -> bytes:
        return self.block(self.node(4, unixfs=field(2, target)))

    def shard(self, *entries: tuple[str, bytes], fanout: int = 256) -> bytes:
        return self.block(self.node(5, list(entries), field(5, 0x22) + field(6, fanout)))


class FakeNode:
    """An RPC API that hands out ``blocks``; ``change`` may damage an answer, ``wait`` is a pause before each."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks, self.wait = blocks, 0.0
        self.change: Callable[[str, bytes], bytes] = lambda cid, data: data
        self.asked: list[str] = []
        self.names: dict[str, str] = {}
        self.body, self.added, self.pinned = b"", b"", list[str]()
        self.most = self.now = 0
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"node": self}))
        self._server.daemon_threads = True
        self.api = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> "FakeNode":
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    node: FakeNode

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/api/v0/add":
            self.add()
            return
        with self.node.lock:
            self.node.now += 1
            self.node.most = max(self.node.most, self.node.now)
        time.sleep(self.node.wait)
        with self.node.lock:
            self.node.now -= 1
        verb = url.path.removeprefix("/api/v0/").replace("/", "_")
        answer = getattr(self, verb)(parse_qs(url.query)["arg"][0])
        self.answer(500 if answer is None else 200, b"{}" if answer is None else answer)

    def answer(self, status: int, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def block_get(self, cid: str) -> bytes | None:
        self.node.asked.append(cid)
        return self.node.change(cid, self.node.blocks[cid]) if cid in self.node.blocks else None

    def add(self) -> None:
        """Answers before it has read anything, and with a line for each chunk, as Kubo may."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.node.body = b""
        with suppress(OSError):
            while size := int(self.rfile.readline() or b"0", 16):
                self.node.body += self.rfile.read(size + 2)[:-2]
                self.wfile.write(json.dumps({"Name": "data", "Bytes": size, "Padding": "x" * 2000}).encode() + b"\n")
            self.wfile.write(self.node.added)

    def pin_add(self, cid: str) -> bytes | None:
        self.node.pinned.append(cid)
        return json.dumps({"Progress": 1}).encode() + b"\n" + json.dumps({"Pins": [cid]}).encode()

    def name_publish(self, path: str) -> bytes | None:
        return json.dumps({"Name": "k51name", "Value": path}).encode()

    def name_resolve(self, name: str) -> bytes | None:
        found = self.node.names.get(name.removeprefix("/ipns/"))
        return json.dumps({"Path": f"/ipfs/{found}"}).encode() if found else None

    def log_message(self, *words: object) -> None:
        pass
