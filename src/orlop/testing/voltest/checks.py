"""What a check is, which there are, and how one ends.

A check is a function that takes a `Bench`, registered with its id; its name read as a sentence is its title. It returns
if what it names was seen. `expect` ends it with what was seen instead; `not_applicable` with the reason.
"""

import http.client
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn

from orlop.errors import OrlopError

if TYPE_CHECKING:
    from orlop.testing.voltest.bench import Bench

Outcome = Literal["pass", "FAIL", "n/a"]
Needs = Literal["wire", "control", "engine"]
"""What a check needs: a socket that answers; a plugin that it may start and stop; a Docker Engine of its own."""


class Failed(Exception):
    """A promise was seen broken; the message says what was seen."""


class NotApplicable(Exception):
    """The check says nothing about this subject; the message says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, and the function that tries it."""

    id: str
    function: "Callable[[Bench], None]"
    needs: Needs

    @property
    def title(self) -> str:
        """The function's name as a sentence."""
        return self.function.__name__.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Result:
    """How a check ended: ``seen`` is what was seen instead, or why it does not apply; ``seconds`` it took."""

    check: Check
    outcome: Outcome
    seen: str
    seconds: float


_ABOUT_THE_SUBJECT = (
    Failed,
    OrlopError,
    OSError,
    http.client.HTTPException,
    subprocess.TimeoutExpired,
    KeyError,
)

_registry: dict[str, Check] = {}


def check(identity: str, needs: Needs = "wire") -> "Callable[[Callable[[Bench], None]], Callable[[Bench], None]]":
    """Register the decorated function as the check ``identity``."""

    def register(function: "Callable[[Bench], None]") -> "Callable[[Bench], None]":
        _registry[identity] = Check(identity, function, needs)
        return function

    return register


def all_checks() -> list[Check]:
    """Every check: P, I, S, D, each group in the order of its numbers."""
    # Imported here because these modules import this one to register their checks.
    from orlop.testing.voltest import data, durability, idempotence, protocol, survival  # noqa: F401

    return sorted(_registry.values(), key=lambda one: ("PISD".index(one.id[0]), int(one.id[1:])))


def select(ids: Iterable[str]) -> list[Check]:
    """The checks of these ids or groups (``I5``, ``S``), in the usual order; all of them for no ids.

    Raises KeyError for an id that there is not.
    """
    wanted, known = set(ids), all_checks()
    unknown = wanted - {one.id for one in known} - {one.id[0] for one in known}
    if unknown:
        raise KeyError(f"no check '{min(unknown)}'")
    return [one for one in known if not wanted or {one.id, one.id[0]} & wanted]


def expect(condition: object, seen: str) -> None:
    """End the check as failed with what was ``seen``, unless ``condition`` holds."""
    if not condition:
        raise Failed(seen)


def not_applicable(why: str) -> NoReturn:
    """End the check: it says nothing about this subject."""
    raise NotApplicable(why)


def run(one: Check, bench: "Bench") -> Result:
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
