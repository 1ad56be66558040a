"""What was acknowledged is there after a power cut, on each filesystem that hosts have."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from tests.power import Disk, doing

from orlop.engine import Config, timeline, vault, volumes
from orlop.snapshots.check import check
from orlop.state import State
from orlop.volumes import definitions
from orlop.volumes.reconcile import reconcile
from orlop.volumes.service import VolumeService

FILESYSTEMS = ("ext4", "xfs", "btrfs")
LIFE = """
import random, sys
from pathlib import Path
from orlop.engine import Config, vault, volumes
config = Config(root=Path(sys.argv[1], "orlop"), run=Path(sys.argv[2]), boot="boot-1")
service, chance, here, gone = volumes(config), random.Random(int(sys.argv[3])), {}, set()
for number in range(10_000):
    what = chance.choice(["create", "create", "size", "remove", "restore", "update", "secret"])
    names = {"remove": here.keys() - gone, "update": here.keys() - gone, "restore": gone}.get(what, {f"v{number}"})
    if not names:
        continue
    name = chance.choice(sorted(names))
    print(what, name, number, flush=True)
    sys.stdin.readline()
    if what == "secret":
        vault(config).put(name, name.encode())
    elif what == "restore":
        service.restore(name)
        gone.remove(name)
    elif what == "remove":
        service.remove(name)
        gone.add(name)
    elif what == "update":
        service.update(name, {}, {"updated": str(number)})
    else:
        here[name] = {"size": "1m"} if what == "size" else {}
        service.create(name, here[name], {"number": str(number)})
    print("done", flush=True)
"""


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Callable[[str], Disk]]:
    made: list[Disk] = []

    def make(fs: str) -> Disk:
        made.append(Disk(tmp_path, fs))
        return made[-1]

    yield make
    for disk in made:
        disk.close()


def _after(disk: Disk, tmp_path: Path) -> Config:
    return Config(root=disk.place / "orlop", run=tmp_path / "run-2", boot="boot-2")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("fs", FILESYSTEMS)
def test_what_a_volumes_life_acknowledged_is_true(
    disks: Callable[[str], Disk], tmp_path: Path, fs: str, seed: int
) -> None:
    _cut_in_a_life(disks(fs), tmp_path, seed, random.Random(seed).randint(5, 80))


@pytest.mark.campaign
@pytest.mark.parametrize("fs", FILESYSTEMS)
def test_power_cuts_by_the_hundred(tmp_path: Path, fs: str) -> None:
    chance = random.Random(1)
    for seed in range(100):
        (folder := tmp_path / f"{seed}").mkdir()
        disk = Disk(folder, fs)
        try:
            _cut_in_a_life(disk, folder, seed, chance.randint(1, 300))
        finally:
            disk.close()
        (folder / "disk.img").unlink()


def _cut_in_a_life(disk: Disk, tmp_path: Path, seed: int, length: int) -> None:
    done = list[list[str]]()
    with doing(LIFE, str(disk.place), str(tmp_path / "run"), str(seed)) as process:
        while len(done) < length:
            done.append(process.hear().split())
            process.say("go on")
            assert process.hear() == "done"
        underway = process.hear().split()
        process.say("go on")
        time.sleep(random.Random(seed).uniform(0, 0.01))
    disk.cut()
    disk.come_back()

    config = _after(disk, tmp_path)
    service = volumes(config)
    with closing(service.state):
        _compare(config, service, done, underway[1])


def _compare(config: Config, service: VolumeService, done: list[list[str]], unsure: str) -> None:
    service.state.check()
    reconcile(service)
    for what, name, number in done:
        if what == "secret":
            assert vault(config).get(name) == name.encode()
        elif name != unsure:
            last = [told for told, other, _ in done if other == name and told != "update"][-1]
            _see(service, name, "trashed" if last == "remove" else "ready", int(number) if what == "update" else 0)


def _see(service: VolumeService, name: str, phase: str, updated: int) -> None:
    row = {row.name: row for row in [*service.state.unfinished(), *service.all()]}[name]
    assert row.phase == phase
    assert int(row.labels.get("updated", "0")) >= updated
    if row.options:
        subprocess.run(["e2fsck", "-fn", service.folder / row.key / "image"], check=True, capture_output=True)
    else:
        assert (service.folder / row.key / "_data").is_dir()
    (written,) = [found for _, found in definitions.read(service.folder) if found and found.key == row.key]
    assert (written.name, written.labels, written.options) == (row.name, row.labels, row.options)


@pytest.mark.parametrize("fs", FILESYSTEMS)
def test_what_a_program_has_synced_in_a_new_volume_is_there(
    disks: Callable[[str], Disk], tmp_path: Path, fs: str
) -> None:
    disk = disks(fs)
    with doing(WRITER, str(disk.place), str(tmp_path / "run")) as process:
        place = Path(process.hear())
    disk.cut()
    disk.come_back()

    service = volumes(_after(disk, tmp_path))
    with closing(service.state):
        assert service.path(service.get("data")) == place
        assert (place / "file").read_text() == "synced"


WRITER = """
import os, sys, time
from pathlib import Path
from orlop.engine import Config, volumes
from orlop.volumes.uses import holder
service = volumes(Config(root=Path(sys.argv[1], "orlop"), run=Path(sys.argv[2]), boot="boot-1"))
service.create("data", {})
place = service.mount("data", holder("test"))
with (place / "file").open("w") as file:
    file.write("synced")
    file.flush()
    os.fsync(file.fileno())
