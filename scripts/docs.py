"""``make docs``: pages made from the code: commands, drivers, benchmarks and the man pages in docs/man/.

``--check`` writes nothing and fails, naming them, if pages differ from what the code says.
"""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from orlop import engine
from orlop.cli.driver import needs
from orlop.cli.main import main as orlop
from orlop.volumes.driver import VolumeDriver
from orlop.volumes.remote import RemoteDriver

HOME = Path(__file__).parent.parent / "docs"
sys.path.append(str(HOME.parent / "bench"))
from figures import Figure, verdict  # noqa: E402 - benchmarks are no package

MADE = "<!-- made by `make docs`: change the code instead -->"


def pages() -> dict[Path, str]:
    commands = list(walk(orlop, ("orlop",)))
    found = {
        HOME / "commands.md": reference(commands),
        HOME / "drivers.md": drivers(),
        HOME / "benchmarks.md": benchmarks(),
    }
    for names, command in commands:
        found[HOME / "man" / f"{'-'.join(names)}.1"] = man(names, command)
    return found


def walk(command: click.Command, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that lead to it, in the order in which help lists them."""
    yield names, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from walk(child, (*names, name))


def reference(commands: list[tuple[tuple[str, ...], click.Command]]) -> str:
    parts = [MADE, "# Commands\n"]
    for names, command in commands:
        with click.Context(command, info_name=" ".join(names), terminal_width=100, max_content_width=100) as context:
            parts.append(f"## {' '.join(names)}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def drivers() -> str:
    parts = [MADE, "# Volume drivers and their options\n"]
    parts.append("Chosen with `-o driver=NAME` (Docker) or `--driver NAME` (orlop); `local` where nothing is said.\n")
    for name, driver in sorted(engine.drivers(engine.Config()).items()):
        parts.append(f"## {name}\n\n{_about(driver)}\n\n| option | meaning |\n|---|---|")
        parts.extend(f"| `{option}` | {help_.replace('|', '/')} |" for option, help_ in driver.options().items())
        parts.append("")
    return "\n".join(parts)


def _about(driver: VolumeDriver) -> str:
    """What its module says; of one that a recipe describes, what the recipe's says, and what must be there."""
    if not isinstance(driver, RemoteDriver):
        return paragraphs(sys.modules[type(driver).__module__].__doc__ or "")
    recipe = driver.recipe
    text = paragraphs(sys.modules[recipe.mount.__module__].__doc__ or "")
    return f"{text}\n\nNeeds {needs(recipe)}. How its health is seen: {recipe.health}. See [remote.md](remote.md)."


def benchmarks() -> str:
    """What ``make bench`` measured last, from bench/results/."""
    parts = [MADE, "# Benchmarks\n", BENCHMARKS]
    for path in sorted((HOME.parent / "bench/results").glob("*.json")):
        about = ast.get_docstring(ast.parse((HOME.parent / "bench" / f"{path.stem}.py").read_text())) or ""
        parts.append(f"## {path.stem}\n\n{paragraphs(about)}\n\n```\nmake bench ONLY={path.stem}\n```\n")
        parts.append("| | ours | peer | ratio | goal | |\n|---|---|---|---|---|---|")
        parts.extend(figure_row(Figure(**figure)) for figure in json.loads(path.read_text()))
        parts.append("")
    return "\n".join(parts)


BENCHMARKS = """\
Medians of runs in turn with the peer, in one process, on one computer; the ratio is the median of the ratios pair
by pair. A missed goal is shown as it is. Loop-file filesystems in memory are used, so that a slow disk does not
hide what a program costs.
"""


def figure_row(figure: Figure) -> str:
    peer = f"{figure.peer:g} {figure.unit} ({figure.peer_name})" if figure.peer is not None else ""
    ratio = f"{figure.ratio:.2f}" if figure.ratio is not None else ""
    goal = f"{figure.goal} | {verdict(figure).replace('missed', '**missed**')}" if figure.goal else "control |"
    return f"| {figure.name} | {figure.ours:g} {figure.unit} | {peer} | {ratio} | {goal} |"


def paragraphs(docstring: str) -> str:
    """A docstring as markdown: indented lines are code already, double backquotes become single ones."""
    return docstring.strip().replace("``", "`")


def man(names: tuple[str, ...], command: click.Command) -> str:
    title = "-".join(names)
    context = click.Context(command, info_name=" ".join(names))
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f'.TH "{title.upper()}" "1" "" "orlop" "orlop manual"', ".SH NAME"]
    lines += [f"{roff(title)} \\- {roff(command.get_short_help_str(200))}", ".SH SYNOPSIS"]
    lines += [f"\\fB{roff(' '.join(names))}\\fR {roff(usage)}", ".SH DESCRIPTION", roff(text_of(command))]
    records = [option.get_help_record(context) for option in command.get_params(context)]
    if any(records):
        lines.append(".SH OPTIONS")
        for record in filter(None, records):
            lines += [".TP", f"\\fB{roff(record[0])}\\fR", roff(record[1])]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                lines += [".TP", f"\\fB{roff(title)}\\-{roff(name)}\\fR(1)", roff(child.get_short_help_str(200))]
    return "\n".join(lines) + "\n"


def text_of(command: click.Command) -> str:
    """A command's help, one line a paragraph as roff wants it."""
    return "\n\n".join(" ".join(part.split()) for part in (command.help or "").replace("\b", "").split("\n\n"))


def roff(text: str) -> str:
    """Make ``text`` safe: nothing in it may be taken for a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in escaped.splitlines())


def main(check: bool) -> None:
    made = pages()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    orphans = [path for path in (HOME / "man").glob("*.1") if path not in made]
    if check:
        for path in (*stale, *orphans):
            print(f"docs: {path.relative_to(HOME.parent)} is not what the code says; run 'make docs'", file=sys.stderr)
        sys.exit(1 if stale or orphans else 0)
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(made[path])
    for path in orphans:
        path.unlink()


if __name__ == "__main__":
    main("--check" in sys.argv[1:])
