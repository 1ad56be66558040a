"""Options that many commands share: where orlop keeps its things, and how patient it is."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from orlop.engine import Config
from orlop.errors import Invalid, OrlopError
from orlop.kernel import processes

_DEFAULT = Config()
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
FOLDER = click.Path(file_okay=False, path_type=Path)


class Duration(click.ParamType[float]):
    """Seconds, written as ``90``, ``15m``, ``24h`` or ``7d``."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse; a number is taken as it is."""
        if isinstance(value, (int, float)):
            return float(value)
        text = str(value)
        number, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 1)
        try:
            return float(number) * unit
        except ValueError:
            self.fail(f"{text!r} is not a duration such as 90s, 15m, 24h or 7d", param, ctx)


def configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``command`` the options of `Config`; it is called with the `Config` first."""

    @click.option("--root", type=FOLDER, default=_DEFAULT.root, show_default=True, envvar="ORLOP_ROOT",
                  help="Folder of the volumes and the state file.")  # fmt: skip
    @click.option("--run", type=FOLDER, default=None, envvar="ORLOP_RUN",
                  help="Folder in memory, for secrets.  [default: below /run/orlop]")  # fmt: skip
    @click.option("--mounts", type=FOLDER, default=None, envvar="ORLOP_MOUNTS",
                  help="Where volumes are mounted.  [default: below the root]")  # fmt: skip
    @click.option("--key-file", type=click.Path(dir_okay=False, path_type=Path), default=None, envvar="ORLOP_KEY_FILE",
                  help="Key of the secrets in the vault.  [default: vault.key below the root]")  # fmt: skip
    @click.option("--trash-grace", type=Duration(), default=_DEFAULT.trash_grace, envvar="ORLOP_TRASH",
                  help="How long a removed volume can be restored.  [default: 24h]")  # fmt: skip
    @click.option("--hold-grace", type=Duration(), default=_DEFAULT.hold_grace, envvar="ORLOP_HOLD_GRACE", hidden=True)
    @click.option("--boot-id", default="", envvar="ORLOP_BOOT_ID", hidden=True)
    @functools.wraps(command)
    def with_config(
        root: Path, run: Path | None, mounts: Path | None, key_file: Path | None, trash_grace: float,
        hold_grace: float, boot_id: str, **rest: object,
    ) -> object:  # fmt: skip
        processes.leave_no_core()
        root = root.resolve()
        run = run or Path("/run/orlop") / str(root).strip("/").replace("/", "-")
        mounts, key_file = mounts and mounts.resolve(), key_file and key_file.absolute()
        config = Config(root, run, trash_grace, hold_grace, mounts=mounts, key_file=key_file, boot=boot_id)
        return command(config, **rest)

    return with_config


def mapping(texts: Sequence[str]) -> dict[str, str]:
    """``key=value`` texts as a mapping; a key alone has an empty value."""
    found = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key:
            raise Invalid(f"{text!r} is not KEY=VALUE")
        found[key] = value
    return found


def each(names: Sequence[str], do: Callable[[str], object]) -> int:
    """``do`` each of ``names``, whatever becomes of the others; prints errors, and returns the exit status."""
    status = 0
    for name in names:
        try:
            do(name)
        except OrlopError as error:
            click.echo(f"orlop: {error}", err=True)
            status = 1
    return status
