"""The small formats: names, moments, nodes, ids in a table, cuts of a file, spans that stay."""

import hashlib
import os
import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orlop.errors import Corrupt
from orlop.snapshots import changes, chunks, names, nodes, polynomial, times
from orlop.snapshots.chunks import BLOCK, MAX, MIN, Before, Zeros
from orlop.snapshots.nodes import Node
from orlop.snapshots.seal import Seal, SealingKeys
from orlop.snapshots.table import Table

file_names = st.binary(min_size=1, max_size=255).filter(names.is_safe)


@given(file_names)
@example(b"\\x41")
@example(b'"\n\xed\xa0\x80\xff')
def test_any_file_name_survives_json(name: bytes) -> None:
    node = Node(names.quoted(name), "file", 0, 0, [])

    (read,) = nodes.parsed(nodes.tree([nodes.encode(node)]), "tree")

    assert nodes.name_of(read) == name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"plain", "plain"),
        (b"a\nb", "a\\nb"),
        (b'q"', 'q\\"'),
        (b"b\\", "b\\\\"),
        (b"\xff\x01", "\\xff\\x01"),
        ("snow☃".encode(), "snow☃"),
        ("\u200b".encode(), "\\u200b"),
    ],
)
def test_names_are_written_as_go_quotes_them(name: bytes, text: str) -> None:
    assert names.quoted(name) == text
    assert names.unquoted(text) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../up", "a\\x00b", "a\\x2fb", "\\q", "\\ud800", "x" * 256])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(Corrupt):
        nodes.name_of(Node(name, "file", 0, 0, []))


@given(st.integers(-62135596800 * 10**9, 253402300799 * 10**9))
def test_moments_survive_to_the_nanosecond(moment: int) -> None:
    assert times.read(times.written(moment)) == moment


def test_moments_of_other_zones_and_impossible_ones() -> None:
    assert times.read("2015-01-06T18:45:02.123456789+01:00") == times.read("2015-01-06T17:45:02.123456789Z")
    assert times.read("0001-01-01T00:00:00Z") == -62135596800 * 10**9
    strange = [f"2015-01-06T18:45:02.{fraction}Z" for fraction in ("", "x1", "+12345678", "1_2345678", "12345678 ")]
    for text in ("", "Z", "yesterday", "2015-13-01T00:00:00Z", "yesterday, at noon..123456789Z", *strange):
        with pytest.raises(Corrupt):
            times.read(text)


@given(st.binary(max_size=5000))
def test_a_sealed_blob_opens_and_a_changed_one_does_not(content: bytes) -> None:
    seal = Seal(SealingKeys.random())
    sealed, uncompressed = seal.blob(content, compress=True)
    opened = seal.open(sealed)

    assert (seal.decompress(opened, uncompressed) if uncompressed else opened) == content

    damaged = bytearray(sealed)
    damaged[len(content) % len(sealed)] ^= 1
    with pytest.raises(Corrupt):
        seal.open(bytes(damaged))


def test_a_frame_that_lies_about_its_length_takes_no_memory() -> None:
    seal = Seal(SealingKeys.random())
    bomb = seal.compress(bytes(50 << 20))

    with pytest.raises(Corrupt, match="52428800 bytes where there should be 1000"):
        seal.decompress(bomb, 1000)


def test_polynomials_are_irreducible() -> None:
    found = polynomial.random_polynomial()

    assert found.bit_length() == 54
    assert polynomial.is_irreducible(found)
    assert polynomial.is_irreducible(0x3DA3358B4DC173)  # from the documentation of restic's chunker
    assert not polynomial.is_irreducible(0x3DA3358B4DC171)


def test_a_table_of_many_ids_finds_each_and_no_other() -> None:
    table = Table(4)
    ids = [hashlib.sha256(str(number).encode()).digest() for number in range(120_000)]
    for number, blob in enumerate(ids[:100_000]):
        assert table.add(blob, number.to_bytes(4, "big"))

    assert len(table) == 100_000
    assert all(table.get(blob) == number.to_bytes(4, "big") for number, blob in enumerate(ids[:100_000]))
    assert not any(table.get(blob) for blob in ids[100_000:])
    assert not table.add(ids[7], b"else")
    assert dict(table.items()).keys() == set(ids[:100_000])


def test_what_is_loaded_into_a_table_later_changes_nothing_that_was_there() -> None:
    table = Table(4)
    ids = [hashlib.sha256(str(number).encode()).digest() for number in range(30_000)]
    wanted = [*(blob for blob in ids), *(hashlib.sha256(blob).digest() for blob in ids)]

    table.load([blob + b"1111" for blob in ids[:20_000]])
    table.load([blob + b"0000" for blob in ids[10_000:]])

    assert len(table) == 30_000
    assert [table.get(blob) for blob in ids] == [b"1111"] * 20_000 + [b"0000"] * 10_000
    assert table.get_all(wanted) == [table.get(blob) for blob in wanted]


