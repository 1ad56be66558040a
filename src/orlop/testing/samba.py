"""A real Samba with folders that come and go as shares: the SMB side of `orlop.testing.azure`, for one account.

It needs root and Debian's samba; everything it writes is in its folder. The account is a user of SMB only, who works
as root, as Azure's account is the owner of everything in its shares.
"""

import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from orlop.errors import Unavailable
from orlop.testing.azure.sharedkey import Credentials

# Azure speaks SMB 3 only, and tells its clients to encrypt where "secure transfer required" is on, as it is at first.
_CONFIG = """\
[global]
    server role = standalone server
    workgroup = WORKGROUP
    netbios name = standin
    disable netbios = yes
    interfaces = {host}
    bind interfaces only = yes
    smb ports = {port}
    server min protocol = SMB3_00
    server smb encrypt = {encrypt}
    server signing = mandatory
    map to guest = never
    username map = {folder}/users
    passdb backend = tdbsam:{folder}/private/passdb.tdb
    private dir = {folder}/private
    lock directory = {folder}/lock
    state directory = {folder}/state
    cache directory = {folder}/cache
    pid directory = {folder}
    ncalrpc dir = {folder}/ncalrpc
    log file = {folder}/smbd.log
    max log size = 0
    load printers = no
    printing = bsd
    printcap name = /dev/null
    disable spoolss = yes
    usershare path = {folder}/exports
    usershare max shares = 10000
    usershare owner only = no
    unix extensions = no
"""
# smb.conf(5), "usershare path": a share for each such file, found when somebody connects to it.
_EXPORT = """\
#VERSION 2
path={path}
comment=
usershare_acl=S-1-1-0:F
guest_ok=n
sharename={name}
"""
_PATIENCE = 20


class Samba:
    """A smbd at ``address``, from entering to leaving; ``encrypt`` has it refuse clients that do not."""

    def __init__(
        self,
        folder: Path,
        credentials: Credentials,
        address: tuple[str, int] = ("127.0.0.1", 445),
        *,
        encrypt: bool = True,
    ) -> None:
        self.folder, self.credentials, self.address = folder, credentials, address
        self.config = folder / "smb.conf"
        self._smbd: subprocess.Popen[bytes] | None = None
        for name in ("private", "lock", "state", "cache", "ncalrpc", "exports"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        # Samba trusts definitions only in a folder of root's where nobody replaces those of others.
        (folder / "exports").chmod(0o1770)
        (folder / "users").write_text(f"!root = {credentials.account}\n")
        host, port = address
        required = "required" if encrypt else "desired"
        self.config.write_text(_CONFIG.format(folder=folder, host=host, port=port, encrypt=required))

    def __enter__(self) -> "Samba":
        key = self.credentials.key
        try:
            # For root, whom the account's user is mapped to.
            self._run(["smbpasswd", "-c", str(self.config), "-s", "-a", "root"], f"{key}\n{key}\n")
            self._smbd = self._start()
        except FileNotFoundError as error:
            raise Unavailable("there is no samba here; install Debian's samba and smbclient") from error
        try:
            self._await()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._smbd is not None:
            self._smbd.terminate()
            self._smbd.wait(_PATIENCE)

    def export(self, name: str, path: Path | None) -> None:
        """Export ``path`` as the share ``name``, or no longer if it is None; fits `AzureFiles`'s ``changed``."""
        definition = self.folder / "exports" / name
        if path is None:
            definition.unlink(missing_ok=True)
            return
        definition.write_text(_EXPORT.format(path=path, name=name))

    def client(
        self, share: str, commands: str, key: str | None = None, options: Sequence[str] = ()
    ) -> "subprocess.CompletedProcess[str]":
        """What smbclient(1) says to ``commands`` in ``share``, as the account.

        Another ``key`` is for tests, and so are ``options``, which come last and so override ours: SMB 3, encrypted.
        """
        login = self.folder / "login"
        login.write_text(f"username = {self.credentials.account}\npassword = {key or self.credentials.key}\n")
        login.chmod(0o600)
        host, port = self.address
        argv = ["smbclient", f"//{host}/{share}", f"--port={port}", f"--authentication-file={login}"]
        argv += [f"--configfile={self.config}", "--client-protection=encrypt", "-mSMB3", *options]
        return subprocess.run([*argv, "-c", commands], capture_output=True, text=True, timeout=30, check=False)

    def _start(self) -> "subprocess.Popen[bytes]":
        with (self.folder / "smbd.err").open("ab") as errors:
            return subprocess.Popen(
                ["smbd", "--foreground", "--no-process-group", f"--configfile={self.config}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                # It ends by a signal to its whole process group, which must not be ours.
                start_new_session=True,
            )

    def _await(self) -> None:
        until = time.monotonic() + _PATIENCE
        while not self._answers():
            assert self._smbd is not None
            if self._smbd.poll() is not None or time.monotonic() > until:
                end = (self.folder / "smbd.log").read_text()[-2000:] + (self.folder / "smbd.err").read_text()[-1000:]
                raise Unavailable(f"smbd does not start: {end}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            socket.create_connection(self.address, timeout=5).close()
        except OSError:
            return False
        return True

    @staticmethod
    def _run(argv: list[str], typed: str) -> None:
        done = subprocess.run(argv, input=typed, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"{argv[0]}: {done.stderr.strip()}")
