"""Packages of a Debian or Ubuntu release and the libraries they need: downloaded, never installed."""

from collections.abc import Sequence
from pathlib import Path

from orlop.testing import _apt
from orlop.testing._apt import Apt

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


def with_libraries(names: Sequence[str], apt: Apt | None = None) -> list[str]:
    """The packages, the host's or those of ``apt``, and every library package that they, or their libraries, depend on.

    A name that stands for its newest version, such as ``postgresql``, becomes that one: ``postgresql-15``.
    """
    graph = _dependencies(names, apt or _apt.host())
    wanted = [next((needed for needed in graph[name] if _is_version_of(needed, name)), name) for name in names]
    for package in wanted:  # grows while we go
        wanted += [needed for needed in graph.get(package, []) if _is_library(needed) and needed not in wanted]
    return wanted


def download(packages: Sequence[str], folder: Path, apt: Apt | None = None) -> list[Path]:
    """Download into ``folder`` and return the files, in the order of ``packages``.

    Raises `Unavailable` with apt's words.
    """
    apt = apt or _apt.host()
    folder.mkdir(parents=True, exist_ok=True)
    lines = apt.run("apt-get", "download", "--print-uris", *packages).splitlines()
    # A line is: 'address' file size checksum
    names = {line.split()[1].split("_")[0]: line.split()[1] for line in lines if line.startswith("'")}
    missing = [package for package in packages if not (folder / names[package]).exists()]
    if missing:
        apt.run("apt-get", "download", *missing, folder=folder)
    return [folder / names[package] for package in packages]


def _dependencies(packages: Sequence[str], apt: Apt) -> dict[str, list[str]]:
    """Package → what it depends on, of alternatives all; for the packages and for all that they depend on."""
    graph: dict[str, list[str]] = {}
    needed: list[str] = []
    virtual = False
    for line in apt.run("apt-cache", "depends", "--recurse", *_QUIET, *packages).splitlines():
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
