"""The part of Go's templates that ``--format`` understands: ``{{.Field}}``, ``{{.Field.Key}}``, ``{{json .Field}}``."""

import json
import re
from collections.abc import Iterable, Mapping

from orlop.errors import Invalid

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")
_EXPRESSION = re.compile(r"(json\s+)?(\.[\w.-]*)")


class Template:
    """Text with actions in double braces, to be filled from a record."""

    def __init__(self, text: str, fields: Iterable[str]):
        r"""``fields`` are those that may be named; ``\t`` and ``\n`` stand for a tab and a new line.

        Raises `Invalid` for an unknown field, and for what is no action known here.
        """
        self._fields = sorted(fields)
        # Odd parts are actions, even ones are text.
        self._parts = _ACTION.split(text.replace(r"\t", "\t").replace(r"\n", "\n"))
        self._actions = [self._parse(action) for action in self._parts[1::2]]

    def render(self, record: Mapping[str, object]) -> str:
        """The text with every action replaced by what ``record`` holds."""
        values = [_evaluate(record, path, as_json=as_json) for path, as_json in self._actions]
        parts = list(self._parts)
        parts[1::2] = values
        return "".join(parts)

    def _parse(self, action: str) -> tuple[list[str], bool]:
        found = _EXPRESSION.fullmatch(action)
        if not found:
            raise Invalid(f"template {{{{{action}}}}} is not understood; write {{{{.Field}}}} or {{{{json .Field}}}}")
        path = [part for part in found[2].split(".") if part]
        if path and path[0] not in self._fields:
            raise Invalid(f"template {{{{{action}}}}}: no field {path[0]!r}; there are {', '.join(self._fields)}")
        return path, bool(found[1])


def _evaluate(record: Mapping[str, object], path: list[str], *, as_json: bool) -> str:
    value: object = record
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return json.dumps(value, sort_keys=True, ensure_ascii=False) if as_json else _text(value)


def _text(value: object) -> str:
    """As Go prints it."""
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{_text(value[key])}' for key in sorted(value))}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(map(_text, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "<no value>" if value is None else str(value)
