"""Anything that rclone can reach (rclone.org), by its own configuration.

What was written goes first into a copy on this host and to the remote a moment after the file is closed; what had not
gone when a host failed is on that host only, and goes when the volume is mounted there again.
"""

import re

from orlop.mount import Mount
from orlop.volumes.options import choice, flag, matching, number
from orlop.volumes.recipes.words import PATH, READ_ONLY, WORD
from orlop.volumes.remote import Asked, Recipe

_REMOTE = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_ .+@-]*:{PATH}")


def _mount(asked: Asked) -> Mount:
    volume, options = asked.volume, asked.volume.options
    remote = matching(volume, "remote", _REMOTE, "NAME:PATH")[0]
    cache = choice(volume, "cache", ("off", "minimal", "writes", "full"), "writes")
    words = ["--config={config}", "--allow-other", f"--cache-dir={asked.folder}/{volume.key}"]
    words += [f"--vfs-cache-mode={cache}", "--vfs-write-back=1s", "--contimeout=10s"]
    words += [f"--{name}={number(volume, name, 0)}" for name in ("uid", "gid") if name in options]
    for name in ("umask", "dir-cache-time", "vfs-cache-max-size"):
        if name in options:
            words.append(f"--{name}={matching(volume, name, WORD, 'a single word')[0]}")
    if flag(volume, "ro"):
        words.append("--read-only")
    secrets = (("config", asked.secret("config")),)
    return Mount("fuse.rclone", remote, (), secrets, ("rclone", "mount", *words, "--", remote, "{target}"))


RCLONE = Recipe(
    _mount,
    options={
        "remote": "what to mount: NAME:PATH, where NAME is a section of the configuration",
        "config": "rclone's configuration, by reference",
        "cache": "what is copied to this host: off, minimal, writes or full (default writes)",
        "uid": "owner of every file (default 0)",
        "gid": "group of every file (default 0)",
        "umask": "permissions to take from every file, in octal",
        "dir-cache-time": "how long it is remembered what is there, such as 1m (default 5m)",
        "vfs-cache-max-size": "how much is copied to this host at most, such as 10G",
        **READ_ONLY,
    },
    required=("remote", "config"),
    secrets=("config",),
    package="rclone",
)
