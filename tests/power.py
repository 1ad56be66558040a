"""A power cut: what a program has not synced is gone, and what it has is all there is."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orlop.testing.waiting import eventually

_OPTIONS = {"xfs": ("-o", "nouuid")}
_WRITTEN, _UNDERWAY = 6, 8


class Disk:
    """A filesystem in a file below ``folder``, mounted at ``place``.

    The file has what the kernel has written back until now, as a disk has whose cache is written through; what is
    in the memory of this host only is lost by a `cut`.
    """

    def __init__(self, folder: Path, fs: str, size: str = "512M") -> None:
        self.place, self._image, self._fs = folder / "disk", folder / "disk.img", fs
        self._left = folder / "disk.left"
        self.place.mkdir()
        subprocess.run(["truncate", "-s", size, self._image], check=True)
        subprocess.run([f"mkfs.{fs}", "-q", self._image], check=True)
        self._device = self._mount()

    def cut(self) -> None:
        """Let the power fail now: what happens from here on is not so."""
        while True:
            before = self._transfers()
            subprocess.run(["cp", "--sparse=always", self._image, self._left], check=True)
            if before[1] == 0 and self._transfers() == before:
                return

    def come_back(self) -> None:
        """``place`` is as a host finds it that starts anew after the cut; nothing may be open or mounted there."""
        # What a killed program had started may take a moment to end.
        eventually(lambda: subprocess.run(["umount", self.place], capture_output=True).returncode == 0)
        self._left.replace(self._image)
        self._device = self._mount()

    def close(self) -> None:
        """Take it away, whoever has something open there."""
        subprocess.run(["umount", "-l", self.place], check=True)

    def _mount(self) -> str:
        argv = ["mount", "-o", "loop", *_OPTIONS.get(self._fs, ()), self._image, self.place]
        subprocess.run(argv, check=True)
        found = subprocess.run(["findmnt", "-no", "SOURCE", self.place], check=True, capture_output=True, text=True)
        return Path(found.stdout.strip()).name

    def _transfers(self) -> tuple[int, int]:
        """Sectors written, and transfers under way (Documentation/block/stat.rst)."""
        words = Path(f"/sys/block/{self._device}/stat").read_text().split()
        return int(words[_WRITTEN]), int(words[_UNDERWAY])


class Process:
    """A program of a test, which talks by lines."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def hear(self) -> str:
        """The next line that it prints; fails if it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "it has ended"
        return line.strip()

    def say(self, line: str) -> None:
        """Let it read a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


@contextmanager
def doing(program: str, *arguments: str) -> Iterator[Process]:
    """Let ``program`` run; it is killed at the end, whatever it does."""
    argv: Sequence[str] = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Process(process)
        finally:
            process.kill()
