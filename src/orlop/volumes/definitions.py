"""A copy of each volume's definition beside its data, from which a lost state file can be rebuilt.

``volumes/KEY/volume.json`` holds the name, driver, options, labels and time of creation, and whether the volume is used
in place; ``trashed.json`` is the same file of a volume that was removed and can still be restored. The state file
decides; these are read only by ``system check --repair``.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from orlop.state import Phase, Row

_LIVE, _TRASHED = "volume.json", "trashed.json"


def write(root: Path, row: Row) -> None:
    """Keep ``row`` in its folder below ``root``, on the disk before this returns."""
    folder = root / row.key
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {
        "name": row.name,
        "driver": row.driver,
        "options": dict(row.options),
        "labels": dict(row.labels),
        "created": row.created,
        **({"in_place": True} if row.in_place else {}),
    }
    # A volume without a definition is not acknowledged yet: only one that is replaced needs another name first.
    place = folder / _LIVE
    new = place.with_suffix(".new") if place.exists() else place
    with open(new, "w", encoding="utf-8", opener=_private) as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    if new != place:
        new.rename(place)
    sync(folder)
    sync(root)


def trash(root: Path, key: str) -> None:
    """The volume was removed; again is fine."""
    with suppress(FileNotFoundError):
        (root / key / _LIVE).rename(root / key / _TRASHED)


def restore(root: Path, key: str) -> None:
    """The volume came back; again is fine."""
    with suppress(FileNotFoundError):
        (root / key / _TRASHED).rename(root / key / _LIVE)


def delete(root: Path, key: str) -> None:
    """The volume has gone for good, and its folder with it; none is fine."""
    for name in (_LIVE, _TRASHED, "volume.new"):
        (root / key / name).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        (root / key).rmdir()


def read(root: Path) -> Iterator[tuple[Path, Row | None]]:
    """Every definition below ``root``; None for a file that makes no sense."""
    for name, phase in ((_LIVE, "ready"), (_TRASHED, "trashed")):
        for path in sorted(root.glob(f"*/{name}")):
            yield path, _parse(path, cast("Phase", phase))


def sync(folder: Path) -> None:
    """What was made, renamed or removed in ``folder`` survives a power cut from here on."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _parse(path: Path, phase: Phase) -> Row | None:
    try:
        found = json.loads(path.read_bytes())
        name, driver, created = (str(found[field]) for field in ("name", "driver", "created"))
        options, labels = _strings(found["options"]), _strings(found["labels"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    removed = path.stat().st_ctime if phase == "trashed" else None
    return Row(path.parent.name, name, driver, options, labels, created, phase, removed, found.get("in_place") is True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _strings(mapping: Mapping[object, object]) -> dict[str, str]:
    return {str(key): str(value) for key, value in mapping.items()}
