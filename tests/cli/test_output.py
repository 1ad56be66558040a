import pytest

from orlop.cli.output import human, pairs, show, show_documents, table
from orlop.errors import Invalid


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (1024, "1.024kB"), (1_200_000_000, "1.2GB"), (123_456_789, "123.5MB")],
)
def test_sizes_are_as_docker_prints_them(size, text):
    assert human(size) == text


def test_columns_are_ten_wide_or_three_more_than_their_widest_cell():
    assert table([("A", "B", "C"), ("x", "12345678901", "z")]) == [
        "A         B             C",
        "x         12345678901   z",
    ]


def test_pairs_are_in_order():
    assert pairs({"b": "2", "a": ""}) == "a=,b=2"


def test_records_are_a_table_json_lines_or_what_a_template_says(capsys):
    records, headings = [{"Name": "x", "Size": 1}], {"Name": "VOLUME NAME", "Size": "SIZE"}

    for format_ in (None, "table", "json", r"{{.Size}}\t{{.Name}}", "table {{.Size}}"):
        show(records, headings, ["Name"], format_)

    default = "VOLUME NAME\nx\n"
    assert capsys.readouterr().out == default + default + '{"Name": "x", "Size": 1}\n1\tx\nSIZE\n1\n'


def test_an_empty_table_still_has_its_headings_and_still_knows_its_fields(capsys):
    show([], {"Name": "NAME"}, ["Name"], None)

    assert capsys.readouterr().out == "NAME\n"
    with pytest.raises(Invalid, match="no field 'Size'"):
        show([], {"Name": "NAME"}, ["Name"], "{{.Size}}")


def test_documents_are_an_array_or_each_by_a_template(capsys):
    show_documents([{"Name": "x"}, {"Name": "y"}], "{{.Name}}")
    show_documents([], None)

    assert capsys.readouterr().out == "x\ny\n[]\n"
