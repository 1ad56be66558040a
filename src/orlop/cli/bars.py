"""A line that moves while something long is saved or restored, for whoever watches; and what went wrong."""

import os
import sys
import time
from collections.abc import Iterable

import click

from orlop.cli.output import human
from orlop.snapshots.report import Problem, Progress

_OFTEN = 0.1


class Bar:
    """Shows `Progress` on a terminal; elsewhere nothing."""

    def __init__(self, label: str) -> None:
        """``label`` says what is being done."""
        self._label, self._next, self._shown = label, 0.0, sys.stderr.isatty()

    def __call__(self, progress: Progress) -> None:
        """Show how far it is."""
        now = time.monotonic()
        if not self._shown or now < self._next:
            return
        self._next = now + _OFTEN
        where = os.fsdecode(progress.current)[-40:].encode(errors="replace").decode()
        line = f"{self._label}: {progress.files} files, {human(progress.size)}  {where}"
        click.echo(f"\r\x1b[K{line}", err=True, nl=False)

    def close(self) -> None:
        """Leave no line behind."""
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)


def tell(problems: Iterable[Problem]) -> None:
    """Say what went wrong, a line each."""
    for problem in problems:
        click.echo(f"orlop: {os.fsdecode(problem.path)!r}: {problem.reason} ({problem.kind})", err=True)
