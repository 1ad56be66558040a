"""The labels of volumes, as far as anybody answers."""

from collections.abc import Callable

import click

from orlop.cli.engines import Engines
from orlop.errors import OrlopError
from orlop.state import Row


def known_labels(engines: Engines) -> Callable[[Row], dict[str, str]]:
    """The labels of a row, without those of Docker if it does not answer (said once)."""
    silent = False

    def labels(row: Row) -> dict[str, str]:
        nonlocal silent
        if not silent:
            try:
                return engines.labels(row)
            except OrlopError as error:
                click.echo(f"orlop: labels may be missing: {error}", err=True)
                silent = True
        return dict(row.labels)

    return labels
