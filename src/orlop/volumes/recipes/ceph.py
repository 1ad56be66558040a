"""CephFS, by its FUSE client (ceph-fuse(8))."""

import re

from orlop.mount import Mount
from orlop.volumes.options import matching
from orlop.volumes.recipes.words import PATH, PROGRAM, READ_ONLY, WORD, safe
from orlop.volumes.remote import Asked, Recipe

_MONITORS = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9.:\[\]_-]*(?:;[A-Za-z0-9\[][A-Za-z0-9.:\[\]_-]*)*")


def _mount(asked: Asked) -> Mount:
    volume, options = asked.volume, asked.volume.options
    monitors = matching(volume, "monitors", _MONITORS, "HOST or HOST:PORT, with ';' between several")[0].replace(
        ";", ","
    )
    path = matching(volume, "path", re.compile(rf"/{PATH}"), "/PATH")[0] if "path" in options else "/"
    user = matching(volume, "user", WORD, "a single word")[0] if "user" in options else "admin"
    words = ["-m", monitors, "--id", user, "-r", path, "--no-mon-config", "--log-file=/dev/stderr"]
    if "fs" in options:
        words.append(f"--client_fs={matching(volume, 'fs', WORD, 'a single word')[0]}")
    secrets: tuple[tuple[str, str], ...] = ()
    if "key" in options:
        secrets = (("keyfile", asked.secret("key") + "\n"),)
        words += ["--keyfile", "{keyfile}"]
    else:
        words += ["--auth_client_required=none", "--auth_cluster_required=none", "--auth_service_required=none"]
    # In the background it tries whether it can remount. If the mount has gone meanwhile it would end at once, without
    # writing what it still holds, and the cluster would wait a minute for it; so it shall not, nor try for long.
    words += ["--client_die_on_failed_dentry_invalidate=false", "--client_max_retries_on_remount_failure=1"]
    # Its own configuration file may not be there, and must not matter.
    program = ("ceph-fuse", "-f", "-c", "/dev/null", *words, "-o", ",".join(safe(asked)), "{target}")
    return Mount("fuse.ceph-fuse", f"{monitors}:{path}", (), secrets, program)


CEPH = Recipe(
    _mount,
    options={
        "monitors": "the cluster's monitors: HOST or HOST:PORT, with ';' between several",
        "path": "a folder of the filesystem (default: all of it)",
        "fs": "the filesystem, where there are several",
        "user": "the account, without 'client.' (default admin)",
        "key": "its key (default: the cluster asks for none)",
        **READ_ONLY,
    },
    required=("monitors",),
    secrets=("key",),
    health=PROGRAM,
    package="ceph-fuse",
)
