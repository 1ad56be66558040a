"""Anything that rclone can reach (rclone.org), by its own configuration.

What was written goes first into a copy on this host and to the remote a moment after the file is closed; what had not
gone when a host failed is on that host only, and goes when the volume is mounted there again.
"""

import re

from orlop.errors import Invalid
from orlop.mount import Mount
from orlop.volumes.driver import Volume
from orlop.volumes.options import choice, flag, matching, mode, number
from orlop.volumes.recipes.words import PATH, PROGRAM, READ_ONLY, WORD
from orlop.volumes.remote import Asked, Recipe

_REMOTE = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_ .+@-]*:{PATH}")


def _mount(asked: Asked) -> Mount:
    volume, options = asked.volume, asked.volume.options
    remote = matching(volume, "remote", _REMOTE, "NAME:PATH")[0]
    cache = choice(volume, "cache", ("off", "minimal", "writes", "full"), "writes")
    words = ["--config={config}", "--allow-other", f"--cache-dir={asked.folder}/{volume.key}"]
    words += [f"--vfs-cache-mode={cache}", "--vfs-write-back=1s", "--contimeout=10s"]
    words += [f"--{name}={number(volume, name, 0)}" for name in ("uid", "gid") if name in options]
    words += _permissions(volume)
    for name in ("umask", "dir-cache-time", "vfs-cache-max-size"):
        if name in options:
            words.append(f"--{name}={matching(volume, name, WORD, 'a single word')[0]}")
    if flag(volume, "ro"):
        words.append("--read-only")
    secrets = (("config", asked.secret("config")),)
    return Mount("fuse.rclone", remote, (), secrets, ("rclone", "mount", *words, "--", remote, "{target}"))


def _permissions(volume: Volume) -> list[str]:
    """The modes as they are asked for, and held to: otherwise rclone takes its umask from them, and nobody checks."""
    if not {"filemode", "dirmode"} & set(volume.options):
        return []
    if "umask" in volume.options:
        raise Invalid("option 'umask' does not go with 'filemode' and 'dirmode', which say it all")
    files, folders = mode(volume, "filemode", 0o644), mode(volume, "dirmode", 0o755)
    return ["--umask=0", f"--file-perms=0{files:o}", f"--dir-perms=0{folders:o}", "--default-permissions"]


RCLONE = Recipe(
    _mount,
    options={
        "remote": "what to mount: NAME:PATH, where NAME is a section of the configuration",
        "config": "rclone's configuration, by reference",
        "cache": "what is copied to this host: off, minimal, writes or full (default writes)",
        "uid": "owner of every file (default 0)",
        "gid": "group of every file (default 0)",
        "filemode": "permissions of every file, in octal (default 0644)",
        "dirmode": "permissions of every folder, in octal (default 0755)",
        "umask": "permissions to take from every file, in octal (default 022)",
        "dir-cache-time": "how long it is remembered what is there, such as 1m (default 5m)",
        "vfs-cache-max-size": "how much is copied to this host at most, such as 10G",
        **READ_ONLY,
    },
    required=("remote", "config"),
    secrets=("config",),
    health=PROGRAM,
    package="rclone",
    owns=("uid", "gid", "filemode", "dirmode"),
)
