"""Results as a lines for people and as JSON for programs."""

import json
from collections import Counter
from collections.abc import Sequence

from orlop.testing.voltest.checks import Result


def line(result: Result) -> str:
    """One line per check, and below it what was seen if it did not pass."""
    text = f"{result.check.id:4} {result.outcome:5} {result.check.title}  ({result.seconds:.1f} s)"
    return f"{text}\n           {result.seen}" if result.seen else text


def as_json(subject: str, results: Sequence[Result]) -> str:
    """``{"subject", "totals", "checks": [{"id", "title", "outcome", "seen", "seconds"}]}``."""
    checks = [
        {
            "id": result.check.id,
            "title": result.check.title,
            "outcome": result.outcome,
            "seen": result.seen,
            "seconds": round(result.seconds, 2),
        }
        for result in results
    ]
    return json.dumps({"subject": subject, "totals": _count(results), "checks": checks}, indent=1)


def totals(results: Sequence[Result]) -> str:
    """Such as ``40 pass, 2 FAIL, 7 n/a``."""
    return ", ".join(f"{number} {outcome}" for outcome, number in _count(results).items())


def _count(results: Sequence[Result]) -> dict[str, int]:
    counted = Counter(result.outcome for result in results)
    return {"pass": counted["pass"], "FAIL": counted["FAIL"], "n/a": counted["n/a"]}
