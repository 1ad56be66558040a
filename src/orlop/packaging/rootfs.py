"""A root filesystem with orlop in it and nothing that it does not need, made from this host's own files.

Everything lies where it lies on the host, so programs and libraries find each other as they do here; orlop and the
packages that it needs are in a folder of their own.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import orlop
from orlop.errors import Unavailable

PACKAGES = "/usr/lib/orlop"
"""Where orlop and what it needs is; belongs into ``PYTHONPATH``."""
PROGRAMS = (
    "mkfs.ext4",
    "debugfs",
    "e2fsck",
    "resize2fs",
    "mkfs.xfs",
    "xfs_db",
    "xfs_growfs",
    "fsfreeze",
    "cp",
    "rm",
    "sh",
    "tar",
)
"""What the volume drivers run."""

_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FOR_DEVELOPERS = {"distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tests", "turtledemo", "venv"}
_OF_THE_HOST = {"dist-packages", "site-packages", "sitecustomize.py", "tkinter", "turtle.py"}
_NO_PART = _FOR_DEVELOPERS | _OF_THE_HOST
"""What is left out of the standard library."""
_NO_MODULE = re.compile(r"config-.*|_tkinter\..*|_test.*|_ctypes_test.*|xx.*")
_EMPTY = (
    "dev",
    "etc",
    "proc",
    "run/docker/plugins",
    "sys",
    "tmp",
    "var/lib",
    "usr/bin",
    "usr/lib",
    "usr/lib64",
    "usr/sbin",
)
_MERGED = ("bin", "lib", "lib64", "sbin")
_DRIVERS = "orlop.volume_drivers"


def make(root: Path) -> str:
    """Fill the new folder ``root``; returns the interpreter's path in it."""
    for name in _EMPTY:
        root.joinpath(name).mkdir(parents=True)
    for name in _MERGED:
        root.joinpath(name).symlink_to(f"usr/{name}")
    python = Path(sys.executable).resolve()
    binaries = [python, *programs()]
    for binary in binaries:
        _copy(binary, root / str(binary).lstrip("/"))
    _copy_library(Path(sysconfig.get_path("stdlib")), root)
    _copy_packages(root / PACKAGES.lstrip("/"))
    for library in shared(binaries + _extensions(root)):
        _copy(library, root / str(library).lstrip("/"))
    _settle(root)
    return str(python)


def programs() -> list[Path]:
    """Where `PROGRAMS` are; raises `Unavailable` for one that is missing."""
    found = []
    for name in PROGRAMS:
        path = shutil.which(name, path=_SEARCH)
        if path is None:
            raise Unavailable(
                f"there is no program {name!r} here to put into the plugin; install e2fsprogs and xfsprogs"
            )
        found.append(Path(path))
    return found


def distributions() -> list[metadata.Distribution]:
    """orlop, the packages that bring volume drivers, and all that these need, as they are installed here."""
    wanted = ["orlop", *(entry.dist.name for entry in metadata.entry_points(group=_DRIVERS) if entry.dist)]
    found: dict[str, metadata.Distribution] = {}
    while wanted:
        name = _canonical(wanted.pop())
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError as error:
            if name == "orlop":
                raise Unavailable("this orlop is not installed as a package; install it with pip or uv") from error
            continue  # needed on other systems or with other Pythons only
        wanted += _needs(found[name])
    return list(found.values())


def shared(binaries: Iterable[Path]) -> list[Path]:
    """The shared libraries that ``binaries`` and these libraries load, the loader included."""
    # What packages bring along lies beside them already.
    own = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    told = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True).stdout
    found = {path for path in re.findall(r"^\t(?:\S+ => )?(/\S+) \(", told, re.MULTILINE) if not path.startswith(own)}
    return sorted(Path(path) for path in found | _loaded_late())


def _needs(distribution: metadata.Distribution) -> Iterator[str]:
    for requirement in distribution.requires or ():
        if "extra ==" not in requirement:
            match = re.match(r"[A-Za-z0-9._-]+", requirement)
            if match:
                yield match[0]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _loaded_late() -> set[str]:
    """Libraries that the C library opens when it needs them: threads cannot end without this one."""
    known = subprocess.run(["ldconfig", "-p"], env={"PATH": _SEARCH}, capture_output=True, text=True).stdout
    found = re.search(r"libgcc_s\.so\.1 .* => (\S+)", known)
    return {found[1]} if found else set()


def _extensions(root: Path) -> list[Path]:
    return [path for path in root.rglob("*.so*") if path.is_file()]


def _copy_library(library: Path, root: Path) -> None:
    def unneeded(folder: str, names: list[str]) -> set[str]:
        if Path(folder).name == "__pycache__":
            return {name for name in names if not name.endswith(f".{sys.implementation.cache_tag}.pyc")}
        return {name for name in names if name in _NO_PART or _NO_MODULE.fullmatch(name)}

    shutil.copytree(library, root / str(library).lstrip("/"), ignore=unneeded, dirs_exist_ok=True)


def _copy_packages(target: Path) -> None:
    for distribution in distributions():
        for file in distribution.files or ():
            # Scripts lie outside, and an editable orlop is found through a .pth file, which is not for another host.
            if ".." not in file.parts and file.suffix != ".pth":
                source = Path(str(distribution.locate_file(file)))
                if source.is_file():
                    _copy(source, target / file)
    ignore = shutil.ignore_patterns("testing", "__pycache__")
    shutil.copytree(Path(orlop.__file__).parent, target / "orlop", ignore=ignore, dirs_exist_ok=True)


def _settle(root: Path) -> None:
    root.joinpath("tmp").chmod(0o1777)
    root.joinpath("etc/passwd").write_text("root:x:0:0:root:/:/usr/sbin/nologin\n")
    root.joinpath("etc/group").write_text("root:x:0:\n")
    defaults = Path("/etc/mke2fs.conf")
    if defaults.exists():
        _copy(defaults, root / "etc/mke2fs.conf")


def _copy(source: Path, target: Path) -> None:
    """With its times: compiled modules are valid for a source of a certain time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
