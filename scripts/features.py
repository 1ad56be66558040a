"""``make features``: a line for each row of docs/features.md: id, proven or partly or open, its tests, a remark.

A row is proven if every test that claims it passed in the last ``make test``, and one of them claims the whole of
it. A row of section V holds twice, so it is partly proven until tests with orlop standing alone claim it as well. A
claim by a test that did not run, or failed, makes this program fail; one that was skipped for want of a part proves
nothing, and is named. On a host that can have no guest the tests in tests/guest claim nothing, and stderr says so.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HOME = Path(__file__).parent.parent
TABLE, SKIPPED = HOME / "docs/features.md", HOME / ".cache/tests-guest.skipped"


@dataclass
class Claims:
    """The tests that name a row."""

    whole: list[str] = field(default_factory=list)
    part: list[str] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)

    @property
    def tests(self) -> list[str]:
        return sorted({test.partition("[")[0] for test in (*self.whole, *self.part, *self.alone)})


def main() -> None:
    rows = re.findall(r"^\| ([A-Z]\d+) \|", TABLE.read_text(), re.MULTILINE)
    tests = _tests()
    claims = _claims(rows, tests)
    for row in rows:
        status, remark = _status(row, claims[row])
        print("\t".join([row, status, " ".join(claims[row].tests), remark]).rstrip("\t"))
    unproven = {test: found["outcome"] for test, found in sorted(tests.items()) if found["outcome"] != "passed"}
    for test, outcome in unproven.items():
        print(f"features: {test} claims a row and {outcome or 'did not run'}", file=sys.stderr)
    sys.exit(1 if set(unproven.values()) - {"skipped"} else 0)


def _tests() -> dict[str, dict]:
    """Every test that names a row now, with the outcome of its last run."""
    tests = _lane("tests.json", "-m", "not campaign")
    guests = _lane("tests-guest.json", "-o", "testpaths=tests/guest", ORLOP_GUEST="1")
    if SKIPPED.exists():
        print(f"features: {len(guests)} tests in tests/guest were skipped: {SKIPPED.read_text()}", file=sys.stderr)
        return tests
    return tests | guests


def _lane(results: str, *options: str, **env: str) -> dict[str, dict]:
    """The tests of the host, or of the guest, which has its own run of pytest."""
    subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *options],
        cwd=HOME, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **env},
    )  # fmt: skip
    return json.loads((HOME / ".cache" / results).read_text())


def _claims(rows: list[str], tests: dict[str, dict]) -> dict[str, Claims]:
    claims = {row: Claims() for row in rows}
    for test, found in tests.items():
        for row in {*found["feature"], *found["part"], *found["alone"]}:
            if row not in claims:
                sys.exit(f"features: {test} names {row}, which docs/features.md does not have")
        if found["outcome"] == "skipped":
            continue
        for row in found["feature"]:
            claims[row].whole.append(test)
        for row in found["part"]:
            claims[row].part.append(test)
        for row in found["alone"]:
            claims[row].alone.append(test)
    return claims


def _status(row: str, claims: Claims) -> tuple[str, str]:
    if not claims.tests:
        return "open", ""
    if not row.startswith("V"):
        return ("proven" if claims.whole else "partly"), ""
    if claims.whole and claims.alone:
        return "proven", ""
    engine = "proven" if claims.whole else "partly proven" if claims.part else "open"
    return "partly", f"through Docker Engine {engine}, standing alone {'proven' if claims.alone else 'open'}"


if __name__ == "__main__":
    main()
