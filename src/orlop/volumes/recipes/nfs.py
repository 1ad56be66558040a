"""NFS, by the kernel (nfs(5))."""

import re

from orlop.mount import Mount
from orlop.volumes.options import choice, flag, matching
from orlop.volumes.recipes.words import HOST, PATH, READ_ONLY, SOFT, numbers, safe, switched_on
from orlop.volumes.remote import Asked, Recipe

_NUMBERS = {
    "port": "the server's port (default: 2049, or as its rpcbind says)",
    "timeo": "tenths of a second before a request is repeated (default 600)",
    "retrans": "how often, before a soft mount gives an error (default 2)",
    "rsize": "most bytes in one read",
    "wsize": "most bytes in one write",
    "nconnect": "connections to the server (default 1)",
    "actimeo": "seconds for which attributes are remembered",
}
_FLAGS = {
    "nolock": "true to keep file locks on this host (version 3 without statd)",
    "noatime": "true to leave access times alone",
}


def _mount(asked: Asked) -> Mount:
    volume = asked.volume
    share = matching(volume, "share", re.compile(rf"{HOST}:/{PATH}"), "HOST:/PATH")
    words = [
        f"vers={choice(volume, 'vers', ('3', '4.0', '4.1', '4.2'), '4.2')}",
        f"sec={choice(volume, 'sec', ('sys', 'krb5', 'krb5i', 'krb5p'), 'sys')}",
        # Waiting loses nothing: with "soft", a write that was not sent when the server went away is an error later.
        "soft" if flag(volume, "soft") else "hard",
        *numbers(asked, _NUMBERS),
        *switched_on(asked, _FLAGS),
    ]
    return Mount("nfs", share[0], (*safe(asked), f"addr={asked.address(share['host'])}", *words))


NFS = Recipe(
    _mount,
    options={
        "share": "what to mount: HOST:/PATH",
        "vers": "version of the protocol: 3, 4.0, 4.1 or 4.2 (default 4.2)",
        "sec": "security: sys, krb5, krb5i or krb5p (default sys)",
        **SOFT,
        **_NUMBERS,
        **_FLAGS,
        **READ_ONLY,
    },
    required=("share",),
    health="asked for its free space: an answer within 5 s; a stale handle is mounted anew at the next mount",
    filesystem="nfs",
)
