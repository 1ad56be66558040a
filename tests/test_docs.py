"""The pages say what the code does: made ones are up to date, links lead somewhere, commands exist."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from orlop.cli.main import main as orlop

HOME = Path(__file__).parent.parent
PAGES = sorted([*HOME.glob("*.md"), *HOME.glob("docs/**/*.md")])


def test_pages_made_from_the_code_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, HOME / "scripts/docs.py", "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_every_benchmark_can_be_loaded_and_has_its_part_of_the_page() -> None:
    # Nobody runs all of them every day, and they share parts with each other and with the tests.
    # Each in a process of its own: one that is loaded may have what the next one lacks.
    load = "import run, sys; run._load(run.HERE / sys.argv[1]).measure"
    paths = list((HOME / "bench").glob("*_*.py"))
    for path in paths:
        argv = [sys.executable, "-c", load, path.name]
        done = subprocess.run(argv, cwd=path.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    shown = re.findall(r"^## (.+)$", (HOME / "docs/benchmarks.md").read_text(), re.MULTILINE)
    assert set(shown) <= {path.stem for path in paths}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HOME)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HOME)))
def test_every_command_that_is_shown_exists(page: Path) -> None:
    text = page.read_text()
    code = "\n".join(
        [*re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL), *re.findall(r"`[^`\n]+`", text)]
    )
    shown = re.findall(r"(?:^|[`$] ?|sudo |&& )orlop((?: [a-z]+)*)", code, re.MULTILINE)

    assert [words for words in shown if not _exists(words.split())] == []


def _exists(words: list[str]) -> bool:
    command: click.Command = orlop
    for word in words:
        if not isinstance(command, click.Group):
            return True  # the rest are arguments
        found = command.get_command(click.Context(command), word)
        if found is None:
            return False
        command = found
    return True


@pytest.mark.skipif(not shutil.which("man"), reason="the program man is not installed")
def test_a_man_page_reads_as_one() -> None:
    page = HOME / "docs/man/orlop.1"

    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", str(page)], capture_output=True, text=True, check=True
    )

    assert "warning" not in done.stderr
    assert "SYNOPSIS" in done.stdout
