"""``orlop volume publish``: a volume's content to IPFS, and back its name."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import click

from orlop import engine
from orlop.cli.ending import asked_to_end
from orlop.cli.options import configured, each
from orlop.volumes.held import mounted
from orlop.volumes.ipfs import publish as parts
from orlop.volumes.ipfs.cid import Cid
from orlop.volumes.ipfs.node import API, DEFAULT, Node

_SILENCE = 600.0
"""Seconds until a node that says nothing is given up: a large file, or content to pin from far away, takes its time."""


@click.command()
@click.argument("name")
@click.option("--api", default=DEFAULT, show_default=True, envvar=API, metavar="NODE",
              help="Address of the RPC API of the node that gets the content.")  # fmt: skip
@click.option("--pin", "peers", multiple=True, envvar="IPFS_PIN", metavar="NODE",
              help="Have this node, too, fetch the content and keep it; repeatable.")  # fmt: skip
@click.option("--ipns", "key", metavar="KEY", help="Let the IPNS name of the node's key KEY stand for the content.")
@click.option("--format", "format_", type=click.Choice(["json"]), help="Say more than the CID.")
@configured
def publish(
    config: engine.Config, name: str, api: str, peers: Sequence[str], key: str | None, format_: str | None
) -> None:
    """Add a volume's content to an IPFS node, and print its CID.

    The volume may be in use: then what changes meanwhile may be old in one file and new in another. Owners, modes and
    attributes are not kept; everybody who learns the CID can read the content.
    """
    service, pinned = engine.volumes(config), [api]
    nodes = {peer: Node(peer, _SILENCE) for peer in (api, *peers)}
    row = service.get(name)
    with asked_to_end(), mounted(service, row.name, "publish") as folder:
        cid = _add(nodes[api], folder, name, service.usage(row) or 0)

    def pin(peer: str) -> None:
        nodes[peer].pin(cid)
        pinned.append(peer)

    failed = each([peer for peer in nodes if peer != api], pin)
    ipns = nodes[api].publish(cid, key) if key else None
    if format_:
        click.echo(json.dumps({"Cid": str(cid), "Ipns": ipns, "Pinned": pinned}))
    else:
        click.echo(str(cid))
    sys.exit(failed)


def _add(node: Node, folder: Path, name: str, size: int) -> Cid:
    hidden = not sys.stderr.isatty()
    with (
        click.progressbar(length=size or 1, label=f"publish {name}", file=sys.stderr, hidden=hidden) as bar,
        closing(parts.body(folder, name, lambda line: click.echo(f"orlop: {line}", err=True))) as body,
    ):

        def counted(pieces: Iterable[bytes]) -> Iterator[bytes]:
            for piece in pieces:
                yield piece
                bar.update(len(piece))

        return node.add(counted(body), parts.CONTENT_TYPE, name)
