import errno
import os
import random
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from orlop.kernel import handles
from orlop.volumes import image
from orlop.volumes.bucket.twins import Twins

pytestmark = [
    pytest.mark.part("D9"),
    pytest.mark.skipif(os.geteuid() != 0, reason="filesystems need root"),
]
SIZE = (40 << 20) + 1234
CONTENT = random.Random(1).randbytes(SIZE)


@pytest.fixture
def folder(tmp_path):
    image.make(tmp_path / "image", "xfs", 320 << 20, image.Root(), thin=True)
    (tmp_path / "there").mkdir()
    subprocess.run(["mount", "-o", "loop", tmp_path / "image", tmp_path / "there"], check=True)
    yield tmp_path / "there"
    subprocess.run(["umount", "-l", tmp_path / "there"], check=True)


@pytest.fixture
def twins(folder):
    root = os.open(folder, os.O_RDONLY)
    twins = Twins(root)
    yield twins
    twins.close()
    os.close(root)


@pytest.fixture
def file(folder, twins):
    fd = os.open(folder / "file", os.O_RDWR | os.O_CREAT)
    twins.make(fd, SIZE, [(0, SIZE)])
    yield fd
    os.close(fd)


def parts() -> list[tuple[int, int]]:
    """Where parts begin and end: at any byte, as content-defined chunks do."""
    chance, cuts = random.Random(2), [0]
    while cuts[-1] < SIZE:
        cuts.append(min(cuts[-1] + chance.randrange(1 << 20, 5 << 20), SIZE))
    return list(pairwise(cuts))


def put(twins: Twins, file: int, start: int, end: int) -> None:
    middle = (start + end) // 2
    twins.put(file, handles.of(file), SIZE, start, [CONTENT[start:middle], CONTENT[middle:end]])


def fill_up(folder: Path) -> None:
    """Nothing is left for anybody who has no room."""
    junk = os.open(folder / "junk", os.O_RDWR | os.O_CREAT)
    try:
        for size in (1 << 20, 1 << 12):
            with pytest.raises(OSError) as full:
                while True:
                    os.posix_fallocate(junk, os.fstat(junk).st_size, size)
            assert full.value.errno == errno.ENOSPC
    finally:
        os.close(junk)


def test_what_is_not_here_yet_looks_like_data_and_its_blocks_are_there(folder, file):
    status = os.fstat(file)

    assert status.st_size == SIZE
    assert status.st_blocks * 512 >= SIZE
    assert os.lseek(file, 0, os.SEEK_HOLE) == SIZE
    assert os.pread(file, 1 << 20, 20 << 20) == bytes(1 << 20)


def test_parts_that_begin_anywhere_come_in_any_order(file, twins):
    some = parts()
    random.Random(3).shuffle(some)

    for start, end in some:
        put(twins, file, start, end)

    assert os.pread(file, SIZE + 1, 0) == CONTENT


def test_a_part_leaves_alone_what_others_wrote_into_the_blocks_that_it_shares_with_them(file, twins):
    (first, *_, last), changed = parts(), b"changed"
    put(twins, file, *first)
    os.pwrite(file, changed, first[1] - len(changed))

    for part in parts()[1:]:
        put(twins, file, *part)

    expected = CONTENT[: first[1] - len(changed)] + changed + CONTENT[first[1] :]
    assert os.pread(file, SIZE + 1, 0) == expected
    assert last[1] == SIZE


def test_a_part_is_never_without_room(folder, file, twins):
    fill_up(folder)
    some = parts()
    random.Random(4).shuffle(some)

    for start, end in some:
        put(twins, file, start, end)
        put(twins, file, start, end)  # whoever was first was killed, and could tell nobody
        os.fsync(file)

    assert os.pread(file, SIZE + 1, 0) == CONTENT
    os.pwrite(file, b"in place", 5 << 20)
    os.fsync(file)


def test_where_there_is_no_room_for_a_file_nothing_is_left_of_it(folder, twins):
    with (folder / "large").open("wb") as large, pytest.raises(OSError) as full:
        twins.make(large.fileno(), 1 << 30, [(0, 1 << 30)])

    assert full.value.errno == errno.ENOSPC
    assert list((folder / "lazy").iterdir()) == []


def test_holes_stay_holes_and_take_no_room(folder, twins):
    size = 1 << 40
    data = [(64 << 20, 70 << 20), (1 << 30, (1 << 30) + (32 << 10)), (size - (1 << 20), size)]
    with (folder / "sparse").open("w+b") as sparse:
        file = sparse.fileno()
        twins.make(file, size, data)
        fill_up(folder)

        for start, end in data:
            for place in range(start, end, 4 << 20):
                twins.put(file, handles.of(file), size, place, [CONTENT[: min(end - place, 4 << 20)]])
        os.fsync(file)

        status = os.fstat(file)
        assert status.st_size == size
        assert status.st_blocks * 512 == sum(end - start for start, end in data)
        assert extents(file, size) == data
        assert os.pread(file, 4 << 20, 64 << 20) == CONTENT[: 4 << 20]


def extents(file: int, size: int) -> list[tuple[int, int]]:
    found, place = list[tuple[int, int]](), 0
    while place < size:
        try:
            start = os.lseek(file, place, os.SEEK_DATA)
        except OSError:
            break
        place = os.lseek(file, start, os.SEEK_HOLE)
        found.append((start, place))
    return found


def test_without_a_twin_a_part_is_written_where_it_belongs(file, twins):
    twins.clear()

    put(twins, file, 1234, 5 << 20)

    assert os.pread(file, (5 << 20) - 1234, 1234) == CONTENT[1234 : 5 << 20]


def test_a_twin_goes_with_its_file_and_all_at_the_end(folder, file, twins):
    with (folder / "other").open("wb") as other:
        twins.make(other.fileno(), 20 << 20, [(0, 20 << 20)])

    twins.drop(handles.of(file))
    twins.drop(handles.of(file))
    assert len(list((folder / "lazy").iterdir())) == 1
    twins.clear()
    twins.clear()

    assert not (folder / "lazy").exists()
