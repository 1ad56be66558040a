"""One run of a guest: boot it, run one program in it, bring home what it wrote, switch it off.

Three serial ports carry what the program writes and how it ended, byte for byte; a fourth one brings back a file.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from orlop.errors import Unavailable
from orlop.testing.guest.layer import Layer
from orlop.testing.guest.share import shared

TIMED_OUT = 124
"""The status of a program that was stopped because it took too long."""
LOST = 125
"""The status if the guest died under the program; the end of its console is on stderr."""

_BOOT = 90
_TRIES = 3
_MEMORY = "2500M"
_PORTS = ("stdout", "stderr", "status", "result")
# The clock: with the usual one the guest's time ran up to twelve times too fast on a busy host.
_KERNEL = "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr audit=0 apparmor=0"
_CLOCK = "tsc=unstable clocksource=hpet no_timer_check"
# One processor: with two, on a host of two, everything took twice as long.
_QEMU = (
    # It must not outlive us, however we end; the server of folders ends with it.
    *("setpriv", "--pdeathsig", "KILL"),
    *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
    *("-M", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off", "-smp", "1", "-m", _MEMORY),
    *("-object", f"memory-backend-memfd,id=memory,size={_MEMORY},share=on", "-numa", "node,memdev=memory"),
    *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
)


@dataclass(frozen=True, slots=True)
class Job:
    """A program to run in a guest.

    It sees ``PATH``, ``HOME``, ``LANG``, ``TMPDIR`` (on ``/scratch``, a disk of 8 GB) and what ``env`` adds. ``disks``
    are the sizes of empty disks: ``/dev/vdb``, ``/dev/vdc``, ... ``result`` is a file that it writes, brought back to
    the same path on the host. ``timeout`` is in seconds of the host.
    """

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    disks: Sequence[str] = ()
    result: Path | None = None
    timeout: float = 900


def run(job: Job, layer: Layer, cache: Path, out: BinaryIO | None = None, err: BinaryIO | None = None) -> int:
    """Run ``job`` in a new guest and return its status, or `TIMED_OUT` or `LOST`.

    What it writes goes to ``out`` and ``err`` (else to ours) as it comes. Raises `Unavailable` if no guest boots.
    """
    streams = (out or sys.stdout.buffer, err or sys.stderr.buffer)
    with _run_folder(cache) as folder:
        _write(job, folder)
        for _ in range(_TRIES):
            with _booted(job, layer, folder) as guest:
                # On a very busy host one in many boots hangs; the job has not begun then.
                if guest.comes_up():
                    return guest.follow(job, streams)
        raise Unavailable(f"the guest does not boot: {_end(folder)}")


class _Guest:
    """A guest that was switched on."""

    def __init__(self, folder: Path, qemu: "subprocess.Popen[bytes]") -> None:
        self._folder = folder
        self._qemu = qemu

    def comes_up(self) -> bool:
        until = time.monotonic() + _BOOT
        while "up" not in self._said():
            if self._qemu.poll() is not None or time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def follow(self, job: Job, streams: Sequence[BinaryIO]) -> int:
        """Hand on what it writes until it has ended."""
        until = time.monotonic() + job.timeout
        with (self._folder / "stdout").open("rb") as out, (self._folder / "stderr").open("rb") as err:
            running = True
            while running:
                running = self._qemu.poll() is None
                for source, sink in zip((out, err), streams, strict=True):
                    sink.write(source.read())
                    sink.flush()
                if running and time.monotonic() > until:
                    return TIMED_OUT
                time.sleep(0.1)
        return self._outcome(job, streams[1])

    def _outcome(self, job: Job, err: BinaryIO) -> int:
        _, found, status = self._said().partition("status ")
        if not found:
            err.write(f"the guest died: {_end(self._folder)}\n".encode())
            return LOST
        result = self._folder / "result.port"
        if job.result and result.stat().st_size:
            shutil.move(result, job.result)
        return int(status)

    def _said(self) -> str:
        return (self._folder / "status").read_text()


@contextmanager
def _run_folder(cache: Path) -> Iterator[Path]:
    """Below the cache: the guest sees it at the same path, and its disks are no small matter."""
    folder = Path(tempfile.mkdtemp(prefix="run.", dir=cache))
    try:
        yield folder
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", "--", folder], check=True)


def _write(job: Job, folder: Path) -> None:
    """What the guest's init reads, and its disks."""
    plain = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    env = {**plain, "LANG": "C.UTF-8", "TMPDIR": "/scratch", **job.env}
    words = [f"{name}={value}" for name, value in env.items()]
    (folder / "job.sh").write_text(f"cd {shlex.quote(str(job.cwd))}\nexec env -i {shlex.join([*words, *job.argv])}\n")
    (folder / "result").write_text(str(job.result or ""))
    shutil.copy(Path(__file__).with_name("init.sh"), folder)
    for number, size in enumerate(("8G", *job.disks)):
        subprocess.run(["truncate", "-s", size, folder / f"disk{number}"], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", folder / "disk0"], check=True)


@contextmanager
def _booted(job: Job, layer: Layer, folder: Path) -> Iterator[_Guest]:
    for port in _PORTS:
        _port(folder, port).write_bytes(b"")
    with shared(layer.root, folder) as socket, (folder / "qemu.log").open("wb") as log:
        argv = [*_QEMU, *_firmware(layer, folder), *_channels(folder, socket), *_disks(folder, 1 + len(job.disks))]
        qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            yield _Guest(folder, qemu)
        finally:
            qemu.kill()
            qemu.wait()


def _firmware(layer: Layer, folder: Path) -> list[str]:
    line = f"{_KERNEL} {_CLOCK} orlop.run={folder}"
    boot = ["-kernel", str(layer.kernel), "-initrd", str(layer.initramfs), "-append", line]
    return [*boot, "-serial", f"file:{folder}/console"]


def _channels(folder: Path, socket: Path) -> Iterator[str]:
    for port in _PORTS:
        yield from ("-chardev", f"file,id={port},path={_port(folder, port)}")
        yield from ("-device", f"virtserialport,chardev={port},name={port}")
    yield from ("-chardev", f"socket,id=host,path={socket}")
    yield from ("-device", "vhost-user-fs-pci,chardev=host,tag=host,queue-size=1024")


def _disks(folder: Path, count: int) -> Iterator[str]:
    for number in range(count):
        # Nobody reads them after the guest has ended, so nothing has to be safe.
        how = "if=none,format=raw,cache=unsafe,discard=unmap"
        yield from ("-drive", f"file={folder}/disk{number},id=disk{number},{how}")
        yield from ("-device", f"virtio-blk-pci,drive=disk{number}")


def _port(folder: Path, name: str) -> Path:
    return folder / ("result.port" if name == "result" else name)


def _end(folder: Path) -> str:
    """The last words of the machine and of its emulator."""
    logs = [folder / name for name in ("console", "qemu.log", "host.log")]
    lines = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()[-20:]]
    return os.linesep.join(lines) or "it said nothing"
