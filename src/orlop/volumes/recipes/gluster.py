"""GlusterFS, by its FUSE client (mount.glusterfs(8))."""

import re

from orlop.mount import Mount
from orlop.volumes.options import choice, flag, matching
from orlop.volumes.recipes.words import HOST, PATH, PROGRAM, READ_ONLY, switched_on
from orlop.volumes.remote import Asked, Recipe

_SHARE = re.compile(rf"{HOST}:/(?P<volume>[A-Za-z0-9][A-Za-z0-9._-]*)(?P<path>(?:/{PATH})?)")
_SERVERS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?: [A-Za-z0-9][A-Za-z0-9._-]*)*")
_FLAGS = {
    "acl": "true for POSIX ACLs",
    "fopen-keep-cache": "true to remember the content of files that are opened again",
    "kernel-writeback-cache": "true to gather writes in this host's memory",
}


def _mount(asked: Asked) -> Mount:
    volume = asked.volume
    share = matching(volume, "share", _SHARE, "HOST:/VOLUME or HOST:/VOLUME/PATH")
    servers = [share["host"]]
    if "backup-servers" in volume.options:
        servers += matching(volume, "backup-servers", _SERVERS, "HOST HOST ...")[0].split()
    words = [f"--volfile-server={server}" for server in servers]
    words += [f"--volfile-id={share['volume']}", "--process-name=fuse", "--log-file=/dev/stderr"]
    words.append(f"--log-level={choice(volume, 'log-level', ('ERROR', 'WARNING', 'INFO'), 'ERROR')}")
    words += [f"--{name}" for name in switched_on(asked, _FLAGS)]
    if share["path"].strip("/"):
        words.append(f"--subdir-mount={share['path'].rstrip('/')}")
    if flag(volume, "ro"):
        words.append("--read-only")
    program = ("glusterfs", "--no-daemon", "--fuse-mountopts=nosuid,nodev", *words, "{target}")
    return Mount("fuse.glusterfs", share[0], (), (), program)


GLUSTER = Recipe(
    _mount,
    options={
        "share": "what to mount: HOST:/VOLUME, or HOST:/VOLUME/PATH",
        "backup-servers": "hosts to ask if the first is away, with a space between",
        "log-level": "ERROR, WARNING or INFO (default ERROR)",
        **_FLAGS,
        **READ_ONLY,
    },
    required=("share",),
    health=PROGRAM,
    package="glusterfs-client",
)
