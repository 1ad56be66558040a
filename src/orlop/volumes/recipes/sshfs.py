"""SSH, by sshfs (sshfs(1), ssh_config(5)), with the option names of the vieux/sshfs plugin."""

import re

from orlop.mount import Mount
from orlop.volumes.options import choice, matching
from orlop.volumes.recipes.words import HOST, PATH, PROGRAM, READ_ONLY, numbers, safe, switched_on, texts
from orlop.volumes.remote import Asked, Recipe

# Docker's example has a space after the colon.
_COMMAND = re.compile(rf"(?P<login>(?:[A-Za-z0-9_][A-Za-z0-9_.+@-]*@)?{HOST}): ?(?P<path>{PATH})")
_NUMBERS = {
    "port": "the server's port (default 22)",
    "uid": "owner of every file (default: as on the server)",
    "gid": "group of every file (default: as on the server)",
    "max_conns": "connections to the server (default 1)",
    "dcache_timeout": "seconds for which attributes are remembered (default 20)",
}
_TEXTS = {
    "umask": "permissions to take from every file, in octal",
    "idmap": "user: files of the account belong to this host's root",
    "Ciphers": "ciphers to use",
}
_FLAGS = {
    "compression": "true to compress",
    "follow_symlinks": "true to follow symbolic links on the server",
    "transform_symlinks": "true to make absolute symbolic links relative",
    "default_permissions": "true to let this host check permissions too",
    "kernel_cache": "true to remember the content of files: only if nobody else changes them",
    "auto_cache": "true to remember it until the time of change is another",
}
_ALWAYS = (
    # Containers' users are others.
    "allow_other",
    # A connection that broke is made again; one that hangs breaks after a minute.
    *("reconnect", "ServerAliveInterval=15", "ServerAliveCountMax=4", "ConnectTimeout=10"),
    "NumberOfPasswordPrompts=1",
)


def _mount(asked: Asked) -> Mount:
    volume, options = asked.volume, asked.volume.options
    found = matching(volume, "sshcmd", _COMMAND, "USER@HOST:PATH")
    words = [
        *safe(asked),
        *_ALWAYS,
        f"StrictHostKeyChecking={choice(volume, 'hostkeys', ('accept-new', 'yes', 'no'), 'accept-new')}",
        *numbers(asked, _NUMBERS),
        *texts(asked, {name: name for name in _TEXTS}),
        *switched_on(asked, _FLAGS),
    ]
    secrets = []
    if "key" in options:
        secrets.append(("key", asked.secret("key") + "\n"))
        words += ["IdentityFile={key}", "IdentitiesOnly=yes"]
    if "known_hosts" in options:
        secrets.append(("known_hosts", asked.secret("known_hosts") + "\n"))
        words.append("UserKnownHostsFile={known_hosts}")
    else:
        words.append(f"UserKnownHostsFile={asked.folder}/known_hosts")
    if "password" in options:
        secrets.append(("stdin", asked.secret("password") + "\n"))
        words.append("password_stdin")
    else:
        words.append("BatchMode=yes")
    source = f"{found['login']}:{found['path']}"
    return Mount("fuse.sshfs", source, (), tuple(secrets), ("sshfs", "-f", "-o", ",".join(words), source, "{target}"))


SSHFS = Recipe(
    _mount,
    options={
        "sshcmd": "what to mount: USER@HOST:PATH",
        "password": "the account's password",
        "key": "its private key, by reference (default: the keys of this host's root)",
        "known_hosts": "the server's keys as in known_hosts(5), by reference (default: those seen first)",
        "hostkeys": "accept-new to trust a server that was never seen, yes to refuse it, no to trust any "
        "(default accept-new)",
        **_NUMBERS,
        **_TEXTS,
        **_FLAGS,
        **READ_ONLY,
    },
    required=("sshcmd",),
    secrets=("password", "key", "known_hosts"),
    health=PROGRAM,
    package="sshfs",
    owns=("uid", "gid"),
)
