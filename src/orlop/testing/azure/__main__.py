"""The stand-in as a program: ``python -m orlop.testing.azure FOLDER``; the account is in the environment."""

import os
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

import click

from orlop.testing.azure.server import AzureFiles
from orlop.testing.azure.sharedkey import Credentials
from orlop.testing.samba import Samba


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=10000, show_default=True, help="Port of the REST service.")
@click.option("--deletion", default=0.0, show_default=True, help="Seconds that a deleted share's name is taken.")
@click.option("--smb", is_flag=True, help="Export the shares by a real Samba as well, on port 445 of the address.")
def main(folder: Path, host: str, port: int, deletion: float, smb: bool) -> None:
    """Run a stand-in for Azure Files (it is not Azure) until SIGTERM; shares are folders of FOLDER/shares.

    The environment has AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_ACCOUNT_KEY.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    credentials = Credentials(os.environ["AZURE_STORAGE_ACCOUNT"], os.environ["AZURE_STORAGE_ACCOUNT_KEY"])
    samba = Samba(folder / "samba", credentials, (host, 445)) if smb else None
    with ExitStack() as servers:
        if samba is not None:
            servers.enter_context(samba)
        changed = samba.export if samba else None
        azure = servers.enter_context(AzureFiles(folder / "shares", credentials, (host, port), changed))
        azure.shares.deletion = deletion
        click.echo(f"ready: {azure.url}")
        ended.wait()


if __name__ == "__main__":
    main()
