"""What several mounts do in turn, a fraction of a second each: ``turns.py FOLDERS UNIT ROUNDS``, all in JSON.

Prints, for each of the folders, a rate (operations a second) of every kind and turn. Turns come in all orders alike,
and the next mount's follows at once, so that whatever slows down the machine does so for all of them.
"""

import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

Rates = dict[str, list[float]]

_READS, _RANDOM = 16, 512
"""How many operations of fio are a turn: of 1 MiB, of 4 KiB."""


@dataclass(frozen=True)
class Unit:
    """How much is done in a turn: files of 2 KiB, ``unpacked`` or ``small``, and mebibytes ``written``; or none.

    Reads are in a file of ``file`` mebibytes: the larger, the more turns.
    """

    unpacked: int = 280
    small: int = 0
    written: int = 16
    file: int = 64

    @property
    def archive(self) -> bytes:
        """What is unpacked."""
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as packed:
            for number in range(self.unpacked):
                # Where s3fs has a cache, no file may be called what a folder was called.
                entry = tarfile.TarInfo(f"folder{number % 5}/{number}")
                entry.size = 2048
                packed.addfile(entry, io.BytesIO(bytes(2048)))
        return content.getvalue()


class Turns:
    """``folders`` are made, one in each mount, and removed afterwards."""

    def __init__(self, folders: Sequence[Path], unit: Unit, rounds: int) -> None:
        self.folders, self.unit, self.rounds = folders, unit, rounds
        self.orders = list(itertools.permutations(folders))
        self.found: dict[Path, Rates] = {folder: {} for folder in folders}

    def play(self) -> list[Rates]:
        """Every kind of work, one after the other."""
        for folder in self.folders:
            folder.mkdir()
        if self.unit.small:
            self._small()
        if self.unit.unpacked:
            self._unpack()
        if self.unit.written:
            self._write()
            self._read()
        for folder in self.folders:
            shutil.rmtree(folder)
        return list(self.found.values())

    def _small(self) -> None:
        for folder in self.folders:
            (folder / "small").mkdir()
            _write_small(folder / "small", self.unit.small)
        number = self.unit.small
        self._rounds("small files written", number, lambda folder: _write_small(folder / "new", number))
        self._rounds("small files read", number, lambda folder: _read_small(folder / "small", number))

    def _unpack(self) -> None:
        packed, tar = self.unit.archive, ["tar", "-x", "--no-same-owner", "-C"]
        self._rounds("unpacking", self.unit.unpacked, lambda folder: _run([*tar, str(folder / "new")], packed))

    def _write(self) -> None:
        # With a sync of each file: it must have reached the server, and that is an operation of its own.
        amount = self.unit.written
        words = ["--rw=write", "--bs=1M", f"--filesize={amount}M", f"--fsync={amount}"]
        for order in self.orders:
            names = [
                folder / "new" / str(number)
                for number in range(2 * self.rounds // len(self.orders))
                for folder in order
            ]
            # One more, for the next turn tells when one ended.
            names.append(order[0] / "new" / "last")
            for folder in order:
                (folder / "new").mkdir()
            log = _fio(names, amount + 1, *words, f"--size={len(names) * amount}M")
            for folder in order:
                shutil.rmtree(folder / "new")
            self._note("sequential write", order, _by_the_clock(log, amount))

    def _read(self) -> None:
        for folder in self.folders:
            _write_big(folder / "big", self.unit.file)
        words = [f"--filesize={self.unit.file}M", f"--size={self.unit.file * len(self.folders)}M"]
        part = f"--io_size={self.unit.file * len(self.folders) * _RANDOM * 4 // _READS}k"
        for order in self.orders:
            names = [folder / "big" for folder in order]
            log = _fio(names, _READS, "--rw=read", "--bs=1M", *words)
            self._note("sequential read", order, _by_latency(log, _READS))
            log = _fio(names, _RANDOM, "--rw=randread", "--bs=4k", *words, part)
            self._note("random read 4k", order, _by_latency(log, _RANDOM))

    def _rounds(self, kind: str, amount: int, work: Callable[[Path], None]) -> None:
        # The first is to get warm.
        for number in range(-1, self.rounds):
            for folder in self.orders[number % len(self.orders)]:
                (folder / "new").mkdir()
                began = time.perf_counter()
                work(folder)
                took = time.perf_counter() - began
                shutil.rmtree(folder / "new")
                if number >= 0:
                    self.found[folder].setdefault(kind, []).append(amount / took)

    def _note(self, kind: str, order: Sequence[Path], rates: Sequence[float]) -> None:
        for folder, rate in zip(itertools.cycle(order), rates, strict=False):
            self.found[folder].setdefault(kind, []).append(rate)


def _write_small(folder: Path, files: int) -> None:
    for number in range(files):
        (folder / str(number)).write_bytes(b"x" * 2048)


def _read_small(folder: Path, files: int) -> None:
    for number in range(files):
        (folder / str(number)).read_bytes()


def _write_big(path: Path, mebibytes: int) -> None:
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(1 << 20))
        os.fsync(file.fileno())


def _run(argv: Sequence[str], given: bytes | None = None) -> None:
    subprocess.run(argv, input=given, stdout=subprocess.DEVNULL, check=True)


def _fio(names: Sequence[Path], turn: int, *words: str) -> list[tuple[float, float]]:
    """When each operation began, and how long it took, in seconds; fio goes on to the next file after ``turn``."""
    with tempfile.TemporaryDirectory() as place:
        argv = ["fio", "--name=fio", "--thread", "--fallocate=none", "--filename=" + ":".join(map(str, names))]
        argv += [f"--file_service_type=roundrobin:{turn}", f"--write_lat_log={place}/log", *words]
        _run(argv)
        log = [line.split(",") for line in Path(place, "log_lat.1.log").read_text().splitlines()]
    return [(int(done) / 1e3 - int(took) / 1e9, int(took) / 1e9) for done, took, *_ in log]


def _by_latency(log: Sequence[tuple[float, float]], turn: int) -> list[float]:
    return [turn / sum(took for _, took in log[start : start + turn]) for start in range(0, len(log), turn)]


def _by_the_clock(log: Sequence[tuple[float, float]], turn: int) -> list[float]:
    """With what fio does between two turns."""
    return [turn / (end - begin) for begin, end in pairwise(began for began, _ in log[::turn])]


if __name__ == "__main__":
    folders, unit, rounds = (json.loads(word) for word in sys.argv[1:])
    print(json.dumps(Turns([Path(folder) for folder in folders], Unit(**unit), rounds).play()))
