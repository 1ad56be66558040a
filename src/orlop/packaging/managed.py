"""The managed plugin: a folder with ``config.json`` and ``rootfs/`` that ``docker plugin create`` takes.

What volumes hold lies on the host, in the folder that the mount ``data`` names: Docker deletes everything else of a
plugin with it. Volumes are mounted in the *propagated mount*, the one place inside that containers can see.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from orlop.errors import Conflict
from orlop.packaging import rootfs

DATA = "/var/lib/orlop-plugin"
"""The folder of the host that holds the data; not the one of a daemon on the host, which mounts elsewhere."""
_ROOT, _RUN, _MOUNTS = "/var/lib/orlop", "/run/orlop", "/mnt/orlop"
"""Docker mounts the propagated mount first, so it cannot lie below another mount."""
_SETTINGS = {
    "ORLOP_TRASH": "How long a removed volume can be restored, such as 7d (24h)",
    "DEBUG": "1 to log more",
    "ORLOP_DRIVER": "The driver of volumes for which none is named (local)",
    "ORLOP_SHARED": f"The folder of driver shared: a path below {_ROOT}, which is the mount data",
    "ORLOP_BUCKET": "The bucket of driver bucket: s3://bucket/prefix, azure://container/prefix, gs://bucket/prefix",
    "ORLOP_BUCKET_PASSWORD": "The password of the repository in it",
    "ORLOP_BUCKET_ENDPOINT": "The address of its service, if it is not the cloud's own",
    "ORLOP_BUCKET_REGION": "Its region",
    "ORLOP_BUCKET_ACCESS_KEY": "The name of its key, for S3",
    "ORLOP_BUCKET_SECRET_KEY": "Its key, for S3",
    "ORLOP_BUCKET_ACCOUNT": "Its account, for Azure",
    "ORLOP_BUCKET_KEY": "The key of its account, for Azure",
    "CLOUD_PLATFORM": "AZURE or AWS: driver azurefile or shared where none is named",
    "AZURE_STORAGE_ACCOUNT": "The storage account of Azure file shares",
    "AZURE_STORAGE_ACCOUNT_KEY": f"Its key, or file:PATH with a path below {_ROOT}, which is the mount data",
    "AZURE_STORAGE_ENDPOINT": "Its endpoint, for another cloud than the public one (core.windows.net)",
    "IPFS_API": "Where the IPFS node's RPC API is (http://127.0.0.1:5001)",
}
_CAPABILITIES = (
    "CAP_SYS_ADMIN",  # mounts, loop devices
    "CAP_LINUX_IMMUTABLE",  # mount points that nobody can write to
    "CAP_SYS_PTRACE",  # seeing who uses a volume, in every namespace
    "CAP_DAC_READ_SEARCH",
)
_GROWING, _GROWING_BIT = "CAP_SYS_RESOURCE", 24
"""For an ext4 that grows while it is in use; without it it grows when it is mounted next."""


def config(python: str) -> Mapping[str, object]:
    """The content of ``config.json``, for a root filesystem in which ``python`` is the interpreter."""
    return {
        "description": "orlop: volumes that survive whatever is killed",
        "interface": {"types": ["docker.volumedriver/1.0"], "socket": "orlop.sock"},
        "entrypoint": [python, "-m", "orlop", "serve", "--root", _ROOT, "--run", _RUN, "--mounts", _MOUNTS],
        "workdir": "/",
        # Remote volumes: the kernel connects from the network of whoever mounts.
        "network": {"type": "host"},
        # Users of a volume are looked for in the namespaces of every process.
        "pidhost": True,
        "propagatedMount": _MOUNTS,
        "mounts": [
            # A filesystem that the host mounts below it, then or later, is seen inside, until the host unmounts it.
            _mount("data", DATA, _ROOT, "none", ["rbind", "rslave"], settable=["source"]),
            # Loop devices come and go. Private: what is mounted below it in here is not for the host.
            _mount("dev", "/dev", "/dev", "none", ["bind", "private"]),
            # Secrets are kept in memory only.
            _mount("run", "tmpfs", _RUN, "tmpfs", ["mode=0700", "nosuid", "nodev"]),
        ],
        "env": [
            {"name": "PYTHONPATH", "value": rootfs.PACKAGES},
            *(_setting(name, about) for name, about in _SETTINGS.items()),
            # All processes of a plugin end with it, also those that hold back readers of what is not here yet.
            {"name": "ORLOP_BUCKET_SESSIONS", "value": f"{_ROOT}/drivers/bucket-sessions"},
            _setting("ORLOP_BUCKET_LAZY", "Whether files of buckets are fetched while they are used", "false"),
        ],
        "linux": {"capabilities": _capabilities(), "allowAllDevices": True},
    }


def build(folder: Path, *, force: bool = False) -> None:
    """Make ``folder``, complete or not at all. Raises `Conflict` if it exists and may not be replaced."""
    if folder.exists() and any(folder.iterdir()) and not (force and folder.joinpath("config.json").is_file()):
        raise Conflict(f"'{folder}' is there already; --force replaces what an earlier build made")
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        python = rootfs.make(new / "rootfs")
        new.joinpath("config.json").write_text(json.dumps(config(python), indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _capabilities() -> list[str]:
    """A plugin that asks for what its host cannot give (being a container itself, say) does not start at all."""
    status = Path("/proc/self/status").read_text()
    bounds = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd:"))
    return [*_CAPABILITIES, _GROWING] if bounds >> _GROWING_BIT & 1 else list(_CAPABILITIES)


def _mount(
    name: str, source: str, destination: str, kind: str, options: Sequence[str], settable: Sequence[str] = ()
) -> Mapping[str, object]:
    return {
        "name": name,
        "source": source,
        "destination": destination,
        "type": kind,
        "options": list(options),
        "settable": list(settable),
    }


def _setting(name: str, about: str, value: str = "") -> Mapping[str, object]:
    return {"name": name, "description": about, "value": value, "settable": ["value"]}
