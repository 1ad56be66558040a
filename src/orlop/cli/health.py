"""What is wrong with this host's volumes, and how it is put right: ``orlop system check [--repair]``."""

import os
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from orlop import engine
from orlop.errors import Busy, Corrupt, InUse, NotFound, Unavailable
from orlop.kernel import processes
from orlop.volumes import definitions, reconcile
from orlop.volumes.service import VolumeService


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with ``about``, a volume's key or a file."""

    about: str
    text: str


def problems(service: VolumeService) -> Iterator[Problem]:
    """Everything that is wrong; raises `Corrupt` if the state file is damaged."""
    service.state.check()
    for action in reconcile.decide(reconcile.look(service)):
        if not _is_routine(service, action):
            yield Problem(action.key, f"{action.why}; --repair can {action.verb} it")
    yield from _unlike_their_definitions(service)
    yield from _unknown_folders(service)
    yield from _bad_secrets(service)
    yield from _never_given_back(service)
    yield from _degraded(service)


def repair(config: engine.Config) -> Iterator[str]:
    """Do what can be done, and say what was done. Raises `InUse` while a process uses a damaged state file."""
    _refuse_while_used(config)
    aside, found, unreadable = engine.rebuild(config)
    if aside:
        yield f"set the damaged state file aside as '{aside}', made a new one from {len(found)} definition(s)"
        yield from (f"left out '{path}', which makes no sense" for path in unreadable)
    service = engine.volumes(config)
    for action in reconcile.reconcile(service):
        if action.verb != "settle":
            yield f"{action.verb} {action.key}: {action.why}"
    rows, defined = service.all(), _defined(service)
    for row in rows:
        if (service.folder / row.key).is_dir() and row.key not in defined:
            definitions.write(service.folder, row)
            yield f"wrote the definition of {row.name} again"
    yield from (f"deleted secret {name}, which no volume owns" for name in service.seals.sweep())


def _is_routine(service: VolumeService, action: reconcile.Action) -> bool:
    """Whether it is part of what goes on all the time: the daemon's next round does it, or somebody is at it now."""
    row = reconcile.owner(service, action.key)
    if action.verb == "settle" or (row is not None and row.phase == "trashed"):
        return True
    try:
        with service.locked(row) if row else nullcontext():
            return action not in reconcile.decide(reconcile.look(service))
    except Busy:
        return True


def _unlike_their_definitions(service: VolumeService) -> Iterator[Problem]:
    # In this order: a volume has its definition before it is ready.
    rows, defined = service.all(), _defined(service)
    for row in rows:
        folder = service.folder / row.key
        if folder.is_dir() and row.key in defined:
            continue
        with suppress(NotFound):  # removed meanwhile
            service.get(row.name)
            if folder.is_dir():
                yield Problem(row.key, "its definition is missing; --repair writes it again")
            else:
                yield Problem(row.key, f"its folder '{folder}' is missing; restore it, or 'orlop volume rm {row.name}'")
    for path, found in definitions.read(service.folder):
        if found is None:
            yield Problem(path.parent.name, f"definition '{path}' makes no sense; correct or remove the file")


def _unknown_folders(service: VolumeService) -> Iterator[Problem]:
    known = {path.parent.name for path, _ in definitions.read(service.folder)}
    for folder in sorted(service.folder.iterdir()):
        # Looked for one by one: a row is there before its folder, and after it.
        if folder.is_dir() and service.state.by_key(folder.name) is None and folder.exists():
            what = "--repair takes it up" if folder.name in known else "it has no definition; move it away if unneeded"
            yield Problem(folder.name, f"folder '{folder}' belongs to no volume; {what}")


def _bad_secrets(service: VolumeService) -> Iterator[Problem]:
    orphans = service.seals.orphans()
    for name in orphans:
        yield Problem(name, "this secret was made for a volume that is not there; --repair deletes it")
    for name in service.seals.vault.names():
        try:
            service.seals.vault.get(name)
        except NotFound:
            continue  # removed meanwhile
        except (Corrupt, Unavailable) as error:
            yield Problem(name, str(error))


def _never_given_back(service: VolumeService) -> Iterator[Problem]:
    """Volumes that an engine took long ago, and that no process uses: it may not know, having got no answer."""
    for row, takers in service.attachments.unused():
        why = f"{', '.join(takers)} took it and did not give it back, and no process uses it"
        yield Problem(row.key, f"{why}; 'orlop volume unmount {row.name}' takes it down")


def _degraded(service: VolumeService) -> Iterator[Problem]:
    """Volumes that their drivers say something is wrong with."""
    for row in service.all():
        with suppress(NotFound):  # its driver is not there
            if why := service.status(row).get("Degraded"):
                yield Problem(row.key, str(why))


def _defined(service: VolumeService) -> set[str]:
    """The keys of volumes with a definition, readable or not, that is not one in the trash."""
    found = definitions.read(service.folder)
    return {path.parent.name for path, row in found if row is None or row.phase == "ready"}


def _refuse_while_used(config: engine.Config) -> None:
    try:
        service = engine.volumes(config)
        service.state.check()
        service.state.close()
    except Corrupt:
        users = [f"{processes.command(pid)} ({pid})" for pid in _users(config.state_file)]
        if users:
            raise InUse(f"state file '{config.state_file}' is in use by {', '.join(users)}; stop that first") from None


def _users(file: Path) -> Iterator[int]:
    """Processes other than this one that have ``file`` open."""
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) != os.getpid():
            with suppress(OSError):
                if any(link.samefile(file) for link in (process / "fd").iterdir() if str(link.readlink()) == str(file)):
                    yield int(process.name)
