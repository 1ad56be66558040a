"""A network between machines, with cables that can be pulled: `Switch`.

    with Switch() as switch:
        with Machine(folder / "n1", "n1", (switch, "10.88.0.1/24")) as one, ...:
            switch.cut("n1")

The switch is a bridge in a network namespace of its own; the host's network is not touched, and not reached.
"""

import subprocess
from types import TracebackType

from orlop.errors import Unavailable

_START = "ip link add br0 type bridge && ip link set br0 up && echo ready && exec cat"


class Switch:
    """Joins machines; it is there while its ``with`` block runs, and ends with the process that made it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._ports: dict[str, str] = {}

    def __enter__(self) -> "Switch":
        argv = ["unshare", "--net", "sh", "-c", _START]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        assert self._process.stdout
        if self._process.stdout.readline() != "ready\n":
            self._process.communicate()
            raise Unavailable("no switch: is iproute2 installed, and are network namespaces allowed?")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process:
            # Its input ends, and so does it.
            self._process.communicate(timeout=30)

    def plug(self, name: str, pid: int, address: str) -> None:
        """Lay a cable to the machine ``name`` whose init is ``pid``: it gets an ``eth0`` with ``address``.

        Again, after it was switched off, is fine.
        """
        if name in self._ports:
            # The kernel takes its time to remove what a machine that was switched off had.
            _ip("link", "delete", self._ports[name], netns=self._pid, check=False)
        port = self._ports.setdefault(name, f"port{len(self._ports) + 1}")
        ours = str(self._pid)
        _ip("link", "add", "eth0", "netns", str(pid), "type", "veth", "peer", "name", port, "netns", ours)
        _ip("link", "set", port, "master", "br0", "up", netns=self._pid)
        # As a real one would, it has the hardware address it had before; the others still remember that.
        _ip("link", "set", "eth0", "address", f"02:00:00:00:00:{int(port[4:]):02x}", netns=pid)
        _ip("address", "add", address, "dev", "eth0", netns=pid)
        _ip("link", "set", "eth0", "up", netns=pid)

    def cut(self, name: str) -> None:
        """Pull the cable of the machine ``name``; pulled already is fine."""
        _ip("link", "set", self._ports[name], "down", netns=self._pid)

    def heal(self, name: str) -> None:
        """Plug the cable of the machine ``name`` in again."""
        _ip("link", "set", self._ports[name], "up", netns=self._pid)

    @property
    def _pid(self) -> int:
        if self._process is None or self._process.poll() is not None:
            raise Unavailable("the switch is off: use it in a with block")
        return self._process.pid


def _ip(*args: str, netns: int | None = None, check: bool = True) -> None:
    enter = ["nsenter", f"--target={netns}", "--net"] if netns else []
    done = subprocess.run([*enter, "ip", *args], check=False, capture_output=True, text=True)
    if check and done.returncode:
        raise Unavailable(f"ip {' '.join(args)}: {done.stderr.strip()}")
