"""Who may ask: Azure's Shared Key authorization, checked as its specification has it.

The signature covers the method, the standard headers, every ``x-ms-`` header and the whole address, so a request that
was changed on its way is refused like one that was signed with another key.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

from orlop.testing.azure.messages import Refused, Request

_SIGNED = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)
"""The standard headers that are signed, in this order."""
_OLDEST = 15 * 60
"""Seconds that a request's time may differ from the service's."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A storage account's name and key."""

    account: str
    key: str = field(repr=False)

    def authorization(self, request: Request) -> str:
        """The header ``Authorization`` that ``request`` must have."""
        text = string_to_sign(self.account, request)
        digest = hmac.digest(base64.b64decode(self.key), text.encode(), hashlib.sha256)
        return f"SharedKey {self.account}:{base64.b64encode(digest).decode()}"

    def check(self, request: Request, now: Callable[[], float]) -> None:
        """Raises `Refused` unless the owner of the key has sent ``request``, lately."""
        if "authorization" not in request.headers:
            raise Refused(401, "NoAuthenticationInformation", "Server failed to authenticate the request.")
        if not hmac.compare_digest(request.headers["authorization"].encode(), self.authorization(request).encode()):
            raise Refused(403, "AuthenticationFailed")
        try:
            sent = parsedate_to_datetime(request.headers.get("x-ms-date") or request.headers.get("date", ""))
        except ValueError:
            raise Refused(403, "AuthenticationFailed") from None
        if abs(sent.timestamp() - now()) > _OLDEST:
            raise Refused(403, "AuthenticationFailed", "Request date header too old")


def string_to_sign(account: str, request: Request) -> str:
    """What is signed of ``request``, as of version 2015-02-21 of the service."""
    standard = {**request.headers}
    if standard.get("content-length") == "0":
        del standard["content-length"]
    if "x-ms-date" in standard:
        standard.pop("date", None)
    lines = [request.method, *(standard.get(name, "") for name in _SIGNED)]
    return "\n".join([*lines, *_headers(request.headers), _resource(account, request)])


def _headers(headers: Mapping[str, str]) -> list[str]:
    return [
        f"{name}:{_unfolded(headers[name])}" for name in sorted(name for name in headers if name.startswith("x-ms-"))
    ]


def _unfolded(value: str) -> str:
    """With one blank for any number of them, but inside of quotation marks."""
    parts = re.split(r'("[^"]*")', value.strip())
    return "".join(part if part.startswith('"') else re.sub(r"\s+", " ", part) for part in parts)


def _resource(account: str, request: Request) -> str:
    parameters = (f"\n{name}:{value}" for name, value in sorted(request.query.items()))
    return f"/{account}{request.path}" + "".join(parameters)
