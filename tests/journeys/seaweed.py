"""A real S3 store (SeaweedFS) on a machine."""

import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path

from orlop.testing.machine import Machine
from orlop.testing.process import Process

WEED = (str(Path(sys.executable).parent / "weed"), "-logtostderr")
"""The program, which otherwise leaves its log in /tmp."""
ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE1", "a-secret-key-of-the-store-4711"


class Seaweed:
    """The store; it answers at `endpoint`, which only its machine reaches unless ``address`` is one of the network.

    A second one on a machine needs another ``name``. ``room`` is all that there is for objects, such as ``64m``;
    ``volumes`` how many files of 32 MB it may make for them.
    """

    def __init__(
        self, machine: Machine, address: str = "127.0.0.1", name: str = "seaweed", room: str = "", volumes: int = 30
    ) -> None:
        # Its parts meet at sockets in /tmp that are named by port, and /tmp is shared with other machines.
        base = random.randrange(10_000, 20_000, 10)
        names = ("master.port", "volume.port", "filer.port", "s3.port")
        self._ports = {name: base + place for place, name in enumerate(names)}
        self.endpoint, self._address = f"http://{address}:{base + 3}", address
        self.machine, self.folder, self._volumes = machine, machine.folder / name, volumes
        self._data, names = self.folder / "data", self.folder / "names"
        for folder in (self._data, names):
            folder.mkdir(parents=True)
        if room:
            # What the objects are called is kept apart: it has room.
            kept = f"mount -t tmpfs -o size={room} none {self._data}; mkdir {self._data}/filerldb2"
            machine.run(["sh", "-ec", f"{kept}; mount --bind {names} {self._data}/filerldb2"])
        key = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        account = {"name": "orlop", "credentials": [key], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        (self.folder / "s3.json").write_text(json.dumps({"identities": [account]}))
        self._process: Process | None = None

    def start(self) -> None:
        """Serve, and wait until it takes a request."""
        ports = [f"-{name}={port}" for name, port in self._ports.items()]
        small = [
            "-master.volumeSizeLimitMB=32",
            f"-volume.max={self._volumes}",
            f"-ip={self._address}",
            f"-ip.bind={self._address}",
        ]
        # Two on a machine would meet at fixed ports; what is full is full, and what has room again is not.
        small += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.minFreeSpacePercent=0"]
        config = ["-s3", f"-s3.config={self.folder}/s3.json", f"-dir={self._data}"]
        self._process = self.machine.spawn([*WEED, "server", *ports, *small, *config], log=self.folder / "log")
        probe = f"until curl -s -o /dev/null {self.endpoint}; do sleep 0.1; done; sleep 1"
        self.machine.run(["timeout", "60", "bash", "-c", probe])

    def stop(self) -> None:
        """kill -9; again is fine."""
        if self._process:
            self._process.kill9()
        sweep(self._ports.values())

    def make(self, bucket: str) -> None:
        """A new bucket, by the store's own shell."""
        master = f"{self._address}:{self._ports['master.port']}"
        self.machine.run([*WEED, "shell", f"-master={master}"], input=f"s3.bucket.create -name {bucket}\n")

    def fill(self) -> None:
        """Something else takes more than half of the room."""
        self.machine.run(["sh", "-ec", f"head -c 41943040 /dev/zero >{self._data}/other"])

    def free(self) -> None:
        """That is gone again."""
        self.machine.run(["rm", f"{self._data}/other"])


def sweep(ports: Iterable[int]) -> None:
    """Remove the sockets in /tmp of a store that had these ports: one that is killed leaves them."""
    # It talks to itself 10,000 ports above those too.
    for port in (port + above for port in ports for above in (0, 10_000)):
        for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            socket.unlink(missing_ok=True)
