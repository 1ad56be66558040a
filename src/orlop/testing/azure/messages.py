"""What the stand-in for Azure Files hears and says: requests, replies, and refusals with the service's codes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import escape


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request; ``path`` as it was sent, names of ``headers`` and ``query`` in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def share(self) -> str:
        """The share that is meant; empty for the account."""
        return self.path.strip("/")


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response; headers that all responses have are added later."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""


class Refused(Exception):
    """The service says no: a status, one of its error codes, and a sentence."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status, self.code = status, code
        self.message = message or MESSAGES.get(code, code)

    def reply(self) -> Reply:
        """As the service puts it: the code in a header, and in XML."""
        body = f"<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message></Error>"
        headers = {"x-ms-error-code": self.code, "Content-Type": "application/xml"}
        return Reply(self.status, headers, f'<?xml version="1.0" encoding="utf-8"?>{body}')


MESSAGES = {
    "AuthenticationFailed": "Server failed to authenticate the request. Make sure the value of Authorization header is "
    "formed correctly including the signature.",
    "InvalidHeaderValue": "The value for one of the HTTP headers is not in the correct format.",
    "InvalidMetadata": "The metadata specified is invalid. It has characters that are not permitted.",
    "InvalidResourceName": "The specified resource name contains invalid characters.",
    "MetadataTooLarge": "The size of the specified metadata exceeds the maximum size permitted.",
    "MissingRequiredHeader": "An HTTP header that's mandatory for this request is not specified.",
    "OutOfRangeInput": "One of the request inputs is out of range.",
    "OutOfRangeQueryParameterValue": "A query parameter specified in the request URI is outside the permissible range.",
    "ShareAlreadyExists": "The specified share already exists.",
    "ShareBeingDeleted": "The specified share is being deleted. Try operation later.",
    "ShareNotFound": "The specified share does not exist.",
    "UnsupportedHttpVerb": "The resource doesn't support specified Http Verb.",
}
