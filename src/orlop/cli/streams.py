"""Files as a stream: packed by tar(1), pumped with a bar for whoever watches, and no program left behind."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

_BLOCK = 1 << 20
_PACK = ("tar", "--create", "--file=-", "--numeric-owner", "--xattrs", "--acls", "--sparse", "--one-file-system")


@contextmanager
def packed(folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", IO[bytes]]]:
    """tar(1) at work on all of ``folder``, with owners, modes, attributes and holes; and what it writes."""
    tar = subprocess.Popen([*_PACK, f"--directory={folder}", "."], stdout=subprocess.PIPE)
    with ended_with(tar):
        assert tar.stdout is not None  # noqa: S101 - a pipe was asked for
        yield tar, tar.stdout


def pump(source: IO[bytes], sink: IO[bytes], label: str, length: int) -> None:
    """Copy all, with a bar on a terminal."""
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=length or 1, label=label, file=sys.stderr, hidden=hidden, show_eta=False) as bar:
        while block := source.read(_BLOCK):
            sink.write(block)
            bar.update(len(block))


@contextmanager
def ended_with(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """``process`` has ended afterwards; after an error it is killed."""
    try:
        yield
        process.wait()
    finally:
        process.kill()
        process.wait()
