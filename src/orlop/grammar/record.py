"""The fields of ``--mount``: one record of comma-separated values, quoted as RFC 4180 says."""

import re

from orlop.errors import Invalid

_FIELD = re.compile(r'(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<bare>[^",\n]*))(?=[,\n]|\Z)')
_OPEN = re.compile(r'"(?:[^"]|"")*')


def fields(text: str) -> list[str]:
    """The fields of the first line that is not empty.

    A quoted field may hold commas, line ends, and ``""`` for a quote. Python's csv is more forgiving than
    Docker: it would take ``a"b`` and a quote that never closes.

    Raises:
        Invalid: With the place, as Docker's reader words it.
    """
    start = len(text) - len(text.lstrip("\n"))
    if start == len(text):
        raise Invalid("EOF")
    found: list[str] = []
    while True:
        match = _FIELD.match(text, start)
        if match is None:
            raise _misquoted(text, start)
        quoted = match["quoted"]
        found.append(match["bare"] if quoted is None else quoted.replace('""', '"'))
        start = match.end() + 1
        if match.end() == len(text) or text[match.end()] == "\n":
            return found


def as_record(values: list[str]) -> str:
    """``values`` as `fields` reads them."""
    return ",".join(_quoted(value) for value in values)


def _misquoted(text: str, start: int) -> Invalid:
    opened = _OPEN.match(text, start)
    place = opened.end() if opened else text.index('"', start)
    problem = 'extraneous or missing " in quoted-field' if opened else 'bare " in non-quoted-field'
    line = text.count("\n", 0, place) + 1
    column = len(text[text.rfind("\n", 0, place) + 1 : place].encode()) + 1
    return Invalid(f"parse error on line {line}, column {column}: {problem}")


def _quoted(value: str) -> str:
    if not re.search('[,"\n]', value):
        return value
    return '"' + value.replace('"', '""') + '"'
