"""Where the volumes of driver ``bucket`` are kept, and what may be said about one."""

from collections.abc import Mapping

from orlop.errors import Invalid, Unavailable
from orlop.volumes.bucket.lease import TTL
from orlop.volumes.driver import Volume
from orlop.volumes.image import LEAST
from orlop.volumes.options import capacity, mode, number
from orlop.volumes.references import is_reference
from orlop.volumes.repositories import Place

ADDRESS, PASSWORD = "ORLOP_BUCKET", "ORLOP_BUCKET_PASSWORD"
_PREFIX = "ORLOP_BUCKET_"
STORE = ("endpoint", "region", "access_key", "secret_key", "account", "key")
"""The settings of the store: options of a volume, or settings of the daemon with `_PREFIX`."""
SECRETS = frozenset({"password", "access_key", "secret_key", "key"})
LAZY = _PREFIX + "LAZY"
SETTINGS = (ADDRESS, PASSWORD, LAZY, *(_PREFIX + name.upper() for name in STORE))
"""What the daemon, or ``docker plugin set``, can be told once for all volumes."""
SESSIONS = _PREFIX + "SESSIONS"
"""A folder that outlives the daemon, for the sessions of one whose folder in memory does not."""
DEFAULT_SIZE, DEFAULT_SYNC = "10g", 60
_LEAST_SYNC, _LEAST_LEASE = 1, 2
HELP: Mapping[str, str] = {
    "size": f"most bytes it may hold (default {DEFAULT_SIZE}); only what is used takes room on a host",
    "sync": f"seconds between shipments in use: what is lost at most if a host dies (default {DEFAULT_SYNC})",
    "lease": f"seconds after which a silent host loses the volume to another (default {TTL:.0f})",
    "lazy": "whether files are fetched while they are used: true, false, or auto, for large volumes (default auto)",
    "uid": "owner of its root (default 0)",
    "gid": "group of its root (default 0)",
    "mode": "permissions of its root, in octal (default 0755)",
    "backing": "relocatable, for those who come from Cloudstor: all that this driver has",
    "ebstype": "as Cloudstor had it; without a meaning here",
    "iops": "as Cloudstor had it; without a meaning here",
    "store": "address of the bucket, as s3://bucket/prefix, azure://, gs:// or a folder (default: " + ADDRESS + ")",
    "password": "password of the repository in it, with which everything is encrypted (default: " + PASSWORD + ")",
    "endpoint": "with store: address of the service, if it is not the cloud's own",
    "region": "with store: region of the bucket",
    "access_key": "with store: name of the key, for S3",
    "secret_key": "with store: the key, for S3",
    "account": "with store: account, for Azure",
    "key": "with store: key of the account, for Azure",
}


def check(volume: Volume) -> None:
    """Raises `Invalid` for an option that makes no sense."""
    number(volume, "uid", 0), number(volume, "gid", 0), mode(volume, "mode", 0), sync(volume), ttl(volume)
    if size(volume) < LEAST["xfs"]:
        raise Invalid(f"option 'size' is less than the {LEAST['xfs'] >> 20} MiB that its filesystem needs")
    if volume.options.get("backing", "relocatable") != "relocatable":
        raise Invalid(f"option 'backing' is {volume.options['backing']!r}; driver 'bucket' knows 'relocatable'")
    lazy(volume, {})
    alone = [name for name in ("password", *STORE) if name in volume.options and "store" not in volume.options]
    if alone:
        raise Invalid(f"option {alone[0]!r} needs 'store' beside it")
    for name in SECRETS & volume.options.keys():
        if not is_reference(volume.options[name]):
            raise Invalid(f"option {name!r} must name a secret (secret:NAME, file:PATH or env:NAME)")


def size(volume: Volume) -> int:
    """Bytes that it may hold."""
    return capacity(Volume(volume.name, volume.driver, {"size": DEFAULT_SIZE, **volume.options})) or 0


def sync(volume: Volume) -> int:
    """Seconds between shipments."""
    seconds = number(volume, "sync", DEFAULT_SYNC)
    if seconds < _LEAST_SYNC:
        raise Invalid(f"option 'sync' of volume {volume.name!r} must be at least {_LEAST_SYNC} second")
    return seconds


def ttl(volume: Volume) -> float:
    """Seconds for which a host has the lease without renewing it."""
    seconds = number(volume, "lease", int(TTL))
    if seconds < _LEAST_LEASE:
        raise Invalid(f"option 'lease' of volume {volume.name!r} must be at least {_LEAST_LEASE} seconds")
    return float(seconds)


def lazy(volume: Volume, settings: Mapping[str, str]) -> str:
    """Whether files may be fetched while they are used: true, false or auto."""
    wish = volume.options.get("lazy") or settings.get(LAZY) or "auto"
    if wish not in ("true", "false", "auto"):
        raise Invalid(f"option 'lazy' of volume {volume.name!r} is {wish!r}; it can be true, false or auto")
    return wish


def place(options: Mapping[str, str], settings: Mapping[str, str]) -> Place:
    """The repository that a volume's options name, or else the daemon's settings; raises `Unavailable`."""
    if "store" in options:
        if "password" not in options:
            raise Invalid("option 'store' needs 'password' beside it: everything in the store is encrypted")
        return Place(options["store"], options["password"], {name: options[name] for name in STORE if name in options})
    if not settings.get(ADDRESS) or not settings.get(PASSWORD):
        missing = ADDRESS if not settings.get(ADDRESS) else PASSWORD
        raise Unavailable(f"{missing} is not set for the daemon; driver 'bucket' needs it, or the option 'store'")
    told = {name: _setting(name, settings) for name in STORE if settings.get(_PREFIX + name.upper())}
    return Place(settings[ADDRESS], f"env:{PASSWORD}", told)


def _setting(name: str, settings: Mapping[str, str]) -> str:
    variable = _PREFIX + name.upper()
    return f"env:{variable}" if name in SECRETS else settings[variable]
