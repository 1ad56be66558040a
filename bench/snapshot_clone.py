"""How long a clone takes, from asking for it until a file in it has been read: of 1 GiB, and of 50,000 files.

On btrfs and in an image on XFS, where the two volumes share what they store; the image on ext4, where the files are
copied, is there for comparison.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import Figure, alone
from orlop import engine
from orlop.kernel.mounter import KernelMounter
from orlop.mount import Mount
from orlop.state import Holder
from orlop.volumes.rewind import clone
from orlop.volumes.timeline import Timeline

CLONES = 5
WAYS = {
    "btrfs": ("btrfs", {}, "<= 0.1"),
    "XFS": ("xfs", {"size": "2g"}, "<= 0.1"),
    "ext4": ("ext4", {"size": "2g"}, "<= 0.1"),
}
"""The filesystem of the pool, the options of the volume, the goal in seconds."""
_ME = Holder("bench", "bench")


def measure() -> list[Figure]:
    figures = []
    for name, (kind, options, goal) in WAYS.items():
        for what, fill in (("1 GiB", _one_gib), ("50,000 files", _many)):
            with _pool(kind) as timeline:
                took = _clones(timeline, options, fill)
            figures.append(alone(f"{what}, {name}: clone, mount, read a file", "s", took, goal))
    return figures


def _clones(timeline: Timeline, options: dict[str, str], fill: Callable[[Path], None]) -> list[float]:
    service, took = timeline.service, []
    service.create("data", options)
    folder = service.mount("data", _ME)
    fill(folder)
    os.sync()
    for _ in range(CLONES + 1):
        began = time.perf_counter()
        clone(timeline, "data", "copy", None, {})
        (service.mount("copy", _ME) / "first").read_bytes()
        took.append(time.perf_counter() - began)
        _remove(timeline)
    return took[1:]


def _remove(timeline: Timeline) -> None:
    service = timeline.service
    while any(service.folder.glob("*/image.shared")):
        time.sleep(0.05)
    service.unmount("copy", _ME)
    service.remove("copy")
    service.purge(next(iter(service.state.unfinished())))


def _one_gib(folder: Path) -> None:
    (folder / "first").write_bytes(b"x")
    with (folder / "large").open("wb") as file:
        for _ in range(1024):
            file.write(os.urandom(1 << 20))


def _many(folder: Path) -> None:
    (folder / "first").write_bytes(b"x")
    for number in range(50_000):
        (folder / str(number % 500)).mkdir(exist_ok=True)
        (folder / str(number % 500) / str(number)).write_bytes(os.urandom(300))


@contextmanager
def _pool(kind: str) -> Iterator[Timeline]:
    """A host whose volumes are on a filesystem in memory."""
    mounter = KernelMounter()
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="orlop-bench-") as name:
        folder = Path(name)
        with (folder / "disk").open("wb") as file:
            file.truncate(8 << 30)
        subprocess.run([f"mkfs.{kind}", "-q", str(folder / "disk")], check=True, stdout=subprocess.DEVNULL)
        mounter.mount([Mount(kind, str(folder / "disk"), ("loop",))], folder / "pool")
        timeline = engine.timeline(engine.Config(root=folder / "pool/root", run=folder / "run"))
        try:
            yield timeline
        finally:
            timeline.service.unmount("data", _ME)
            timeline.service.state.close()
            mounter.unmount(folder / "pool")
