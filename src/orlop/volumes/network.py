"""What the kernel must be told of a network filesystem beside what users say: an address, and a version of NFS.

It mounts by address only, so somebody has to look names up. mount(8) leaves that to helpers such as mount.nfs; Docker's
local driver does it itself, and so does this.
"""

import ipaddress
import re
import socket
import threading
from collections.abc import Sequence

from orlop.errors import Unavailable

_PATIENCE = 10.0
"""Seconds that the resolver has."""
_NFS, _CIFS = frozenset({"nfs", "nfs4"}), frozenset({"cifs", "smb3"})


def complete(kind: str, device: str, options: Sequence[str]) -> tuple[str, ...]:
    """``options`` with what they leave out; those of a filesystem without a server stay as they are.

    ``addr=`` is the address of the host that they name, or else of the host in ``device``. Raises `Unavailable` if that
    has none (now).
    """
    if kind not in _NFS | _CIFS:
        return tuple(options)
    return (*_with_address(kind, device, options), *_version(kind, options))


def _version(kind: str, options: Sequence[str]) -> tuple[str, ...]:
    # mount(2), which Docker calls, means these where nothing is said; a mount context means none, and refuses.
    if kind not in _NFS or any(re.match(r"(nfs)?vers=|v[234]", option) for option in options):
        return ()
    return ("vers=4",) if kind == "nfs4" else ("vers=3",)


def _with_address(kind: str, device: str, options: Sequence[str]) -> tuple[str, ...]:
    named = [option.partition("=")[2] for option in options if _is_address(option)]
    host = named[-1] if named else _host(kind, device)
    if not host:
        return tuple(options)
    return (f"addr={address(host)}", *(option for option in options if not _is_address(option)))


def _is_address(option: str) -> bool:
    return option.startswith(("addr=", "ip="))


def _host(kind: str, device: str) -> str:
    """``nas`` of ``nas:/export`` and of ``//nas/share``; empty if there is none."""
    pattern = r"\[?(.*?)\]?:/" if kind in _NFS else r"[/\\]{2}([^/\\]+)"
    found = re.match(pattern, device)
    return found[1] if found else ""


def address(host: str) -> str:
    """The first address of ``host``, in brackets or not; raises `Unavailable` if it has none, or none in time."""
    host = host.strip("[]")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    found: list[str] = []
    failed: list[Exception] = []

    def ask() -> None:
        try:
            found.append(str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]))
        except (OSError, UnicodeError) as error:
            failed.append(error)

    # In a thread that nobody waits for at the end either: nothing else bounds the resolver.
    asking = threading.Thread(target=ask, daemon=True, name="resolver")
    asking.start()
    asking.join(_PATIENCE)
    if found:
        return found[0]
    if failed:
        reason = failed[0].strerror if isinstance(failed[0], OSError) else failed[0]
        raise Unavailable(f"server {host!r} has no address: {reason}") from failed[0]
    raise Unavailable(f"server {host!r} has no address yet: the resolver does not answer")
