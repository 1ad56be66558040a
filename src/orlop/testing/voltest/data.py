"""D: what files in a volume can do, seen from containers."""

import fcntl
import hashlib
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from orlop.testing.voltest import image
from orlop.testing.voltest.bench import Bench
from orlop.testing.voltest.checks import check, expect

_SIZE = 10 << 20
_DESCRIBE = f"cd {image.SEED}; echo $(stat -c '%a %u %g' file) $(cat file); readlink folder/link"
# cap_net_bind_service=ep, as setcap writes it.
_CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


@check("D1", needs="engine")
def a_created_volume_is_listed_and_inspected(bench: Bench) -> None:
    """``docker volume ls`` and ``inspect`` show it, its driver and its labels; after ``rm`` they do not."""
    volume = bench.volume("--label", "tier=gold")

    seen = json.loads(bench.docker("volume", "inspect", volume))[0]
    listed = bench.docker("volume", "ls", "-q", "--filter", f"driver={bench.subject.docker_name}").split()
    expect(seen["Name"] == volume and seen["Driver"] == bench.subject.docker_name, f"inspect: {seen}")
    expect(seen["Labels"] == {"tier": "gold"}, f"labels: {seen['Labels']}")
    expect(volume in listed, f"not listed: {listed}")

    bench.docker("volume", "rm", volume)
    expect(volume not in bench.docker("volume", "ls", "-q").split(), "listed after rm")
    bench.docker.refuses("volume", "inspect", volume)


@check("D2", needs="engine")
def text_written_in_one_container_is_read_in_the_next(bench: Bench) -> None:
    """What a container wrote is there for another one after the first has gone."""
    volume = bench.volume()

    bench.docker.once(volume, "echo hello > /data/text")

    expect((found := bench.docker.once(volume, "cat /data/text")) == "hello", f"the next container reads '{found}'")


@check("D3", needs="engine")
def ten_mebibytes_keep_their_checksum(bench: Bench) -> None:
    """A binary file goes in with ``docker cp`` and has the same checksum in a container, and out again."""
    volume, blob = bench.volume(), os.urandom(_SIZE)
    sent, back = bench.machine.folder / "sent", bench.machine.folder / "back"
    sent.write_bytes(blob)
    # A container that does not run: what docker cp does to one that runs is S1's question.
    created = bench.docker("create", "-v", f"{volume}:/data", bench.docker.image, "true")
    bench.docker("cp", str(sent), f"{created}:/data/blob")

    found = bench.docker.once(volume, "md5sum < /data/blob").split()[0]
    expect(found == hashlib.md5(blob, usedforsecurity=False).hexdigest(), "the checksum differs")
    bench.docker("cp", f"{created}:/data/blob", str(back))
    expect(back.read_bytes() == blob, "docker cp brings back other bytes")


@check("D4", needs="engine")
def data_survives_a_restart_of_everything(bench: Bench) -> None:
    """Engine and plugin are stopped and started in good order; text and volume are there."""
    volume = bench.volume()
    bench.docker.once(volume, "echo hello > /data/text")

    bench.docker.engine.stop()
    if bench.controlled:
        bench.restart_plugin()
    bench.docker.start()

    expect(volume in bench.docker("volume", "ls", "-q").split(), "the volume is not listed")
    expect((found := bench.docker.once(volume, "cat /data/text")) == "hello", f"the container reads '{found}'")


@check("D5", needs="engine")
def a_volume_in_use_is_not_removed(bench: Bench) -> None:
    """``docker volume rm`` names the container that uses it, and works when that one has gone."""
    volume = bench.volume()
    with _container(bench, volume) as container:
        message = bench.docker.refuses("volume", "rm", volume)
        expect(container in message, f"the message names no container: {message}")

    bench.docker("volume", "rm", volume)


@check("D6", needs="engine")
def files_are_synced_and_replaced_by_rename(bench: Bench) -> None:
    """What every database and editor does: write, fsync, rename over the old file, fsync the folder."""
    with _folder(bench) as folder:
        (folder / "file").write_text("old")
        with (folder / "new").open("w") as file:
            file.write("new")
            file.flush()
            os.fsync(file.fileno())
        (folder / "new").rename(folder / "file")
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

        expect((folder / "file").read_text() == "new", "the old content is there after the rename")
        names = [path.name for path in folder.iterdir()]
        expect(names == ["file"], f"the folder holds {names}")


@check("D7", needs="engine")
def hard_and_symbolic_links_work(bench: Bench) -> None:
    """A hard link is the same file; a symbolic link keeps its target's text."""
    with _folder(bench) as folder:
        (folder / "file").write_text("one")
        (folder / "hard").hardlink_to(folder / "file")
        (folder / "soft").symlink_to("file")
        (folder / "hard").write_text("two")

        expect((folder / "file").read_text() == "two", "the hard link is a copy")
        expect((folder / "file").stat().st_nlink == 2, "the link count is not 2")
        expect((folder / "soft").readlink() == Path("file"), "the symbolic link has another target")


@check("D8", needs="engine")
def extended_attributes_are_kept(bench: Bench) -> None:
    """User attributes and file capabilities (setcap) are stored with the file."""
    with _folder(bench) as folder:
        (folder / "file").write_text("")
        for name, value in (("user.colour", b"blue"), ("security.capability", _CAPABILITY)):
            os.setxattr(folder / "file", name, value)
            expect(os.getxattr(folder / "file", name) == value, f"{name} is not what was set")


