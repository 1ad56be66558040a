"""The options of driver ``azurefile``: what is legal, the name of a volume's share, and what the kernel is told."""

import hashlib
import logging
import re
from collections.abc import Mapping

from orlop.errors import Invalid
from orlop.volumes.driver import Volume
from orlop.volumes.options import capacity, flag, mode, number

HELP: Mapping[str, str] = {
    "uid": "user who owns all files (default 0)",
    "gid": "group that owns all files (default 0)",
    "filemode": "permissions of all files, in octal (default 0777)",
    "dirmode": "permissions of all folders, in octal (default 0777)",
    "share": "name of the share (default: the MD5 of the volume's name, in hex); one that exists is taken over",
    "size": "most bytes it may hold, such as 10g, rounded up to whole GiB (default: Azure's)",
    "vers": "version of SMB: 3.0, 3.0.2 or 3.1.1 (default 3.0)",
    "seal": "true to have this host ask for encryption, whatever the account asks for (default false)",
    "backing": "shared, for those who come from Cloudstor: all that this driver has",
}

_GIB, _SMALLEST, _LARGEST = 1 << 30, 1 << 20, 102_400
"""Bytes of a GiB; bytes that ``size`` must at least be; GiB that a share can at most have."""
_SHARE = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_VERSIONS = ("3.0", "3.0.2", "3.1.1")
# What Microsoft documents for Linux, but for actimeo=30 and nobrl: with these, tasks on other hosts would see a file
# half a minute late, and would not see each other's locks. The kernel takes "unc" from the source.
_FOR_AZURE = (
    "serverino",  # the share's own inode numbers: a file is the same one on every host
    "mfsymlinks",  # SMB has no symbolic links, and images are full of them
    "hard",  # a server that is away is waited for: nothing that was written is lost
    "nosharesock",  # a connection for each volume: one that must reconnect stops no other
    "nosuid",
    "nodev",
)
_log = logging.getLogger(__name__)


def share_of(volume: Volume) -> str:
    """The name of ``volume``'s share. Raises `Invalid` for one that Azure does not allow."""
    share = volume.options.get("share")
    if share is None:
        return hashlib.md5(volume.name.encode(), usedforsecurity=False).hexdigest()
    if not _SHARE.fullmatch(share):
        raise Invalid(
            f"option 'share' of volume {volume.name!r} is {share!r}; a share's name has 3 to 63 lowercase letters, "
            "digits and single hyphens, and begins and ends with a letter or digit"
        )
    return share


def check(volume: Volume) -> None:
    """Raises `Invalid` for an option that makes no sense."""
    options = volume.options
    share_of(volume), quota(volume), flag(volume, "seal")
    number(volume, "uid", 0), number(volume, "gid", 0), mode(volume, "filemode", 0), mode(volume, "dirmode", 0)
    if options.get("vers", _VERSIONS[0]) not in _VERSIONS:
        raise Invalid(f"option 'vers' is {options['vers']!r}; Azure speaks {', '.join(_VERSIONS)}")
    backing = options.get("backing", "shared")
    if backing == "relocatable":
        raise Invalid("option 'backing' is 'relocatable'; that is the driver 'bucket' (-o driver=bucket)")
    if backing != "shared":
        raise Invalid(f"option 'backing' is {backing!r}; driver 'azurefile' knows 'shared'")


def quota(volume: Volume) -> int | None:
    """Option ``size`` in whole GiB; None where it is not given."""
    size = capacity(volume)
    if size is None:
        return None
    text = volume.options["size"]
    if size < _SMALLEST:
        raise Invalid(f"option 'size' of volume {volume.name!r} is {text!r}, which are {size} bytes; write 10g for GiB")
    gib = -(-size // _GIB)
    if gib > _LARGEST:
        raise Invalid(f"option 'size' of volume {volume.name!r} is {text!r}; a share has at most {_LARGEST} GiB")
    if gib * _GIB != size:
        _log.info("volume %r gets %d GiB: a share's quota is in whole GiB", volume.name, gib)
    return gib


def for_kernel(volume: Volume) -> tuple[str, ...]:
    """What ``volume``'s options mean as options of a ``cifs`` mount."""
    return (
        f"vers={volume.options.get('vers', _VERSIONS[0])}",
        f"uid={number(volume, 'uid', 0)}",
        f"gid={number(volume, 'gid', 0)}",
        # Without the zero in front the kernel reads them as decimal.
        f"file_mode=0{mode(volume, 'filemode', 0o777):o}",
        f"dir_mode=0{mode(volume, 'dirmode', 0o777):o}",
        *_FOR_AZURE,
        *(["seal"] if flag(volume, "seal") else []),
    )
