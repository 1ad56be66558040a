"""Commands in a container around the moment of a snapshot: labels ``orlop.snapshot.pre`` and ``orlop.snapshot.post``.

They run in the oldest running container that uses the volume, by the engine's exec, and both in the same one. If none
runs, there is nobody to be told.
"""

import click

from orlop.cli.engines import Container, Engine, Engines
from orlop.errors import OrlopError, Unavailable
from orlop.volumes.wishes import Wishes

_PATIENCE = 600.0
"""Seconds in which a command has to say something or end."""


class ContainerHooks:
    """See `orlop.volumes.timeline.Hooks`; for one snapshot."""

    def __init__(self, name: str, wished: Wishes, engines: Engines):
        """Nothing is asked before `before`."""
        self._name, self._wished, self._engines = name, wished, engines
        self._where: tuple[Engine, Container] | None = None
        self.ignored = self.problem = ""
        """What went wrong before, and is to be ignored; and what went wrong after."""

    def before(self) -> bool:
        """Raises `Unavailable` if the command fails, unless that is to be ignored."""
        if not (self._wished.pre or self._wished.post):
            return False
        try:
            self._where = next(iter(self._engines.running(self._name)), None)
            if self._where and self._wished.pre:
                self._run("pre", self._wished.pre)
                return True
        except OrlopError as error:
            if not self._wished.ignore:
                raise Unavailable(
                    f"{error}; no snapshot was made (label orlop.snapshot.hooks=ignore makes one all the same)"
                ) from error
            self.ignored = str(error)
        return False

    def after(self) -> None:
        """What goes wrong is kept in ``problem``."""
        if self._where and self._wished.post:
            try:
                self._run("post", self._wished.post)
            except OrlopError as error:
                self.problem = str(error)

    def tell(self) -> None:
        """Say what went wrong and did not stop the snapshot."""
        for text in filter(None, (self.ignored, self.problem)):
            click.echo(f"orlop: {text}", err=True)

    def _run(self, hook: str, command: str) -> None:
        engine, container = self._where or (None, None)
        if engine is None or container is None:
            return
        what = f"volume {self._name!r}: hook {hook!r} in {container}"
        try:
            status, said = engine.run(container, command, _PATIENCE)
        except OrlopError as error:
            raise Unavailable(f"{what}: {error}") from error
        if status:
            raise Unavailable(f"{what} ended with status {status}" + (f": {said}" if said else ""))