@check("D9", needs="engine")
def shared_memory_maps_are_the_file(bench: Bench) -> None:
    """A write through mmap is what read sees, as SQLite and LMDB rely on."""
    with _folder(bench) as folder:
        (folder / "file").write_bytes(bytes(8192))
        with (folder / "file").open("r+b") as file, mmap.mmap(file.fileno(), 8192) as memory:
            memory[4096:4101] = b"hello"
            memory.flush()
            expect(os.pread(file.fileno(), 5, 4096) == b"hello", "read does not see what mmap wrote")


@check("D10", needs="engine")
def locks_exclude(bench: Bench) -> None:
    """Locks (flock and POSIX) of one user keep another out, also when both come from different containers."""
    volume = bench.volume()
    with _container(bench, volume) as one, _container(bench, volume) as two:
        (bench.docker.root(one) / "file").write_text("")
        with (
            (bench.docker.root(one) / "file").open("r+") as first,
            (bench.docker.root(two) / "file").open("r+") as second,
        ):
            fcntl.flock(first, fcntl.LOCK_EX)
            expect(_is_locked(second), "two containers hold the same exclusive flock")
            fcntl.flock(first, fcntl.LOCK_UN)
            expect(not _is_locked(second), "an flock stays after its release")
            fcntl.lockf(first, fcntl.LOCK_EX)
            expect(
                _is_locked_for_another_process(bench.docker.root(two) / "file"),
                "two processes hold one POSIX lock",
            )


@check("D11", needs="engine")
def owners_and_modes_are_kept(bench: Bench) -> None:
    """User, group, mode with its special bits, and times are what root set: databases refuse to start otherwise."""
    with _folder(bench) as folder:
        file = folder / "file"
        file.write_text("")
        os.chown(file, 1234, 5678)
        file.chmod(0o4751)
        os.utime(file, (1_000_000_000, 1_100_000_000))

        found = file.stat()
        expect((found.st_uid, found.st_gid) == (1234, 5678), f"owner is {found.st_uid}:{found.st_gid}")
        expect(found.st_mode & 0o7777 == 0o4751, f"mode is {found.st_mode & 0o7777:o}")
        expect(found.st_mtime == 1_100_000_000, f"time is {found.st_mtime}")


@check("D12", needs="engine")
def one_container_reads_what_another_writes(bench: Bench) -> None:
    """Read-only for one, writable for another, at the same time: the first sees the change and cannot make one."""
    volume = bench.volume()
    with _container(bench, volume) as writer, _container(bench, volume, "/data:ro") as reader:
        bench.docker.inside(writer, "echo hello > /data/text")

        expect(bench.docker.inside(reader, "cat /data/text") == "hello", "the reader does not see the write")
        bench.docker.refuses("exec", reader, "touch", "/data/other")
        bench.docker.inside(writer, "rm /data/text")
        bench.docker.refuses("exec", reader, "cat", "/data/text")


@check("D13", needs="engine")
def a_new_volume_takes_the_images_files(bench: Bench) -> None:
    """Over a folder of the image, an empty volume gets its files, owners, modes and links; not with ``nocopy``."""
    volume, other = bench.volume(), bench.volume()

    found = bench.docker.once(volume, _DESCRIBE, at=image.SEED)
    expect(found.split("\n") == ["640 7 8 seeded", "../file"], f"the volume holds: {found}")
    again = bench.docker.once(volume, "cat /data/file")
    expect(again == "seeded", f"the second container reads {again}")
    empty = bench.docker.once(other, f"ls -A {image.SEED}", at=f"{image.SEED}:nocopy")
    expect(empty == "", f"with nocopy the volume holds {empty}")


@check("D14", needs="engine")
def a_full_volume_says_so_and_keeps_the_rest(bench: Bench) -> None:
    """A volume of 32 MiB takes no 48: ENOSPC for the writer, an honest ``df``, and what was there stays readable."""
    volume = bench.volume(options=bench.sized_options())

    found = bench.docker.once(
        volume,
        "echo kept > /data/kept; sync; dd if=/dev/zero of=/data/big bs=1M count=48 2>&1 || :;"
        "sync; cat /data/kept; df -m /data | tail -1",
    )

    expect("No space left" in found, f"48 MiB into a volume of 32: {found}")
    expect("kept" in found.splitlines(), f"what was there is not: {found}")
    size = int(found.splitlines()[-1].split()[1])
    expect(16 <= size <= 40, f"df says {size} MiB")


@check("D15", needs="engine")
def a_thousand_files_are_all_there(bench: Bench) -> None:
    """Many small files, in folders, are all listed and all readable by the next container."""
    volume = bench.volume()

    bench.docker.once(
        volume,
        "for d in 0 1 2 3 4 5 6 7 8 9; do mkdir /data/$d; for f in $(seq 100); do echo $d-$f > /data/$d/$f; done; done",
    )

    found = bench.docker.once(volume, "find /data -type f | wc -l; cat /data/*/* | sort -u | wc -l").split()
    expect(found == ["1000", "1000"], f"of 1000 files {found[0]} are listed, with {found[1]} contents")


@contextmanager
def _container(bench: Bench, volume: str, at: str = "/data") -> Iterator[str]:
    """A container that has the volume, dropped afterwards."""
    container = bench.docker.container(volume, at=at)
    try:
        yield container
    finally:
        bench.docker.drop(container)


@contextmanager
def _folder(bench: Bench) -> Iterator[Path]:
    """A new volume's folder as a container has it, for this process to work in."""
    with _container(bench, bench.volume()) as container:
        yield bench.docker.root(container)


def _is_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _is_locked_for_another_process(file: Path) -> bool:
    script = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    done = subprocess.run([sys.executable, "-c", script, str(file)], check=False, capture_output=True, text=True)
    return "BlockingIOError" in done.stderr
