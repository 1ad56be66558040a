"""How results look: Docker's tables, JSON lines and sizes, or whatever a template says."""

import json
from collections.abc import Mapping, Sequence

import click

from orlop.cli.template import Template

Record = Mapping[str, object]
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def show(records: Sequence[Record], headings: Mapping[str, str], default: Sequence[str], format_: str | None) -> None:
    """Print ``records`` as ``--format`` asks; a table of the fields ``default`` where it says nothing.

    ``headings`` names every field that a record has. Raises `Invalid` for a template with another one.
    """
    if format_ == "json":
        for record in records:
            click.echo(json.dumps(record, sort_keys=True, ensure_ascii=False))
        return
    if format_ in (None, "table"):
        format_ = "table " + "\t".join(f"{{{{.{field}}}}}" for field in default)
    template = Template(format_.removeprefix("table "), headings)
    lines = [template.render(record) for record in records]
    if format_.startswith("table "):
        lines = table([line.split("\t") for line in (template.render(headings), *lines)])
    for line in lines:
        click.echo(line)


def show_documents(documents: Sequence[Record], format_: str | None) -> None:
    """Print what ``inspect`` found: a JSON array, or each by a template."""
    if format_ is None:
        click.echo(json.dumps(documents, indent=4, ensure_ascii=False))
    elif format_ == "json":
        click.echo(json.dumps(documents, ensure_ascii=False))
    else:
        for document in documents:
            click.echo(Template(format_, document).render(document))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the cells of ``rows`` in columns: at least ten wide, three spaces between."""
    columns = max(map(len, rows))
    widths = [max(10, *(len(row[i]) + 3 for row in rows if i < len(row))) for i in range(columns)]
    return ["".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]


def human(size: float, digits: int = 4) -> str:
    """``size`` bytes as Docker prints them: ``1.024kB``, decimal units, so many significant ``digits``."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.{digits}g}{_UNITS[unit]}"


def pairs(mapping: Mapping[str, str]) -> str:
    """``a=1,b=2``."""
    return ",".join(f"{key}={value}" for key, value in sorted(mapping.items()))
