"""A second volume like one: at once where the two can share what they store, by a copy where nobody has to wait for it.

Either is made while its name is locked and recorded as ``filling``: whoever looks sees all of the files, or no volume.
"""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from orlop.errors import Conflict, NoSpace, Unavailable
from orlop.state import Row
from orlop.volumes import folders, held
from orlop.volumes.driver import Cloning
from orlop.volumes.host import noted, volume
from orlop.volumes.service import VolumeService
from orlop.volumes.sources import Still
from orlop.volumes.timeline import Hooks, Timeline, still_files
from orlop.volumes.uses import holder

_COPY = ("cp", "-dR", "--one-file-system", "--preserve=mode,ownership,timestamps,links,xattr")


def at_once(service: VolumeService, name: str, plan: Row, hooks: Hooks) -> Row | None:
    """Make what ``plan`` says with the files that the volume ``name`` has at one moment, in use or not.

    None where the two cannot share what they store: then nothing has changed. Raises `Conflict` if there is such a
    volume already.
    """
    if _sharing(service, service.get(name), plan) is None:
        return None
    # Nobody makes a snapshot meanwhile, who would let the users go too early.
    with service.lock(f"{name}@"), _told(hooks) as more, service.lock_both(name, plan.name):
        row = service.get(name)
        driver = _sharing(service, row, plan)
        if driver is None:
            raise Conflict(f"volume {name!r} has changed meanwhile; try again")
        service.make_way(plan.name)
        users, how = partial(service.attachments.processes, row), ""

        def share(new: Row) -> None:
            nonlocal how
            how = driver.clone(volume(row), volume(new), users)

        try:
            made = service.life.clone(plan, share)
        except OSError as error:
            raise Unavailable(f"volume {name!r} cannot be cloned: {error.strerror}") from error
    note(service, made, name, how + more)
    return made


def by_copy(timeline: Timeline, name: str, plan: Row, hooks: Hooks) -> Row | None:
    """The same, by copying files that stand still without anybody having to wait.

    None where there are none such, or other hosts may have the new volume: then nothing has changed.
    """
    service = timeline.service
    if service.life.is_shared(plan):
        return None
    with service.lock(f"{name}@"), held.mounted(service, name, "clone") as folder:
        row = service.get(name)
        source = timeline.source(row, folder)
        if service.attachments.processes(row) and not source.makes_copy:
            return None
        with still_files(source, hooks) as still:
            if not _is_free(still):
                return None
            with service.lock(plan.name):
                service.make_way(plan.name)
                made = service.life.clone(plan, lambda new: _fill(service, new, still.folder))
    note(service, made, name, f"copy of {still.how}")
    return made


def note(service: VolumeService, made: Row, name: str, how: str) -> None:
    """Write down that ``made`` is a clone of ``name``, and ``how`` its files came."""
    with noted(service.state, service.host, "clone", made, {"from": name, "how": how}, durable=False):
        pass


def _sharing(service: VolumeService, row: Row, plan: Row) -> Cloning | None:
    """The driver of both, if it can let them share."""
    driver = service.driver(row.driver)
    if plan.driver != row.driver or not isinstance(driver, Cloning):
        return None
    return driver if driver.can_clone(volume(row), volume(plan)) else None


@contextmanager
def _told(hooks: Hooks) -> Iterator[str]:
    """The users are told before and after; what to add to the word for how it was done."""
    try:
        yield "+hooks" if hooks.before() else ""
    finally:
        hooks.after()


def _is_free(still: Still) -> bool:
    return still.is_copy or still.how.startswith("unused")


def _fill(service: VolumeService, new: Row, source: Path) -> None:
    """Make the storage of ``new``, with a copy of all that is in ``source``."""
    service.life.make(new)
    me = holder("clone")
    folder = service.attachments.mount(new, me)
    try:
        if not folders.is_empty(folder):
            raise Conflict(f"the storage of volume {new.name!r} has files already; clone into another one")
        _copy(source, folder)
    finally:
        service.attachments.unmount(new, me)


def _copy(source: Path, target: Path) -> None:
    command, english = [*_COPY, "--", f"{source}/.", str(target)], os.environ | {"LC_ALL": "C"}
    done = subprocess.run(command, env=english, capture_output=True, text=True, errors="replace")
    if done.returncode:
        kind = NoSpace if os.strerror(errno.ENOSPC) in done.stderr else Unavailable
        raise kind(f"not all files could be copied: {done.stderr.strip().splitlines()[-1]}")
    # The access times of a shadow are its own affair (`orlop.volumes.mirror`).
    for folder, names, files in os.walk(target, topdown=False):
        for name in (*names, *files, "."):
            path = f"{folder}/{name}"
            modified = os.lstat(path).st_mtime_ns
            os.utime(path, ns=(modified, modified), follow_symlinks=False)
    folders.sync(target)
