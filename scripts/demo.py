"""What the tutorial runs on: a Docker Engine (yours, or one of its own), and orlop as its plugin, as plain processes.

Everything of ours is below one folder: `Demo.folder`. The exception is orlop's socket, because an engine looks for
plugins in ``/run/docker/plugins`` and nowhere else.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from orlop.testing import images

YOURS = Path("/run/docker.sock")
PLUGIN = Path("/run/docker/plugins/orlop.sock")
_PATIENCE = 120
"""Seconds that a program has to start: computers may be slow."""
_LONGEST = 64
"""A socket's path has at most 107 characters (unix(7)), and the engine's own are deeper than this folder."""
OWN_ENGINE = (
    *("--containerd-namespace", "orlop-demo", "--containerd-plugins-namespace", "orlop-demo-plugins"),
    # The host's network and firewall are left as they are; the story needs none.
    *("--bridge=none", "--iptables=false", "--ip-masq=false"),
)


class Trouble(Exception):
    """The demo cannot go on; the message says why, and what helps."""


class Demo:
    """An engine and its plugin, found running or started."""

    def __init__(self, folder: Path) -> None:
        """Nothing starts yet. Raises `Trouble` for a folder that sockets cannot live in."""
        self.folder = folder.resolve()
        if len(str(self.folder)) > _LONGEST:
            raise Trouble(f"'{self.folder}' is too long a path for sockets; set ORLOP_DEMO to a shorter one")
        self.own = not answers(YOURS)
        self.engine = self.folder / "docker.sock" if self.own else YOURS

    @property
    def root(self) -> Path:
        """Where orlop keeps the volumes."""
        return self.folder / "orlop"

    def start(self) -> None:
        """Start what does not run yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.own and not answers(self.engine):
            self._start_engine()
        self.start_plugin()

    def start_plugin(self) -> None:
        """Start orlop, unless ours runs. Raises `Trouble` if somebody else's has its place."""
        if self.running("orlop"):
            return
        if answers(PLUGIN):
            raise Trouble(f"another orlop answers at '{PLUGIN}'; the story kills its plugin, so stop that one first")
        argv = [sys.executable, "-m", "orlop", "serve", "--root", str(self.root), "--trash-grace", "1m"]
        self._start("orlop", [*argv, "--socket", str(PLUGIN)], lambda: answers(PLUGIN))

    def load(self, *names: str) -> None:
        """Load the images that the engine lacks; a tag that it has keeps its meaning."""
        for name in names:
            if self.docker("image", "inspect", name).returncode:
                tar = images.build(name)
                before = self._tags()
                self.docker("load", "--quiet", "--input", str(tar), check=True)
                for tag, image in before.items():
                    self.docker("tag", image, tag)

    def docker(self, *args: str, check: bool = False) -> "subprocess.CompletedProcess[str]":
        """Docker's client, talking to this engine."""
        try:
            done = subprocess.run(
                ["docker", *args], env=self.environment(), capture_output=True, text=True, timeout=120
            )
        except FileNotFoundError:
            raise Trouble("there is no 'docker', the engine's client; 'make setup' installs it") from None
        if check and done.returncode:
            raise Trouble(f"docker {' '.join(args)}: {done.stderr.strip()}")
        return done

    def environment(self) -> dict[str, str]:
        """The environment in which ``docker`` is this engine's client."""
        mine = {key: value for key, value in os.environ.items() if key not in ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY")}
        return {**mine, "DOCKER_HOST": f"unix://{self.engine}", "LC_ALL": "C.UTF-8"}

    def running(self, program: str) -> int:
        """The process number of a program that we started; 0 if it does not run."""
        try:
            pid = int((self.folder / f"{program}.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_text()
            ended = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return 0
        # Another process may have that number by now.
        return pid if str(self.folder) in command and not ended else 0

    def kill_plugin(self) -> int:
        """``kill -9``; returns the number it had."""
        pid = self.running("orlop")
        os.kill(pid, signal.SIGKILL)
        _wait(lambda: not self.running("orlop"), 10)
        return pid

    def stop(self) -> list[str]:
        """End what we started, the engine first so that it gives its volumes back; the names of what ended."""
        ours = ("dockerd", "engine2", "orlop", "orlop2", "cloudstor", "azure")
        ended = [program for program in ours if self._stop(program)]
        # The keepers of bucket volumes end by themselves when no volume is used any more.
        if not _wait(lambda: not self._has_keepers(), 30):
            raise Trouble(f"a bucket volume below '{self.folder}' is still used")
        return ended

    def _has_keepers(self) -> bool:
        pattern = f"orlop keep --root={self.folder}"
        return subprocess.run(["pgrep", "-f", "--", pattern], capture_output=True).returncode == 0

    def start_program(self, program: str, argv: list[str], ready: Callable[[], object], env: Mapping[str, str]) -> None:
        """Start one more, unless it runs; `stop` ends it too. ``argv`` names our folder."""
        if not self.running(program):
            self._start(program, argv, ready, env)

    def _start_engine(self) -> None:
        if "cgroup" not in Path("/proc/mounts").read_text():
            raise Trouble("no cgroups are mounted at /sys/fs/cgroup: containers need them (mount -t cgroup2 ...)")
        (self.folder / "daemon.json").write_text("{}")
        # One that was killed leaves it, and another process may have that number now.
        (self.folder / "docker.pid").unlink(missing_ok=True)
        argv = ["dockerd", f"--host=unix://{self.engine}", f"--config-file={self.folder}/daemon.json"]
        argv += [f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec"]
        argv += [f"--pidfile={self.folder}/docker.pid", *OWN_ENGINE]
        self._start("dockerd", argv, lambda: answers(self.engine) and self.docker("version").returncode == 0)

    def _start(
        self, program: str, argv: list[str], ready: Callable[[], object], env: Mapping[str, str] | None = None
    ) -> None:
        log = self.folder / f"{program}.log"
        with log.open("a") as output:
            try:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    env={**os.environ, **(env or {})},
                )
            except FileNotFoundError:
                raise Trouble(f"there is no {argv[0]!r}; 'make setup' installs it") from None
        (self.folder / f"{program}.pid").write_text(str(process.pid))
        if not _wait(lambda: ready() or process.poll() is not None, _PATIENCE) or process.poll() is not None:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-4:])
            raise Trouble(f"{program} does not start; the end of '{log}':\n{end}")

    def _stop(self, program: str) -> bool:
        pid = self.running(program)
        if pid:
            os.kill(pid, signal.SIGTERM)
            if not _wait(lambda: not self.running(program), 60):
                raise Trouble(f"{program} (process {pid}) does not end; see '{self.folder}/{program}.log'")
        (self.folder / f"{program}.pid").unlink(missing_ok=True)
        return bool(pid)

    def _tags(self) -> dict[str, str]:
        lines = self.docker("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout.splitlines()
        return {tag: image for tag, image in (line.split() for line in lines) if "<none>" not in tag}


def answers(path: Path) -> bool:
    """Whether somebody listens at a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _wait(true: Callable[[], object], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
