"""What a check is, which there are, and how one ends.

A check is a function that takes a `Bench`, registered with its id; its name read as a sentence is its title. It returns
if what it names was seen. `expect` ends it with what was seen instead; `not_applicable` with the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn

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
    function: Callable[..., None]
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


REGISTRY: dict[str, Check] = {}
"""Every check that was imported, by id."""


def check(identity: str, needs: Needs = "wire") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register the decorated function as the check ``identity``."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        REGISTRY[identity] = Check(identity, function, needs)
        return function

    return register


def expect(condition: object, seen: str) -> None:
    """End the check as failed with what was ``seen``, unless ``condition`` holds."""
    if not condition:
        raise Failed(seen)


def not_applicable(why: str) -> NoReturn:
    """End the check: it says nothing about this subject."""
    raise NotApplicable(why)
