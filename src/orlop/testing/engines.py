"""A Docker Engine newer than the host's: the programs of Debian's next release, with their own libraries.

    engine = Engine(machine, programs=engines.newer())

Nothing is installed: packages are downloaded with apt and unpacked into a cache. The programs are told to use
the C library that came with them, so that they run beside the host's, and call each other under their own names.
"""

import hashlib
import platform
import shutil
import subprocess
from pathlib import Path

from orlop.errors import Unavailable
from orlop.testing import _apt, _cache, _packages

_RELEASE = "forky"
_PACKAGES = ("docker.io", "docker-cli", "containerd", "runc", "tini-static")
_PROGRAMS = ("dockerd", "docker-proxy", "docker", "containerd", "containerd-shim-runc-v2", "runc")
_STATIC = "docker-init"


def newer(cache: Path | None = None) -> Path:
    """The folder of the programs of Docker Engine 28 or later, made if ``cache`` (or else ours) does not have it.

    Raises `Unavailable` if apt does not give the packages, or there is no ``patchelf``.
    """
    cache = (cache or _cache.folder("engines")).absolute()
    built = cache / f"docker-{_key(cache)}"
    with _cache.alone(cache):
        if not built.exists():
            _build(cache, built)
    return built


def _build(cache: Path, built: Path) -> None:
    if shutil.which("patchelf") is None:
        raise Unavailable("no program 'patchelf': install the package of that name")
    apt = _apt.another(_RELEASE, cache / "apt")
    debs = _packages.download(_packages.with_libraries(_PACKAGES, apt), cache / "packages", apt)
    # An interrupted build must not look like an engine.
    unfinished, tree = built.with_suffix(".new"), cache / "unpacked"
    for folder in (unfinished, tree):
        shutil.rmtree(folder, ignore_errors=True)
    for deb in debs:
        _run("dpkg-deb", "--extract", str(deb), str(tree))
    _gather(tree, unfinished)
    for program in _PROGRAMS:
        _patch(unfinished / program, built / "lib")
    unfinished.rename(built)
    shutil.rmtree(tree)
    shutil.rmtree(cache / "packages")


def _gather(tree: Path, target: Path) -> None:
    """Copy the programs into one folder, and the libraries into another below it."""
    (target / "lib").mkdir(parents=True)
    for program in (*_PROGRAMS, _STATIC):
        shutil.copy(next(tree.glob(f"usr/*bin/{program}")), target)
    for library in (tree / "usr/lib").rglob("*.so.*"):
        shutil.copy(library, target / "lib")


def _patch(program: Path, libraries: Path) -> None:
    """Make ``program`` find its loader and its libraries in ``libraries``.

    A script that calls the loader would not do: runc and others start themselves again by /proc/self/exe.
    """
    loader = libraries / Path(_run("patchelf", "--print-interpreter", str(program)).strip()).name
    # Runtime paths of the old kind count for libraries of libraries as well.
    _run("patchelf", "--set-interpreter", str(loader), "--force-rpath", "--set-rpath", str(libraries), str(program))


def _run(*argv: str) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"{argv[0]}: {done.stderr.strip()}")
    return done.stdout


def _key(cache: Path) -> str:
    """The programs know where they are, so the place is a part of it."""
    key = hashlib.sha256(f"{cache} {platform.machine()}".encode())
    key.update(Path(__file__).read_bytes())
    return key.hexdigest()[:12]
