"""Machines on one host: how a test kills an engine, or a whole computer, without hurting the one it runs on.

A `Machine` is an init process in mount, network, pid, uts, ipc and cgroup namespaces of its own. It sees
the host's programs and ``/tmp``, ``/home`` and the like. ``/run`` and every unusual folder of ``/``
(``/data``, say) are its own; so is what it changes in ``/etc`` and ``/var/lib``; so are its mounts (``/`` is
rshared inside), its processes and its network: a loopback, and a `Switch` if it is given one. Its *disk* is a
folder of the host, where all this is kept over `Machine.power_off` and `Machine.boot`, but for ``/run``.

    with Machine(tmp_path / "n1", "n1") as machine:
        machine.run(["mount", "-t", "tmpfs", "none", "/mnt"])
        server = machine.spawn(["orlop", "serve"], log=tmp_path / "serve.log")
        server.kill9()

Needs root. The kernel is shared: its log, its clock, its loop devices and its limits are the host's.
Containers run in a cgroup of the machine, its other processes stay in the cgroup of whoever started them.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from orlop.errors import Conflict, Unavailable
from orlop.testing import _cgroups, _loops
from orlop.testing.network import Switch
from orlop.testing.process import Process, child_of, run

# Arguments: name, folder, three lists: mounts to forget, folders to share, pairs of a cgroup and its place.
_BOOT = """
set -e
name=$1 folder=$2
for mount in $3; do umount -l "$mount" || :; done
root=$folder/root
mkdir -p "$root"
mount --bind "$root" "$root"
for shared in $4; do
  mkdir -p "$root$(dirname "$shared")"
  # /bin and its like are links into /usr today.
  if [ -L "$shared" ]; then [ -L "$root$shared" ] || cp -P "$shared" "$root$shared"
  else mkdir -p "$root$shared"; mount --rbind "$shared" "$root$shared"; fi
done
cd "$root"
mkdir -p proc run mnt .host
pivot_root . .host
mount -t proc proc /proc
umount -l /.host
rmdir /.host
own() { # a folder of the host that the machine sees, and changes only for itself
  mkdir -p "$folder/disk$1/upper" "$folder/disk$1/work"
  mount -t overlay overlay -o "lowerdir=$1,upperdir=$folder/disk$1/upper,workdir=$folder/disk$1/work" "$1"; }
