"""``orlop serve``: the daemon, as one engine's or many engines' volume plugin."""

import json
import logging
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

import click

from orlop import engine
from orlop.cli.options import Duration, configured
from orlop.errors import Invalid

DEFAULT_SOCKET = Path("/run/docker/plugins/orlop.sock")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--socket", "sockets", multiple=True, type=click.Path(path_type=Path),
              help=f"Unix socket to listen on; repeatable.  [default: {DEFAULT_SOCKET}]")  # fmt: skip
@click.option("--tcp", metavar="HOST:PORT", help="Listen with TLS as well; needs the three files below.")
@click.option("--tls-cert", type=_FILE, help="The daemon's certificate (PEM).")
@click.option("--tls-key", type=_FILE, help="The daemon's private key (PEM).")
@click.option("--tls-ca", type=_FILE, help="The authority that signed the certificates of clients (PEM).")
@click.option("--default-driver", metavar="NAME", default="",
              help=f"Driver of volumes for which nothing is said.  [default: {engine.DRIVER}, or local]")  # fmt: skip
@click.option("--interval", type=Duration(), default=30.0, help="How often to reconcile.  [default: 30s]")
@click.option("--snapshot-interval", type=Duration(), default=60.0,
              help="How often to look which snapshots are due.  [default: 1m]")  # fmt: skip
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--debug", is_flag=True, envvar="DEBUG", help="Log more.")
@configured
def serve(
    config: engine.Config,
    sockets: tuple[Path, ...],
    tcp: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    default_driver: str,
    interval: float,
    snapshot_interval: float,
    log_format: str,
    debug: bool,
) -> None:
    """Keep the volumes of Docker, Podman and whoever speaks the volume plugin protocol."""
    # Imported here: no other command should pay for a web server.
    from orlop.frontends import listeners
    from orlop.frontends.rounds import Rounds
    from orlop.frontends.serve import Daemon

    _log_to_stderr(log_format, debug=debug)
    # First of all, so that a state that cannot be used leaves no socket behind for engines to wait at.
    service = engine.volumes(replace(config, default_driver=default_driver))
    service.driver(service.default_driver)
    found = listeners.inherited() or [listeners.unix(path) for path in sockets or (DEFAULT_SOCKET,)]
    if tcp:
        if not (tls_cert and tls_key and tls_ca):
            raise Invalid("--tcp needs --tls-cert, --tls-key and --tls-ca: whoever connects can mount")
        found.append(listeners.tcp(tcp, tls_cert, tls_key, tls_ca))
    snapshots = Rounds(
        engine.command(config, "snapshot", "run"), lambda: bool(service.state.names()), snapshot_interval
    )
    Daemon(service, found, interval, snapshots).run(_tell_systemd)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, and what the message is about."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        about = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        line = {"time": self.formatTime(record), "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({**line, **about}, default=str)


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _log_to_stderr(format_: str, *, debug: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonLines() if format_ == "json" else text)
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
    if not debug:
        # Azure's SDK finds every request worth twenty lines.
        logging.getLogger("azure").setLevel(logging.WARNING)


def _tell_systemd() -> None:
    """READY=1, where systemd waits for it (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect("\0" + address[1:] if address.startswith("@") else address)
            notify.send(b"READY=1")
