"""Volumes whose files are fetched while they are used: what readers see, whatever is killed, and what is shipped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.volumes.bucket.test_driver import Host

from orlop.errors import Busy
from orlop.kernel import freeze, precontent
from orlop.kernel.processes import Child
from orlop.snapshots import placeholders
from orlop.testing.process import stand_still
from orlop.testing.waiting import eventually
from orlop.volumes import image
from orlop.volumes.bucket import lease
from orlop.volumes.driver import Volume

pytestmark = [
    pytest.mark.part("D9"),
    pytest.mark.skipif(os.geteuid() != 0, reason="filesystems need root"),
    pytest.mark.skipif(not precontent.is_possible(Path("/tmp")), reason="readers can wait since Linux 6.14"),
]
DATA = Volume("data", "bucket", {"size": "600m", "lease": "10", "lazy": "true"}, created="2026-01-01T00:00:00Z")
SOURCE = Volume("data", "bucket", {"size": "600m", "lease": "10", "lazy": "false"}, created="2026-01-01T00:00:00Z")
# What orlop starts for a host: the first keeps, the other fetches. That one fetches nothing before the file "go" is
# there, and what nobody waits for not before "all" is.
KEEPER = """
import logging, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.volumes.bucket.test_lazy import host
from orlop.volumes.bucket.keeper import Keeper
logging.basicConfig(level=logging.INFO)
Keeper(host(Path(sys.argv[1]), sys.argv[2]).use).run()
"""
HYDRATOR = """
import logging, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.volumes.bucket.test_lazy import host
from orlop.errors import Unavailable
from orlop.kernel import handles
from orlop.snapshots.placeholders import Contents
from orlop.volumes.bucket import hydrator, rest
from orlop.volumes.bucket.fetching import fetch_missing
logging.basicConfig(level=logging.INFO)
folder = Path(sys.argv[1])
hydrator.PATIENCE = 2.0
fetch, left, remove, opened = Contents.fetch, rest.Rest._left, os.removexattr, handles.opened

def wait(path):
    while not path.exists():
        time.sleep(0.01)

def slowly(self, parts):
    wait(folder / "go")
    if (folder / "down").exists():
        raise Unavailable("the store does not answer")
    return fetch(self, parts)

def later(self):
    if not (folder / "all").exists():
        while not ((folder / "all").exists() or self._stopped.is_set()):
            time.sleep(0.01)
    yield from left(self)

def fatally(file, name):
    if (folder / "die").exists():
        (folder / "die").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    remove(file, name)

def late(root, handle, flags):
    if flags & os.O_RDWR and (folder / "late").exists():
        (folder / "late").unlink()
        time.sleep(2)
    return opened(root, handle, flags)

