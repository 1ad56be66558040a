"""An image file made from packages: one layer, its configuration and a manifest, as of ``docker save``.

The packages' files go from archive to archive and keep their owners and modes; nothing is unpacked, no root
is needed. Same packages, same bytes.
"""

import fnmatch
import hashlib
import io
import json
import platform
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from orlop.testing._recipes import Recipe

_NEEDLESS = (
    *(f"usr/share/{folder}/*" for folder in ("doc", "man", "locale", "info", "lintian", "bug", "apport", "vim")),
    *("*/gconv/*", "usr/share/postgresql/*/man/*", "usr/lib/systemd/*", "etc/init.d/*", "usr/share/gcc/*"),
)
# Debian and Ubuntu have only links there, but not all packages know.
_MERGED = ("bin", "sbin", "lib", "lib64")
_LINKS = {**{folder: f"usr/{folder}" for folder in _MERGED}, "var/run": "/run"}
_FOLDERS = ("run/", "root/", "proc/", "sys/", "dev/", "var/log/", "home/")
_FOR_ALL = ("tmp/", "var/tmp/")
_USERS = {"root": 0, "daemon": 1, "mail": 8, "www-data": 33, "postgres": 998, "mysql": 999, "nobody": 65534}
_ETC = {
    "etc/passwd": "".join(f"{name}:x:{uid}:{uid}::/root:/bin/sh\n" for name, uid in _USERS.items()),
    "etc/group": "".join(f"{name}:x:{uid}:\n" for name, uid in _USERS.items()),
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write(recipe: Recipe, debs: Sequence[Path], target: Path) -> None:
    """Write the image that ``recipe`` and the packages make to ``target``."""
    with tempfile.TemporaryFile(dir=target.parent) as layer:
        with tarfile.open(fileobj=layer, mode="w", format=tarfile.GNU_FORMAT) as tar:
            _fill(_Layer(tar), recipe, debs)
        size = layer.tell()
        layer.seek(0)
        digest = hashlib.file_digest(layer, "sha256").hexdigest()
        config = json.dumps(_config(recipe, digest)).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        manifest = [{"Config": name, "RepoTags": recipe.tags, "Layers": [f"{digest}/layer.tar"]}]
        layer.seek(0)
        with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
            _add(tar, f"{digest}/layer.tar", layer, size)
            _add(tar, name, io.BytesIO(config), len(config))
            text = json.dumps(manifest).encode()
            _add(tar, "manifest.json", io.BytesIO(text), len(text))


class _Layer:
    """A layer in the making; of two files with one path, the first stays."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._seen: set[str] = set()

    def add(self, info: tarfile.TarInfo, data: IO[bytes] | None = None) -> None:
        if info.name not in self._seen:
            self._seen.add(info.name)
            self._tar.addfile(info, data)

    def link(self, path: str, to: str) -> None:
        info = tarfile.TarInfo(path)
        info.type, info.linkname = tarfile.SYMTYPE, to
        self.add(info)

    def file(self, path: str, text: str, owner: int = 0) -> None:
        info = tarfile.TarInfo(path.rstrip("/"))
        info.uid = info.gid = owner
        info.mode = 0o755 if path.endswith("/") or text.startswith("#!") else 0o644
        if path in _FOR_ALL:
            info.mode = 0o1777
        info.type = tarfile.DIRTYPE if path.endswith("/") else tarfile.REGTYPE
        info.size = len(text.encode())
        self.add(info, io.BytesIO(text.encode()))

    def latest_version(self, folder: str) -> str | None:
        """The name of the highest-numbered folder in ``folder``."""
        found = [re.fullmatch(f"{folder}/([0-9]+)", path) for path in self._seen]
        return max((match[1] for match in found if match), key=int, default=None)


def _fill(layer: _Layer, recipe: Recipe, debs: Sequence[Path]) -> None:
    for path, to in _LINKS.items():
        layer.link(path, to)
    for path in (*_FOLDERS, *_FOR_ALL):
        layer.file(path, "")
    for path, text in {**_ETC, **recipe.files}.items():
        layer.file(path, text, recipe.owners.get(path, 0))
    for deb in debs:
        _add_package(layer, deb, (*_NEEDLESS, *recipe.without))
    applets = [applet for deb in debs if deb.name.startswith("busybox-static") for applet in _applets(deb)]
    # Programs of the packages come first; busybox is what is left.
    for path, to in {**recipe.links, **{f"usr/bin/{applet}": "busybox" for applet in applets}}.items():
        layer.link(path, to)
    version = layer.latest_version("usr/lib/postgresql")
    if version:
        layer.link("usr/lib/postgresql/current", version)


def _add_package(layer: _Layer, deb: Path, without: tuple[str, ...]) -> None:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as unpack:
        with tarfile.open(fileobj=unpack.stdout, mode="r|") as source:
            for info in source:
                info.name = _merged(info.name)
                if info.islnk():
                    info.linkname = _merged(info.linkname)
                if info.name and not any(fnmatch.fnmatch(info.name, pattern) for pattern in without):
                    layer.add(info, source.extractfile(info) if info.isreg() else None)
    assert unpack.returncode == 0


def _applets(deb: Path) -> list[str]:
    """What the package's busybox can be called, for it knows best."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "--extract", str(deb), folder], check=True)
        busybox = next(Path(folder).glob("**/bin/busybox"))
        return subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()


def _merged(path: str) -> str:
    path = path.removeprefix("./").rstrip("/")
    return f"usr/{path}" if path.split("/")[0] in _MERGED else path.removeprefix(".")


def _config(recipe: Recipe, digest: str) -> dict[str, object]:
    labels = {"org.opencontainers.image.description": recipe.about}
    return {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {**recipe.config, "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "orlop.testing.images"}],
    }


def _add(tar: tarfile.TarFile, name: str, data: IO[bytes], size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    tar.addfile(info, data)
