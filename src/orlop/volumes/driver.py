"""What a kind of volume has to provide: `VolumeDriver`, four verbs over a `Volume`.

A driver knows one kind of storage and nothing else. It is a function of the `Volume` it is given: it keeps no list of
volumes, counts no users, takes no locks and makes no mounts. `orlop.volumes.service` does all that once for every
driver, and promises in return:

- verbs about one volume never overlap on this host, not even between the daemon and the command line;
- ``create`` was recorded before it is called, and is called again after a crash until it succeeds or is undone;
- ``attach`` is called when the first user comes, ``detach`` after the last has gone from every mount namespace;
- ``remove`` is called only when nothing is mounted and the time in which ``orlop volume restore`` works is over.

How to write one: docs/adding-a-driver.md. What proves it: `orlop.testing.drivers.VolumeDriverContract`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from orlop.mount import Mount
from orlop.volumes.sources import Source, Users

Scope = Literal["local", "global"]
DATA = "_data"
"""The folder with the files of a volume that is used in place (`InPlace`), in the volume's own folder."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as its creator asked for it.

    ``key`` names its storage: unique on this host among all volumes, those in the trash included. It is the name,
    unless a removed volume of that name can still be restored (then ``name~2``, ...). Local drivers store under
    ``key``, so that a new volume never meets old data; global drivers use ``name``, so that all hosts find the same
    thing. ``created`` is the time at which it was asked for (RFC 3339), empty where nobody knows.
    """

    name: str
    driver: str
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    created: str = ""

    def __post_init__(self) -> None:
        """The key is the name where nothing else is said."""
        if not self.key:
            object.__setattr__(self, "key", self.name)


class VolumeDriver(Protocol):
    """One kind of storage. Errors are `orlop.errors`; `Invalid` for options, `Unavailable` for a silent backend."""

    scope: Scope
    """``global`` if every host that creates the name gets the same data."""

    def options(self) -> Mapping[str, str]:
        """The options ``create`` knows, each with one line of help; ``*`` stands for any name.

        Others are refused before ``create`` is called.
        """

    def create(self, volume: Volume) -> None:
        """Make the storage, or change nothing and raise.

        Again is fine. Two hosts at once is fine for a global driver: one storage results. Checks every option, so that
        ``attach`` fails only for reasons that can pass.
        """

    def remove(self, volume: Volume) -> None:
        """Delete the storage for good; nothing there is fine, half of it is fine.

        A global driver deletes only what was made for this very volume, by whichever host.
        """

    def attach(self, volume: Volume) -> Sequence[Mount]:
        """Prepare for use on this host and say what to mount. Again is fine."""

    def detach(self, volume: Volume) -> None:
        """Undo what ``attach`` prepared, after the mounts have gone. Again is fine; never attached is fine."""


@runtime_checkable
class InPlace(Protocol):
    """A driver that keeps volumes as folders of this host, or some of them: to use those, nothing has to be mounted."""

    def is_in_place(self, volume: Volume) -> bool:
        """Whether the files of ``volume`` are in `DATA` of its folder, and nothing else is shown to who uses it.

        So they may be used there, without what ``attach`` says to mount; it is called all the same.
        """


@runtime_checkable
class Resizable(Protocol):
    """A driver whose volumes can change size, also while they are mounted."""

    def resize(self, volume: Volume, mountpoint: Path | None) -> None:
        """Make the storage fit ``volume``'s (new) options; ``mountpoint`` is where it is mounted, if it is.

        Again is fine. Raises `Invalid` where it would have to shrink.
        """


@runtime_checkable
class Stillable(Protocol):
    """A driver that can show its volumes as they are at one moment, while they are in use."""

    def source(self, volume: Volume, mountpoint: Path, users: Users) -> Source | None:
        """The files of ``volume``, which is mounted; None for a form of which nothing special is known."""


@runtime_checkable
class Cloning(Protocol):
    """A driver that can let a new volume share what another stores, in no time whatever that is."""

    def can_clone(self, source: Volume, new: Volume) -> bool:
        """Whether `clone` can make ``new``; raises `Invalid` for options that ``create`` would not take either."""

    def clone(self, source: Volume, new: Volume, users: Users) -> str:
        """Instead of ``create``: make ``new`` with the files that ``source`` has at one moment, in use or not.

        How that was brought about: a word for people. After a crash ``remove`` is called. Each volume is independent
        of the other from now on.
        """


@runtime_checkable
class Secretive(Protocol):
    """A driver some of whose options are secrets.

    What people type there goes into the vault before anything else happens: the driver, as everybody, sees a
    reference, and looks it up with the `orlop.volumes.references.Resolve` that its constructor was given.
    """

    def secrets(self) -> Collection[str]:
        """The names of those options."""


@runtime_checkable
class Imaged(Protocol):
    """A driver that keeps volumes as filesystems in files, or some of them."""

    def image(self, volume: Volume) -> Path:
        """Where that file is, if ``volume`` has one."""


@runtime_checkable
class Measured(Protocol):
    """A driver that knows what its volumes take."""

    def usage(self, volume: Volume, mountpoint: Path | None) -> int:
        """Bytes of this host's storage that the volume occupies now."""


@runtime_checkable
class Listed(Protocol):
    """A global driver whose backend knows which volumes there are, so that every host can show them all."""

    def is_set_up(self) -> bool:
        """Whether this host has been told where the backend is; asks nobody."""

    def lists(self, volume: Volume) -> bool:
        """Whether `found` would tell of ``volume``, if it is there: it may be kept in another backend; asks nobody."""

    def found(self) -> Iterable[Volume]:
        """Every volume that any host has made here, with the options, labels and time of its creation.

        What is there is asked anew each time; what others keep in the same place is left out, and so is a definition
        that makes no sense. Asked only where the driver is set up. Bounded in time. Raises
        `Unavailable` if the backend does not answer, before or in the middle: what was yielded until then is true,
        and nothing can be said about the rest.
        """


@runtime_checkable
class Copying(Protocol):
    """A `Listed` driver that keeps copies on the hosts."""

    def leave(self, volume: Volume) -> None:
        """Another host has removed ``volume``: delete this host's copy, but nothing that is only here."""


@runtime_checkable
class Telling(Protocol):
    """A driver that has something to say about a volume, which ``inspect`` shows as its status."""

    def status(self, volume: Volume) -> Mapping[str, object]:
        """What is known on this host; no backend is asked. What is wrong with the volume is called ``Degraded``."""


@runtime_checkable
class Tended(Protocol):
    """A driver of which something has to be seen to, every now and then."""

    def tend(self) -> None:
        """See to it; called by the daemon all the time, so it must cost next to nothing."""
