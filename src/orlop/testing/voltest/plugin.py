"""The plugin's process on a machine: started until it answers, stopped, killed."""

import http.client
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from orlop.testing.machine import Machine
from orlop.testing.process import Process
from orlop.testing.voltest.checks import Failed
from orlop.testing.voltest.subject import Subject
from orlop.testing.voltest.wire import Wire

_POLL = 0.02


class Plugin:
    """A subject that can be started and stopped; it runs on ``machine``, in the same namespaces as the engine.

    Its folder is ``state`` in the machine's folder and outlives it; its log is ``plugin.log`` there.
    """

    def __init__(self, subject: Subject, machine: Machine) -> None:
        self.subject = subject
        self.state = machine.folder / "state"
        self.log = machine.folder / "plugin.log"
        self._machine = machine
        self._inside = f"/run/docker/plugins/{subject.docker_name}.sock"
        self._process: Process | None = None

    @property
    def socket(self) -> Path:
        """Where it listens, as the host reaches it."""
        return self._machine.root / self._inside.lstrip("/")

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.running

    def fill(self, text: str) -> str:
        """``text`` with ``{socket}`` and ``{state}`` replaced."""
        return text.replace("{socket}", self._inside).replace("{state}", str(self.state))

    def start(self, env: Mapping[str, str] | None = None, timeout: float = 20) -> None:
        """Start it and wait until it answers the handshake; ends the check as failed if it does not."""
        self.launch(env)
        until = time.monotonic() + timeout
        while not self._answers():
            if not self.running:
                raise Failed(f"the plugin ends when it is started: {self._last_words()}")
            if time.monotonic() > until:
                raise Failed(f"the plugin does not answer {timeout:.0f} s after its start: {self._last_words()}")
            time.sleep(_POLL)

    def launch(self, env: Mapping[str, str] | None = None) -> None:
        """Start it and do not wait."""
        assert self.subject.command
        self.state.mkdir(exist_ok=True)
        if self.subject.setup:
            self._machine.run(["sh", "-ec", self.fill(self.subject.setup)])
        argv = [self.fill(word) for word in self.subject.command]
        self._process = self._machine.spawn(argv, log=self.log, env=env)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that has not ended 10 s later, as service managers do it."""
        if self._process is None:
            return
        try:
            self._process.terminate(10)
        except subprocess.TimeoutExpired:
            self._process.kill9()

    def kill9(self) -> None:
        """``kill -9`` of the process; programs that it started go on."""
        if self._process is not None:
            self._process.kill9()

    def _answers(self) -> bool:
        try:
            with Wire(self.socket, timeout=5) as wire:
                return wire.activate().ok
        except (OSError, http.client.HTTPException):
            return False

    def _last_words(self) -> str:
        return " ".join(self.log.read_text(errors="replace").splitlines()[-3:]) or "it says nothing"
