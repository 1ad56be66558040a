"""Trees of a repository, read many at a time: they lie together, and a request costs more than its bytes."""

from collections import OrderedDict
from typing import Final

from orlop.errors import Corrupt, NotFound
from orlop.snapshots import nodes
from orlop.snapshots.nodes import Node
from orlop.snapshots.packs import pack_key
from orlop.snapshots.repository import Repository, opened

_WINDOW: Final = 2 << 20
_WINDOWS: Final = 6


class TreeReader:
    """Reads trees through a few windows of packs that it remembers. For one thread."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._windows: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def nodes(self, tree: str) -> list[Node]:
        """The entries of a tree; raises `Corrupt` naming it."""
        return nodes.parsed(self.blob(tree), tree)

    def blob(self, tree: str) -> bytes:
        """The tree as it is stored; raises `Corrupt` naming it."""
        try:
            blob = bytes.fromhex(tree)
        except ValueError:
            raise Corrupt(f"{tree!r} is no id of a tree") from None
        pack, where = self._repository.place("tree", blob)
        window = where.offset // _WINDOW
        content = b"".join(
            self._window(pack, number) for number in range(window, (where.offset + where.length - 1) // _WINDOW + 1)
        )
        start = where.offset - window * _WINDOW
        return opened(self._repository.seal, content[start : start + where.length], where, pack)

    def _window(self, pack: str, number: int) -> bytes:
        key = (pack, number)
        content = self._windows.get(key)
        if content is None:
            content = self._windows[key] = self._read(pack, number * _WINDOW)
            if len(self._windows) > _WINDOWS:
                self._windows.popitem(last=False)
        self._windows.move_to_end(key)
        return content

    def _read(self, pack: str, start: int) -> bytes:
        try:
            return b"".join(self._repository.store.read(pack_key(pack), start, start + _WINDOW))
        except NotFound:
            raise Corrupt(f"pack {pack!r} is missing; it has trees") from None
