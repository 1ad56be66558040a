"""``orlop hydrate``: fetches the missing files of one bucket volume in use; orlop starts it by itself."""

import logging
import sys

import click

from orlop import engine
from orlop.cli.options import configured


@click.command(hidden=True)
@click.argument("key")
@configured
def hydrate(config: engine.Config, key: str) -> None:
    """Bring the missing files of the volume whose storage is KEY here, while it is used."""
    from orlop.volumes.bucket.fetching import fetch_missing

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    fetch_missing(engine.buckets(config), key)
