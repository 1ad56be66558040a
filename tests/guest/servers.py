"""Servers of network filesystems on a machine: the kernel's nfsd and Samba, both on 127.0.0.1."""

import time
from pathlib import Path

from orlop.testing.machine import Machine

USER, PASSWORD = "orlop", "correct horse"
_SAMBA = """\
[global]
  server role = standalone server
  interfaces = 127.0.0.1
  bind interfaces only = yes
  disable netbios = yes
  smb ports = 445
  server min protocol = SMB2_10
  map to guest = bad user
  passdb backend = tdbsam:{folder}/passdb.tdb
  log file = {folder}/log
  lock directory = {folder}
  state directory = {folder}
  cache directory = {folder}
  private dir = {folder}
  pid directory = {folder}
  ncalrpc dir = {folder}/ncalrpc
  load printers = no
[share]
  path = {share}
  read only = no
  force user = root
[small]
  path = {small}
  read only = no
  force user = root
[public]
  path = {share}/public
  read only = no
  guest ok = yes
  force user = root
"""


class Servers:
    """``/export`` over NFS 3 and 4 and ``//127.0.0.1/share`` over SMB 2.1 and 3: the folders ``export`` and ``share``.

    ``//127.0.0.1/public`` is the folder ``public`` in that share, for guests too. ``/small`` and ``//127.0.0.1/small``
    are a filesystem of 16 MB each: the folders ``small_export`` and ``small_share``.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.export, self.share = machine.folder / "export", machine.folder / "share"
        self.password = machine.folder / "password"
        self._samba = machine.folder / "samba"
        self._config = self._samba / "smb.conf"
        self._running = False
        self._small_export, self._small_share = machine.folder / "small_export", machine.folder / "small_share"
        for folder in (self.export, self.share, self._samba, self._small_export, self._small_share):
            folder.mkdir()
        self.password.write_text(f"{PASSWORD}\n")
        self.password.chmod(0o600)
        self._config.write_text(_SAMBA.format(folder=self._samba, share=self.share, small=self._small_share))
        self._sh(f"useradd --no-create-home {USER}")
        self._sh(f"smbpasswd -c {self._config} -s -a {USER}", f"{PASSWORD}\n{PASSWORD}\n")
        self._sh(f"mkdir -p /export /var/lib/nfs/v4recovery && mount --bind {self.export} /export")
        image = machine.folder / "small.image"
        self._sh(f"truncate -s 16M {image}; mkfs.ext4 -q -m 0 {image}; mount -o loop {image} {self._small_export}")
        self._sh(f"mkdir /small && mount --bind {self._small_export} /small; rmdir /small/lost+found")
        self._sh(f"mount -t tmpfs -o size=16m none {self._small_share}")
        for number, export in enumerate(("/export", "/small"), 1):
            options = f"rw,no_root_squash,insecure,no_subtree_check,fsid={number}"
            self._sh(f"echo '{export} *({options})' >>/etc/exports")
        self._sh("mount -t nfsd nfsd /proc/fs/nfsd && touch /var/lib/nfs/etab /var/lib/nfs/rmtab")
        # Version 3 is a mount protocol and a port mapper besides.
        self._sh("useradd --system --no-create-home _rpc; mkdir -p /run/rpcbind; chown _rpc /run/rpcbind")
        machine.spawn(["rpcbind", "-f", "-w"], log=machine.folder / "rpcbind.log")
        self._wait_for(111)
        machine.spawn(["rpc.mountd", "--foreground"], log=machine.folder / "mountd.log")

    @property
    def small_export(self) -> Path:
        """The small export, as this process reaches it."""
        return self.machine.root / str(self._small_export).lstrip("/")

    @property
    def small_share(self) -> Path:
        """The small share, as this process reaches it."""
        return self.machine.root / str(self._small_share).lstrip("/")

    def start(self) -> None:
        """Start both; again is fine."""
        if self._running:
            return
        self._sh("exportfs -ra; rpc.nfsd --grace-time 10 --lease-time 10 4")
        # Not as a child of ours, which would stop with it.
        self._sh(f"smbd --daemon --configfile={self._config}")
        self._wait_for(2049, 445)
        self._running = True

    def stop(self) -> None:
        """Stop both, as for maintenance; again is fine."""
        if self._running:
            self._end("TERM")

    def kill(self) -> None:
        """Both end in the middle of whatever they do."""
        self._end("KILL")

    def silence(self) -> None:
        """From now on both are there and say nothing: NFS behind a firewall, Samba stopped."""
        self._sh("iptables -A INPUT -p tcp -m multiport --ports 2049,111 -j DROP; pkill -STOP smbd")

    def speak(self) -> None:
        """No longer silent; never silent is fine."""
        self._sh("iptables -F INPUT; pkill -CONT smbd || true")

    def empty(self) -> None:
        """Nothing in the folders."""
        self._sh(f"rm -rf {self.export}/* {self.share}/* {self._small_export}/* {self._small_share}/*")

    def remove(self, name: str) -> None:
        """A folder of the export goes, with all that the server knows of it."""
        self._sh(f"rm -rf {self.export}/{name}; exportfs -f")

    def withdraw(self) -> None:
        """The export is there no more."""
        self._sh("exportfs -ua; exportfs -f")

    def offer(self) -> None:
        """The exports are there again; again is fine."""
        self._sh("exportfs -ra")

    def _end(self, signal: str) -> None:
        self._sh(f"rpc.nfsd 0; pkill -{signal} smbd; while pgrep smbd >/dev/null; do sleep 0.2; done")
        self._running = False

    def _sh(self, command: str, typed: str = "") -> None:
        self.machine.run(["bash", "-ec", command], input=typed)

    def _wait_for(self, *ports: int) -> None:
        until = time.monotonic() + 60
        for port in ports:
            while f":{port:04X} 00000000:0000 0A" not in (self.machine.root / "proc/1/net/tcp").read_text():
                assert time.monotonic() < until, f"nothing listens on port {port}"
                time.sleep(0.2)
