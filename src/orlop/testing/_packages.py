"""Packages of this Debian or Ubuntu release and the libraries they need: downloaded, never installed."""

import functools
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from orlop.errors import Unavailable

# The compiler of PostgreSQL's queries is five times as large as PostgreSQL, and it goes without.
_NEEDLESS = ("libllvm", "libperl")
_LIBRARIES_OF_ANOTHER_NAME = frozenset({"zlib1g"})
_QUIET = (
    "--no-recommends",
    "--no-suggests",
    "--no-conflicts",
    "--no-breaks",
    "--no-replaces",
    "--no-enhances",
)


@functools.cache
def suite() -> str:
    """The release's code name, such as ``bookworm``."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "stable")


def with_libraries(names: Sequence[str]) -> list[str]:
    """The packages and every library package that they, or their libraries, depend on.

    A name that stands for its newest version, such as ``postgresql``, becomes that one: ``postgresql-15``.
    """
    graph = _dependencies(names)
    wanted = [next((needed for needed in graph[name] if _is_version_of(needed, name)), name) for name in names]
    for package in wanted:  # grows while we go
        wanted += [needed for needed in graph.get(package, []) if _is_library(needed) and needed not in wanted]
    return wanted


def download(packages: Sequence[str], folder: Path) -> list[Path]:
    """Download into ``folder`` and return the files, in the order of ``packages``.

    Raises `Unavailable` with apt's words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = _apt("apt-get", "download", "--print-uris", *packages).splitlines()
    # A line is: 'address' file size checksum
    names = {line.split()[1].split("_")[0]: line.split()[1] for line in lines if line.startswith("'")}
    missing = [package for package in packages if not (folder / names[package]).exists()]
    if missing:
        _apt("apt-get", "download", *missing, folder=folder)
    return [folder / names[package] for package in packages]


def _dependencies(packages: Sequence[str]) -> dict[str, list[str]]:
    """Package → what it depends on, of alternatives all; for the packages and for all that they depend on."""
    graph: dict[str, list[str]] = {}
    needed: list[str] = []
    virtual = False
    for line in _apt("apt-cache", "depends", "--recurse", *_QUIET, *packages).splitlines():
        word = line.split()[-1].split(":")[0]
        if not line.startswith(" "):
            needed = graph.setdefault(word, [])
        elif "Depends: " in line:
            # What is in <> is only a name; who provides it comes in the next lines.
            virtual = word.startswith("<")
            needed += [] if virtual else [word]
        elif virtual:
            needed.append(word)
    return graph


def _is_version_of(package: str, name: str) -> bool:
    return package.startswith(f"{name}-") and package.removeprefix(f"{name}-").isdigit()


def _is_library(package: str) -> bool:
    named = package.startswith("lib") and not package.startswith(_NEEDLESS)
    return named or package in _LIBRARIES_OF_ANOTHER_NAME


def _apt(program: str, *args: str, folder: Path | None = None) -> str:
    options = ["-o", f"APT::Default-Release={suite()}", "-o", "APT::Sandbox::User=root", "-q"]
    done = subprocess.run(
        [program, *options, *args],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        env=_environment(),
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise Unavailable(f"{program} {args[0]}: {reason[0]}: run apt-get update")
    return done.stdout


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
