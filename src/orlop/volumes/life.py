"""How volumes come to be and how they go, step by step; a kill between two steps loses nothing that was acknowledged.

Its callers hold the volume's lock.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

from orlop.errors import Conflict, OrlopError, Unavailable
from orlop.state import Row, State
from orlop.volumes import definitions, folders
from orlop.volumes.attachments import Attachments
from orlop.volumes.driver import Secretive
from orlop.volumes.host import FROM, Host, noted, volume
from orlop.volumes.seals import Seals
from orlop.volumes.uses import holder

Fill = Callable[[Row, Path], None]
"""Puts the files that option ``from`` of a volume speaks of into a folder, again after a crash."""

_log = logging.getLogger(__name__)


def _nothing_to_fill_with(row: Row, folder: Path) -> None:
    del folder
    raise Unavailable(f"volume {row.name!r}: there are no snapshots here")


class Life:
    """The volumes of one host, of which ``folder`` has a folder each."""

    def __init__(self, state: State, attachments: Attachments, seals: Seals, host: Host, folder: Path):
        """``attachments`` knows the drivers."""
        self.fill: Fill = _nothing_to_fill_with
        self._state, self._attachments, self._seals, self._host, self._folder = state, attachments, seals, host, folder

    def secrets(self, driver: str) -> Collection[str]:
        """The options of ``driver`` that hold secrets."""
        found = self._attachments.driver(driver)
        return found.secrets() if isinstance(found, Secretive) else ()

    def is_shared(self, row: Row) -> bool:
        """Whether other hosts have this volume too."""
        return self._attachments.driver(row.driver).scope == "global"

    def record(self, plan: Row) -> Row:
        """Remember a volume that is going to be made, with a key of its own and its secrets sealed."""
        with self._seals.sealed(plan.name, plan.options, self.secrets(plan.driver)) as sealed:
            with self._state.change(durable=plan.phase != "creating" or self.is_shared(plan)) as change:
                # A folder that nobody remembers may hold somebody's data: it is never taken for a new volume.
                new = replace(plan, options=sealed, in_place=self._attachments.is_in_place(plan))
                return change.insert(new, lambda key: (self._folder / key).exists())

    def make(self, row: Row) -> None:
        """Make the storage of a recorded volume."""
        self._make_folder(row)
        self._attachments.driver(row.driver).create(volume(row))

    def finish(self, row: Row) -> Row:
        """Make what ``row`` records as being created; undo it if that fails."""
        self._host.step("create: recorded")
        try:
            self.make(row)
            self._host.step("create: made")
            self._fill(row)
            return self._define(row, "create")
        except BaseException:
            self._undo(row)
            raise

    def clone(self, plan: Row, make: Callable[[Row], None]) -> Row:
        """What ``plan`` says, with the files that ``make`` gives the storage of what is recorded by then.

        A kill undoes it: what could be cloned later is not what was asked for.
        """
        new = self.record(replace(plan, phase="filling"))
        self._host.step("clone: recorded")
        try:
            self._make_folder(new)
            make(new)
            self._host.step("clone: made")
            return self._define(new, "create")
        except BaseException:
            self._undo(new)
            raise

    def adopt(self, plan: Row) -> None:
        """Know of a volume that another host has made."""
        self._define(self.record(plan), "adopt")

    def remove(self, row: Row) -> None:
        """Into the trash. What all hosts share goes at once: no other host knows of this one's trash."""
        if not self.is_shared(row):
            self._becomes(replace(row, phase="trashed", removed=self._host.now()), "remove")
            definitions.trash(self._folder, row.key)
            return
        self._becomes(replace(row, phase="removing", removed=self._host.now()), "remove")
        try:
            self._delete(row)
        except OrlopError:
            with self._state.change() as change:
                change.replace(row)
            raise

    def restore(self, row: Row) -> None:
        """Out of the trash, as ``row`` says."""
        self._becomes(row, "restore")
        definitions.restore(self._folder, row.key)
        definitions.write(self._folder, row)

    def purge(self, row: Row) -> None:
        """Delete the storage of a removed volume for good."""
        self._becomes(replace(row, phase="removing"), "purge")
        self._delete(row)

    def drop(self, row: Row, *, made: bool = True) -> None:
        """Delete what a migration leaves behind; storage that was not ``made`` for it is only forgotten."""
        if self._attachments.path(row).exists() or self._state.is_attached(row.key):
            self._attachments.take_down(row)
        if made:
            self._delete(row)
        else:
            self.discard(row)

    def discard(self, row: Row) -> None:
        """Take back what was never acknowledged."""
        if self.is_shared(row):
            # Another host may have made the storage, and may use it: only this one's wish for it is undone.
            self.forget(row)
        else:
            self._delete(row)

    def clear(self, name: str) -> None:
        """Finish interrupted removals of ``name``: done later, they would meet the new volume of all hosts."""
        for row in self._state.removing(name):
            if self.is_shared(row):
                self._delete(row)

    def forget(self, row: Row) -> None:
        """Know nothing of a volume any more; its storage is somebody else's, or gone."""
        definitions.delete(self._folder, row.key)
        self._host.step("delete: removed")
        with self._seals.released(row.options), self._state.change() as change:
            change.delete(row.key)

    def _make_folder(self, row: Row) -> None:
        # An engine with user namespaces binds as somebody who must come through to what is used in place.
        self._folder.joinpath(row.key).mkdir(mode=0o711 if row.in_place else 0o700, exist_ok=True)

    def _fill(self, row: Row) -> None:
        """Nobody knows of the volume before all of its files are there."""
        if FROM not in row.options:
            return
        me = holder("fill")
        folder = self._attachments.mount(row, me)
        try:
            if self.is_shared(row) and not folders.is_empty(folder):
                raise Conflict(f"the storage of volume {row.name!r} has files already; create it without 'from'")
            self.fill(row, folder)
        finally:
            self._attachments.unmount(row, me)
        self._host.step("create: filled")

    def _define(self, row: Row, action: str) -> Row:
        definitions.write(self._folder, row)
        self._host.step("create: defined")
        done = replace(row, phase="ready")
        with noted(self._state, self._host, action, row) as change:
            change.replace(done)
        return done

    def _becomes(self, row: Row, action: str, details: Mapping[str, str] | None = None) -> None:
        with noted(self._state, self._host, action, row, details) as change:
            change.replace(row)
        self._host.step(f"{action}: recorded")

    def _undo(self, row: Row) -> None:
        try:
            self.discard(row)
        except OrlopError as error:
            # The row stays, invisible; reconciling goes on with it.
            _log.warning("volume %r is half made: %s", row.name, error)

    def _delete(self, row: Row) -> None:
        self._attachments.driver(row.driver).remove(volume(row))
        self.forget(row)
