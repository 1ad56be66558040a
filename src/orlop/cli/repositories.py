"""Options that all commands about snapshots share: in which repository they are."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import click

from orlop import engine
from orlop.cli.options import configured, mapping
from orlop.errors import Invalid
from orlop.volumes.repositories import Place


def with_timeline(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``command`` the options of a repository; it is called with its `Timeline` first."""

    @click.option("--repository", metavar="ADDRESS", envvar="ORLOP_REPOSITORY",
                  help="Where the snapshots are: /folder, s3://bucket/prefix, azure://container/prefix or "
                  "gs://bucket/prefix.  [default: snapshots below the root]")  # fmt: skip
    @click.option("--password", metavar="REFERENCE", envvar="ORLOP_PASSWORD",
                  help="Its password, as secret:NAME, file:PATH or env:NAME.")  # fmt: skip
    @click.option("--store", "settings", multiple=True, metavar="KEY=VALUE",
                  help="Setting of its store, such as endpoint=https://host; keys are given as references. Repeatable.",
                  )  # fmt: skip
    @configured
    @functools.wraps(command)
    def found(
        config: engine.Config, repository: str | None, password: str | None, settings: Sequence[str], **rest: object
    ) -> object:
        return command(engine.timeline(config, _place(repository, password, mapping(settings))), **rest)

    return found


def _place(address: str | None, password: str | None, settings: dict[str, str]) -> Place | None:
    if address is None:
        if password or settings:
            raise Invalid("--password and --store need --repository")
        return None
    if password is None:
        raise Invalid(
            f"the password of repository {address!r} is missing: say --password secret:NAME, file:PATH or env:NAME"
        )
    return Place(address, password, settings)
