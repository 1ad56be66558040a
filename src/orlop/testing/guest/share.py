"""The host's folders as the guest reaches them: a file server, in a mount namespace of its own."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orlop.errors import Unavailable

_SERVER = Path("/usr/lib/qemu/virtiofsd")
# The layer has a mount of its own: overlayfs refuses one that is a folder of another.
_MOUNTS = """
mkdir -p "$1/root" "$1/layer"
mount --bind "$2" "$1/layer"
mount --rbind / "$1/root"
cd "$1/root"
umount -l proc sys dev
cd /
exec "$0" --socket-path="$3" -o source="$1" -o sandbox=namespace -o cache=always
"""


@contextmanager
def shared(layer: Path, run: Path) -> Iterator[Path]:
    """Serve ``layer`` and the host's ``/`` side by side, and give the socket where; ``run`` is for what it needs.

    Raises `Unavailable` with the server's words if it does not start.
    """
    socket, log = run / "host.sock", run / "host.log"
    argv = ["unshare", "--mount", "sh", "-ec", _MOUNTS, str(_SERVER), str(run / "host"), str(layer), str(socket)]
    with log.open("w") as output:
        server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
        _wait_for(socket, server, log)
        yield socket
    finally:
        # It has helpers, and they hold the mounts.
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        socket.unlink(missing_ok=True)


def _wait_for(socket: Path, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 15
    while not socket.exists():
        if server.poll() is not None or time.monotonic() > until:
            raise Unavailable(f"no folders can be shared with a guest: {log.read_text().strip()}")
        time.sleep(0.02)
