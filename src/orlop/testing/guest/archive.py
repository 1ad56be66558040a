"""Debian's archive as the guest needs it: a private apt that downloads packages and installs none.

It has lists of its own, of one release, from the mirrors that the host's apt uses: whatever else the host has
configured cannot slip in.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from orlop.errors import Unavailable

RELEASE = "bookworm"
"""The release whose kernel the guest boots; its programs only run on a host of that release."""

_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_MIRRORS = {
    RELEASE: "http://deb.debian.org/debian",
    f"{RELEASE}-updates": "http://deb.debian.org/debian",
    f"{RELEASE}-security": "http://deb.debian.org/debian-security",
}
"""Debian's own, for a host that has none."""
_CONFIG = """\
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "-";
Dir::Etc::Preferences "-";
Dir::Etc::PreferencesParts "-";
Dir::State::Lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
DPkg::Lock::Timeout "300";
"""


class Archive:
    """The archive of `RELEASE`, with its lists below ``folder``; they are fetched when it is made.

    Every verb raises `Unavailable` with apt's own words.
    """

    def __init__(self, folder: Path) -> None:
        self._cache = folder / "cache"
        self._environment = {**os.environ, "APT_CONFIG": str(folder / "apt.conf"), "LC_ALL": "C"}
        for made in (folder / "lists/partial", self._cache / "archives/partial"):
            made.mkdir(parents=True, exist_ok=True)
        (folder / "sources.list").write_text("".join(_sources(_mirrors())))
        (folder / "apt.conf").write_text(_CONFIG.format(folder=folder))
        self._apt("apt-get", "update")

    def missing(self, packages: Sequence[str]) -> list[Path]:
        """Download ``packages`` and what they depend on, but for what the host has installed."""
        for old in self._debs:
            old.unlink()
        self._apt("apt-get", "install", "--yes", "--download-only", f"--target-release={RELEASE}", *packages)
        return self._debs

    def kernel(self) -> tuple[str, Path]:
        """The release of Debian's kernel for clouds, such as ``6.1.0-1-cloud-amd64``, and its package."""
        depends = self._apt("apt-cache", "depends", "linux-image-cloud-amd64")
        name = next((word for word in depends.split() if word.startswith("linux-image-6")), None)
        if name is None:
            raise Unavailable(f"Debian {RELEASE} has no kernel for clouds: look at apt-cache depends")
        for old in self._cache.glob("*.deb"):
            old.unlink()
        self._apt("apt-get", "download", name)
        return name.removeprefix("linux-image-"), next(self._cache.glob(f"{name}_*.deb"))

    @property
    def _debs(self) -> list[Path]:
        return sorted((self._cache / "archives").glob("*.deb"))

    def _apt(self, program: str, *args: str) -> str:
        argv = [program, "-q", *args]
        done = subprocess.run(argv, cwd=self._cache, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise Unavailable(f"{program} {args[0]}: {reason[0]}")
        return done.stdout


def _mirrors() -> dict[str, str]:
    """Suite → mirror: the host's where it has one of Debian's, or else the public one."""
    argv = ["apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(SITE)", "Created-By: Packages"]
    listed = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    found = dict(_MIRRORS)
    for line in reversed(listed.splitlines()):
        suite, component, site = line.split(" ", 2)
        # Others name their suites after Debian's too; they do not name their folder so.
        if suite in found and component == "main" and urlsplit(site).path.rpartition("/")[2].startswith("debian"):
            found[suite] = site
    return found


def _sources(mirrors: dict[str, str]) -> Iterator[str]:
    for suite, mirror in mirrors.items():
        yield f"deb [signed-by={_KEYS}] {mirror} {suite} main\n"
