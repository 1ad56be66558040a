"""Which store an address means: ``/folder``, ``s3://bucket/prefix``, ``azure://container/prefix``, ``gs://bucket/prefix``.

Settings go beside the address, never into it, for addresses are shown: they may hold secrets, and what is not given
comes from the environment, in the names that each cloud's own client reads (``AWS_ACCESS_KEY_ID`` and so on).

    s3      endpoint (of another than AWS), region, access_key, secret_key, session_token
    azure   account, key, endpoint
    gs      service_account (its key file), endpoint
    all     timeout: seconds until a store that does not answer is given up
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

from orlop.errors import Invalid, meant
from orlop.objects.cloud import PATIENCE, CloudStore
from orlop.objects.files import FileStore
from orlop.objects.store import ObjectStore, check_key
from orlop.objects.wrappers import Prefixed

if TYPE_CHECKING:
    from obstore.store import AzureConfig, AzureStore, ClientConfig, GCSConfig, GCSStore, RetryConfig, S3Config, S3Store

    from orlop.objects.cloud import Client

_KNOWN: Final[Mapping[str, frozenset[str]]] = {
    "file": frozenset(),
    "s3": frozenset({"endpoint", "region", "access_key", "secret_key", "session_token", "timeout"}),
    "azure": frozenset({"account", "key", "endpoint", "timeout"}),
    "gs": frozenset({"service_account", "endpoint", "timeout"}),
}
_TOGETHER: Final = {
    "access_key": "secret_key",
    "secret_key": "access_key",
    "session_token": "secret_key",
    "key": "account",
}


def locate(address: str, settings: Mapping[str, str]) -> ObjectStore:
    """The store that ``address`` means; nobody has asked it anything yet. Raises `Invalid`."""
    scheme, place, prefix = _parsed(address)
    _check(scheme, settings)
    if scheme == "file":
        return FileStore(Path(place))
    patience = _seconds(settings.get("timeout", ""))
    store = CloudStore(f"{scheme}://{place}", _CLOUDS[scheme](place, settings), patience)
    return Prefixed(store, f"{prefix}/") if prefix else store


def _parsed(address: str) -> tuple[str, str, str]:
    """Scheme, bucket or folder, prefix."""
    if address.startswith("/"):
        return "file", address, ""
    parts = urlsplit(address)
    if parts.scheme not in _KNOWN:
        raise Invalid("the address of a store begins with /, file:///, s3://, azure:// or gs://")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise Invalid(f"an address {parts.scheme}://... holds no credentials and no options: give them as settings")
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise Invalid(f"{address!r} is no folder: write file:///folder")
        return "file", parts.path, ""
    if not parts.netloc:
        raise Invalid(f"{address!r} names no bucket")
    prefix = parts.path.strip("/")
    return parts.scheme, parts.netloc, check_key(prefix) if prefix else ""


def _check(scheme: str, settings: Mapping[str, str]) -> None:
    known = _KNOWN[scheme]
    for name in settings:
        if name not in known:
            raise Invalid(f"unknown setting {name!r} for {scheme}://{meant(name, known)}")
        other = _TOGETHER.get(name)
        if other and other not in settings:
            raise Invalid(f"setting {name!r} needs {other!r} beside it")
    endpoint = urlsplit(settings.get("endpoint", "https://there"))
    if endpoint.scheme not in ("http", "https") or not endpoint.hostname or "@" in endpoint.netloc:
        raise Invalid("setting 'endpoint' is written http://host:port or https://host:port")


def _seconds(text: str) -> float:
    try:
        seconds = float(text or PATIENCE)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 3600:
        raise Invalid(f"setting 'timeout' is {text!r}, which is no number of seconds up to 3600")
    return seconds


def _s3(bucket: str, settings: Mapping[str, str]) -> "Callable[[ClientConfig, RetryConfig], S3Store]":
    names = {
        "endpoint": "endpoint",
        "region": "region",
        "access_key": "access_key_id",
        "secret_key": "secret_access_key",
        "session_token": "session_token",
    }
    # One object is deleted at a time here, and some stores know no other way.
    config = cast("S3Config", _renamed(settings, names) | {"disable_bulk_delete": "true"})

    def connect(client: "ClientConfig", retries: "RetryConfig") -> "S3Store":
        from obstore.store import S3Store

        return S3Store(bucket, config=config, client_options=client, retry_config=retries)

    return connect


def _azure(container: str, settings: Mapping[str, str]) -> "Callable[[ClientConfig, RetryConfig], AzureStore]":
    names = {"endpoint": "endpoint", "account": "account_name", "key": "account_key"}
    config = cast("AzureConfig", _renamed(settings, names))

    def connect(client: "ClientConfig", retries: "RetryConfig") -> "AzureStore":
        from obstore.store import AzureStore

        return AzureStore(container, config=config, client_options=client, retry_config=retries)

    return connect


def _gs(bucket: str, settings: Mapping[str, str]) -> "Callable[[ClientConfig, RetryConfig], GCSStore]":
    config = cast("GCSConfig", _renamed(settings, {"endpoint": "base_url", "service_account": "service_account"}))

    def connect(client: "ClientConfig", retries: "RetryConfig") -> "GCSStore":
        from obstore.store import GCSStore

        return GCSStore(bucket, config=config, client_options=client, retry_config=retries)

    return connect


def _renamed(settings: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    return {theirs: settings[ours] for ours, theirs in names.items() if ours in settings}


_CLOUDS: "Final[Mapping[str, Callable[[str, Mapping[str, str]], Callable[[ClientConfig, RetryConfig], Client]]]]" = {
    "s3": _s3,
    "azure": _azure,
    "gs": _gs,
}
