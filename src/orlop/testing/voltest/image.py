"""An image of one static shell, made from the host's busybox; no registry is asked."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

from orlop.errors import Unavailable

SEED = "/seed"
"""A folder of the image that is not empty: a new volume mounted there takes its files."""


def build(archive: Path) -> Path:
    """Write the image's filesystem as a tar file, for ``docker import``, and return its path.

    `SEED` holds a file of user 7 and group 8 with mode 640, a folder, and a symbolic link. Raises `Unavailable` without
    a busybox.
    """
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Unavailable("no 'busybox' here: install the package busybox-static")
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    with tarfile.open(archive, "w") as tar:
        tar.add(busybox, "bin/busybox")
        for applet in applets:
            if applet != "busybox":
                tar.addfile(_link(f"bin/{applet}", "busybox"))
        for folder in ("tmp", "data", "seed", "seed/folder"):
            tar.addfile(_folder(folder))
        tar.addfile(_file("seed/file", b"seeded", mode=0o640, uid=7, gid=8), io.BytesIO(b"seeded"))
        tar.addfile(_link("seed/folder/link", "../file"))
    return archive


def _folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info


def _link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def _file(name: str, content: bytes, *, mode: int, uid: int, gid: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uid, info.gid = len(content), mode, uid, gid
    return info
