"""orlop's daemon on a machine as an engine speaks to it, without an engine: verbs are quick, and their errors exact."""

import http.client
import json
import socket
import sys
import time
from pathlib import Path

from tests.journeys.lab import Lab


class Plugin:
    """Speaks Docker's volume plugin protocol with the daemon of ``lab``."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.took = 0.0
        """Seconds of the last verb."""

    def create(self, name: str, **options: str) -> None:
        self._must("Create", Name=name, Opts=options)

    def mount(self, name: str, by: str = "c1") -> Path:
        """Where it is mounted, as this process reaches it."""
        return self.lab.inside(str(self._must("Mount", Name=name, ID=by)["Mountpoint"]))

    def unmount(self, name: str, by: str = "c1") -> None:
        self._must("Unmount", Name=name, ID=by)

    def remove(self, name: str) -> None:
        self._must("Remove", Name=name)

    def status(self, name: str) -> dict[str, object]:
        """What ``docker volume inspect`` shows as its status."""
        volume = self._must("Get", Name=name)["Volume"]
        assert isinstance(volume, dict)
        return dict(volume["Status"])

    def refused(self, verb: str, name: str, by: str = "c1", **options: str) -> str:
        """The error of a verb that must not succeed."""
        status, reply = self.ask(verb, Name=name, ID=by, Opts=options)
        assert status == 500, reply
        return str(reply["Err"])

    def ask(self, verb: str, **body: object) -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection("plugin")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(300)
        connection.sock.connect(str(self.lab.inside("/run/docker/plugins/orlop.sock")))
        begun = time.monotonic()
        try:
            connection.request("POST", f"/VolumeDriver.{verb}", json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            self.took = time.monotonic() - begun
            connection.close()

    def mounts(self, file: str = "mounts") -> list[str]:
        """The lines of what orlop has mounted."""
        lines = self.lab.inside(f"/proc/1/{file}").read_text().splitlines()
        return [line for line in lines if f"{self.lab.root}/mounts/" in line]

    def check(self) -> str:
        """What ``orlop system check`` says."""
        argv = [sys.executable, "-m", "orlop", "system", "check"]
        env = {"ORLOP_ROOT": str(self.lab.root), "ORLOP_NO_ENGINE": "1"}
        done = self.lab.machine.run(argv, env=env, check=False, timeout=200)
        return (done.stdout + done.stderr).strip()

    def clean(self) -> None:
        for volume in self.ask("List")[1]["Volumes"]:
            self.ask("Unmount", Name=volume["Name"], ID="c1")
            self.ask("Remove", Name=volume["Name"])

    def _must(self, verb: str, **body: object) -> dict[str, object]:
        status, reply = self.ask(verb, **body)
        assert status == 200, reply
        return reply