print(place, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("fs", FILESYSTEMS)
def test_a_snapshot_that_was_taken_is_whole(disks: Callable[[str], Disk], tmp_path: Path, fs: str) -> None:
    disk = disks(fs)
    with doing(SNAPSHOT, str(disk.place), str(tmp_path / "run")) as process:
        taken = [process.hear() for _ in range(2)]
    disk.cut()
    disk.come_back()

    found = timeline(_after(disk, tmp_path))
    with closing(found.service.state):
        assert [snapshot.id for snapshot in found.own("data")] == taken
        assert check(found.repository, read_data=True) == []


SNAPSHOT = """
import os, sys, time
from pathlib import Path
from orlop.engine import Config, timeline
found = timeline(Config(root=Path(sys.argv[1], "orlop"), run=Path(sys.argv[2]), boot="boot-1"))
place = found.service.path(found.service.create("data", {}))
for number in range(2):
    for file in range(200):
        (place / f"{number}-{file}").write_bytes(os.urandom(5000))
    snapshot, _ = found.take("data")
    print(snapshot.id, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("fs", FILESYSTEMS)
def test_the_state_file_is_whole_whatever_the_kernel_wrote_back_first(
    disks: Callable[[str], Disk], tmp_path: Path, fs: str
) -> None:
    disk = disks(fs)
    with doing(HOLDS, str(disk.place / "state.db")) as process:
        assert process.hear() == "done"
    disk.cut()
    disk.come_back()

    with closing(State(disk.place / "state.db")) as state:
        state.check()
        held = {hold.key for hold in state.holds()}
    assert held >= {f"volume-{number:06}" for number in range(0, 4000, 2)}


HOLDS = """
import os, sys, time
from pathlib import Path
from orlop.state import Holder, State
state = State(Path(sys.argv[1]))
def hold(numbers, durable):
    with state.change(durable=durable) as change:
        for number in numbers:
            change.hold(f"volume-{number:06}", Holder("dockerd/0", "container"), "boot-1", 0.0)
hold(range(0, 4000, 2), True)
# So many that it was written back, and the log begins anew.
for number in range(700):
    with state.change() as change:
        change.note(float(number), "mount", "data", {})
for number in range(1, 4000, 2):
    hold([number], False)
# The kernel may write any file back at any time.
os.fsync(os.open(sys.argv[1], os.O_RDONLY))
print("done", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("how", "commands"),
    [
        ("clone", ["volume clone data new"]),
        ("from", ["snapshot create data", "volume create new -o from=data@latest"]),
        ("import", ["volume export data -o {there}/new.tar", "volume import new {there}/new.tar"]),
        ("migrate", ["volume migrate data --to local -o size=64m"]),
        ("rollback", ["snapshot create data", "volume rollback data latest"]),
        ("restore", ["snapshot create data", "snapshot restore data@latest --to {there}/restored"]),
    ],
)
@pytest.mark.parametrize("fs", FILESYSTEMS)
def test_files_that_were_brought_somewhere_are_all_there(
    disks: Callable[[str], Disk], tmp_path: Path, fs: str, how: str, commands: list[str]
) -> None:
    disk = disks(fs)
    orlop = partial(_orlop, disk, tmp_path)
    orlop("volume create data")
    data, chance = disk.place / "orlop/volumes/data/_data", random.Random(1)
    wanted = {f"{number}": chance.randbytes(number**3) for number in range(100)}
    for name, content in wanted.items():
        (data / name).write_bytes(content)
    for command in commands:
        if command.startswith("volume rollback"):
            for name in wanted:
                (data / name).unlink()
        orlop(command)
    disk.cut()
    disk.come_back()

    if how == "restore":
        found = disk.place / "restored"
    else:
        name = "data" if how in ("migrate", "rollback") else "new"
        orlop(f"volume export {name} -o {tmp_path}/after.tar")
        found = tmp_path / "after"
        found.mkdir()
        subprocess.run(["tar", "-xf", tmp_path / "after.tar", "-C", found], check=True)
    assert {path.name: path.read_bytes() for path in found.iterdir() if path.is_file()} == wanted


def _orlop(disk: Disk, tmp_path: Path, command: str) -> None:
    where = {"ORLOP_ROOT": f"{disk.place}/orlop", "ORLOP_RUN": f"{tmp_path}/run", "ORLOP_NO_ENGINE": "1"}
    argv = [sys.executable, "-m", "orlop", *command.format(there=disk.place).split()]
    subprocess.run(argv, env={**os.environ, **where}, check=True, capture_output=True)