Contents.fetch, rest.Rest._left, os.removexattr, handles.opened = slowly, later, fatally, late
fetch_missing(host(folder, sys.argv[2]).use, "data")
"""


def start(script: str, folder: Path, name: str) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-c", script, str(folder), name, str(Path(__file__).parents[3])]
    with (folder / "log").open("ab") as log:
        return Child(argv, stdout=log, stderr=log)


def host(folder: Path, name: str, volume: Volume = DATA) -> Host:
    host = Host(folder, folder / "bucket", name, volume=volume)
    host.use.clock, host.use.hydrate = lease.Clock(), lambda key: start(HYDRATOR, folder, name)
    return host


KEEPING, HYDRATING, HOLDING = "Keeper(host(", "fetch_missing(host(", "orlop.volumes.bucket.holding"


class Lab:
    """A volume that one host has made; another attaches it, with a keeper that waits to be told."""

    def __init__(self, folder: Path):
        self.folder, self.hosts = folder, []
        (folder / "bucket").mkdir()

    def host(self, name: str, volume: Volume = DATA) -> Host:
        self.hosts.append(host(self.folder, name, volume))
        return self.hosts[-1]

    def made(self, fill) -> None:
        host = self.host("source", SOURCE)
        host.driver.create(SOURCE)
        fill(host.mount())
        host.unmount()

    def attach(self, *, go: bool = True, name: str = "lazy") -> Path:
        """The mounted volume, of which nothing is fetched but what is asked for (not even that without ``go``)."""
        self.lazy = self.host(name)
        if go:
            (self.folder / "go").touch()
        self.keep(name)
        return self.lazy.mount()

    def keep(self, name: str = "lazy") -> None:
        self.keeper = start(KEEPER, self.folder, name).pid

    def processes(self, what: str) -> list[int]:
        """The processes of this lab that run ``what``."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                ours = os.fsencode(f"LAB={self.folder}\0") in (process / "environ").read_bytes()
                if ours and what.encode() in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
        return sorted(found)

    def held_by_all(self, folder: Path) -> None:
        """Wait until the keeper holds the marks of the volume mounted at ``folder`` as the two holders do."""
        eventually(lambda: len(self.holders()) == 2 and holds_marks(self.keeper, folder))

    def holders(self) -> list[int]:
        return self.processes(HOLDING)

    def kill(self, *what: str) -> None:
        """Kill all processes that run any of this, also those that take the place of others."""

        def killed() -> bool:
            found = [pid for each in what for pid in self.processes(each)]
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not found

        eventually(killed)

    def fetch_all(self) -> None:
        (self.folder / "all").touch()
        (self.folder / "go").touch()

    def complete(self) -> None:
        self.fetch_all()
        eventually(lambda: self.lazy.use.copy("data").base.complete)

    def close(self) -> None:
        self.kill(KEEPING)
        self.kill(HYDRATING)
        self.kill(HOLDING)
        for host in self.hosts:
            host.mounter.unmount(host.mounts / "data")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB", str(tmp_path))
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def run(*argv: object) -> bytes:
    """What a program says; it has files of its own, as containers have."""
    return subprocess.run([str(word) for word in argv], capture_output=True, check=True, timeout=60).stdout


def is_missing(path: Path) -> bool:
    return placeholders.of(str(path)) is not None


