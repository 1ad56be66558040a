"""A `Mounter` that only remembers: tests of drivers and services need no root with it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from orlop.errors import InUse, Unavailable
from orlop.mount import Mount


class PaperMounter:
    """Mounts on paper. ``seen_by`` and ``broken`` are there for tests to write."""

    def __init__(self) -> None:
        """Nothing is mounted."""
        self.mounts: dict[Path, tuple[Mount, ...]] = {}
        self.seen_by: dict[Path, list[int]] = {}
        """The processes that hold what is mounted at a place."""
        self.broken = ""
        """Why every mount is refused from now on; empty where none is."""
        self.dead: set[Path] = set()
        """The places whose FUSE program died."""

    def mount(self, mounts: Sequence[Mount], target: Path) -> None:
        """See `Mounter.mount`."""
        if self.broken:
            raise Unavailable(self.broken)
        self.mounts[target] = tuple(mounts)

    def unmount(self, target: Path) -> None:
        """See `Mounter.unmount`; a place that somebody holds is busy."""
        if self.seen_by.get(target):
            raise InUse(f"'{target}' is in use")
        self.mounts.pop(target, None)

    def mounted(self, target: Path) -> bool:
        """See `Mounter.mounted`."""
        return target in self.mounts and target not in self.dead

    def died(self) -> Iterable[Path]:
        """See `Mounter.died`: the places in ``dead``."""
        return list(self.dead)

    def heal(self, mounts: Sequence[Mount], target: Path) -> None:
        """See `Mounter.heal`."""
        self.mount(mounts, target)
        self.dead.discard(target)

    def holders(self, targets: Iterable[Path]) -> Mapping[Path, Sequence[int]]:
        """See `Mounter.holders`."""
        return {target: self.seen_by[target] for target in targets if self.seen_by.get(target)}

    def left(self, image: Path, target: Path) -> Sequence[int]:
        """See `Mounter.left`: paper is not left anywhere."""
        del image, target
        return ()

    def reach(self, pid: int, target: Path) -> None:
        """See `Mounter.reach`: nobody sees paper, and nobody expects to."""
