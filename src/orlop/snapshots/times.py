"""Moments as restic writes them (RFC 3339) and as the kernel counts them (nanoseconds since 1970)."""

import functools
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from orlop.errors import Corrupt

_SECOND: Final = 10**9
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# The years that RFC 3339 can say; a file may claim others, and is then shown as of the first or the last moment.
_FIRST: Final = -62135596800
_LAST: Final = 253402300799
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


def written(nanoseconds: int) -> str:
    """A moment as text, in UTC: ``2026-11-22T05:41:23.123456789Z``."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    whole = _whole(min(max(seconds, _FIRST), _LAST))
    return f"{whole}.{rest:09d}".rstrip("0") + "Z" if rest else whole + "Z"


def read(text: str) -> int:
    """The nanoseconds since 1970 of such a text; raises `Corrupt`."""
    # Nearly every text has this shape, and there are three in each file's node.
    if (fraction := text[20:-1]).isdecimal() and text[19] == "." and text[-1] == "Z":
        return _begin(text[:19]) + int(fraction if len(fraction) == 9 else fraction.ljust(9, "0")[:9])
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise Corrupt(f"{text!r} is no moment in time")
    day, clock, fraction, zone = found.groups()
    return _begin(f"{day}T{clock}", zone) + int((fraction or "").ljust(9, "0"))


@functools.lru_cache(4096)
def _whole(seconds: int) -> str:
    moment = _EPOCH + timedelta(seconds=seconds)
    return moment.strftime(f"{moment.year:04d}-%m-%dT%H:%M:%S")


@functools.lru_cache(4096)
def _begin(text: str, zone: str = "Z") -> int:
    """The nanoseconds since 1970 when that second begins."""
    try:
        moment = datetime.fromisoformat(text + ("+00:00" if zone == "Z" else zone))
    except ValueError:
        raise Corrupt(f"{text!r} is no moment in time") from None
    return int((moment - _EPOCH).total_seconds()) * _SECOND
