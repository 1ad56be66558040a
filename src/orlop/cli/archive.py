"""``orlop volume export`` and ``import``: a volume's files as a tar stream, and back into a new volume."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

import click

from orlop import engine
from orlop.cli.ending import asked_to_end
from orlop.cli.options import configured, mapping
from orlop.cli.streams import ended_with, packed, pump
from orlop.errors import Conflict, Invalid, OrlopError, Unavailable
from orlop.state import Row
from orlop.volumes import folders
from orlop.volumes.held import mounted
from orlop.volumes.service import VolumeService

_COMPRESSORS = {".gz": "gzip", ".xz": "xz", ".zst": "zstd"}
_ZSTD = b"\x28\xb5\x2f\xfd"


@click.command()
@click.argument("name")
@click.option("-o", "--output", "target", type=click.Path(dir_okay=False, allow_dash=True), default="-",
              help="File to write; .gz, .xz or .zst compress.  [default: standard output]")  # fmt: skip
@configured
def export(config: engine.Config, name: str, target: str) -> None:
    """Write a volume's files, with owners, modes, attributes and holes, as a tar archive.

    The volume may be in use: then files that change meanwhile are as tar found them.
    """
    if target == "-" and sys.stdout.isatty():
        raise Invalid("an archive is not for a terminal; name a file by -o, or redirect standard output")
    service = engine.volumes(config)
    row = service.get(name)
    with asked_to_end(), mounted(service, row.name, "export") as folder, _written(target) as sink:
        with packed(folder) as (tar, files):
            pump(files, sink, f"export {name}", service.usage(row) or 0)
        # 1: a file changed while it was read, which tar has said.
        if tar.returncode not in (0, 1):
            raise Unavailable(f"volume {name!r} is not exported: tar ended with status {tar.returncode}")


@click.command("import")
@click.argument("name")
@click.argument("source", type=click.Path(dir_okay=False, allow_dash=True), default="-", metavar="[FILE|-]")
@click.option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE",
              help="Option of the new volume's driver; 'driver' chooses that.")  # fmt: skip
@click.option("--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Set a label; repeatable.")
@configured
def import_(config: engine.Config, name: str, source: str, options: Sequence[str], labels: Sequence[str]) -> None:
    """Make a new volume of a tar archive: plain, or compressed by gzip, bzip2, xz or zstd.

    All of it or nothing: after an error there is no such volume (after a power cut in the middle, there is: remove it).
    Nothing outside of the volume is written, whatever the archive says; one with device nodes is refused.
    """
    service = engine.volumes(config)
    with _opened(source) as (archive, size), asked_to_end():
        row = service.create(name, mapping(options), mapping(labels), exist_ok=False)
        try:
            with mounted(service, row.name, "import") as folder:
                _refuse_content(folder, row)
                _fill(folder, archive, f"import {name}", size)
        except BaseException:
            _undo(service, row)
            raise
    click.echo(name)


def _fill(folder: Path, archive: IO[bytes], label: str, size: int) -> None:
    """Unpack into ``folder``, or leave it empty and raise."""
    command = [sys.executable, "-P", "-m", "orlop.cli.unpack", str(folder)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        with ended_with(child):
            failure = _feed(child, archive, label, size)
            assert child.stdout is not None  # noqa: S101 - a pipe was asked for
            complaint = child.stdout.read().decode(errors="replace").strip()
        if child.returncode:
            raise Invalid(f"the archive is not imported: {complaint or 'unpacking was killed'}")
        if failure:
            raise failure
        folders.sync(folder)
    except BaseException:
        # A folder of yours, or a share, is kept when its volume is removed.
        subprocess.run(["find", str(folder), "-xdev", "-mindepth", "1", "!", "-name", "lost+found", "-delete"])
        raise


def _feed(child: "subprocess.Popen[bytes]", archive: IO[bytes], label: str, size: int) -> Exception | None:
    """Give ``child`` the archive; returns why that ended early, which may be the child's own end."""
    start = archive.read(len(_ZSTD))
    try:
        assert child.stdin is not None  # noqa: S101 - a pipe was asked for
        with child.stdin as sink, _through("zstd", sink, "-dcq") if start == _ZSTD else nullcontext(sink) as target:
            target.write(start)
            pump(archive, target, label, size)
    except (BrokenPipeError, Unavailable) as error:
        return error
    return None


@contextmanager
def _written(target: str) -> Iterator[IO[bytes]]:
    """A file that is there only if all went well, readable by its owner only: it holds whatever the volume holds."""
    if target == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = Path(f"{target}.part")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:  # noqa: PTH123
            compressor = _COMPRESSORS.get(Path(target).suffix)
            with _through(compressor, file) if compressor else nullcontext(file) as sink:
                yield sink
            file.flush()
            os.fsync(file.fileno())
        part.rename(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def _through(program: str, sink: IO[bytes], *options: str) -> Iterator[IO[bytes]]:
    """What is written goes through ``program`` into ``sink``; raises `Unavailable` if it says that it is no use."""
    try:
        process = subprocess.Popen([program, *(options or ("-c",))], stdin=subprocess.PIPE, stdout=sink)
    except FileNotFoundError:
        raise Unavailable(f"program {program!r} is missing; install it") from None
    with ended_with(process):
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        with process.stdin as pipe:
            yield pipe
    if process.returncode:
        raise Unavailable(f"{program!r} ended with status {process.returncode}")


@contextmanager
def _opened(source: str) -> Iterator[tuple[IO[bytes], int]]:
    """The archive, and its size if that is known."""
    if source == "-":
        yield sys.stdin.buffer, 0
        return
    with Path(source).open("rb") as file:
        found = os.fstat(file.fileno())
        yield file, found.st_size if stat.S_ISREG(found.st_mode) else 0


def _refuse_content(folder: Path, row: Row) -> None:
    """Options may have led to a place of somebody else's."""
    if not folders.is_empty(folder):
        raise Conflict(f"the storage of volume {row.name!r} is not empty; import makes new volumes only")


def _undo(service: VolumeService, row: Row) -> None:
    try:
        service.remove(row.name)
        removed = service.state.by_key(row.key)
        if removed is not None:
            service.purge(removed)
    except OrlopError as error:
        click.echo(f"orlop: what was imported is still there: {error}", err=True)
