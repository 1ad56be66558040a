"""A volume's files on this host, and what is known about them: which snapshot they go on from.

    <folder>/image         a filesystem of ours; its blocks are taken when they are written
    <folder>/base.json     which volume it is of, and from which snapshot its files go on
    <folder>/lazy          what has been fetched of a copy that is used before it is complete
    <folder>/kept-EPOCH    an image whose last changes never became part of the volume

``base.json`` is written before anything depends on it: a snapshot that is being published is named there before any
other host can see it, so after a crash either the bucket agrees with this host, or somebody else has written since.
"""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orlop.errors import Corrupt
from orlop.volumes import image
from orlop.volumes.definitions import sync

UNKNOWN = "?"
"""The snapshot that is being made, as long as it has no name."""


@dataclass(frozen=True, slots=True)
class Base:
    """What the files of the copy are: those of ``snapshot`` (or ``pending``) of the volume ``id``, and what followed.

    ``complete`` is false while the files are brought here. ``clean`` says that nothing followed. ``restored`` is the
    time (nanoseconds, by the copy's own filesystem) after which every change is one that followed; 0 where the copy
    has shipped itself since.

    ``lazy`` is not 0 where the content of files is fetched while they are used: the bytes that were missing when that
    began (`orlop.volumes.bucket.lazy`). Such a copy is not complete, and all that may be done with it is using it.
    """

    id: str
    snapshot: str = ""
    pending: str = ""
    epoch: int = 0
    complete: bool = False
    clean: bool = False
    restored: int = 0
    lazy: int = 0

    @property
    def is_usable(self) -> bool:
        """Whether containers may see it."""
        return self.complete or self.lazy > 0

    def goes_on_from(self, volume: str, snapshot: str) -> bool:
        """Whether these files have everything that ``snapshot`` of ``volume`` has."""
        return self.id == volume and self.is_usable and snapshot in {self.snapshot, self.pending}

    def published(self, snapshot: str) -> "Base":
        """What is known when ``snapshot`` turns out to be the volume's head, and the files are about to be used."""
        if snapshot == self.snapshot:
            return replace(self, clean=False)
        return Base(self.id, snapshot, epoch=self.epoch, complete=True)


class Copy:
    """The files of one volume in ``folder``, which is there."""

    def __init__(self, folder: Path):
        """Nothing is read yet."""
        self.folder, self.image = folder, folder / "image"
        self._base, self.journal = folder / "base.json", folder / "lazy"

    @property
    def base(self) -> Base | None:
        """What is known; None where there is no copy. Raises `Corrupt`."""
        if not self._base.exists() or not self.image.exists():
            return None
        try:
            return Base(**json.loads(self._base.read_text()))
        except (ValueError, TypeError) as error:
            raise Corrupt(f"'{self._base}' makes no sense ({error}); move '{self.folder}' away to begin anew") from None

    def know(self, base: Base) -> Base:
        """Remember ``base`` durably."""
        new = self._base.with_suffix(".new")
        with new.open("w") as file:
            json.dump(asdict(base), file)
            file.flush()
            os.fsync(file.fileno())
        new.rename(self._base)
        sync(self.folder)
        return base

    def doubt(self) -> None:
        """From here on the shadow may be ahead of what was published."""
        base = self.base
        if base is not None and not base.pending:
            self.know(replace(base, pending=UNKNOWN))

    def begin(self, base: Base, size: int, root: image.Root) -> None:
        """An empty filesystem, or the one that is there, which from now on is on its way to ``base``."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.know(replace(base, complete=False, clean=False, lazy=0))
        image.make(self.image, "xfs", size, root, thin=True)

    def grow(self, size: int) -> None:
        """Make room for ``size`` bytes, if there is less; smaller is fine."""
        image.extend(self.image, size, thin=True)
        image.fill(self.image, None)

    def set_aside(self, epoch: int) -> Path:
        """Keep the image for whoever misses something; the next one is made from the bucket."""
        kept = self.folder / f"kept-{epoch}"
        number = 1
        while kept.exists():
            number += 1
            kept = self.folder / f"kept-{epoch}-{number}"
        self.image.rename(kept)
        self._base.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)
        sync(self.folder)
        return kept

    def kept(self) -> list[Path]:
        """Images that were set aside."""
        return sorted(self.folder.glob("kept-*"))

    def leave(self) -> None:
        """Delete what the bucket has, or had; what was set aside stays."""
        self.image.unlink(missing_ok=True)
        self._base.unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or never there
            self.folder.rmdir()

    def remove(self) -> None:
        """Delete everything, what was set aside too; nothing there is fine."""
        shutil.rmtree(self.folder, ignore_errors=True)
