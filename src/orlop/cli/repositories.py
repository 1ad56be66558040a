"""Options that all commands about snapshots share: in which repository they are."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import click

from orlop import engine
from orlop.cli.options import configured, mapping
from orlop.errors import Invalid
from orlop.volumes.repositories import Place

_WHERE = "/folder, s3://bucket/prefix, azure://container/prefix or gs://bucket/prefix."


def with_timeline(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``command`` the options of a repository; it is called with its `Timeline` first."""

    @click.option("--repository", metavar="ADDRESS", envvar="ORLOP_REPOSITORY",
                  help=f"Where the snapshots are: {_WHERE}  [default: snapshots below the root]")  # fmt: skip
    @_secrets
    @configured
    @functools.wraps(command)
    def found(
        config: engine.Config, repository: str | None, password: str | None, settings: Sequence[str], **rest: object
    ) -> object:
        return command(engine.timeline(config, _chosen(repository, password, mapping(settings))), **rest)

    return found


def elsewhere(option: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the ``option`` that names a repository of others, too; it is called with the `Place` second."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.option(option, "repository", metavar="ADDRESS", required=True, help=f"The repository: {_WHERE}")
        @_secrets
        @configured
        @functools.wraps(command)
        def found(
            config: engine.Config, repository: str, password: str | None, settings: Sequence[str], **rest: object
        ) -> object:
            return command(config, _place(repository, password, mapping(settings)), **rest)

        return found

    return decorated


def _secrets(command: Callable[..., Any]) -> Callable[..., Any]:
    @click.option("--password", metavar="REFERENCE", envvar="ORLOP_PASSWORD",
                  help="Its password, as secret:NAME, file:PATH or env:NAME.")  # fmt: skip
    @click.option("--store", "settings", multiple=True, metavar="KEY=VALUE",
                  help="Setting of its store, such as endpoint=https://host; keys are given as references. Repeatable.",
                  )  # fmt: skip
    @functools.wraps(command)
    def found(*args: object, **rest: object) -> object:
        return command(*args, **rest)

    return found


def _chosen(address: str | None, password: str | None, settings: dict[str, str]) -> Place | None:
    if address is None and (password or settings):
        raise Invalid("--password and --store need --repository")
    return None if address is None else _place(address, password, settings)


def _place(address: str, password: str | None, settings: dict[str, str]) -> Place:
    if password is None:
        raise Invalid(
            f"the password of repository {address!r} is missing: say --password secret:NAME, file:PATH or env:NAME"
        )
    return Place(address, password, settings)
