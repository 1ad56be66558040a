"""``python -m orlop.testing.voltest``: run the checks against a plugin; exit status 1 if any of them failed."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from orlop.testing.voltest import checks, report, subject, suite
from orlop.testing.voltest.bench import Bench


def main(words: Sequence[str] | None = None) -> int:
    """Parse the command line, run, print; returns the exit status."""
    parser = _parser()
    arguments = parser.parse_args(words)
    try:
        chosen = suite.select(one for one in arguments.only.split(",") if one)
    except KeyError as error:
        parser.error(str(error.args[0]))

    try:
        with Bench(_subject(arguments), arguments.socket, arguments.kills) as bench:
            results = _run(chosen, bench, quiet=arguments.format == "json")
    except checks.Failed as failure:
        parser.error(str(failure))
    as_json = arguments.format == "json"
    print(report.as_json(bench.subject.name, results) if as_json else f"\n{report.totals(results)}")
    return int(any(result.outcome == "FAIL" for result in results))


def _run(chosen: Sequence[checks.Check], bench: Bench, *, quiet: bool) -> list[checks.Result]:
    """Run the checks, and print each as it ends unless ``quiet``; raises `Failed` if the plugin does not even start."""
    if bench.controlled:
        bench.prepare("control")
    results = []
    for one in chosen:
        results.append(suite.run(one, bench))
        if not quiet:
            print(report.line(results[-1]), flush=True)
    return results


def _subject(arguments: argparse.Namespace) -> subject.Subject:
    options = dict(pair.split("=", 1) for pair in arguments.opt)
    if arguments.socket:
        return subject.Subject("plugin", options=options)
    if arguments.plugin_cmd:
        return subject.foreign(arguments.plugin_cmd, options)
    chosen = {
        "orlop": lambda: subject.ORLOP,
        "local": lambda: subject.LOCAL,
        "rclone": lambda: subject.rclone(arguments.program or Path("rclone")),
        "buttervolume": lambda: subject.buttervolume(arguments.program or Path("buttervolume")),
    }[arguments.subject]()
    return dataclasses.replace(chosen, options={**chosen.options, **options})


def _absolute(path: str) -> Path:
    """As the machine finds it, whose programs start in ``/``."""
    return Path(path).absolute()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("voltest", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--subject", choices=("orlop", "local", "rclone", "buttervolume"), help="one that is known")
    which.add_argument("--plugin-cmd", help="what runs a plugin in the foreground, with {socket} and {state} in it")
    which.add_argument("--socket", type=Path, help="of a plugin that runs already: nothing but calls is tried")
    parser.add_argument("--program", type=_absolute, help="where the subject's program is, if not in PATH")
    parser.add_argument("--opt", action="append", default=[], metavar="KEY=VALUE", help="for every volume created")
    parser.add_argument("--only", default="", metavar="ID,...", help="these checks or groups: I5,S")
    parser.add_argument("--kills", type=int, default=30, help="how often S9 kills (30)")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
