"""Random deeds on a volume that is still fetched, random kills and power cuts, two hosts in turn; beside a folder."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.volumes.bucket.test_lazy import HYDRATING, KEEPING, SOURCE, Lab, cut_power, lab, pytestmark, state

__all__ = ["lab", "pytestmark"]
# What one user does, the same in every folder for the same seed; it has files of its own, as containers have.
USER = """
import os, random, sys
root, rng = sys.argv[1], random.Random(int(sys.argv[2]))
os.chdir(root)

def append(name):
    with open(name, "ab") as file:
        file.write(b"more" * rng.randrange(1, 2000))

def overwrite(name):
    with open(name, "r+b") as file:
        file.seek(rng.randrange(os.path.getsize(name) + 1))
        file.write(b"over" * 1000)

def cut(name):
    open(name, "wb").write(b"new" * rng.randrange(100))

def truncate(name):
    os.truncate(name, rng.randrange(os.path.getsize(name) + 1000))

def move(name):
    os.rename(name, f"{rng.choice('abc')}/{rng.randrange(40)}")

def remove(name):
    os.unlink(name)

def read(name):
    open(name, "rb").read(rng.randrange(1, 10_000_000))

for folder in "abc":
    os.makedirs(folder, exist_ok=True)
for _ in range(25):
    if rng.randrange(4) == 0:
        cut(f"{rng.choice('abc')}/{rng.randrange(40, 60)}")
    names = sorted(os.path.join(top, name) for top, _, names in os.walk(".") for name in names)
    deed = rng.choice([append, overwrite, cut, truncate, move, remove, read, read])
    deed(rng.choice(names))
os.sync()
"""


def fill(folder: Path) -> None:
    """Small files, and a few that are fetched in parts."""
    rng = random.Random(1)
    for name in "abc":
        (folder / name).mkdir()
        for number in range(40):
            (folder / name / str(number)).write_bytes(rng.randbytes(rng.randrange(20_000)))
    for number in range(4):
        (folder / f"a/large{number}").write_bytes(rng.randbytes(1 << 20) * rng.randrange(18, 30))


def play(lab: Lab, rounds: int, seed: int) -> None:
    rng, plain, names = random.Random(seed), lab.folder / "plain", ["one", "two"]
    plain.mkdir()
    fill(plain)
    lab.made(fill)
    for turn in range(rounds):
        folder = lab.attach(name=names[turn % 2])
        for _ in range(rng.randrange(1, 4)):
            _use(lab, rng, folder, plain)
            if rng.randrange(3) == 0:
                cut_power(lab)
                folder = lab.attach(name=names[turn % 2])
        if rng.randrange(2):
            assert state(folder) == state(plain)
        lab.fetch_all()
        lab.lazy.unmount()
        lab.kill(KEEPING)
        lab.kill(HYDRATING)
        for name in ("go", "all"):
            (lab.folder / name).unlink()
    other = lab.host("other", SOURCE)
    assert state(other.mount()) == state(plain)
    other.unmount()


def _use(lab: Lab, rng: random.Random, folder: Path, plain: Path) -> None:
    """The user does something, while some of those who fetch are killed."""
    seed = str(rng.randrange(1 << 30))
    if rng.randrange(2):
        (lab.folder / "all").touch()
    subprocess.run([sys.executable, "-c", USER, plain, seed], check=True)
    with subprocess.Popen([sys.executable, "-c", USER, folder, seed]) as user:
        for _ in range(rng.randrange(3)):
            time.sleep(rng.uniform(0.1, 1.0))
            if rng.randrange(2):
                lab.kill(HYDRATING)
            elif lab.processes(HYDRATING) and len(lab.holders()) == 2:
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(lab.holders()), signal.SIGKILL)
    assert user.returncode == 0


@pytest.mark.feature("P11")
@pytest.mark.timeout(240)
def test_users_see_their_files_whatever_is_killed(lab):
    play(lab, 3, 4711)


@pytest.mark.campaign
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(5))
def test_users_see_their_files_whatever_is_killed_for_long(lab, seed):
    play(lab, 30, seed)
