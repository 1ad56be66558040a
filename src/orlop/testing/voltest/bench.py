"""What a check works with: a plugin and, if need be, an engine on a machine of their own, and names nobody used yet."""

import http.client
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from orlop.testing.machine import Machine
from orlop.testing.voltest.backend import Backend
from orlop.testing.voltest.checks import Needs, expect, not_applicable
from orlop.testing.voltest.docker import Docker
from orlop.testing.voltest.plugin import Plugin
from orlop.testing.voltest.subject import Subject
from orlop.testing.voltest.wire import DOCKER, Dialect, Wire


class Bench:
    """One subject under test: a context manager, and the only argument of a check.

    With ``socket`` the plugin runs already, on this host, and is only talked to. A check that failed may have left
    anything behind, so the next one gets a new machine; after the others it is enough to remove what they made.
    S9 kills the plugin ``kills`` times. ``programs`` are the engine's, as of `orlop.testing.engine.Engine`.
    """

    def __init__(
        self, subject: Subject, socket: Path | None = None, kills: int = 30, programs: Path | None = None
    ) -> None:
        self.subject = subject
        self.programs = programs
        self.kills = kills
        self._socket = socket
        self._folder = Path(tempfile.mkdtemp(prefix=f"voltest-{subject.name}-"))
        self._machines = 0
        self._wire: Wire | None = None
        self._made: list[str] = []
        self._mounts: list[tuple[str, str]] = []
        self._new_machine()

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self.machine.power_off()
        _erase(self._folder)

    # What there is

    @property
    def controlled(self) -> bool:
        """Whether the plugin may be stopped and started."""
        return self.subject.command is not None

    @property
    def elsewhere(self) -> Path:
        """A place where the plugin has no business to be."""
        return self._folder / "elsewhere"

    def prepare(self, needs: Needs) -> None:
        """See that what a check needs is there; ends the check if it cannot be."""
        if not self.controlled and not self._socket and needs != "engine":
            not_applicable("part of dockerd: there is no socket")
        if self._socket:
            return None if needs == "wire" else not_applicable("only a socket was given: nothing may be stopped")
        if not self.machine.running:
            self.machine.boot()
        if self.controlled and not self.plugin.running:
            self.plugin.start()
        if needs == "engine" and not self.docker.engine.answers():
            self.docker.start()
        return None

    def tidy(self, *, failed: bool) -> None:
        """After a check: remove what it made, or take a new machine if it failed."""
        if (failed or self._spoiled) and not self._socket:
            self.renew()
        elif self._socket or self.controlled:
            self._remove_all()
        self._made, self._mounts = [], []

    def spoil(self) -> None:
        """The machine is no good for others: the next check gets a new one."""
        self._spoiled = True

    def renew(self) -> None:
        """Take a new machine, with nothing on it."""
        self.hang_up()
        self.machine.power_off()
        _erase(self.machine.folder)
        self._new_machine()

    # Over the socket

    @property
    def wire(self) -> Wire:
        """A connection as Docker's, kept alive over checks."""
        if self._wire is None:
            self._wire = self.dial()
        return self._wire

    def dial(self, dialect: Dialect = DOCKER, timeout: float = 20) -> Wire:
        """Another connection."""
        return Wire(self._socket or self.plugin.socket, dialect, timeout)

    def hang_up(self) -> None:
        """Close the kept connection; the next use opens a new one."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def restart_plugin(self) -> None:
        """Stop it in good order and start it."""
        self.hang_up()
        self.plugin.stop()
        self.plugin.start()

    def crash_plugin(self) -> None:
        """``kill -9``; it stays dead."""
        self.hang_up()
        self.plugin.kill9()

    def name(self) -> str:
        """A volume name that was never used."""
        name = f"vt-{secrets.token_hex(6)}"
        self._made.append(name)
        return name

    def holder(self) -> str:
        """An ID for Mount that was never used."""
        return secrets.token_hex(32)

    def options(self, name: str) -> dict[str, str]:
        """With which to create a plain volume of this name."""
        return self._filled(self.subject.options, name)

    def other_options(self, name: str) -> dict[str, str]:
        """Another valid set."""
        return self._filled(self.subject.other_options or {}, name)

    def sized_options(self) -> dict[str, str]:
        """For a volume of 32 MiB; ends the check if the plugin cannot limit size."""
        if self.subject.sized_options is None:
            not_applicable("has no option that limits the size")
        return self._filled(self.subject.sized_options, "")

    def create(self, name: str = "") -> str:
        """Create a plain volume, which must succeed, and return its name."""
        name = name or self.name()
        answer = self.wire.create(name, self.options(name))
        expect(answer.ok, f"create: {answer}")
        return name

    def mount(self, name: str, holder: str) -> str:
        """Mount, which must succeed with an absolute path, and return the mountpoint."""
        answer = self.wire.mount(name, holder)
        mountpoint = str(answer.json.get("Mountpoint") or "")
        expect(answer.ok and mountpoint.startswith("/"), f"mount: {answer}")
        self._mounts.append((name, holder))
        return mountpoint

    def unmount(self, name: str, holder: str) -> None:
        """Unmount, which must succeed."""
        answer = self.wire.unmount(name, holder)
        expect(answer.ok, f"unmount: {answer}")

    # Files, as the plugin sees them

    def see(self, path: str) -> Path:
        """How this process reaches a path of the plugin's."""
        return Path(path) if self._socket else self.machine.root / path.lstrip("/")

    def device(self, mountpoint: str) -> tuple[int, int]:
        """Which folder of which filesystem is seen at a mountpoint."""
        found = self.see(mountpoint).stat()
        return found.st_dev, found.st_ino

    def write(self, mountpoint: str, file: str, text: str) -> None:
        """Write a file in a volume, and wait until it is safe."""
        with (self.see(mountpoint) / file).open("w") as open_file:
            open_file.write(text)
            open_file.flush()
            os.fsync(open_file.fileno())

    def expect_content(self, mountpoint: str, file: str, text: str) -> None:
        """A file in a volume must have this content."""
        try:
            found = (self.see(mountpoint) / file).read_text()
        except OSError as error:
            found = str(error.strerror)
        expect(found == text, f"'{file}' in the volume should be '{text}', is '{found}'")

    # The storage server behind the plugin

    def backend_options(self, name: str) -> dict[str, str]:
        """For a volume on the backend, whose folder is made; ends the check if the plugin has no such volumes."""
        if self.subject.backend_options is None:
            not_applicable("has no backend that could go away")
        (self.backend.folder / name).mkdir(parents=True, exist_ok=True)
        return self._filled(self.subject.backend_options, name)

    def create_on_backend(self) -> str:
        """Create a volume whose files are on the backend."""
        name = self.name()
        answer = self.wire.create(name, self.backend_options(name))
        expect(answer.ok, f"create on the backend: {answer}")
        return name

    def volume(self, *flags: str, options: Mapping[str, str] | None = None) -> str:
        """``docker volume create`` of a plain volume, or one with these options; returns its name."""
        name = self.name()
        chosen = self.options(name) if options is None else options
        words = [word for key, value in chosen.items() for word in ("--opt", f"{key}={value}")]
        return self.docker("volume", "create", "-d", self.subject.docker_name, *words, *flags, name)

    def _new_machine(self) -> None:
        self._spoiled = False
        self._machines += 1
        self.machine = Machine(self._folder / str(self._machines), f"voltest{self._machines}")
        self.plugin = Plugin(self.subject, self.machine)
        self.backend = Backend(self.machine)
        self.docker = Docker(self.machine, self.subject.docker_name, self.programs)

    def _filled(self, options: Mapping[str, str], name: str) -> dict[str, str]:
        def fill(text: str) -> str:
            return self.plugin.fill(text).replace("{name}", name).replace("{backend}", str(self.backend.folder))

        return {key: fill(value) for key, value in options.items()}

    def _remove_all(self) -> None:
        """Best effort: a check that passed has mostly cleaned up itself."""
        try:
            for name, holder in self._mounts:
                self.wire.unmount(name, holder)
            for name in self._made:
                self.wire.remove(name)
        except (OSError, http.client.HTTPException):
            self.hang_up()


def _erase(folder: Path) -> None:
    if folder.exists():
        # Careful plugins make the folders immutable on which they mount, so that nobody writes below.
        subprocess.run(["chattr", "-R", "-f", "-i", str(folder)], check=False, capture_output=True)
        shutil.rmtree(folder)
