"""A large file in runs: holes are found again in what a repository says of it."""

import hashlib

import pytest

from orlop.snapshots import runs
from orlop.snapshots.chunks import MAX
from orlop.snapshots.packs import Blob
from orlop.snapshots.runs import Place
from orlop.snapshots.seal import OVERHEAD

pytestmark = pytest.mark.part("D9")
MIB = 1 << 20


def zeros(size: int) -> Place:
    return "pack", Blob("data", hashlib.sha256(bytes(size)).digest(), 0, OVERHEAD + 40 + size // 4096, size)


def data(size: int, length: int = 0) -> Place:
    return "pack", Blob("data", hashlib.sha256(b"data %d" % size).digest(), 0, length or size, size)


def split(*places: Place) -> list[tuple[int, int, bool]]:
    found = runs.split([blob.id.hex() for _, blob in places], places)
    return [(run.start, run.end - run.start, run.is_hole) for run in found]


def test_a_long_hole_is_one_part_however_many_chunks_it_has() -> None:
    found = split(data(MIB), zeros(MAX), zeros(MAX), zeros(3 << 15), data(3 * MIB), data(2 * MIB))

    hole = 2 * MAX + (3 << 15)
    assert found == [(0, MIB, False), (MIB, hole, True), (MIB + hole, 3 * MIB, False), (4 * MIB + hole, 2 * MIB, False)]


def test_the_hole_at_the_end_may_end_anywhere() -> None:
    assert split(data(MIB), zeros(MAX), zeros(77)) == [(0, MIB, False), (MIB, MAX + 77, True)]


def test_zeros_that_share_a_block_with_data_are_written() -> None:
    assert split(data(MIB + 1), zeros(MAX), data(MIB))[1:] == [(MIB + 1, MAX, False), (MIB + 1 + MAX, MIB, False)]
    assert not any(is_hole for _, _, is_hole in split(data(MIB), zeros(MAX), zeros(77), data(MIB)))


def test_what_shrank_as_zeros_do_is_compared() -> None:
    assert [is_hole for _, _, is_hole in split(zeros(MAX), data(MAX, OVERHEAD + 300))] == [True, False]


def test_a_file_without_a_chunk_that_is_as_long_as_any_has_no_long_hole() -> None:
    assert split(data(MIB), zeros(MIB), data(MIB)) == [(0, 3 * MIB, False)]
    assert not runs.may_have_holes([zeros(MIB)[1].id.hex()])
    assert runs.may_have_holes([zeros(MAX)[1].id.hex()])


def test_a_length_that_no_chunk_has_is_not_made_to_be_compared() -> None:
    assert [is_hole for _, _, is_hole in split(zeros(MAX), ("pack", Blob("data", bytes(32), 0, 300, 1 << 31)))] == [
        True,
        False,
    ]


def test_who_was_given_zeros_instead_of_holes_gets_the_runs_that_they_were() -> None:
    places = [data(MIB), zeros(MAX), zeros(MAX), data(MIB)]
    found = list(runs.split([blob.id.hex() for _, blob in places], places, holes=False))

    assert [place for run in found for place in run.places] == places
    assert not any(run.is_hole for run in found)
