"""A process that makes small files of sealed blobs. It reads no store: the blobs are handed to it."""

import sys
from typing import Final

import msgspec

from orlop.errors import Corrupt
from orlop.kernel import heap
from orlop.snapshots import source, target
from orlop.snapshots.nodes import Node
from orlop.snapshots.packs import Blob
from orlop.snapshots.repository import opened
from orlop.snapshots.seal import Seal, SealingKeys
from orlop.snapshots.worker import encode, receive, send


class Start(msgspec.Struct, array_like=True):
    """What a worker has to know: the keys, and the folder that it inherits."""

    keys: SealingKeys
    root: int


class Item(msgspec.Struct, array_like=True, gc=False):
    """A file to be made: its name and node, and where its only blob is (none for an empty file).

    The sealed blob has ``length`` bytes from ``start`` on in part number ``part`` of the job.
    """

    name: bytes
    node: Node
    pack: str = ""
    blob: bytes = b""
    length: int = 0
    uncompressed: int = 0
    part: int = 0
    start: int = 0


class Job(msgspec.Struct, array_like=True):
    """Files to be made, by folders beneath the root, and parts of packs with the sealed blobs that they need."""

    number: int
    folders: list[tuple[bytes, list[Item]]]
    parts: list[memoryview]


class Made(msgspec.Struct, array_like=True, gc=False):
    """What became of a file: its size, or the kind of problem and the reason."""

    size: int = 0
    problem: str = ""
    reason: str = ""


class Done(msgspec.Struct, array_like=True):
    """The files of a job in their order."""

    number: int
    files: list[Made]


jobs: Final = msgspec.msgpack.Decoder(Job)


def main() -> None:
    """Serve jobs from standard input until it ends."""
    pipe, answers = sys.stdin.buffer, sys.stdout.buffer
    start = msgspec.msgpack.decode(receive(pipe), type=Start)
    maker = Maker(Seal(start.keys), start.root)
    with heap.kept():
        while message := receive(pipe):
            send(answers, encode(maker.done(jobs.decode(message))))


class Maker:
    """Makes small files beneath one folder; the parent has one too, for when there are few."""

    def __init__(self, seal: Seal, root: int) -> None:
        self._seal, self._root = seal, root

    def done(self, job: Job) -> Done:
        """All files of a job."""
        return Done(job.number, [made for path, items in job.folders for made in self._folder(path, items, job.parts)])

    def _folder(self, path: bytes, items: list[Item], parts: list[memoryview]) -> list[Made]:
        try:
            with source.beneath(self._root, path) as folder:
                return [self._file(folder, item, parts) for item in items]
        except OSError as error:
            return [Made(problem="unwritable", reason=str(error))] * len(items)

    def _file(self, folder: int, item: Item, parts: list[memoryview]) -> Made:
        try:
            content = self._content(item, parts)
            refused = target.whole_file(folder, item.name, item.node, content)
        except Corrupt as error:
            return Made(problem="damaged", reason=str(error))
        except (OSError, ValueError) as error:
            return Made(problem="unwritable", reason=str(error))
        if refused:
            return Made(len(content), "unwritable", "; ".join(refused))
        return Made(len(content))

    def _content(self, item: Item, parts: list[memoryview]) -> bytes:
        if not item.blob:
            return b""
        where = Blob("data", item.blob, 0, item.length, item.uncompressed)
        return opened(self._seal, parts[item.part][item.start : item.start + item.length], where, item.pack)
