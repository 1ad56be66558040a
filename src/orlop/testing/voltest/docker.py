"""What a user does with Docker, on a bench: volumes of the plugin under test, and containers that have them."""

import subprocess
import time
from pathlib import Path

from orlop.testing.engine import Engine
from orlop.testing.machine import Machine
from orlop.testing.voltest import image
from orlop.testing.voltest.checks import expect


class Docker:
    """Docker's own client, for an engine on ``machine``; volumes are of ``driver``, ``programs`` as of `Engine`.

    Called, it runs one command and returns what that wrote; `subprocess.CalledProcessError` if it fails.
    """

    image = "voltest"
    """What containers are made from: a shell and `orlop.testing.voltest.image.SEED`."""

    def __init__(self, machine: Machine, driver: str, programs: Path | None = None) -> None:
        self.machine = machine
        self.driver = driver
        # No container needs a network, and starting without one is quicker.
        self.engine = Engine(machine, "--bridge=none", "--iptables=false", programs=programs)

    def start(self) -> None:
        """Start dockerd and see that it has the image."""
        self.engine.start()
        if not self("images", "-q", self.image):
            self("import", str(image.build(self.machine.folder / "image.tar")), self.image)

    def __call__(self, *args: str, timeout: float = 60) -> str:
        """Run ``docker`` with these arguments."""
        return self.engine.docker(*args, timeout=timeout).stdout.strip()

    def refuses(self, *args: str) -> str:
        """Run ``docker``, which must end in an error; returns its message."""
        done = self.engine.docker(*args, check=False, timeout=60)
        expect(done.returncode != 0, f"docker {' '.join(args)} succeeded: {done.stdout}")
        return done.stderr

    def container(self, volume: str, *flags: str, at: str = "/data") -> str:
        """Start a container that has the volume and does nothing; returns its id."""
        # Killed at once: an init that ignores SIGTERM costs ten seconds at every stop.
        return self("run", "-d", "--stop-signal=KILL", *self._with(volume, at), *flags, self.image, "sleep", "600")

    def once(self, volume: str, script: str, at: str = "/data") -> str:
        """Run a shell script in a container of its own that has the volume; returns what it wrote."""
        return self("run", "--rm", *self._with(volume, at), self.image, "sh", "-ec", script)

    def inside(self, container: str, script: str) -> str:
        """Run a shell script in a running container; returns what it wrote."""
        return self("exec", container, "sh", "-ec", script, timeout=20)

    def eventually(self, container: str, script: str, seconds: float = 10) -> str:
        """As `inside`, repeated until it succeeds."""
        until = time.monotonic() + seconds
        while True:
            try:
                return self.inside(container, script)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
                if time.monotonic() > until:
                    raise
            time.sleep(0.5)

    def root(self, container: str) -> Path:
        """The container's ``/data``, as this process reaches it; the engine counts processes as its machine does."""
        pid = self("inspect", "-f", "{{.State.Pid}}", container)
        return self.machine.root / "proc" / pid / "root/data"

    def drop(self, *containers: str) -> None:
        """Stop and remove containers."""
        self("rm", "-f", *containers)

    def _with(self, volume: str, at: str) -> tuple[str, ...]:
        # The driver is named because Docker makes a local volume of any name that the plugin does not know.
        return "--net=none", f"--volume-driver={self.driver}", "-v", f"{volume}:{at}"
