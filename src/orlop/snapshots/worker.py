"""A process that reads small files and seals them: what comes back to the parent needs only to be stored.

It talks to its parent by two pipes and never to a store: a store's client does not survive a fork, and the parent is
to know all blobs. Only its keys and an open folder are given to it.
"""

import hashlib
import struct
import sys
from typing import IO, Final

import msgspec

from orlop.snapshots import nodes, source
from orlop.snapshots.seal import Seal, SealingKeys

_LENGTH: Final = struct.Struct("<I")


class Start(msgspec.Struct, array_like=True):
    """What a worker has to know: the keys, whether to compress, the folder that it inherits."""

    keys: SealingKeys
    compress: bool
    root: int


class Job(msgspec.Struct, array_like=True):
    """Files to be read: folders beneath the root, each with some names."""

    number: int
    folders: list[tuple[bytes, list[bytes]]]


class Read(msgspec.Struct, array_like=True, gc=False):
    """What became of a file: a node and a blob, or what was wrong (an errno, 0 for one that has grown).

    ``length`` bytes are the blob's sealed form, 0 for an empty file.
    """

    node: bytes = b""
    blob: bytes = b""
    length: int = 0
    uncompressed: int = 0
    size: int = 0
    steady: bool = True
    error: int | None = None


class Done(msgspec.Struct, array_like=True):
    """The files of a job in their order; ``sealed`` are all their blobs, one after another."""

    number: int
    files: list[Read]
    sealed: bytes


encode: Final = msgspec.msgpack.Encoder().encode


def main() -> None:
    """Serve jobs from standard input until it ends."""
    pipe, answers = sys.stdin.buffer, sys.stdout.buffer
    start = msgspec.msgpack.decode(receive(pipe), type=Start)
    reader = Reader(Seal(start.keys), start.root, compress=start.compress)
    jobs = msgspec.msgpack.Decoder(Job)
    while message := receive(pipe):
        send(answers, encode(reader.done(jobs.decode(message))))


def send(pipe: IO[bytes], message: bytes) -> None:
    """Write one message."""
    pipe.write(_LENGTH.pack(len(message)))
    pipe.write(message)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes:
    """Read one message; b"" at the end."""
    head = pipe.read(_LENGTH.size)
    return pipe.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""


class Reader:
    """Reads and seals small files beneath one folder; the parent has one too, for when there are few."""

    def __init__(self, seal: Seal, root: int, *, compress: bool) -> None:
        self._seal, self._root, self._compress = seal, root, compress
        self._blobs: list[bytes] = []

    def done(self, job: Job) -> Done:
        """All files of a job."""
        files = [read for folder, names in job.folders for read in self._folder(folder, names)]
        sealed, self._blobs = b"".join(self._blobs), []
        return Done(job.number, files, sealed)

    def _folder(self, path: bytes, names: list[bytes]) -> list[Read]:
        try:
            with source.beneath(self._root, path) as folder:
                return [self._file(folder, name) for name in names]
        except OSError as error:
            return [Read(error=error.errno or -1)] * len(names)

    def _file(self, folder: int, name: bytes) -> Read:
        try:
            found = source.small(folder, name)
        except OSError as error:
            return Read(error=error.errno or -1)
        if found is None:
            return Read(error=0)
        return self._sealed(found)

    def _sealed(self, found: source.Small) -> Read:
        if not found.content:
            found.node.content = []
            return Read(nodes.encode(found.node), steady=found.steady)
        blob = hashlib.sha256(found.content)
        found.node.content = [blob.hexdigest()]
        sealed, uncompressed = self._seal.blob(found.content, compress=self._compress)
        self._blobs.append(sealed)
        node, size = nodes.encode(found.node), len(found.content)
        return Read(node, blob.digest(), len(sealed), uncompressed, size, found.steady)
