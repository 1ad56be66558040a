"""Runs voltest against orlop and its peers and writes docs/scoreboard.md from what it saw."""

import datetime
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import orlop
from orlop.testing.voltest import report, suite
from orlop.testing.voltest.bench import Bench
from orlop.testing.voltest.checks import Check, Result
from orlop.testing.voltest.subject import LOCAL, ORLOP, Subject, buttervolume, rclone

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/scoreboard.md"
PEERS = ROOT / ".cache/peers/bin"
# Volumes, containers, and the folder of the machine.
_UNSTABLE = ((r"\bvt-[0-9a-f]{12}", "VOLUME"), (r"\b[0-9a-f]{12}\b", "ID"), (r"/\S*/voltest-[\w-]+/\d+", "…"))
HEAD = """\
# Scoreboard

What [voltest](voltest.md) saw: orlop, Docker's own driver, and two other volume plugins, judged by the same checks on
the same computer. This page is made by `make scoreboard`; nothing on it is written by hand.

{date}; {versions}.
"""


def main() -> int:
    """Run everything, write the page."""
    if os.geteuid() != 0:
        sys.exit("scoreboard: machines of namespaces need root")
    subjects = [ORLOP, LOCAL, rclone(PEERS / "rclone"), buttervolume(PEERS / "buttervolume")]
    chosen = suite.all_checks()
    seen = {subject.name: run_all(subject, chosen) for subject in subjects}
    PAGE.write_text(page(chosen, seen))
    return 0


def run_all(subject: Subject, chosen: list[Check]) -> list[Result]:
    """Every check against one subject."""
    with Bench(subject) as bench:
        results = [suite.run(one, bench) for one in chosen]
    print(f"{subject.name}: {report.totals(results)}, {sum(result.seconds for result in results):.0f} s", flush=True)
    return results


def page(chosen: list[Check], seen: dict[str, list[Result]]) -> str:
    """The page as Markdown: the table, then what was seen, then what was not."""
    parts = [HEAD.format(date=datetime.datetime.now(datetime.UTC).date(), versions=", ".join(versions()))]
    parts.append(table(chosen, seen))
    parts.append("## What was seen where a check failed\n")
    parts.extend(section(name, failures(results)) for name, results in seen.items())
    parts.append("## Why a check says nothing\n")
    parts.extend(section(name, silences(results)) for name, results in seen.items())
    return "\n".join(parts)


def versions() -> list[str]:
    """Of everything that has a part in the results."""
    return [
        f"orlop {orlop.__version__}",
        first_line("dockerd", "--version"),
        first_line(str(PEERS / "rclone"), "version"),
        first_line(str(PEERS / "buttervolume"), "--version"),
        f"Linux {platform.release().partition('-')[0]}",
        f"Python {platform.python_version()}",
    ]


def first_line(*argv: str) -> str:
    """What a program says about itself."""
    output = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return output.splitlines()[0].replace("Docker version", "dockerd").strip()


def table(chosen: list[Check], seen: dict[str, list[Result]]) -> str:
    """A row per check, a column per subject, and the totals."""
    lines = [f"| | | {' | '.join(seen)} |", "|-|-|" + "-|" * len(seen)]
    for row, check in enumerate(chosen):
        outcomes = " | ".join(marked(results[row].outcome) for results in seen.values())
        lines.append(f"| {check.id} | {check.title} | {outcomes} |")
    lines.append(f"| | **in all** | {' | '.join(report.totals(results) for results in seen.values())} |")
    return "\n".join([*lines, ""])


def marked(outcome: str) -> str:
    """Failures are what the eye looks for."""
    return f"**{outcome}**" if outcome == "FAIL" else outcome


def section(name: str, lines: list[str]) -> str:
    """One subject's list."""
    return "\n".join([f"### {name}\n", *(lines or ["Nothing."]), ""])


def failures(results: list[Result]) -> list[str]:
    """A line per check that failed."""
    return [f"- {result.check.id}: {stable(result.seen)}" for result in results if result.outcome == "FAIL"]


def silences(results: list[Result]) -> list[str]:
    """A line per reason why checks do not apply."""
    reasons: dict[str, list[str]] = {}
    for result in results:
        if result.outcome == "n/a":
            reasons.setdefault(result.seen, []).append(result.check.id)
    return [f"- {', '.join(ids)}: {stable(reason)}" for reason, ids in reasons.items()]


def stable(text: str) -> str:
    """Without the names that differ from run to run; and so that Markdown shows it as it is."""
    for pattern, word in _UNSTABLE:
        text = re.sub(pattern, word, text)
    return re.sub(r"([<>*_`|\[\]])", r"\\\1", text)


if __name__ == "__main__":
    sys.exit(main())
