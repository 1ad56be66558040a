"""``orlop keep``: the keeper of this host's bucket volumes, which orlop starts by itself."""

import logging
import sys

import click

from orlop import engine
from orlop.cli.options import configured


@click.command(hidden=True)
@configured
def keep(config: engine.Config) -> None:
    """Renew the leases of bucket volumes in use, and ship what changes in them."""
    from orlop.volumes.bucket.keeper import Keeper

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    Keeper(engine.buckets(config)).run()
