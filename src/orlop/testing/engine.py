"""A real Docker Engine, or Podman, on a `Machine`: started in a second, killed as crashes do it."""

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from orlop.errors import Unavailable
from orlop.testing.machine import PATH, Machine
from orlop.testing.process import Process

_POLL = 0.05
_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/podman"
runroot = "/run/containers/storage"
"""
# crun refuses hosts with both versions of cgroups; podman's own limits may not be allowed by the host.
_CONTAINERS = """\
[containers]
netns = "none"
default_ulimits = []
pids_limit = 0
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[engine.volume_plugins]
"""


class Engine:
    """A dockerd of its own for ``machine``; ``options`` are added to its command line at every start.

    It uses Docker's own places, which are the machine's: ``/run/docker.sock``, ``/run/docker/plugins``,
    ``/var/lib/docker``. The log is ``dockerd.log`` in the machine's folder. ``programs`` is a folder with dockerd,
    docker and what they call, such as `orlop.testing.engines.newer`; without it they are the host's.
    """

    def __init__(self, machine: Machine, *options: str, programs: Path | None = None) -> None:
        self.machine = machine
        self.options = options
        self.environment = {
            "DOCKER_CONFIG": str(machine.folder / "client"),
            "DOCKER_BUILDKIT": "0",
            "PATH": f"{programs}:{PATH}" if programs else PATH,
        }
        """What a command line on the machine needs, to be told to `Machine.run`: it calls this engine's ``docker``."""
        self.log = machine.folder / "dockerd.log"
        self._daemon: Process | None = None

    @property
    def pid(self) -> int:
        """The host's number of the daemon. Raises `Unavailable` if it does not run."""
        if self._daemon is None or not self._daemon.running:
            raise Unavailable(f"no engine runs on machine {self.machine.name!r}: start it first")
        return self._daemon.pid

    @property
    def socket(self) -> Path:
        """The API's socket, as the host reaches it."""
        return self.machine.root / "run/docker.sock"

    def start(self, timeout: float = 60) -> None:
        """Start the daemon and wait until it answers.

        Raises `Unavailable` with the end of its log if it does not.
        """
        # A killed daemon leaves it, and another process may have that number now.
        (self.machine.root / "run/docker.pid").unlink(missing_ok=True)
        config = self.machine.folder / "daemon.json"
        config.write_text("{}")
        argv = ["dockerd", "--host=unix:///run/docker.sock", f"--config-file={config}", *self.options]
        self._daemon = self.machine.spawn(argv, log=self.log, env=self.environment)
        until = time.monotonic() + timeout
        while not self.answers():
            if not self._daemon.running or time.monotonic() > until:
                self._daemon.kill9()
                end = "".join(self.log.read_text().splitlines(keepends=True)[-5:])
                raise Unavailable(f"dockerd does not start on machine {self.machine.name!r}: {end}")
            time.sleep(_POLL)

    def stop(self, timeout: float = 60) -> None:
        """End the daemon in good order, its containers too (unless ``--live-restore``); again is fine."""
        if self._daemon is not None:
            self._daemon.terminate(timeout)

    def kill9(self) -> None:
        """``kill -9`` of the daemon: containers and their shims go on, and nobody cleans up.

        Its containerd goes too: dockerd asked the kernel for that.
        """
        if self._daemon is not None:
            self._daemon.kill9()

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def answers(self) -> bool:
        """Whether the API answers now."""
        connection = http.client.HTTPConnection("engine", timeout=5)
        try:
            with socket.socket(socket.AF_UNIX) as connected:
                connected.settimeout(5)
                connected.connect(str(self.socket))
                connection.sock = connected
                connection.request("GET", "/_ping")
                return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False

    def docker(
        self,
        *args: str,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - subprocess's word for it
        tty: bool = False,
        cwd: str | Path = "/",
        timeout: float = 120,
    ) -> "subprocess.CompletedProcess[str]":
        """Run Docker's own client on the machine, as `Machine.run` does."""
        argv = ["docker", *args]
        return self.machine.run(argv, check=check, input=input, tty=tty, cwd=cwd, timeout=timeout, env=self.environment)

    def load(self, *images: Path) -> None:
        """Load images from tar files, as ``docker save`` writes them."""
        for image in images:
            self.docker("load", "--quiet", "--input", str(image))


class Podman:
    """Podman on ``machine``, set up as root would do it in ``/etc/containers``; containers have no network.

    ``plugins`` are volume plugins: a name and the path of its socket on the machine.
    """

    def __init__(self, machine: Machine, plugins: Mapping[str, str] | None = None) -> None:
        self.machine = machine
        folder = machine.root / "etc/containers"
        folder.mkdir(parents=True, exist_ok=True)
        sockets = "".join(f"{name} = {json.dumps(path)}\n" for name, path in (plugins or {}).items())
        (folder / "containers.conf").write_text(_CONTAINERS + sockets)
        (folder / "storage.conf").write_text(_STORAGE.format(folder=machine.folder))
        (folder / "policy.json").write_text(_POLICY)

    def podman(
        self,
        *args: str,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - subprocess's word for it
        tty: bool = False,
        timeout: float = 120,
    ) -> "subprocess.CompletedProcess[str]":
        """Run podman on the machine, as `Machine.run` does."""
        return self.machine.run(["podman", *args], check=check, input=input, tty=tty, timeout=timeout)
