"""``orlop install`` and ``uninstall``: units for systemd and a line for Podman, written or taken away."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from orlop.cli.options import FOLDER
from orlop.engine import Config
from orlop.errors import Invalid, Unavailable
from orlop.packaging import host

_PREFIX = click.option(
    "--prefix", type=FOLDER, default=Path("/"), help="Below this folder instead of /; for images and packages."
)
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


@click.command()
@click.option("--root", type=FOLDER, default=Config().root, show_default=True, envvar="ORLOP_ROOT",
              help="Where the daemon is to keep its volumes.")  # fmt: skip
@_PREFIX
@_DRY_RUN
@click.option("--now", is_flag=True, help="Start the daemon at once; otherwise it starts at the next boot.")
def install(root: Path, prefix: Path, dry_run: bool, now: bool) -> None:
    """Make the daemon a service of this host, which Docker and Podman find."""
    _refuse_elsewhere(prefix, now=now)
    _do(host.changes(prefix, host.files(sys.executable, root.absolute())), dry_run=dry_run)
    if now:
        _systemctl(["daemon-reload"], dry_run=dry_run)
        _systemctl(["start", *host.UNITS], dry_run=dry_run)
    else:
        click.echo(f"to start it: systemctl daemon-reload && systemctl start {' '.join(host.UNITS)}", err=True)


@click.command()
@_PREFIX
@_DRY_RUN
@click.option("--now", is_flag=True, help="Stop the daemon first.")
def uninstall(prefix: Path, dry_run: bool, now: bool) -> None:
    """Take away what install wrote; volumes stay where they are."""
    _refuse_elsewhere(prefix, now=now)
    if now:
        _systemctl(["stop", *host.UNITS], dry_run=dry_run)
    _do(host.removals(prefix, list(host.files("", Path("/")))), dry_run=dry_run)
    if now:
        _systemctl(["daemon-reload"], dry_run=dry_run)


def _refuse_elsewhere(prefix: Path, *, now: bool) -> None:
    if now and prefix.absolute() != Path("/"):
        raise Invalid(f"--now is about this host, and --prefix '{prefix}' is not; leave one of them out")


def _do(changes: Sequence[host.Change], *, dry_run: bool) -> None:
    for change in changes:
        if not dry_run:
            host.apply(change)
        click.echo(f"{change.verb} {change.path}")


def _systemctl(words: Sequence[str], *, dry_run: bool) -> None:
    argv = ["systemctl", *words]
    click.echo(" ".join(argv))
    if dry_run:
        return
    try:
        done = subprocess.run(argv, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Unavailable("there is no systemctl here; start 'orlop serve' as this host starts its services") from error
    if done.returncode:
        raise Unavailable(f"{' '.join(argv)}: {done.stderr.strip()}")