own /etc
own /var/lib
# The engine's layers need the filesystem itself: there is no overlay on an overlay.
mkdir -p "$folder/docker" /var/lib/docker
mount --bind "$folder/docker" /var/lib/docker
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/docker/plugins /run/lock
set -- $5
while [ $# -gt 1 ]; do mount --bind "$1" "$2"; shift 2; done
ip link set lo up
hostname "$name"
rm -f /etc/resolv.conf
# Nobody listens there, so looking up a registry is refused at once instead of timing out.
echo nameserver 127.0.0.1 >/etc/resolv.conf
mount --make-rshared /
echo ready
# Init: the kernel reaps what nobody waits for, and all ends when the process that made the machine does.
exec env --ignore-signal=CHLD cat
"""
# The host's programs and devices, and where people keep their work; the rest of / is the machine's own.
_SHARED = ("bin", "dev", "etc", "home", "lib", "lib64", "opt", "root", "sbin", "sys", "tmp", "usr", "var")
# What a process's cgroup is when it makes a cgroup namespace, is "/" in there.
_JOIN = """
joined=$1; shift
for cgroup in $joined; do echo $$ >"$cgroup/cgroup.procs"; done
exec "$@"
"""
_NAMESPACES = ("--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs inside are found."""
_ENVIRONMENT = {
    "PATH": PATH,
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


class Machine:
    """A computer of its own, for tests: booted on entering, gone without a trace on leaving (its disk stays).

    ``folder`` is made if it is missing, and is seen inside at the same path. ``name`` is its host name.
    ``network`` is the switch that it is plugged into at every boot, and its address there: ``10.88.0.1/24``.
    """

    def __init__(self, folder: Path, name: str, network: tuple[Switch, str] | None = None) -> None:
        self.folder = folder.absolute()
        self.name = name
        self.network = network
        self._outer: subprocess.Popen[str] | None = None
        self._init = 0
        self._spawned: list[Process] = []

    def __enter__(self) -> "Machine":
        self.boot()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.power_off()

    @property
    def running(self) -> bool:
        """Whether it is switched on."""
        return self._outer is not None and self._outer.poll() is None

    @property
    def pid(self) -> int:
        """The host's number of its init process. Raises `Unavailable` while it is switched off."""
        if not self.running:
            raise Unavailable(f"machine {self.name!r} is switched off: boot it first")
        return self._init

    @property
    def root(self) -> Path:
        """Its ``/`` as the host reaches it: for what only the machine sees, such as sockets in ``/run``."""
        return Path(f"/proc/{self.pid}/root")

    def boot(self) -> None:
        """Switch on, with the disk it had.

        Raises `Conflict` if it is on, `Unavailable` with the reason if it does not boot.
        """
        if self.running:
            raise Conflict(f"machine {self.name!r} is switched on already")
        # What is left of one that ended by itself.
        self.power_off()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._outer = self._start_init()
        assert self._outer.stdout
        if self._outer.stdout.readline() != "ready\n":
            self.power_off()
            reason = (self.folder / "boot.log").read_text().strip()
            raise Unavailable(f"machine {self.name!r} does not boot: {reason}")
        self._init = child_of(self._outer.pid)
        _cgroups.move(self._cgroup, (self._outer.pid, self._init))
        try:
            self._plug_in()
        except BaseException:
            self.power_off()
            raise

    def power_off(self) -> None:
        """Pull the plug: every process in it is killed, its mounts go with them. Again is fine."""
        if self._outer is None:
            return
        loops: list[_loops.Loop] = []
        if self.running and self._init:
            loops = _loops.of(self.root, self.folder)
            os.kill(self._init, signal.SIGKILL)
        _cgroups.thaw(self._cgroup)
        self._wait_until_off()
        # The kernel outlives the machine, and a loop device would outlive it too.
        _loops.detach(loops)
        _cgroups.remove(self._cgroup)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Every process in it stands still meanwhile, as when a hypervisor pauses it."""
        pids = [pid for pid in _inhabitants(self.pid) if pid != self._init]
        _cgroups.freeze(self._cgroup)
        _send(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            _cgroups.thaw(self._cgroup)
            _send(pids, signal.SIGCONT)
            for process in self._spawned:
                process.go_on()

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - subprocess's word for it
        env: Mapping[str, str] | None = None,
        cwd: str | Path = "/",
        timeout: float = 120,
        tty: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside until it ends.

        It sees a plain environment (``PATH``, ``HOME``, ``LANG``) and what ``env`` adds. With ``tty`` it has
        a terminal: ``input`` is typed into it, ``stdout`` is the screen. Raises `CalledProcessError`, with
        what it wrote as a note, and `TimeoutExpired`, after killing it.
        """
        argv = [*self._enter(cwd), *argv]
        return run(argv, check=check, input=input, env=_environment(env), timeout=timeout, tty=tty)

    def spawn(
        self,
        argv: Sequence[str],
        *,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path = "/",
    ) -> Process:
        """Start a program inside and leave it running; what it writes is added to ``log``, if given."""
        with (log or Path("/dev/null")).open("a") as output:
            outer = subprocess.Popen(
                [*self._enter(cwd), *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_environment(env),
                text=True,
                start_new_session=True,
            )
        process = Process(child_of(outer.pid), outer)
        self._spawned.append(process)
        return process

    @property
    def _cgroup(self) -> str:
        return f"orlop-{self.name}-{self.folder.stat().st_ino}"

    def _enter(self, cwd: str | Path) -> list[str]:
        return ["nsenter", f"--target={self.pid}", *_NAMESPACES, f"--wdns={cwd}", "--"]

    def _start_init(self) -> "subprocess.Popen[str]":
        cgroups = _cgroups.make(self._cgroup)
        lists = (_mounts_of_others(self.folder), _shared(self.folder), cgroups)
        argv = [
            *("sh", "-c", _JOIN, "sh", " ".join(cgroups[::2])),
            *("unshare", *_NAMESPACES, "--fork", "--propagation", "private", "sh", "-c", _BOOT, "sh"),
            *(self.name, str(self.folder), *(" ".join(words) for words in lists)),
        ]
        pipe = subprocess.PIPE
        with (self.folder / "boot.log").open("w") as log:
            return subprocess.Popen(
                argv, stdin=pipe, stdout=pipe, stderr=log, env=_ENVIRONMENT, text=True, start_new_session=True
            )

    def _plug_in(self) -> None:
        if self.network:
            switch, address = self.network
            switch.plug(self.name, self._init, address)

    def _wait_until_off(self) -> None:
        assert self._outer
        # The outer process ends when the last one inside has: then nothing can hold a mount any more.
        self._outer.communicate(timeout=30)
        for process in self._spawned:
            process.wait()
        self._spawned.clear()
        self._outer, self._init = None, 0


def _inhabitants(init: int) -> list[int]:
    """The processes of the machine itself; those of its containers are in namespaces of their own."""
    inside, found = Path(f"/proc/{init}/ns/pid").readlink(), []
    for link in Path("/proc").glob("[0-9]*/ns/pid"):
        with suppress(OSError):
            if link.readlink() == inside:
                found.append(int(link.parts[2]))
    return found


def _send(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    return {**_ENVIRONMENT, **(more or {})}


def _shared(folder: Path) -> list[str]:
    """The folders of ``/`` that the machine shares with the host; ``folder`` and this program are in one."""
    needed = (folder, Path(sys.prefix), Path(sys.base_prefix), Path(__file__), Path.cwd())
    tops = {path.parts[1] for path in needed if len(path.parts) > 1}
    return [f"/{path}" for path in sorted({*_SHARED, *tops}) if Path("/", path).exists()]


def _mounts_of_others(folder: Path) -> list[str]:
    """Mounts of the host that our copy would keep alive when their owner unmounts them; innermost first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ", 1)
        target = left.split()[4].encode().decode("unicode_escape")
        kind, source = right.split()[:2]
        private = kind.startswith(("fuse", "overlay", "nsfs")) or source.startswith(("/dev/loop", "/dev/dm-"))
        if private and not folder.is_relative_to(target) and not sys.prefix.startswith(target):
            found.append(target)
    return found[::-1]
