"""SMB, by the kernel (mount.cifs(8); no program is started, so the password is on no command line)."""

import re

from orlop.mount import Mount
from orlop.volumes.options import choice, flag, matching, mode, number
from orlop.volumes.recipes.words import HOST, PATH, READ_ONLY, SOFT, numbers, safe, switched_on, texts
from orlop.volumes.remote import Asked, Recipe

_SHARE = re.compile(rf"//{HOST}/(?![.]{{1,2}}(?:/|$))[^/,\\\x00-\x1f\x7f]+(?:/{PATH})?")
_FLAGS = {
    "seal": "true to encrypt everything (SMB 3)",
    "mfsymlinks": "true for symbolic links that the server need not know",
    "nobrl": "true to keep byte range locks on this host",
    "noperm": "true to leave checking of permissions to the server",
}
_NUMBERS = {"port": "the server's port (default 445)", "actimeo": "seconds for which attributes are remembered"}


def _mount(asked: Asked) -> Mount:
    volume = asked.volume
    share = matching(volume, "share", _SHARE, "//HOST/SHARE or //HOST/SHARE/PATH")
    words = [
        f"ip={asked.address(share['host'])}",
        f"vers={choice(volume, 'vers', ('2.1', '3.0', '3.0.2', '3.1.1'), '3.1.1')}",
        f"uid={number(volume, 'uid', 0)}",
        f"gid={number(volume, 'gid', 0)}",
        f"file_mode=0{mode(volume, 'filemode', 0o755):o}",
        f"dir_mode=0{mode(volume, 'dirmode', 0o755):o}",
        # An error after half a minute: the kernel waits for three echoes.
        *(("soft", "echo_interval=10") if flag(volume, "soft") else ("hard",)),
        *switched_on(asked, _FLAGS),
        *numbers(asked, _NUMBERS),
        *texts(asked, {"username": "username", "domain": "domain"}),
    ]
    if "username" not in volume.options:
        words.append("sec=none")
    secrets = [("password", asked.secret("password"))] if "password" in volume.options else []
    return Mount("cifs", share[0], (*safe(asked), *words), tuple(secrets))


CIFS = Recipe(
    _mount,
    options={
        "share": "what to mount: //HOST/SHARE, or //HOST/SHARE/PATH",
        "username": "the account on the server (default: a guest)",
        "password": "its password",
        "domain": "its domain or workgroup",
        "vers": "version of the protocol: 2.1, 3.0, 3.0.2 or 3.1.1 (default 3.1.1)",
        "uid": "owner of every file (default 0)",
        "gid": "group of every file (default 0)",
        "filemode": "permissions of every file, in octal (default 0755)",
        "dirmode": "permissions of every folder, in octal (default 0755)",
        **SOFT,
        **_FLAGS,
        **_NUMBERS,
        **READ_ONLY,
    },
    required=("share",),
    secrets=("password",),
    health="asked for its free space: an answer within 5 s; the kernel connects again by itself",
    filesystem="cifs",
    owns=("uid", "gid", "filemode", "dirmode"),
)
