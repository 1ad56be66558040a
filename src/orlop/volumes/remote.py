"""Volumes on a server that the kernel or a FUSE program can mount: one driver for all, told apart by a `Recipe`.

Nothing is made on the server and nothing is deleted there: a volume is a name for what the options say, on every host
that creates it. How each kind is mounted: `orlop.volumes.recipes`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orlop.errors import Invalid
from orlop.mount import Mount
from orlop.volumes import network, ownership, references
from orlop.volumes.driver import Scope, Volume
from orlop.volumes.options import flag


@dataclass(frozen=True, slots=True)
class Asked:
    """What a recipe is given: the volume, and how to find out what its options only name."""

    volume: Volume
    secret: Callable[[str], str]
    """The content of an option that names a secret."""
    address: Callable[[str], str]
    """The address of a host."""
    folder: Path
    """Where this kind of volume may keep something on this host."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One kind of remote volume: a function from options to a `Mount`, and what is to be known about it.

    ``mount`` raises `Invalid` for options that are ill-formed, before it asks for a secret or an address.
    """

    mount: Callable[[Asked], Mount]
    options: Mapping[str, str]
    """Each with a line of help."""
    required: tuple[str, ...]
    health: str
    """How it is seen that a volume of this kind is well, or is not, and what is done then."""
    secrets: tuple[str, ...] = ()
    """The options that hold secrets: given by reference."""
    filesystem: str = ""
    """What the kernel must know, where no program mounts."""
    package: str = ""
    """The Debian package of the program, where one mounts."""
    owns: tuple[str, ...] = ()
    """Those of `orlop.volumes.ownership.OPTIONS` that are mount options of its own."""


class RemoteDriver:
    """The volume driver that a recipe describes."""

    scope: Scope = "global"

    def __init__(self, recipe: Recipe, folder: Path, resolve: references.Resolve = references.resolve) -> None:
        """``folder`` is the driver's own, made when it is needed; ``resolve`` finds the secrets that options name."""
        self.recipe, self._folder, self._resolve = recipe, folder, resolve

    def options(self) -> Mapping[str, str]:
        """See `VolumeDriver.options`."""
        return {
            **self.recipe.options,
            **{name: text for name, text in ownership.HELP.items() if name not in self.recipe.owns},
        }

    def secrets(self) -> Collection[str]:
        """The options that hold secrets."""
        return self.recipe.secrets

    def create(self, volume: Volume) -> None:
        """Check the options; the server is asked when the volume is mounted."""
        for option in self.recipe.required:
            if option not in volume.options:
                raise Invalid(f"volume {volume.name!r} needs option {option!r}: {self.recipe.options[option]}")
        for option in self.recipe.secrets:
            if option in volume.options:
                references.check(option, volume.options[option])
        self._mounts(Asked(volume, lambda _: "", lambda host: host, self._folder))

    def remove(self, volume: Volume) -> None:
        """Nothing to do: what is on the server stays there."""

    def attach(self, volume: Volume) -> Sequence[Mount]:
        """See `VolumeDriver.attach`."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        asked = Asked(volume, lambda option: self._secret(volume, option), network.address, self._folder)
        return self._mounts(asked)

    def detach(self, volume: Volume) -> None:
        """Nothing to undo: the program ends with its mount."""

    def _mounts(self, asked: Asked) -> Sequence[Mount]:
        owner = ownership.Owner.asked(asked.volume, besides=self.recipe.owns)
        return ownership.shown(self.recipe.mount(asked), owner, read_only=flag(asked.volume, "ro"))

    def _secret(self, volume: Volume, option: str) -> str:
        return self._resolve(option, volume.options[option]).decode(errors="surrogateescape").rstrip("\r\n")
