"""An Azure storage account: what the settings say about it, and its file shares, through Azure's own SDK.

Nothing here waits longer than `ATTEMPTS` times `CONNECT` plus `ANSWER` seconds for an answer. The account's key is
shown by nothing: not by an error, a log or a ``repr``.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from orlop.errors import Busy, Conflict, InUse, Invalid, NoSpace, NotFound, OrlopError, Unavailable
from orlop.volumes import references

if TYPE_CHECKING:
    # Half a second to import: only a verb that needs it pays, in the function that builds the client.
    from azure.core.exceptions import HttpResponseError
    from azure.storage.fileshare import ShareServiceClient

PLATFORM, ACCOUNT, KEY, ENDPOINT = (
    "CLOUD_PLATFORM",
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ENDPOINT",
)
SETTINGS = (PLATFORM, ACCOUNT, KEY, ENDPOINT)
PUBLIC = "core.windows.net"
"""The endpoint of Azure's public cloud."""
CONNECT, ANSWER, ATTEMPTS = 3, 6, 2
"""Seconds to reach the service, seconds until it answers, and how often: Docker waits 30 for a plugin's verb."""

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_ENDPOINT = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+", re.IGNORECASE)
_URL = re.compile(r"https?://[a-z0-9.\-\[\]:]+/?", re.IGNORECASE)
_REFUSALS: Mapping[str, tuple[type[OrlopError], str]] = {
    "AuthenticationFailed": (
        Unavailable,
        f"the service does not accept the key in {KEY} (or this host's clock is more than 15 minutes wrong)",
    ),
    "ShareBeingDeleted": (Busy, "it is being deleted, which takes Azure half a minute or more; try again then"),
    "ShareHasSnapshots": (InUse, "it has snapshots; delete them first"),
    "ShareNotFound": (NotFound, "there is no such share"),
    "ShareSizeLimitReached": (NoSpace, "the account's limit is reached"),
    "ContainerQuotaDowngradeNotAllowed": (Conflict, "Azure does not let it shrink now"),
}
"""What the service's error codes mean for orlop; every other one is `Unavailable` with the code itself."""


@dataclass(frozen=True, slots=True)
class Share:
    """A file share as the service describes it; ``quota`` is in GiB."""

    name: str
    quota: int
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Account:
    """A storage account that can be used; ``endpoint`` is a domain such as `PUBLIC`, or the URL of a private one."""

    name: str
    endpoint: str
    key: str = field(repr=False)

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> "Account":
        """The account that ``settings`` name, each by itself or by reference.

        Raises `Unavailable`, saying which setting is missing or makes no sense.
        """
        _check_platform(_setting(settings, PLATFORM))
        missing = [name for name in (ACCOUNT, KEY) if not settings.get(name)]
        if missing:
            raise Unavailable(f"{' and '.join(missing)} not set for the daemon; driver 'azurefile' needs it")
        name, key, endpoint = (_setting(settings, name) for name in (ACCOUNT, KEY, ENDPOINT))
        if not _ACCOUNT.fullmatch(name):
            raise Unavailable(f"setting {ACCOUNT} is {name!r}, which is no name of a storage account")
        if not _is_key(key):
            raise Unavailable(f"setting {KEY} is no account key: those are base64")
        if endpoint and not (_ENDPOINT.fullmatch(endpoint) or _URL.fullmatch(endpoint)):
            raise Unavailable(f"setting {ENDPOINT} is {endpoint!r}; it must be a domain such as {PUBLIC!r}, or a URL")
        return cls(name, endpoint or PUBLIC, key)

    @property
    def url(self) -> str:
        """Where the REST service is."""
        return self.endpoint.rstrip("/") if "://" in self.endpoint else f"https://{self.host}"

    @property
    def host(self) -> str:
        """Where the SMB service is."""
        if "://" in self.endpoint:
            return urlsplit(self.endpoint).hostname or ""
        return f"{self.name}.file.{self.endpoint}"

    # shares

    def look(self, share: str) -> Share | None:
        """The share, or None if there is none."""
        try:
            with self._asking(share) as client:
                found = client.get_share_client(share).get_share_properties()
        except NotFound:
            return None
        return Share(share, found.quota or 0, found.metadata or {})

    def make(self, share: str, metadata: Mapping[str, str], quota: int | None) -> bool:
        """Make the share, with everything at once; False if it is there already. Raises `Busy` while it goes away."""
        from azure.core.exceptions import ResourceExistsError

        try:
            with self._asking(share) as client:
                client.create_share(share, metadata=dict(metadata), **({"quota": quota} if quota else {}))
        except OrlopError as error:
            cause = error.__cause__
            if isinstance(cause, ResourceExistsError) and _code(cause) == "ShareAlreadyExists":
                return False
            raise
        return True

    def describe(self, share: str, metadata: Mapping[str, str]) -> None:
        """Replace the share's metadata."""
        with self._asking(share) as client:
            client.get_share_client(share).set_share_metadata(dict(metadata))

    def resize(self, share: str, quota: int) -> None:
        """Set the share's quota, in GiB."""
        with self._asking(share) as client:
            client.get_share_client(share).set_share_quota(quota)

    def delete(self, share: str) -> None:
        """Delete the share and all that is in it; none is fine, and so is one that is on its way out."""
        try:
            with self._asking(share) as client:
                client.delete_share(share)
        except (NotFound, Busy):
            return

    def shares(self) -> Iterator[Share]:
        """Every share of the account."""
        with self._asking("") as client:
            for found in client.list_shares(include_metadata=True, results_per_page=5000):
                yield Share(found.name, found.quota or 0, found.metadata or {})

    @contextmanager
    def _asking(self, share: str) -> Iterator["ShareServiceClient"]:
        """A client for one question about ``share``; what goes wrong meanwhile is one of `orlop.errors`."""
        from azure.core.exceptions import AzureError, HttpResponseError

        what = f"share {share!r} of account {self.name!r}" if share else f"the shares of account {self.name!r}"
        try:
            with self._client() as client:
                yield client
        except HttpResponseError as error:
            raise _translated(what, error) from error
        except AzureError as error:
            raise Unavailable(f"{what}: no answer from {self.url}; nothing is known to have changed") from error

    def _client(self) -> "ShareServiceClient":
        from azure.storage.fileshare import LinearRetry, ShareServiceClient

        return ShareServiceClient(
            self.url,
            credential={"account_name": self.name, "account_key": self.key},
            connection_timeout=CONNECT,
            read_timeout=ANSWER,
            retry_policy=LinearRetry(backoff=1, retry_total=ATTEMPTS - 1, random_jitter_range=1),
        )


def _check_platform(platform: str) -> None:
    if platform.upper() not in ("", "AZURE"):
        raise Unavailable(
            f"setting {PLATFORM} is {platform!r}; driver 'azurefile' is for AZURE: choose a driver with -o driver= "
            "(on AWS: 'shared' for backing=shared, 'bucket' for backing=relocatable)"
        )


def _setting(settings: Mapping[str, str], name: str) -> str:
    text = settings.get(name, "")
    if not references.is_reference(text):
        return text
    return references.resolve(name, text).decode(errors="replace").strip()


def _is_key(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return False


def _translated(what: str, error: "HttpResponseError") -> OrlopError:
    code = _code(error)
    kind, meaning = _REFUSALS.get(code, (Unavailable, ""))
    if not meaning and error.status_code == 400:
        kind = Invalid
    return kind(f"{what}: {meaning or f'the service refuses: {code}'}")


def _code(error: "HttpResponseError") -> str:
    """The service's word for it; never its text, which repeats what was sent."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or f"HTTP status {error.status_code}")
