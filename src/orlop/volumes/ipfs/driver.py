"""Content of IPFS, by its name: the driver ``ipfs``. Read-only, and checked block by block by orlop itself.

    docker volume create -d orlop -o driver=ipfs -o cid=bafybeie5nqv6kd3qnfjupgvz34woh3oksc3iau6abmyajn7qvtf6d2ho34 docs

The content is fetched from a node of yours (Kubo's RPC API: setting IPFS_API, or option ``api``) when the volume is
first used, and is kept on this host until the volume is removed. docs/ipfs.md tells the rest.
"""

import logging
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from orlop.errors import Invalid, OrlopError
from orlop.mount import Mount
from orlop.volumes import folders
from orlop.volumes.driver import Scope, Volume
from orlop.volumes.ipfs.cid import Cid
from orlop.volumes.ipfs.node import API, DEFAULT, Node
from orlop.volumes.options import capacity, number

_LIMIT = 10 << 30
_PATIENCE = 90.0
"""Seconds that attaching may take: Docker gives up after 120, and other verbs wait 100 for the volume's lock."""
_CURRENT = "current"
"""A link to the folder with what the volume's name stood for last."""
_NEW = ".new"
_log = logging.getLogger(__name__)


class IpfsDriver:
    """Folders below ``folder``, each made of a CID: ``KEY/CID``, and ``KEY/CID.new`` until all has come."""

    scope: Scope = "global"

    def __init__(self, folder: Path, settings: Mapping[str, str], patience: float = _PATIENCE):
        """``settings`` may name the node, by `orlop.volumes.ipfs.node.API`."""
        self._folder, self._patience = folder, patience
        self._api = settings.get(API) or DEFAULT

    def options(self) -> Mapping[str, str]:
        """See `VolumeDriver.options`."""
        return {
            "cid": "name of the content, Qm... or bafy...",
            "ipns": "instead of cid: a name that may stand for other content at the next attaching",
            "api": f"address of the RPC API of the node that is asked (default: setting {API}, or {DEFAULT})",
            "uid": "owner of every file (default 0)",
            "gid": "group of every file (default 0)",
            "limit": "most bytes that may be fetched, such as 500m (default 10g)",
        }

    def create(self, volume: Volume) -> None:
        """See `VolumeDriver.create`. Nothing is fetched yet, and the node need not be there."""
        options = volume.options
        if ("cid" in options) == ("ipns" in options):
            raise Invalid(f"volume {volume.name!r} needs option 'cid' or option 'ipns', and not both")
        if "cid" in options:
            _cid(volume)
        elif not options["ipns"].replace("-", "").replace(".", "").isalnum():
            raise Invalid(f"option 'ipns' of volume {volume.name!r} is {options['ipns']!r}, which is no IPNS name")
        _owner(volume), capacity(volume, "limit"), self._node(volume)

    def remove(self, volume: Volume) -> None:
        """See `VolumeDriver.remove`: what this host keeps of it goes, the content is where it was."""
        folders.delete(self._folder / volume.key)

    def attach(self, volume: Volume) -> Sequence[Mount]:
        """See `VolumeDriver.attach`. What is here already needs no node, but for the meaning of an IPNS name."""
        node = self._node(volume)
        try:
            cid = _cid(volume) if "cid" in volume.options else node.resolve(volume.options["ipns"])
            place = self._folder / volume.key / str(cid)
            if not place.is_dir():
                self._fetch(cid, place, volume, node)
        finally:
            node.close()
        _point(place.with_name(_CURRENT), str(cid))
        return [Mount.bind(place, "ro", "nosuid", "nodev")]

    def detach(self, volume: Volume) -> None:
        """Keep what was used last; what an IPNS name stood for earlier goes."""
        place = self._folder / volume.key
        with suppress(FileNotFoundError):
            current = (place / _CURRENT).readlink().name
            for other in place.iterdir():
                if other.name not in (_CURRENT, current) and other.suffix != _NEW:
                    folders.delete(other)

    def usage(self, volume: Volume, mountpoint: Path | None) -> int:
        """See `orlop.volumes.driver.Measured`."""
        del mountpoint  # it shows the same
        return folders.occupied(self._folder / volume.key)

    def _node(self, volume: Volume) -> Node:
        said = "option 'api'" if "api" in volume.options else f"setting {API}"
        try:
            return Node(volume.options.get("api", self._api))
        except Invalid as error:
            raise Invalid(f"{said} of volume {volume.name!r}: {error}") from None

    def _fetch(self, cid: Cid, place: Path, volume: Volume, node: Node) -> None:
        """All of it or nothing under its name; what came of it stays as ``.new``, and is checked by the next try."""
        from orlop.volumes.ipfs.tree import Limits, materialise  # with threads: only who fetches pays for them

        new = place.with_name(place.name + _NEW)
        new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for stale in set(new.parent.glob(f"*{_NEW}")) - {new}:
            folders.delete(stale)
        limits = Limits(capacity(volume, "limit") or _LIMIT, time.monotonic() + self._patience)
        began = time.monotonic()
        try:
            materialise(cid, new, node.block, _owner(volume), limits)
        except OrlopError as error:
            raise type(error)(f"content {str(cid)!r} of volume {volume.name!r}: {error}") from error
        # The name must not outlive a power cut that what it names does not.
        subprocess.run(["sync", "-f", str(new)], check=True)
        new.rename(place)
        _log.info("volume %r: content %s came in %.1f s", volume.name, cid, time.monotonic() - began)


def _cid(volume: Volume) -> Cid:
    try:
        return Cid.parse(volume.options["cid"])
    except Invalid as error:
        raise Invalid(f"option 'cid' of volume {volume.name!r}: {error}") from None


def _owner(volume: Volume) -> tuple[int, int]:
    return number(volume, "uid", 0), number(volume, "gid", 0)


def _point(link: Path, target: str) -> None:
    """``link`` leads to ``target``; a kill leaves what was there, or this."""
    if link.is_symlink() and link.readlink().name == target:
        return
    new = link.with_name(link.name + _NEW)
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.rename(link)
