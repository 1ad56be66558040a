"""kill -9 at random moments of attaching, shipping and detaching, on two hosts in turn, and what is left of it."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orlop.kernel.mounter import KernelMounter

pytestmark = [
    pytest.mark.feature("D9"),
    pytest.mark.skipif(os.geteuid() != 0, reason="filesystems need root"),
]
# One host's life: use the volume, write numbers, ship, give it back; what was shipped is told.
LIFE = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from tests.volumes.bucket.test_driver import Host
from orlop.volumes.bucket.lease import Clock
from orlop.volumes.driver import Volume

folder, name, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
volume = Volume("data", "bucket", {"size": "300m", "lease": "2"})
host = Host(folder, folder / "bucket", name, volume=volume)
host.use.clock = Clock()
host.driver.create(volume)
place = host.mounts / "data"
if not os.path.ismount(place):
    place = host.mount()
else:
    host.driver.attach(volume)
for number in range(first, first + 1000):
    (place / str(number % 7)).write_text(str(number) * 500)
    (place / "number").write_text(str(number))
    if number % 3 == 0:
        host.use.ship(host.session())
        print(number, flush=True)
    if number % 10 == 9:
        host.unmount()
        print(number, flush=True)
        place = host.mount()
"""


def live(folder: Path, name: str, first: int, seconds: float) -> tuple[int, bool]:
    """Let a host live for so long, then kill it; the last number that it said is safe, and whether it said any."""
    argv = [sys.executable, "-c", LIFE, str(folder), name, str(first), str(Path(__file__).parents[3])]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        said, errors = process.communicate()
    # On a busy host a lease may not be seen to end in time: that is an answer, and the next life asks again.
    assert process.returncode == -9 or "errors.InUse" in errors, errors
    numbers = [int(line) for line in said.split()]
    return (numbers[-1] if numbers else -1), bool(numbers)


def play(folder: Path, kills: int, seed: int) -> None:
    rng, mounter, safe, said = random.Random(seed), KernelMounter(), -1, 0
    (folder / "bucket").mkdir()
    names, name = ["one", "other"], "one"
    try:
        for kill in range(kills):
            if rng.randrange(3) == 0:
                # The host loses its power: what it had in memory is gone, and its mounts.
                mounter.unmount(folder / name / "mounts" / "data")
                for path in (folder / name / "run").glob("*"):
                    path.unlink()
                name = rng.choice(names)
            # Another host waits for the lease of the one that was killed.
            now, any_ = live(folder, name, (kill + 1) * 1000, rng.uniform(1.0, 7.0))
            safe, said = max(safe, now), said + any_
        _check(folder, mounter, safe)
    finally:
        for each in names:
            mounter.unmount(folder / each / "mounts" / "data")
    assert said >= kills // 3, "too few lives got anywhere: this showed little"


def _check(folder: Path, mounter: KernelMounter, safe: int) -> None:
    """Everything that was said to be safe is there, for a host that never saw the volume; and stock restic agrees."""
    script = LIFE.split("for number in range")[0] + 'print((place / "number").read_text()); host.unmount()'
    for name in ("one", "other"):
        mounter.unmount(folder / name / "mounts" / "data")
    time.sleep(2.5)
    argv = [sys.executable, "-c", script, str(folder), "third", "0", str(Path(__file__).parents[3])]
    found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert int(found) >= safe
    restic = ["restic", "--no-cache", "-r", folder / "bucket/repository", "check", "--read-data"]
    done = subprocess.run(restic, capture_output=True, text=True, env={**os.environ, "RESTIC_PASSWORD": "a password"})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(180)
def test_nothing_that_was_said_to_be_shipped_is_lost_by_kills(tmp_path):
    play(tmp_path, 8, 4711)


@pytest.mark.campaign
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_by_hundreds_of_kills(tmp_path, seed):
    play(tmp_path, 100, seed)
