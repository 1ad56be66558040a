"""A volume's files from one driver to another, under the same name.

    ready (old) ─────────────── copy, compare ───► kept ── commit ──► trashed
    (no row) ──► filling (new) ──────────────────► ready

The name changes hands in one transaction, after every file was compared. Until then a crash leaves the old volume as
it was, and reconciling deletes the half-filled one; afterwards the old one is kept until somebody says `commit`, and
`back` makes it the volume again.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from orlop.errors import Conflict, Corrupt, Invalid, NotFound
from orlop.state import Holder, Row
from orlop.volumes import definitions, folders
from orlop.volumes.driver import Listed
from orlop.volumes.host import noted
from orlop.volumes.options import refuse_unknown
from orlop.volumes.service import VolumeService

Copy = Callable[[Path, Path], None]
"""Copies all files of the first folder into the second, which is empty; raises if it cannot."""


def migrate(
    service: VolumeService, name: str, driver: str, options: Mapping[str, str], holder: Holder, copy: Copy
) -> Row:
    """Let ``driver`` keep the volume ``name``; returns what it is now. The old one is kept: see `commit` and `back`.

    Raises `InUse` if somebody uses it, `Conflict` if the new storage is not empty or an earlier migration is not
    committed, `Corrupt` if the copy is not like the original; then nothing has changed.
    """
    refuse_unknown(options, service.driver(driver).options(), driver)
    with service.alone(name) as old:
        _refuse(service, old, driver, options)
        new = _begin(service, old, driver, options)
        try:
            with _both(service, old, new, holder) as (source, target):
                _refuse_content(target, new)
                copy(source, target)
                folders.sync(target)
            # Mounted anew: what is compared has come back from the storage, not from this host's memory.
            with _both(service, old, new, holder) as (source, target):
                compare(source, target)
        except BaseException:
            service.life.drop(new)
            raise
        service.host.step("migrate: compared")
        return _switch(service, old, new)


def commit(service: VolumeService, name: str) -> Row:
    """The kept volume of an earlier migration of ``name`` is needed no more: it is removed as volumes are."""
    with service.lock(name):
        row = kept(service, name)
        if service.driver(row.driver).scope == "global":
            service.life.drop(row)
        else:
            with noted(service.state, service.host, "commit", row) as change:
                change.replace(replace(row, phase="trashed", removed=service.host.now()))
        return row


def back(service: VolumeService, name: str) -> Row:
    """The kept volume becomes ``name`` again, and what was written since is in the one that is kept now."""
    with service.alone(name) as now:
        return _switch(service, now, kept(service, name))


def kept(service: VolumeService, name: str) -> Row:
    """What an earlier migration of ``name`` has kept; raises `NotFound`."""
    for row in service.state.unfinished():
        if row.phase == "kept" and row.name == name:
            return row
    raise NotFound(f"nothing is kept of an earlier migration of volume {name!r}")


def compare(source: Path, target: Path) -> int:
    """Compare every file of two folders by type, content and target of links; returns how many there are.

    Raises `Corrupt`, naming the first that differs. Owners and modes are the target's business: not every storage has
    them.
    """
    names = {path for path, _ in _walk(source)}
    extra = next((path for path, _ in _walk(target) if path not in names), None)
    if extra is not None:
        raise Corrupt(f"the copy has {extra!r}, which the original has not")
    for path, entry in _walk(source):
        if not _same(entry, target / path):
            raise Corrupt(f"{path!r} is not the same in the copy")
    return len(names)


def _refuse(service: VolumeService, old: Row, driver: str, options: Mapping[str, str]) -> None:
    if old.driver == driver and dict(old.options) == dict(options):
        raise Invalid(f"volume {old.name!r} is kept by driver {driver!r} with these options already")
    if any(row.name == old.name and row.phase in ("kept", "filling") for row in service.state.unfinished()):
        raise Conflict(f"an earlier migration of volume {old.name!r} is not over: --commit it, or go --back")
    found = service.driver(driver)
    if isinstance(found, Listed) and found.is_set_up() and any(each.name == old.name for each in found.found()):
        raise Conflict(f"driver {driver!r} has a volume {old.name!r} already, which all hosts know")
    service.refuse_use(old)


def _begin(service: VolumeService, old: Row, driver: str, options: Mapping[str, str]) -> Row:
    """The new volume, made and empty."""
    plan = Row("", old.name, driver, options, old.labels, old.created, "filling")
    row = service.life.record(plan)
    try:
        service.life.make(row)
    except BaseException:
        service.life.drop(row, made=False)
        raise
    service.host.step("migrate: made")
    return row


@contextmanager
def _both(service: VolumeService, old: Row, new: Row, holder: Holder) -> Iterator[tuple[Path, Path]]:
    attachments = service.attachments
    source = attachments.mount(old, holder)
    try:
        target = attachments.mount(new, holder)
        try:
            yield source, target
        finally:
            attachments.unmount(new, holder)
    finally:
        attachments.unmount(old, holder)


def _switch(service: VolumeService, old: Row, new: Row) -> Row:
    """From here on ``new`` is the volume, and ``old`` is kept."""
    definitions.write(service.folder, new)
    done = replace(new, phase="ready")
    with noted(service.state, service.host, "migrate", done, {"driver": new.driver, "from": old.driver}) as change:
        change.replace(replace(old, phase="kept"))
        change.replace(done)
    service.host.step("migrate: switched")
    definitions.trash(service.folder, old.key)
    return done


def _refuse_content(folder: Path, row: Row) -> None:
    if not folders.is_empty(folder):
        raise Conflict(f"the storage that driver {row.driver!r} has for volume {row.name!r} is not empty")


def _walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below ``folder`` on its filesystem, by its path from there; not what mkfs has made."""
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                path = os.path.relpath(entry.path, folder)
                if path == "lost+found":
                    continue
                yield path, entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))


def _same(entry: os.DirEntry[str], copy: Path) -> bool:
    mode = entry.stat(follow_symlinks=False).st_mode
    try:
        other = copy.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_IFMT(mode) != stat.S_IFMT(other):
        return False
    if stat.S_ISLNK(mode):
        return Path(entry.path).readlink() == copy.readlink()
    return not stat.S_ISREG(mode) or _digest(Path(entry.path)) == _digest(copy)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
