"""Which checks there are, and how one is run.

The modules of the checks are imported for their checks to be registered.
"""

import http.client
import re
import subprocess
import time
from collections.abc import Iterable

from orlop.errors import OrlopError
from orlop.testing.voltest import data, durability, idempotence, protocol, survival
from orlop.testing.voltest.bench import Bench
from orlop.testing.voltest.checks import REGISTRY, Check, Failed, NotApplicable, Outcome, Result

GROUPS = (protocol, idempotence, survival, durability, data)
_ABOUT_THE_SUBJECT = (
    Failed,
    OrlopError,
    OSError,
    http.client.HTTPException,
    subprocess.TimeoutExpired,
    KeyError,
)


def all_checks() -> list[Check]:
    """Every check: P, I, S, D, each group in the order of its numbers."""
    return sorted(REGISTRY.values(), key=lambda one: ("PISD".index(one.id[0]), int(one.id[1:])))


def select(ids: Iterable[str]) -> list[Check]:
    """The checks of these ids or groups (``I5``, ``S``), in the usual order; all of them for no ids.

    Raises KeyError for an id that there is not.
    """
    wanted, known = set(ids), all_checks()
    unknown = wanted - {one.id for one in known} - {one.id[0] for one in known}
    if unknown:
        raise KeyError(f"no check '{min(unknown)}'")
    return [one for one in known if not wanted or {one.id, one.id[0]} & wanted]


def run(one: Check, bench: Bench) -> Result:
    """Run one check; what it raises about the subject is its result, a broken bench is raised."""
    start = time.monotonic()
    try:
        bench.prepare(one.needs)
        one.function(bench)
        outcome: Outcome = "pass"
        seen = ""
    except NotApplicable as reason:
        outcome, seen = "n/a", str(reason)
    except subprocess.CalledProcessError as error:
        outcome, seen = "FAIL", f"{_command(error)}: {error.stderr or error.stdout or error}"
    except _ABOUT_THE_SUBJECT as error:
        outcome, seen = "FAIL", str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
    bench.tidy(failed=outcome == "FAIL")
    return Result(one, outcome, _one_line(seen), time.monotonic() - start)


def _command(error: subprocess.CalledProcessError) -> str:
    """The command line without what entered the machine for it."""
    return _one_line(" ".join(map(str, error.cmd)).rpartition(" -- ")[2])[:100]


def _one_line(text: str) -> str:
    """At most 300 characters, with ids as short as Docker shows them and paths as a container sees them."""
    for pattern, short in ((r"\s+", " "), (r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1"), (r"/proc/\d+/root", "")):
        text = re.sub(pattern, short, text)
    return text.strip()[:300]
