"""apt as the host has it set up, or for another release of the distribution, with lists of its own."""

import functools
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from orlop.errors import Unavailable

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# No answer is an answer: without a network nobody wants to wait for minutes.
_IMPATIENT = ("-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20")


@dataclass(frozen=True, slots=True)
class Apt:
    """apt and its programs, called with ``options``; nothing is ever installed with it.

    ``advice`` is what somebody for whom it does not work should do.
    """

    options: tuple[str, ...]
    advice: str

    def run(self, program: str, *args: str, folder: Path | None = None) -> str:
        """What ``apt-get``, or another of them, prints. Raises `Unavailable` with its words."""
        done = subprocess.run(
            [program, "-o", "APT::Sandbox::User=root", "-q", *self.options, *args],
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        )
        if done.returncode:
            # The first line is the cause, the last one often says no more than that there was one.
            reason = done.stderr.strip().splitlines()[:1] or ["no reason given"]
            raise Unavailable(f"{program} {args[0]}: {reason[0]}: {self.advice}")
        return done.stdout


@functools.cache
def suite() -> str:
    """The host's release by its code name, such as ``bookworm``."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "stable")


def host() -> Apt:
    """The host's own."""
    return Apt(("-o", f"APT::Default-Release={suite()}"), "run apt-get update")


def another(release: str, folder: Path) -> Apt:
    """That of ``release``, from the archive that the host uses; its lists are brought up to date in ``folder``.

    Raises `Unavailable` if the host's archive does not have it, or is not Debian's.
    """
    (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (folder / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {_archive()} {release} main\n")
    settings = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": folder,
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
    }
    options = tuple(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))
    apt = Apt(options, f"see that the archive can be reached and has {release!r}")
    apt.run("apt-get", "update", "--error-on=any", *_IMPATIENT)
    return apt


def _archive() -> str:
    """The address that the host gets its own release from."""
    addresses = host().run("apt-get", "update", "--print-uris")
    found = re.search(rf"^'(\S+)/dists/{re.escape(suite())}/", addresses, re.MULTILINE)
    if found is None:
        raise Unavailable(f"apt knows no archive of {suite()!r}: add it to /etc/apt/sources.list")
    return found[1]