@contextmanager
def reading(file: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that reads ``file``; killed, so that nothing stays in use, if the test fails."""
    with subprocess.Popen(["cat", file], stdout=subprocess.PIPE) as reader:
        try:
            yield reader
        finally:
            reader.kill()


def holds_marks(process: int, folder: Path) -> bool:
    """Whether it has a fanotify group open with marks of files at ``folder`` (proc(5), fdinfo)."""
    device = folder.stat().st_dev
    mark = f" sdev:{os.major(device) << 20 | os.minor(device):x} "
    with suppress(OSError):
        for file in Path(f"/proc/{process}/fdinfo").iterdir():
            with suppress(OSError):
                if mark in file.read_text():
                    return True
    return False


SMALL, LARGE = os.urandom(5000), os.urandom(40 << 20)


def few(folder: Path) -> None:
    (folder / "small").write_bytes(SMALL)
    (folder / "large").write_bytes(LARGE)
    (folder / "empty").touch()


def test_whoever_reads_a_file_that_is_not_here_yet_waits_for_it(lab):
    lab.made(few)

    folder = lab.attach()

    assert is_missing(folder / "small")
    assert is_missing(folder / "large")
    assert run("cat", folder / "small") == SMALL
    assert run("cat", folder / "large") == LARGE
    assert not is_missing(folder / "small")
    assert not is_missing(folder / "large")
    assert run("cat", folder / "empty") == b""


def test_all_the_rest_is_fetched_meanwhile_and_then_nobody_waits_for_anything(lab):
    lab.made(few)
    folder = lab.attach()
    assert lab.lazy.driver.status(DATA)["Fetched"] == "0 %"

    lab.complete()

    eventually(lambda: lab.holders() == [])
    assert "Fetched" not in lab.lazy.driver.status(DATA)
    assert (folder / "small").read_bytes() == SMALL
    assert (folder / "large").read_bytes() == LARGE


TOOLS = {
    "cat": 'cat "$1" >"$2"',
    "cp": 'cp "$1" "$2"',
    "cp --sparse=always": 'cp --sparse=always --reflink=never "$1" "$2"',
    "tar -S": 'tar -cSf - -C "$(dirname "$1")" "$(basename "$1")" | tar -xOf - >"$2"',
    "dd with O_DIRECT": 'dd if="$1" of="$2" iflag=direct bs=1M status=none',
    "cp --reflink": 'cp --reflink=always "$1" "$1.copy" && cat "$1.copy" >"$2"',
    "what believes in holes": "python3 -c 'import os, sys; f = os.open(sys.argv[1], 0); s = os.fstat(f).st_size; "
    "h = os.lseek(f, 0, os.SEEK_HOLE); d = os.lseek(f, 0, os.SEEK_DATA); "
    'open(sys.argv[2], "wb").write(os.pread(f, h - d, d) + bytes(s - h))\' "$1" "$2"',
    "mmap": 'python3 -c \'import mmap, sys; f = open(sys.argv[1], "rb"); m = mmap.mmap(f.fileno(), 0, prot=1); '
    'open(sys.argv[2], "wb").write(m[:])\' "$1" "$2"',
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", ["small", "large"])
def test_tools_that_leave_out_holes_copy_what_the_files_have(lab, tool, name):
    lab.made(few)
    folder = lab.attach()
    copy = lab.folder / "copy"

    run("sh", "-ec", TOOLS[tool], "sh", folder / name, copy)

    assert copy.read_bytes() == {"small": SMALL, "large": LARGE}[name]


SPARSE = 40 << 30
PLACES = {100 << 20: LARGE, 20 << 30: SMALL, SPARSE - len(SMALL): SMALL}


def sparse(folder: Path) -> None:
    """Far larger than the volume, if its holes were filled."""
    with (folder / "sparse").open("wb") as file:
        for place, content in PLACES.items():
            file.seek(place)
            file.write(content)
    (folder / "nothing").touch()
    os.truncate(folder / "nothing", SPARSE)


def test_holes_of_large_files_are_holes_on_the_next_host(lab):
    lab.made(sparse)
    folder, copy = lab.attach(), lab.folder / "copy"

    assert is_missing(folder / "sparse")
    run("cp", folder / "sparse", copy)
    run("dd", f"of={folder / 'sparse'}", "if=/dev/zero", "bs=1M", "count=1", "seek=1000", "conv=notrunc")
    lab.complete()

    for place, content in PLACES.items():
        for path in (folder / "sparse", copy):
            with path.open("rb") as file:
                assert os.pread(file.fileno(), len(content), place) == content
    assert run("cmp", "-n", 50 << 20, "-i", f"{19 << 30}:0", folder / "sparse", folder / "nothing") == b""
    assert (folder / "sparse").stat().st_blocks * 512 < len(LARGE) + (1 << 20) + len(PLACES) * (1 << 20)
    assert (folder / "nothing").stat().st_size == SPARSE
    assert (folder / "nothing").stat().st_blocks < 16


def test_a_file_with_a_hole_punched_while_it_is_fetched_is_copied_whole(lab):
    lab.made(few)
    folder = lab.attach()
    copy = lab.folder / "copy"

    run("fallocate", "--punch-hole", "-o", 8 << 20, "-l", 4 << 20, folder / "large")
    run("cp", "--sparse=always", "--reflink=never", folder / "large", copy)

    assert copy.read_bytes() == LARGE[: 8 << 20] + bytes(4 << 20) + LARGE[12 << 20 :]


def test_nobody_gets_at_any_file_before_it_is_there(lab):
    lab.made(few)
    folder = lab.attach(go=False)

    waiting = [subprocess.Popen(["cat", folder / name], stdout=subprocess.PIPE) for name in ("small", "large")]
    time.sleep(1)
    assert [reader.poll() for reader in waiting] == [None, None]
    (lab.folder / "go").touch()

    assert [reader.communicate()[0] for reader in waiting] == [SMALL, LARGE]


def test_a_reader_that_waits_can_be_killed(lab):
    lab.made(few)
    folder = lab.attach(go=False)
    reader = subprocess.Popen(["cat", folder / "small"])
    time.sleep(0.5)

    reader.kill()

    assert reader.wait(5) == -signal.SIGKILL
    lab.complete()
    assert run("cat", folder / "small") == SMALL


def test_readers_wait_for_another_process_if_the_one_that_fetches_is_killed(lab):
    lab.made(few)
    folder = lab.attach(go=False)
    waiting = [subprocess.Popen(["cat", folder / name], stdout=subprocess.PIPE) for name in ("small", "large") * 2]
    time.sleep(1)

    lab.kill(HYDRATING)
    time.sleep(0.5)
    assert [reader.poll() for reader in waiting] == [None] * 4
    lab.kill(HYDRATING)
    lab.fetch_all()

    assert [reader.communicate(timeout=30)[0] for reader in waiting] == [SMALL, LARGE] * 2


def test_a_file_comes_to_its_end_though_who_fetched_all_of_it_was_killed_then(lab):
    lab.made(few)
    folder = lab.attach()
    (lab.folder / "die").touch()

    assert run("cat", folder / "large") == LARGE

    assert not (lab.folder / "die").exists()
    lab.complete()
    assert not is_missing(folder / "large")


@pytest.mark.parametrize("name", ["small", "large"])
def test_who_comes_late_to_a_file_that_is_complete_by_then_leaves_it_alone(lab, name):
    lab.made(few)
    folder, content = lab.attach(), {"small": SMALL, "large": LARGE}[name]
    (lab.folder / "late").touch()
    reader = subprocess.Popen(["cat", folder / name], stdout=subprocess.PIPE)
    eventually(lambda: not (lab.folder / "late").exists())

    # Another thread fetches it meanwhile, for somebody who writes.
    run("sh", "-c", 'cat "$1" >/dev/null && printf new | dd of="$1" conv=notrunc status=none', "sh", folder / name)

    assert reader.communicate()[0] == b"new" + content[3:]
    lab.complete()
    assert (folder / name).read_bytes() == b"new" + content[3:]


def test_holders_that_are_killed_are_replaced(lab):
    lab.made(few)
    folder = lab.attach()
    assert run("cat", folder / "small") == SMALL
    eventually(lambda: len(lab.holders()) == 2)
    first, second = lab.holders()

    def replaced(*killed: int) -> None:
        for holder in killed:
            os.kill(holder, signal.SIGKILL)
        # On a busy machine it takes a while to die.
        eventually(lambda: len(lab.holders()) == 2 and not set(lab.holders()).intersection(killed))

    replaced(first)
    replaced(second)
    replaced(*lab.holders())
    lab.kill(HYDRATING)

    assert run("cat", folder / "large") == LARGE


def test_nobody_reads_zeros_if_all_but_one_holder_are_killed_at_once(lab):
    lab.made(few)
    folder = lab.attach(go=False)
    reader = subprocess.Popen(["cat", folder / "large"], stdout=subprocess.PIPE)
    eventually(lambda: len(lab.holders()) == 2)

    holder = lab.holders()[0]
    for pid in [holder, *lab.processes(HYDRATING), *lab.processes(KEEPING)]:
        os.kill(pid, signal.SIGKILL)
    lab.fetch_all()
    lab.keep()

    assert reader.communicate(timeout=30)[0] == LARGE
    assert run("cat", folder / "small") == SMALL


def test_nobody_reads_zeros_if_only_the_keeper_is_left(lab):
    lab.made(few)
    folder = lab.attach(go=False)
    lab.held_by_all(folder)

    lab.kill(HYDRATING, HOLDING)
    assert holds_marks(lab.keeper, folder)
    with reading(folder / "large") as reader:
        eventually(lambda: len(lab.holders()) == 2 and lab.processes(HYDRATING))
        lab.fetch_all()

        assert reader.communicate(timeout=30)[0] == LARGE
    assert run("cat", folder / "small") == SMALL
    lab.complete()
    eventually(lambda: lab.holders() == [])


def test_who_fetches_and_finds_nobody_holding_leaves_the_rest_to_the_keeper_who_does(lab):
    lab.made(few)
    folder = lab.attach(go=False)
    lab.held_by_all(folder)
    stand_still(lab.keeper)
    lab.kill(HYDRATING, HOLDING)

    fetching = start(HYDRATOR, lab.folder, "lazy")
    assert fetching.wait(timeout=30) == 0
    assert lab.lazy.session().phase == "using"

    os.kill(lab.keeper, signal.SIGCONT)
    lab.fetch_all()
    assert run("cat", folder / "large") == LARGE
    assert run("cat", folder / "small") == SMALL


@pytest.mark.part("P11")
def test_a_volume_that_nobody_holds_any_more_is_stopped_and_goes_on_when_it_is_attached_anew(lab):
    lab.made(few)
    folder = lab.attach()
    run("sh", "-c", f"echo written >{folder}/new && sync")
    eventually(lambda: len(lab.holders()) == 2)

    lab.kill(KEEPING, HYDRATING, HOLDING)
    lab.keep()

    eventually(lambda: lab.lazy.session().phase == "broken")
    assert subprocess.run(["cat", folder / "small"], capture_output=True).returncode != 0
    assert "are dead; attach it again" in lab.lazy.driver.status(DATA)["Trouble"]
    lab.lazy.unmount()
    lab.fetch_all()
    folder = lab.lazy.mount()
    assert run("cat", folder / "small") == SMALL
    assert run("cat", folder / "large") == LARGE
    assert run("cat", folder / "new") == b"written\n"


def test_a_store_that_is_away_is_an_error_for_readers_and_later_reads_try_again(lab):
    lab.made(few)
    (lab.folder / "down").touch()
    folder = lab.attach()

    failed = subprocess.run(["cat", folder / "small"], capture_output=True, text=True)
    (lab.folder / "down").unlink()

    assert "Input/output error" in failed.stderr
    assert run("cat", folder / "small") == SMALL


def test_while_files_are_missing_nothing_is_shipped_and_no_snapshot_is_made(lab):
    lab.made(few)
    folder = lab.attach()

    with pytest.raises(Busy, match="0 % of the files of volume 'data' are here so far"):
        lab.lazy.driver.source(DATA, folder, list)

    lab.complete()
    assert lab.lazy.driver.source(DATA, folder, list) is not None


def tree(folder: Path) -> None:
    """A bit of everything, below the size from which on files are fetched in parts and above it."""
    for number in range(20):
        place = folder / f"folder{number % 3}"
        place.mkdir(exist_ok=True)
        (place / f"small{number}").write_bytes(f"{number} ".encode() * 3000)
        os.utime(place / f"small{number}", (number, number))
    for number in range(6):
        (folder / f"large{number}").write_bytes(bytes([number + 1]) * (18 << 20))
    os.link(folder / "folder0/small0", folder / "link")
    program = folder / "program"
    program.write_bytes(Path("/bin/echo").read_bytes())
    program.chmod(0o6755)
    os.setxattr(program, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))


# Whatever can be done to files that nobody has read yet.
DEEDS = """
set -e
cd "$1"
echo appended >>folder0/small3
printf middle | dd of=folder1/small1 bs=1 seek=100 conv=notrunc status=none
: >folder2/small2
truncate -s 100 folder0/small6
mv folder1/small4 folder2/small5
mv folder0 moved
rm folder2/small8
echo anew >folder2/small8
chmod 600 folder1/small7
cp -p folder1/small10 copy
ln folder1/small13 "another link"
./program hello
echo appended >>large0
printf middle | dd of=large1 bs=1 seek=5000000 conv=notrunc status=none
: >large2
echo short >large3
truncate -s 10000001 large4
mv large5 moved/large6
fallocate --collapse-range -o 4m -l 4m moved/large6
exec 3<large1
rm large1
cat <&3 >"large one that was unlinked"
"""


def state(folder: Path) -> dict[str, object]:
    """What a folder has, as a program sees it."""
    script = (
        "import hashlib, os, sys; root = sys.argv[1]\n"
        "for top, _, names in os.walk(root):\n"
        "    for name in names:\n"
        "        p = os.path.join(top, name); content = hashlib.sha256(open(p, 'rb').read()).hexdigest()\n"
        "        s = os.stat(p); x = {k: os.getxattr(p, k) for k in os.listxattr(p)}\n"
        "        print(ascii((os.path.relpath(p, root), s.st_mode, s.st_size, s.st_nlink, x, content,\n"
        "                     int(s.st_mtime) if s.st_mtime < 1e9 else 0)))\n"
    )
    return dict.fromkeys(sorted(run(sys.executable, "-c", script, folder).decode().splitlines()))


@pytest.mark.feature("P8")
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_whatever_is_done_to_files_before_they_are_here_is_what_the_next_host_has(lab, when):
    lab.made(tree)
    plain = lab.folder / "plain"
    plain.mkdir()
    tree(plain)
    folder = lab.attach()
    if when == "meanwhile":
        lab.fetch_all()

    run("sh", "-c", DEEDS, "sh", folder)
    run("sh", "-c", DEEDS, "sh", plain)

    expected = state(plain)
    assert state(folder) == expected
    lab.fetch_all()
    lab.lazy.unmount()
    other = lab.host("other", SOURCE)
    assert state(other.mount()) == expected
    other.unmount()


def test_of_files_that_nobody_has_touched_nothing_is_stored_again(lab):
    lab.made(tree)
    folder = lab.attach()
    run("sh", "-c", f"cat {folder}/folder0/* && echo new >{folder}/new")
    lab.complete()
    before = packs(lab)

    lab.lazy.unmount()

    assert packs(lab) - before < 64 << 10
    other = lab.host("other", SOURCE)
    assert (other.mount() / "new").read_text() == "new\n"
    other.unmount()


def packs(lab: Lab) -> int:
    return sum(info.size for info in lab.lazy.use.backend({}).store.walk("repository/data/"))


def cut_power(lab: Lab) -> None:
    """What was not synced is lost, and everything in memory; all processes are."""
    lab.kill(KEEPING)
    lab.kill(HYDRATING)
    with image.opened(lab.lazy.use.copy("data").image) as root:
        freeze.shut_down(root)
    lab.kill(HOLDING)
    lab.lazy.mounter.unmount(lab.lazy.mounts / "data")
    for path in (lab.lazy.root / "run").glob("*"):
        path.unlink()
    for name in ("go", "all"):
        (lab.folder / name).unlink(missing_ok=True)


@pytest.mark.feature("P11")
def test_after_a_power_cut_the_host_goes_on_and_what_was_synced_is_there(lab):
    lab.made(tree)
    folder = lab.attach()
    run(
        "sh", "-c", f"echo new >{folder}/new; printf x | dd of={folder}/large1 conv=notrunc; echo >>{folder}/link; sync"
    )
    run("sh", "-c", f": >{folder}/large2; sync")

    cut_power(lab)
    folder = lab.attach()

    assert is_missing(folder / "large0")
    assert run("cat", folder / "new") == b"new\n"
    assert run("cat", folder / "large0") == b"\1" * (18 << 20)
    assert run("cat", folder / "large1") == b"x" + b"\2" * ((18 << 20) - 1)
    assert run("cat", folder / "large2") == b""
    assert run("cat", folder / "folder0/small0") == b"0 " * 3000 + b"\n"
    lab.fetch_all()
    lab.lazy.unmount()
    other = lab.host("other", SOURCE)
    assert (other.mount() / "new").read_text() == "new\n"
    other.unmount()


@pytest.mark.parametrize("written", [False, True])
def test_what_another_host_has_done_since_is_not_lost_and_what_was_written_here_is_kept(lab, written):
    lab.made(few)
    folder = lab.attach()
    run("cat", folder / "small")
    if written:
        run("sh", "-c", f"echo here >{folder}/new; sync")
    cut_power(lab)
    other = lab.host("other", SOURCE)
    (other.mount() / "new").write_text("there")
    other.unmount()

    folder = lab.attach()

    assert run("cat", folder / "new") == b"there"
    assert run("cat", folder / "large") == LARGE
    assert len(lab.lazy.driver.status(DATA).get("Kept", [])) == written
