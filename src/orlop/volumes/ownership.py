"""Who owns the files of a volume whose storage cannot say so, or says what its user cannot use: one place decides.

Four options ask for it: ``uid``, ``gid``, ``filemode`` and ``dirmode``. A filesystem with mount options for them is
told (`Recipe.owns`). Where a folder is bound, and nothing is asked but whose its files are, the kernel shows it, if it
can for that filesystem. The rest is done by bindfs (bindfs(1)), a program above the mount.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orlop.errors import Invalid
from orlop.kernel.idmap import OPTION, swap
from orlop.mount import Mount
from orlop.volumes.driver import Volume
from orlop.volumes.options import mode, number

HELP = {
    "uid": "owner of every file (default: as stored)",
    "gid": "group of every file (default: as stored)",
    "filemode": "permissions of every file, in octal (default: as stored)",
    "dirmode": "permissions of every folder, in octal (default: as stored)",
}
OPTIONS = tuple(HELP)
_NOBODY = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Owner:
    """What somebody asked to see; None is what is stored."""

    uid: int | None = None
    gid: int | None = None
    filemode: int | None = None
    dirmode: int | None = None

    @classmethod
    def asked(cls, volume: Volume, besides: Collection[str] = ()) -> "Owner":
        """What ``volume``'s options say, but for those in ``besides``. Raises `Invalid` for one that is ill-formed."""
        return cls(
            *(_id(volume, name) if name not in besides else None for name in ("uid", "gid")),
            *(_bits(volume, name) if name not in besides else None for name in ("filemode", "dirmode")),
        )

    @property
    def changes_modes(self) -> bool:
        """Whether permissions are asked for."""
        return self.filemode is not None or self.dirmode is not None


def shown(mount: Mount, owner: Owner, *, read_only: bool = False) -> list[Mount]:
    """``mount``, and what shows all files in it as ``owner`` says.

    Whoever makes a file there, it belongs to root on the storage; ``chown`` and ``chmod`` change nothing.
    """
    if owner == Owner():
        return [mount]
    return [mount, _bindfs(mount, [*(["ro"] if read_only else []), *_forced(owner)], owner)]


def mapped(bind: Mount, stored: tuple[int, int], owner: Owner, *, by_kernel: bool) -> list[Mount]:
    """``bind``, with the files of ``stored`` (user, group) shown as ``owner``'s, and the other way round.

    Everybody else's are shown as they are, and ``chown`` works. ``by_kernel`` says whether the kernel can for this
    filesystem.
    """
    if owner == Owner():
        return [bind]
    uid, gid = (new if new is not None else old for new, old in zip((owner.uid, owner.gid), stored, strict=True))
    if by_kernel and not owner.changes_modes:
        words = f"{swap('u', stored[0], uid)} {swap('g', stored[1], gid)}"
        return [Mount(bind.type, bind.source, (*bind.options, f"{OPTION}{words}"))]
    pairs = [("", stored[0], uid), ("@", stored[1], gid)]
    swaps = [f"{at}{old}/{at}{new}:{at}{new}/{at}{old}" for at, old, new in pairs if old != new]
    return [bind, _bindfs(bind, [f"map={':'.join(swaps)}"] if swaps else [], owner)]


def _forced(owner: Owner) -> list[str]:
    words = []
    if owner.uid is not None:
        words += [f"force-user={owner.uid}", "chown-ignore"]
    if owner.gid is not None:
        words += [f"force-group={owner.gid}", "chgrp-ignore"]
    return [*words, "create-as-mounter"] if words else []


def _bindfs(below: Mount, words: Sequence[str], owner: Owner) -> Mount:
    """The program over the place itself: it shows what was there before it."""
    # Locks are not handed on: bindfs would hold all of them itself, and two containers would have one at once.
    words = ["nosuid", "nodev", "multithreaded", *words]
    if owner.changes_modes:
        changes = [*_permissions("f", owner.filemode), *_permissions("d", owner.dirmode)]
        words += [f"perms={':'.join(changes)}", "chmod-ignore"]
    return Mount("fuse.bindfs", below.source, (), (), ("bindfs", "-f", "-o", ",".join(words), "{target}", "{target}"))


def _permissions(kind: str, bits: int | None) -> list[str]:
    """What makes the permissions of files (``f``) or folders (``d``) those ``bits``."""
    if bits is None:
        return []
    letters = {who: "".join(letter for letter, bit in zip("rwx", (4, 2, 1), strict=True) if bits >> shift & bit)
               for who, shift in (("u", 6), ("g", 3), ("o", 0))}  # fmt: skip
    return [f"{kind}a-rwx", *(f"{kind}{who}+{text}" for who, text in letters.items() if text)]


def _id(volume: Volume, name: str) -> int | None:
    if name not in volume.options:
        return None
    value = number(volume, name, 0)
    if value >= _NOBODY:
        raise Invalid(f"option {name!r} of volume {volume.name!r} is {value}, which is nobody's number")
    return value


def _bits(volume: Volume, name: str) -> int | None:
    return mode(volume, name, 0) if name in volume.options else None
