"""Objects in a bucket: S3 and what speaks it, Azure Blob Storage, Google Cloud Storage, all through obstore.

obstore retries what may be sent twice. A conditional write may not: the second attempt would meet what the first one
wrote, and call it a conflict. So a client without retries sends those, and `Unavailable` leaves the outcome open.

A store that is dead ends in `Unavailable` after about ``patience`` seconds: connecting may take 5 of them, silence may
last all of them, and no attempt begins after half of them.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Final

from orlop.errors import NotFound, Unavailable
from orlop.objects._cloud_errors import translated
from orlop.objects.store import ABSENT, ObjectInfo, check_key

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode, PutResult
    from obstore.store import AzureStore, BackoffConfig, ClientConfig, GCSStore, RetryConfig, S3Store

    Client = AzureStore | GCSStore | S3Store

PATIENCE: Final = 30.0
"""Seconds after which a store that does not answer is `Unavailable`."""
_PART: Final = 8 << 20
"""Bytes of a part; S3 takes 10,000 of them, so an object may have 80 GB."""
_PARTS_AT_ONCE: Final = 4
_LIST: Final = 1000


class CloudStore:
    """The objects of one bucket. ``address`` is what errors and people call it; secrets are not in it."""

    def __init__(
        self, address: str, connect: "Callable[[ClientConfig, RetryConfig], Client]", patience: float = PATIENCE
    ) -> None:
        self._address = address
        client: ClientConfig = {
            "allow_http": True,  # an endpoint that says http:// means it
            "connect_timeout": timedelta(seconds=min(5, patience / 4)),
            "read_timeout": timedelta(seconds=patience),
            "timeout": timedelta(days=1),  # of a whole request, with all its bytes
        }
        with translated(address):
            self._patient = connect(client, _retries(patience))
            self._careful = connect(client, {"max_retries": 0})

    def __repr__(self) -> str:
        return f"CloudStore({self._address!r})"

    def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore`."""
        import obstore

        with translated(self._address, check_key(key)):
            return _info(obstore.head(self._patient, key))

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See `ObjectStore`."""
        if end is not None and end <= start:
            self.stat(key)
            return
        with translated(self._address, check_key(key)):
            try:
                pieces = self._get(key, start, end)
            except Unavailable:
                # How stores say that there is nothing from ``start`` on; each has words of its own for it.
                if start and self.stat(key).size <= start:
                    return
                raise
            yield from map(bytes, pieces)

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        """See `ObjectStore`. What is larger than a part goes in parts, unless there is a condition."""
        check_key(key)
        if only_if is not None:
            return self._put(key, b"".join(data), only_if)
        first, rest = _first_part(data)
        return self._put(key, first) if rest is None else self._put_parts(key, chain((first,), rest))

    def delete(self, key: str) -> None:
        """See `ObjectStore`."""
        import obstore

        with suppress(NotFound), translated(self._address, check_key(key)):
            obstore.delete(self._patient, key)

    def walk(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore`. All of it is in memory (about 0.5 KB an object): not every store lists in order."""
        import obstore

        above = prefix.rpartition("/")[0]
        with translated(self._address):
            pages = obstore.list(self._patient, above or None, chunk_size=_LIST)
            found = [_info(each) for page in pages for each in page if each["path"].startswith(prefix)]
        yield from sorted(found, key=lambda info: info.key)

    def _get(self, key: str, start: int, end: int | None) -> Iterator[bytes]:
        import obstore

        options: GetOptions = {}
        if start or end is not None:
            options["range"] = {"offset": start} if end is None else (start, end)
        with translated(self._address, key):
            return obstore.get(self._patient, key, options=options).stream(min_chunk_size=1 << 20)

    def _put(self, key: str, body: bytes, only_if: str | None = None) -> ObjectInfo:
        import obstore

        client = self._patient if only_if is None else self._careful
        with _no_bucket(self._address), translated(self._address, key):
            done = obstore.put(client, key, body, mode=_mode(only_if), use_multipart=False)
        return _written(key, len(body), done)

    def _put_parts(self, key: str, data: Iterable[bytes]) -> ObjectInfo:
        import obstore

        source = _Source(data)
        with _no_bucket(self._address), translated(self._address, key, ours=source.failure):
            done = obstore.put(self._patient, key, source.pieces(), chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE)
        return _written(key, source.size, done)


class _Source:
    """Data on its way through obstore, which does not tell a failure of the data from one of the store."""

    def __init__(self, data: Iterable[bytes]) -> None:
        self._data = data
        self._failure: Exception | None = None
        self.size = 0

    def failure(self) -> Exception | None:
        return self._failure

    def pieces(self) -> Iterator[bytes]:
        try:
            for piece in self._data:
                self.size += len(piece)
                yield piece
        except Exception as failure:
            self._failure = failure
            raise


@contextmanager
def _no_bucket(address: str) -> Iterator[None]:
    """A write that finds nothing has not found the bucket."""
    try:
        yield
    except NotFound:
        raise Unavailable(f"there is no {address}: make the bucket first") from None


def _first_part(data: Iterable[bytes]) -> tuple[bytes, Iterator[bytes] | None]:
    """What one request can carry, and the rest; None if there is none."""
    first, pieces = bytearray(), iter(data)
    for piece in pieces:
        first += piece
        if len(first) > _PART:
            return bytes(first), pieces
    return bytes(first), None


def _mode(only_if: str | None) -> "PutMode":
    if only_if is None:
        return "overwrite"
    if only_if == ABSENT:
        return "create"
    tag, _, version = only_if.partition(" ")
    quoted = f'"{tag}"'
    return {"e_tag": quoted, "version": version} if version else {"e_tag": quoted}


def _info(meta: "ObjectMeta") -> ObjectInfo:
    version = _version(meta["e_tag"], meta["version"])
    return ObjectInfo(meta["path"], meta["size"], version, meta["last_modified"].timestamp())


def _written(key: str, size: int, done: "PutResult") -> ObjectInfo:
    return ObjectInfo(key, size, _version(done["e_tag"], done["version"]), time.time())


def _version(tag: str | None, version: str | None) -> str:
    # Azure quotes a tag in the answer to a request for the object, and not in a list.
    return f"{(tag or '-').strip(chr(34))} {version or ''}".strip()


def _retries(patience: float) -> "RetryConfig":
    backoff: BackoffConfig = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
    return {"max_retries": 10, "retry_timeout": timedelta(seconds=patience / 2), "backoff": backoff}
