"""Where Docker looks for a plugin that has no socket in ``/run/docker/plugins``: ``/etc/docker/plugins``.

A ``.spec`` file is one line, a URL. A ``.json`` file can name certificates too. Docker checks the server's certificate
only where it finds a ``CAFile``, and speaks TLS only to an address that begins with ``https``.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from orlop.errors import Invalid


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the engine needs to be heard, as paths on the engine's host."""

    ca: Path
    cert: Path
    key: Path


def spec(address: str) -> str:
    """The ``.spec`` line for ``address``, a ``unix://`` URL or the path of a socket."""
    url = f"unix://{address}" if address.startswith("/") else address
    if urlsplit(url).scheme != "unix" or not urlsplit(url).path:
        raise Invalid(f"{address!r} is no unix:///PATH; an address on the network needs --ca, --cert and --key")
    return url + "\n"


def document(name: str, address: str, certificates: Certificates) -> str:
    """The ``.json`` for plugin ``name`` at ``address``: ``HOST:PORT``, or that as a URL."""
    place = urlsplit(address if "://" in address else f"https://{address}")
    if place.scheme not in ("https", "tcp") or not _port(place.netloc) or place.path.strip("/"):
        raise Invalid(f"{address!r} is not HOST:PORT")
    files = {
        "CAFile": str(certificates.ca.absolute()),
        "CertFile": str(certificates.cert.absolute()),
        "KeyFile": str(certificates.key.absolute()),
    }
    content = {"Name": name, "Addr": f"https://{place.netloc}", "TLSConfig": {"InsecureSkipVerify": False, **files}}
    return json.dumps(content, indent=2) + "\n"


def _port(place: str) -> bool:
    host, _, port = place.rpartition(":")
    return bool(host) and port.isdigit()
