"""The shares of the stand-in's account: what can be asked of them, and what each answer is.

Each operation is named as in the specification. A share is a folder; what is known about it is kept in memory.
"""

import itertools
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from pathlib import Path
from xml.sax.saxutils import escape

from orlop.testing.azure.messages import Refused, Reply, Request

LARGEST_QUOTA, LARGEST_METADATA, LARGEST_PAGE = 102_400, 8192, 5000
_NAME = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_META = "x-ms-meta-"
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*")
"""The rule of C# for names; headers have no case."""


@dataclass(frozen=True, slots=True)
class _Share:
    quota: int
    metadata: Mapping[str, str]
    tag: str
    modified: float

    @property
    def headers(self) -> dict[str, str]:
        return {"ETag": self.tag, "Last-Modified": formatdate(self.modified, usegmt=True)}


@dataclass
class Shares:
    """The shares below ``folder``; ``deletion`` is how many seconds a deleted share's name cannot be used.

    ``changed`` is called with a share's name and folder when it was made, and with None when it is to go away.
    ``refusals`` are errors that the tests want: the share, and the status and code for whatever is asked about it.
    """

    folder: Path
    deletion: float = 0.0
    page: int = LARGEST_PAGE
    changed: Callable[[str, Path | None], object] = lambda *_: None
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        """No shares."""
        self._shares: dict[str, _Share] = {}
        self._deleted: dict[str, float] = {}
        self._lock = threading.Lock()
        self._tags = itertools.count(0x8DE000000000000)

    def answer(self, request: Request) -> Reply:
        """Carry out ``request``. Raises `Refused`."""
        operation = OPERATIONS.get((request.method, request.query.get("restype"), request.query.get("comp")))
        if operation is None:
            raise Refused(405, "UnsupportedHttpVerb")
        if request.share in self.refusals:
            raise Refused(*self.refusals[request.share])
        with self._lock:
            return operation(self, request)

    def create_share(self, request: Request) -> Reply:
        """Create Share."""
        name = _legal(request.share)
        quota, metadata = _quota(request, 5120), _metadata(request)
        if self._deleted.get(name, 0) > self.now():
            raise Refused(409, "ShareBeingDeleted")
        if name in self._shares:
            raise Refused(409, "ShareAlreadyExists")
        place = self.folder / name
        place.mkdir(parents=True)
        self._shares[name] = _Share(quota, metadata, self._tag(), self.now())
        self.changed(name, place)
        return Reply(201, self._shares[name].headers)

    def get_share_properties(self, request: Request) -> Reply:
        """Get Share Properties."""
        share = self._there(request)
        metadata = {f"{_META}{name}": value for name, value in share.metadata.items()}
        return Reply(200, {**share.headers, **metadata, "x-ms-share-quota": str(share.quota)})

    def set_share_properties(self, request: Request) -> Reply:
        """Set Share Properties: the quota."""
        return self._change(request, replace(self._there(request), quota=_quota(request, None)))

    def set_share_metadata(self, request: Request) -> Reply:
        """Set Share Metadata: all of it at once."""
        return self._change(request, replace(self._there(request), metadata=_metadata(request)))

    def delete_share(self, request: Request) -> Reply:
        """Delete Share, with its files."""
        self._there(request)
        del self._shares[request.share]
        self._deleted[request.share] = self.now() + self.deletion
        self.changed(request.share, None)
        shutil.rmtree(self.folder / request.share)
        return Reply(202)

    def list_shares(self, request: Request) -> Reply:
        """List Shares, page by page, in the order of their names."""
        prefix, marker = request.query.get("prefix", ""), request.query.get("marker", "")
        wanted = _number(request.query.get("maxresults", str(LARGEST_PAGE)), "OutOfRangeQueryParameterValue")
        size = min(wanted, self.page)
        names = sorted(name for name in self._shares if name.startswith(prefix) and name >= marker)
        with_metadata = "metadata" in request.query.get("include", "").split(",")
        found = "".join(_described(name, self._shares[name], with_metadata) for name in names[:size])
        following = names[size] if len(names) > size else ""
        body = (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="http://stand-in/">'
            f"<Prefix>{escape(prefix)}</Prefix><Marker>{escape(marker)}</Marker><MaxResults>{wanted}</MaxResults>"
            f"<Shares>{found}</Shares><NextMarker>{following}</NextMarker></EnumerationResults>"
        )
        return Reply(200, {"Content-Type": "application/xml"}, body)

    def _there(self, request: Request) -> _Share:
        if request.share not in self._shares:
            raise Refused(404, "ShareNotFound")
        return self._shares[request.share]

    def _change(self, request: Request, share: _Share) -> Reply:
        self._shares[request.share] = replace(share, tag=self._tag(), modified=self.now())
        return Reply(200, self._shares[request.share].headers)

    def _tag(self) -> str:
        return f'"0x{next(self._tags):X}"'


OPERATIONS: Mapping[tuple[str, str | None, str | None], Callable[[Shares, Request], Reply]] = {
    ("PUT", "share", None): Shares.create_share,
    ("GET", "share", None): Shares.get_share_properties,
    ("HEAD", "share", None): Shares.get_share_properties,
    ("PUT", "share", "properties"): Shares.set_share_properties,
    ("PUT", "share", "metadata"): Shares.set_share_metadata,
    ("DELETE", "share", None): Shares.delete_share,
    ("GET", None, "list"): Shares.list_shares,
}
"""By the method and the parameters ``restype`` and ``comp``."""


def _legal(name: str) -> str:
    if not 3 <= len(name) <= 63:
        raise Refused(400, "OutOfRangeInput")
    if not _NAME.fullmatch(name):
        raise Refused(400, "InvalidResourceName")
    return name


def _quota(request: Request, default: int | None) -> int:
    text = request.headers.get("x-ms-share-quota", default)
    if text is None:
        raise Refused(400, "MissingRequiredHeader")
    quota = _number(str(text), "InvalidHeaderValue")
    if quota > LARGEST_QUOTA:
        raise Refused(400, "InvalidHeaderValue")
    return quota


def _metadata(request: Request) -> dict[str, str]:
    found = {name[len(_META) :]: text for name, text in request.headers.items() if name.startswith(_META)}
    if not all(_IDENTIFIER.fullmatch(name) and text.isascii() for name, text in found.items()):
        raise Refused(400, "InvalidMetadata")
    if sum(len(name) + len(text) for name, text in found.items()) > LARGEST_METADATA:
        raise Refused(400, "MetadataTooLarge")
    return found


def _number(text: str, code: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise Refused(400, code)
    return int(text)


def _described(name: str, share: _Share, with_metadata: bool) -> str:
    headers = share.headers
    text = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in share.metadata.items())
    metadata = f"<Metadata>{text}</Metadata>" if with_metadata else ""
    return (
        f"<Share><Name>{name}</Name><Properties><Last-Modified>{headers['Last-Modified']}</Last-Modified>"
        f"<Etag>{escape(share.tag)}</Etag><Quota>{share.quota}</Quota></Properties>{metadata}</Share>"
    )
