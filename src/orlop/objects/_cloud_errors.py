"""What obstore and the stores behind it say, as what the caller can do about it; never with a secret in it.

Their texts hold addresses (with signatures in them), headers and answers, so only what is known to be harmless is
taken from them, and the original is not kept as the cause.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orlop.errors import Conflict, NoSpace, NotFound, OrlopError, Unavailable

_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_FULL = ("QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "AccountQuotaExceeded")
# Two conditional writes at once, and S3 decided on neither, or on the other one: ask again.
_UNDECIDED = "ConditionalRequestConflict"


@contextmanager
def translated(address: str, key: str = "", ours: Callable[[], Exception | None] = lambda: None) -> Iterator[None]:
    """Raises errors of the store ``address`` as `orlop.errors`; ``ours`` is asked for an error that came from us."""
    try:
        yield
    except OrlopError:
        raise
    except Exception as error:
        if not _is_theirs(error) or ours():
            raise
        raise _kind(address, key, error) from None


def _is_theirs(error: Exception) -> bool:
    from obstore.exceptions import BaseError

    return isinstance(error, BaseError | FileNotFoundError | ValueError)


def _kind(address: str, key: str, error: Exception) -> OrlopError:
    from obstore.exceptions import AlreadyExistsError, PermissionDeniedError, PreconditionError, UnauthenticatedError

    code, reason = _code(str(error)), _reason(str(error))
    if code in _NO_BUCKET:
        return Unavailable(f"there is no {address}: make the bucket first")
    if isinstance(error, FileNotFoundError):
        return NotFound(f"no object {key!r}")
    if isinstance(error, AlreadyExistsError | PreconditionError) and code != _UNDECIDED:
        return Conflict(f"object {key!r} has changed")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or reason.startswith(("401", "403")):
        return Unavailable(f"{address} refuses the credentials: {reason}")
    if code in _FULL or "status code: 507" in str(error):
        return NoSpace(f"no space left in {address}: {reason}")
    return Unavailable(f"{address} does not answer: {reason}")


def _code(text: str) -> str:
    found = re.search(r"<Code>(\w{1,60})</Code>", text)
    return found[1] if found else ""


def _reason(text: str) -> str:
    status = re.search(r"status code: (\d{3}(?: [A-Z][A-Za-z ]{1,40})?)", text)
    if status:
        return f"{status[1]} {_code(text)}".strip()
    missing = re.search(r"\bMissing [A-Z]\w{1,40}", text)
    if missing:
        return missing[0]
    return "timed out" if "timed out" in text.lower() or "TimedOut" in text else "no connection"
