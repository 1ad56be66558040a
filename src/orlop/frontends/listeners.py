"""Where the daemon listens: unix sockets, TCP with TLS, and sockets that systemd opened before it started us."""

import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from orlop.errors import Conflict, Invalid, Unavailable

_FIRST_INHERITED = 3
_BACKLOG = 512


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket; ``tls`` where its connections are encrypted, ``path`` if we made one for it."""

    socket: socket.socket
    tls: ssl.SSLContext | None = None
    path: Path | None = None
    inode: int = 0

    def forget(self) -> None:
        """Take the path away: Docker waits half a minute for a plugin whose socket is there and dead."""
        # A successor may have put its own there already.
        if self.path and self.path.exists() and self.path.stat().st_ino == self.inode:
            self.path.unlink(missing_ok=True)


def inherited() -> list[Listener]:
    """The sockets that systemd passes on (sd_listen_fds(3)); none where it did not start us."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    found = [socket.socket(fileno=fd) for fd in range(_FIRST_INHERITED, _FIRST_INHERITED + count)]
    for connection in found:
        connection.set_inheritable(False)
    return [Listener(connection) for connection in found]


def unix(path: Path) -> Listener:
    """A unix socket at ``path`` that only root can reach; a dead one there is replaced.

    Raises `Conflict` if somebody answers there already.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if _answers(path):
        raise Conflict(f"another process listens at '{path}'; stop it first")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    # Closed to others from its first moment on: whoever reaches it can mount.
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise Unavailable(f"socket '{path}': {error.strerror or error}") from error
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    return Listener(listener, path=path, inode=path.stat().st_ino)


def tcp(address: str, certificate: Path, key: Path, clients: Path) -> Listener:
    """TLS on ``HOST:PORT``; only clients with a certificate that ``clients`` (a CA) signed are heard."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise Invalid(f"{address!r} is not HOST:PORT")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    # Since Python 3.13 certificates without what no program looks for (an authority's key usage, say) are refused.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(clients)
        listener = socket.create_server((host.strip("[]"), int(port)), backlog=_BACKLOG, reuse_port=False)
    except (OSError, ssl.SSLError) as error:
        raise Unavailable(f"{address}: {error}") from error
    return Listener(listener, context)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
