"""The layer of a guest: a kernel, what boots it, and the tools that the host does not have, unpacked in a folder.

Nothing is installed on the host and no package's script runs. A layer is kept until the host's packages or this file
change; it is complete when it has its name, and two that ask at the same time make it once.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orlop.errors import Unavailable
from orlop.testing.guest.archive import RELEASE, Archive

_TOOLS = (
    *("nfs-kernel-server", "nfs-common", "samba", "smbclient", "cifs-utils"),
    *("xfsprogs", "btrfs-progs", "e2fsprogs", "kmod", "iproute2", "busybox-static"),
)
_PROGRAMS = ("qemu-system-x86_64", "cpio", "depmod", "modprobe", "unshare", "dpkg-deb", "mkfs.ext4")
_MODULES = ("virtio_pci", "virtio_console", "virtio_blk", "virtio_rng", "virtiofs", "overlay")
_DAY = 86_400
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Layer:
    """What a guest boots from."""

    kernel: Path
    initramfs: Path
    root: Path
    """The folder that lies over the host's ``/``."""


def check_host() -> None:
    """Raises `Unavailable` if this host can have no guest, whatever is installed."""
    release = platform.freedesktop_os_release()
    if release.get("VERSION_CODENAME") != RELEASE or platform.machine() != "x86_64":
        found = f"{release.get('PRETTY_NAME', 'this system')} on {platform.machine()}"
        raise Unavailable(f"guests need Debian {RELEASE} on x86_64 as their host, this is {found}")
    if os.geteuid() != 0:
        raise Unavailable("guests need root: use sudo")


def prepare(cache: Path) -> Layer:
    """The layer for this host, made below ``cache`` if it is not there: half a minute, 200 MB.

    Raises `Unavailable` if this is not a host for guests, or a package cannot be had.
    """
    check_host()
    _check_programs()
    cache.mkdir(parents=True, exist_ok=True)
    finished = cache / f"layer-{_key()}"
    with _alone(cache / "lock"):
        if not finished.exists():
            _tidy(cache)
            _make(finished, Archive(cache / "apt"))
    return Layer(finished / "vmlinuz", finished / "initramfs", finished / "root")


def _check_programs() -> None:
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        raise Unavailable(f"no {', '.join(missing)} on this host: run scripts/setup --guest")


def _key() -> str:
    key = hashlib.sha256(Path("/var/lib/dpkg/status").read_bytes())
    for file in ("layer.py", "archive.py", "initramfs.sh"):
        key.update((_HERE / file).read_bytes())
    return key.hexdigest()[:12]


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _tidy(cache: Path) -> None:
    """Away with layers of other days, and with what killed runs left; no run takes a day."""
    for old in (*cache.glob("layer-*"), *cache.glob("run.*")):
        if old.stat().st_mtime < time.time() - _DAY:
            subprocess.run(["rm", "-rf", "--one-file-system", "--", str(old)], check=True)


def _make(finished: Path, archive: Archive) -> None:
    new = finished.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    root = new / "root"
    _make_merged(root)
    _unpack(archive.missing(_TOOLS), root)
    release, package = archive.kernel()
    _unpack([package], root)
    subprocess.run(["depmod", "-b", root, release], check=True)
    (root / f"boot/vmlinuz-{release}").rename(new / "vmlinuz")
    _make_initramfs(new, release)
    new.rename(finished)


def _make_merged(root: Path) -> None:
    """The links of a merged /usr: a folder of that name would hide the host's."""
    for folder in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / folder).mkdir(parents=True)
        (root / folder).symlink_to(f"usr/{folder}")
    (root / "var").mkdir()
    (root / "run").mkdir()
    (root / "var/run").symlink_to("../run")


def _unpack(debs: Sequence[Path], root: Path) -> None:
    # dpkg-deb's own --extract replaces the links to folders by folders.
    for deb in debs:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as package:
            argv = ["tar", "-x", "--keep-directory-symlink", "-C", str(root)]
            subprocess.run(argv, stdin=package.stdout, check=True)
        if package.returncode:
            raise Unavailable(f"'{deb}' cannot be unpacked: delete it and try again")
        deb.unlink()


def _make_initramfs(new: Path, release: str) -> None:
    tree = new / "initramfs.d"
    for folder in ("bin", "modules", "proc", "sys", "dev", "host", "memory", "root"):
        (tree / folder).mkdir(parents=True)
    busybox = new / "root/usr/bin/busybox"
    shutil.copy(busybox if busybox.exists() else "/usr/bin/busybox", tree / "bin/busybox")
    for number, module in enumerate(_with_dependencies(new / "root", release)):
        shutil.copy(module, tree / f"modules/{number:03}.ko")
    shutil.copy(_HERE / "initramfs.sh", tree / "init")
    (tree / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    with (new / "initramfs").open("wb") as file:
        argv = ["cpio", "--create", "--format=newc", "--quiet"]
        subprocess.run(argv, cwd=tree, input=names.encode(), stdout=file, check=True)
    shutil.rmtree(tree)


def _with_dependencies(root: Path, release: str) -> list[str]:
    """The files of `_MODULES`, each after those that it needs."""
    argv = ["modprobe", "-d", str(root), "-S", release, "--show-depends", "--all", *_MODULES]
    shown = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return list(dict.fromkeys(line.split()[1] for line in shown.splitlines() if line.startswith("insmod ")))
