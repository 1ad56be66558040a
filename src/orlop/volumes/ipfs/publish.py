"""A folder as the body of a request that adds it to a node: ``multipart/form-data``, a part for each file.

As Kubo's own client does it: https://docs.ipfs.tech/reference/kubo/rpc/#api-v0-add. What IPFS has no word for (owners,
modes, attributes, hard links, devices, pipes and sockets) stays behind.
"""

import os
import stat
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from urllib.parse import quote_plus

from orlop.errors import Invalid, Unavailable

BOUNDARY = os.urandom(16).hex()
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
"""Of what `body` yields."""
_BLOCK = 1 << 18
_OWN = "lost+found"
"""The filesystem's own folder, in the root of one."""


def body(folder: Path, root: str, skip: Callable[[str], object]) -> Generator[bytes, None, None]:
    """The content of ``folder`` as ``root``, a folder before what is in it; files are read piece by piece.

    ``skip`` is told of what IPFS cannot hold, and of other filesystems that are mounted in there. A file that changes
    meanwhile is as it was found. Raises `Invalid` for a name that is not UTF-8, and `Unavailable` for what has gone.
    """
    device, waiting = folder.stat().st_dev, [(folder, root)]
    while waiting:
        path, name = waiting.pop()
        try:
            found = path.lstat()
            if found.st_dev != device or _kind(found.st_mode) is None:
                skip(f"'{name}' is left out: it is {'another filesystem' if found.st_dev != device else 'no file'}")
                continue
            yield _head(name, str(_kind(found.st_mode)))
            yield from _content(path, found.st_mode)
            yield b"\r\n"
            if stat.S_ISDIR(found.st_mode):
                # The last is done first, and all of it before its neighbours: the order that Kubo wants.
                entries = sorted(path.iterdir(), reverse=True)
                waiting += [(each, f"{name}/{each.name}") for each in entries if each != folder / _OWN]
        except OSError as error:
            raise Unavailable(f"'{name}' cannot be read: {error.strerror}; publish again when it is at rest") from error
    yield f"--{BOUNDARY}--\r\n".encode()


def _kind(mode: int) -> str | None:
    if stat.S_ISDIR(mode):
        return "application/x-directory"
    if stat.S_ISLNK(mode):
        return "application/symlink"
    return "application/octet-stream" if stat.S_ISREG(mode) else None


def _head(name: str, kind: str) -> bytes:
    try:
        quoted = quote_plus(name, errors="strict")
    except UnicodeEncodeError:
        raise Invalid(f"{name!r} is not UTF-8, which names in IPFS are; rename it") from None
    lines = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n'
    return f"{lines}Content-Type: {kind}\r\n\r\n".encode()


def _content(path: Path, mode: int) -> Iterator[bytes]:
    if stat.S_ISLNK(mode):
        yield os.fsencode(path.readlink())
    elif stat.S_ISREG(mode):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb", buffering=0) as file:
            while piece := file.read(_BLOCK):
                yield piece