@pytest.mark.parametrize("twice", [0, 4094, 4095, 4096, 9_999])
def test_an_id_that_is_loaded_twice_at_once_is_in_a_table_once(twice: int) -> None:
    table = Table(4)
    ids = sorted(hashlib.sha256(str(number).encode()).digest() for number in range(10_000))

    table.load([*(blob + b"1111" for blob in ids), ids[twice] + b"0000", ids[twice] + b"2222"])

    assert len(table) == 10_000
    assert [value for _, value in table.items()] == [b"1111"] * 10_000


def pieces(fd: int, start: int, end: int, cutting: chunks.Cutting) -> list[bytes]:
    return [
        bytes(piece.size) if isinstance(piece, Zeros) else bytes(piece) for piece in chunks.cut(fd, start, end, cutting)
    ]


@pytest.fixture
def random_file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(random.Random(7).randbytes(40 << 20))
    return path


def test_cuts_by_content_survive_an_insertion(tmp_path: Path, random_file: Path) -> None:
    content = random_file.read_bytes()
    (tmp_path / "inserted").write_bytes(content[: 5 << 20] + b"inserted" + content[5 << 20 :])
    with random_file.open("rb") as first, (tmp_path / "inserted").open("rb") as second:
        before = pieces(first.fileno(), 0, len(content), "content")
        after = pieces(second.fileno(), 0, len(content) + 8, "content")

    assert b"".join(before) == content
    assert all(MIN <= len(piece) <= MAX for piece in before[:-1])
    assert len(set(before) - set(after)) <= 3


def test_blocks_stay_where_they_are_and_long_holes_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("w+b") as file:
        file.truncate(64 << 20)
        os.pwrite(file.fileno(), b"x" * 200_000, (40 << 20) + 100)
        cut = list(chunks.cut(file.fileno(), 0, 64 << 20, "blocks"))
        sizes = [piece.size if isinstance(piece, Zeros) else len(piece) for piece in cut]
        content = b"".join(pieces(file.fileno(), 0, 64 << 20, "blocks"))

    assert content == (tmp_path / "sparse").read_bytes()
    assert sum(isinstance(piece, Zeros) for piece in cut) == 8
    assert all(sum(sizes[:number]) % BLOCK == 0 for number in range(len(sizes)))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 5)), max_size=6), st.integers(1, 64), st.booleans())
def test_whatever_is_data_and_whatever_is_hole_all_of_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, int]], size: int, content_defined: bool
) -> None:
    path = tmp_path_factory.mktemp("cut") / "file"
    with path.open("w+b") as file:
        file.truncate(size * 50_000)
        for start, length in writes:
            os.pwrite(file.fileno(), os.urandom(length * 30_000), start * 50_000)
        end = os.fstat(file.fileno()).st_size

        assert b"".join(pieces(file.fileno(), 0, end, "content" if content_defined else "blocks")) == path.read_bytes()


@pytest.mark.parametrize(
    ("head", "before", "cutting"),
    [
        (b"words", None, "content"),
        (b"SQLite format 3\0", None, "blocks"),
        (b"QFI\xfb", None, "blocks"),
        (bytes(510) + b"\x55\xaa", None, "blocks"),
        (bytes(1080) + b"\x53\xef", None, "blocks"),
        (b"\1\2\3\4" + bytes(20) + b"\0\x08", None, "blocks"),
        (bytes(12) + b"\x1c\0\x00\x1f\x00\x20\x04\x20", None, "blocks"),
        (b"words", Before(5 << 20, in_blocks=False, rewritten=True), "blocks"),
        (b"words", Before(4 << 20, in_blocks=False, rewritten=True), "content"),
        (b"words", Before(5 << 20, in_blocks=False, rewritten=False), "content"),
        (b"words", Before(4 << 20, in_blocks=True, rewritten=False), "blocks"),
    ],
)
def test_what_is_rewritten_in_place_is_cut_in_blocks(head: bytes, before: Before | None, cutting: str) -> None:
    assert chunks.policy(5 << 20, head, before) == cutting
    assert chunks.policy(MIN, head, before) == "content"


@given(
    st.lists(st.integers(1, 100), max_size=30),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 200)), max_size=10),
    st.integers(0, 4000),
)
def test_spans_cover_the_file_and_nothing_that_changed_stays(
    sizes: list[int], lengths: list[tuple[int, int]], size: int
) -> None:
    changed = [(start, start + length) for start, length in lengths]
    old = sum(sizes)

    spans = changes.plan(sizes, changed, size)

    starts = changes.places(sizes)
    assert [span.start for span in spans] + [size] == [0] + [span.end for span in spans]
    for span in spans:
        if span.stays:
            assert (starts[span.first], starts[span.last]) == (span.start, span.end)
            assert not any(start < span.end and span.start < end for start, end in changed if start < end)
            assert span.end <= min(old, size)


def test_only_the_blocks_that_changed_are_read() -> None:
    spans = changes.plan([BLOCK] * 100, [(5 * BLOCK + 1, 5 * BLOCK + 2), (7 * BLOCK, 8 * BLOCK)], 100 * BLOCK)

    assert [(span.start // BLOCK, span.end // BLOCK) for span in spans if not span.stays] == [(5, 6), (7, 8)]
