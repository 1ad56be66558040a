"""``orlop info`` and ``orlop system``: what there is on this host, what it takes, and whether it is sound."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import click

from orlop import __version__, engine
from orlop.cli import health, output
from orlop.cli.engines import Engines, asking, request
from orlop.cli.events import events
from orlop.cli.options import configured
from orlop.cli.serve import DEFAULT_SOCKET
from orlop.errors import Corrupt, OrlopError, Unavailable
from orlop.state import Row
from orlop.volumes.service import VolumeService

_VOLUME = {"Name": "VOLUME NAME", "Driver": "DRIVER", "Links": "LINKS", "Size": "SIZE"}
_SUMMARY = {"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"}

_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")


@click.group()
def system() -> None:
    """See and repair orlop itself."""


system.add_command(events)


@click.command()
@click.option("--socket", type=click.Path(path_type=Path), default=DEFAULT_SOCKET, show_default=True,
              help="The daemon's socket, to see whether it answers.")  # fmt: skip
@click.option("-f", "--format", "format_", help="json, or a Go template.")
@configured
def info(config: engine.Config, socket: Path, format_: str | None) -> None:
    """Show what orlop has on this host."""
    found = _info(config, engine.volumes(config), socket)
    if format_:
        output.show([found], {field: field for field in found}, list(found), format_)
        return
    for field, value in found.items():
        text = ", ".join(f"{name} {count}" for name, count in value.items()) if isinstance(value, Mapping) else value
        click.echo(f"{_WORDS.sub(' ', field)}: {'none' if text == '' else text}")


@system.command()
@click.option("-v", "--verbose", is_flag=True, help="Each volume by itself.")
@click.option("--format", "format_", help="table, json, or a Go template.")
@configured
@asking
def df(config: engine.Config, engines: Engines, verbose: bool, format_: str | None) -> None:
    """Show the space that volumes take, and how many containers link to them."""
    service = engine.volumes(config)
    measured = [_measure(service, engines, row) for row in service.all()]
    trash = [(row, 0, _usage(service, row)) for row in service.state.unfinished() if row.phase == "trashed"]
    if not verbose:
        output.show([_sum("Volumes", measured), _sum("Removed", trash)], _SUMMARY, list(_SUMMARY), format_)
        return
    records = [
        {
            "Name": row.name,
            "Driver": row.driver,
            "Links": links,
            "Size": "N/A" if size is None else output.human(size, 3),
        }
        for row, links, size in measured
    ]
    if format_ is None:
        click.echo("Volumes space usage:\n")
    output.show(records, _VOLUME, ["Name", "Links", "Size"], format_)


@system.command()
@click.option("--repair", is_flag=True, help="Put right what can be, and say what was done.")
@click.option("-f", "--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@configured
def check(config: engine.Config, repair: bool, format_: str) -> None:
    """Look for what a crash or a damaged disk left wrong; exit status 1 if there is something."""
    done = list(health.repair(config)) if repair else []
    try:
        problems = list(health.problems(engine.volumes(config)))
    except Corrupt as error:
        problems = [health.Problem(config.state_file.name, str(error))]
    if format_ == "json":
        found = [{"About": problem.about, "Problem": problem.text} for problem in problems]
        click.echo(json.dumps({"Problems": found, "Done": done}, indent=4, ensure_ascii=False))
    else:
        for line in done:
            click.echo(f"done: {line}")
        for problem in problems:
            click.echo(f"{problem.about}: {problem.text}", err=True)
        click.echo(f"{len(problems)} problem(s) found" if problems else "all is well")
    sys.exit(1 if problems else 0)


def _info(config: engine.Config, service: VolumeService, socket: Path) -> dict[str, object]:
    ready, unfinished = service.all(), service.state.unfinished()
    return {
        "Version": __version__,
        "Root": str(config.root),
        "BackingFilesystem": _filesystem(config.root),
        "Drivers": ", ".join(sorted(service.drivers)),
        "Volumes": len(ready),
        "ByDriver": dict(Counter(row.driver for row in ready)),
        "ByPhase": {"ready": len(ready), **Counter(row.phase for row in unfinished)},
        "Attached": len(service.state.attached()),
        "Holds": len(service.state.holds()),
        "StateFile": str(config.state_file),
        "StateFileSize": output.human(config.state_file.stat().st_size),
        "BootID": service.host.boot,
        "Daemon": _daemon(socket),
    }


def _filesystem(folder: Path) -> str:
    found = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def _daemon(socket: Path) -> str:
    try:
        status, _ = request(socket, "POST", "/Plugin.Activate", 2)
    except Unavailable as error:
        return f"does not answer on {socket} ({error})"
    return f"answers on {socket}" if status == 200 else f"answers on {socket} with status {status}"


def _measure(service: VolumeService, engines: Engines, row: Row) -> tuple[Row, int, int | None]:
    # A container that an engine has not told of, or a container of no engine, shows as a hold.
    return row, max(len(engines.users(row.name)), len(service.state.holds(row.key))), _usage(service, row)


def _usage(service: VolumeService, row: Row) -> int | None:
    try:
        return service.usage(row)
    except (OrlopError, OSError):
        return None


def _sum(title: str, measured: list[tuple[Row, int, int | None]]) -> output.Record:
    size = sum(size or 0 for _, _, size in measured)
    free = sum(size or 0 for _, links, size in measured if not links)
    return {
        "Type": title,
        "TotalCount": len(measured),
        "Active": sum(1 for _, links, _ in measured if links),
        "Size": output.human(size, 4),
        "Reclaimable": output.human(free, 4) + (f" ({free * 100 // size}%)" if size else ""),
    }
