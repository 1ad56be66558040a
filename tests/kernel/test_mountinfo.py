"""Lines that are looked for in a table of mounts: the same as if all were taken apart, whatever paths are called."""

import pytest

from orlop.kernel import mountinfo

TARGETS = ["/", "/data", "/data/with space", "/data/tab\there", "/data/back\\slash", "/data/line\nfeed", "/data/naïve"]
TABLE = "".join(
    f"{number} 1 7:{number % 3} {mountinfo.escaped(target)} {mountinfo.escaped(target)} rw,nosuid shared:5 - xfs "
    "/dev/loop0 rw\n"
    for number, target in enumerate([*TARGETS, *TARGETS, "/database"])
)


def test_paths_are_written_as_the_kernel_writes_them() -> None:
    assert [entry.target for entry in mountinfo.parse(TABLE)] == [*TARGETS, *TARGETS, "/database"]
    assert mountinfo.escaped("a b\t\n\\") == r"a\040b\011\012\134"


@pytest.mark.parametrize("target", TARGETS)
def test_lines_with_a_path_are_found_and_stay_in_order(target: str) -> None:
    found = mountinfo.lines(TABLE, [f" {mountinfo.escaped(target)} "])

    assert [entry.target for entry in mountinfo.parse(found)] == [target, target]
    assert [entry.id for entry in mountinfo.parse(found)] == [TARGETS.index(target), TARGETS.index(target) + 7]


def test_a_line_with_two_of_the_words_comes_once_and_no_word_finds_none() -> None:
    found = mountinfo.lines(TABLE, [" 7:0 /data", " /database ", " xfs "])

    assert found == TABLE
    assert [entry.target for entry in mountinfo.parse(mountinfo.lines(TABLE, [" /database ", " 7:2 "]))].count(
        "/database"
    ) == 1
    assert mountinfo.lines(TABLE, ["/elsewhere"]) == mountinfo.lines(TABLE, []) == mountinfo.lines("", ["x"]) == ""


def test_many_words_are_not_looked_for_one_by_one() -> None:
    assert mountinfo.lines(TABLE, [f"/{number}" for number in range(1000)]) == TABLE
