"""The options of driver ``shared``: what is legal, and what those mean that are for something else."""

from collections.abc import Mapping

from orlop.errors import Conflict, Invalid
from orlop.volumes.driver import Volume
from orlop.volumes.options import mode, number
from orlop.volumes.ownership import Owner

_BLOCK = "refused: for backing=relocatable, which is the driver 'bucket'"
HELP: Mapping[str, str] = {
    "uid": "owner of a new volume's root (default 0)",
    "gid": "group of a new volume's root (default 0)",
    "filemode": "permissions of every file, in octal (default: as stored)",
    "dirmode": "permissions of every folder, in octal (default: as stored)",
    "mode": "permissions of a new volume's root, in octal (default 0755)",
    "backing": "shared, for those who come from Cloudstor: all that this driver has",
    "perfmode": "refused: how fast it is, is decided where the filesystem is made",
    "ebstype": _BLOCK,
    "iops": _BLOCK,
    "size": _BLOCK,
}
"""Cloudstor's are known although they are refused: so the answer can say where they belong."""
_NO_DIFFERENCE = frozenset({"backing"})
"""Said or not said, it is the same."""


def check(volume: Volume) -> None:
    """Raises `Invalid` for an option that makes no sense."""
    owner(volume), permissions(volume), shown_as(volume)
    for name in volume.options:
        _, refused, why = HELP[name].rpartition("refused: ")
        if refused:
            raise Invalid(f"option {name!r} is not for driver 'shared': {why}")
    backing = volume.options.get("backing", "shared")
    if backing == "relocatable":
        raise Invalid("option 'backing' is 'relocatable'; that is the driver 'bucket' (-o driver=bucket)")
    if backing != "shared":
        raise Invalid(f"option 'backing' is {backing!r}; driver 'shared' knows 'shared'")


def owner(volume: Volume) -> tuple[int, int]:
    """User and group of a new volume's root."""
    return number(volume, "uid", 0), number(volume, "gid", 0)


def shown_as(volume: Volume) -> Owner:
    """How its files are shown: the filesystem keeps owners, so only permissions are others than it says."""
    return Owner.asked(volume, besides=("uid", "gid"))


def permissions(volume: Volume) -> int:
    """Permission bits of a new volume's root."""
    return mode(volume, "mode", 0o755)


def difference(there: Volume, volume: Volume) -> str:
    """The first option that is another one in two definitions of a volume; empty if none is."""
    options = sorted({*there.options, *volume.options} - _NO_DIFFERENCE)
    return next((option for option in options if there.options.get(option) != volume.options.get(option)), "")


def refuse_difference(there: Volume, volume: Volume, where: object) -> None:
    """Raises `Conflict` if ``volume`` is not what another host made and is ``there``, in the folder ``where``."""
    option = difference(there, volume)
    if option:
        has, wanted = (each.options.get(option, "none") for each in (there, volume))
        raise Conflict(
            f"volume {volume.name!r} is in '{where}' already, with option {option!r} {has!r}, not {wanted!r}"
        )
