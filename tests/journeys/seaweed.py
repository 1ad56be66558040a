"""A real S3 store (SeaweedFS) on a machine."""

import json
import random
import sys
from pathlib import Path

from orlop.testing.machine import Machine
from orlop.testing.process import Process

ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE1", "a-secret-key-of-the-store-4711"


class Seaweed:
    """The store; it answers at `endpoint`, which only its machine reaches unless ``address`` is one of the network."""

    def __init__(self, machine: Machine, address: str = "127.0.0.1") -> None:
        # Its parts meet at sockets in /tmp that are named by port, and /tmp is shared with other machines.
        base = random.randrange(10_000, 20_000, 10)
        names = ("master.port", "volume.port", "filer.port", "s3.port")
        self._ports = {name: base + place for place, name in enumerate(names)}
        self.endpoint, self._address = f"http://{address}:{base + 3}", address
        self.machine, self.folder = machine, machine.folder / "seaweed"
        (self.folder / "data").mkdir(parents=True)
        key = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        account = {"name": "orlop", "credentials": [key], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        (self.folder / "s3.json").write_text(json.dumps({"identities": [account]}))
        self._process: Process | None = None

    def start(self) -> None:
        """Serve, and wait until it takes a request."""
        ports = [f"-{name}={port}" for name, port in self._ports.items()]
        small = ["-master.volumeSizeLimitMB=32", "-volume.max=30", f"-ip={self._address}", f"-ip.bind={self._address}"]
        config = ["-s3", f"-s3.config={self.folder}/s3.json", f"-dir={self.folder}/data"]
        weed = str(Path(sys.executable).parent / "weed")
        self._process = self.machine.spawn([weed, "server", *ports, *small, *config], log=self.folder / "log")
        probe = f"until curl -s -o /dev/null {self.endpoint}; do sleep 0.1; done; sleep 1"
        self.machine.run(["timeout", "60", "bash", "-c", probe])

    def stop(self) -> None:
        """kill -9."""
        if self._process:
            self._process.kill9()

    def make(self, bucket: str) -> None:
        """A new bucket, by the store's own shell."""
        weed, master = str(Path(sys.executable).parent / "weed"), f"{self._address}:{self._ports['master.port']}"
        command = [
            "sh",
            "-c",
            f"echo 's3.bucket.create -name {bucket}' | {weed} shell -master={master}",
        ]
        self.machine.run(command)
