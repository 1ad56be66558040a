"""Writes down which test proved which row of docs/features.md, for ``make features``.

``.cache/tests.json`` holds, by test, the rows it names, whether wholly or in part, and how it ended when it last
ran; a test that was only collected has no outcome. ``.cache/tests-guest.json`` is the same for tests in a guest.
"""

import fcntl
import json
import os
from pathlib import Path

import pytest

RESULTS = (
    Path(__file__).parent.parent / ".cache" / ("tests-guest.json" if os.environ.get("ORLOP_GUEST") else "tests.json")
)


class Recorder:
    """One run of pytest."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, list[str]]] = {}
        self.outcomes: dict[str, str] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            named = {mark: _rows(item, mark) for mark in ("feature", "part", "alone")}
            if any(named.values()):
                self.rows[item.nodeid] = named

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid in self.rows and (report.when == "call" or report.outcome != "passed"):
            self.outcomes[report.nodeid] = report.outcome

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._write(session)

    def _write(self, session: pytest.Session) -> None:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        whole = not (session.config.args_source is pytest.Config.ArgsSource.ARGS or session.config.option.keyword)
        kept = {test: found for test, found in known.items() if not whole or test in self.rows}
        for test, rows in self.rows.items():
            outcome = self.outcomes.get(test) or (kept.get(test) or {}).get("outcome")
            kept[test] = {**rows, "outcome": outcome}
        new = RESULTS.with_suffix(".new")
        new.write_text(json.dumps(kept, indent=1))
        new.rename(RESULTS)


def _rows(item: pytest.Item, mark: str) -> list[str]:
    return sorted({str(row) for found in item.iter_markers(mark) for row in found.args})
