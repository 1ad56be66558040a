"""A real sshd on a machine, with an account to log into."""

from pathlib import Path

from orlop.testing.machine import Machine
from orlop.testing.process import Process

PASSWORD = "testpassword"
_CONFIG = """\
Port 22
ListenAddress {address}
HostKey {folder}/host_key
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication yes
AuthorizedKeysFile /run/sshd/authorized_keys
Subsystem sftp internal-sftp
"""


class Sshd:
    """The server, known to its machine as ``name``; the account ``test`` has the home folder ``/home/test``.

    ``more`` are lines of sshd_config(5).
    """

    def __init__(self, machine: Machine, name: str, address: str = "127.0.0.1", more: str = "") -> None:
        self.machine, self.name = machine, name
        self.folder = machine.folder / "sshd"
        self.folder.mkdir()
        self.log = self.folder / "log"
        for key in ("host_key", "key"):
            machine.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key)])
        (self.folder / "config").write_text(_CONFIG.format(folder=self.folder, address=address) + more)
        # A home of the machine's own: /home is shared with the host.
        setup = f"""mkdir -p /run/sshd {self.home} && mount -t tmpfs none /home && mkdir /home/test
        useradd --no-create-home --home-dir /home/test --shell /bin/sh test && chown test /home/test
        cp {self.folder}/key.pub /run/sshd/authorized_keys
        echo test:{PASSWORD} | chpasswd && echo 127.0.0.1 {name} >>/etc/hosts"""
        machine.run(["sh", "-ec", setup])
        self._daemon: Process | None = None

    @property
    def home(self) -> Path:
        return Path("/home/test")

    @property
    def inside(self) -> Path:
        """The account's home folder, as the host reaches it."""
        return self.machine.root / "home/test"

    @property
    def key(self) -> str:
        """Where the account's private key is."""
        return str(self.folder / "key")

    def start(self) -> None:
        """Serve, and wait until somebody listens."""
        self._daemon = self.machine.spawn(
            ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "config")], log=self.log
        )
        probe = "until exec 3<>/dev/tcp/127.0.0.1/22; do sleep 0.05; done 2>/dev/null"
        self.machine.run(["timeout", "20", "bash", "-c", probe])

    def stop(self) -> None:
        """The server is gone, with every connection."""
        self.machine.run(["pkill", "-9", "-x", "sshd"], check=False)
        if self._daemon:
            self._daemon.wait()
