"""The Docker volume plugin protocol: eight verbs, from JSON to `VolumeService` and back.

Engines are not strict about it, so neither is this: no header is asked for, ``Opts`` may be null. But a verb
without a name is an error, because Docker repeats a call whose connection broke with an empty body; a mountpoint is
never empty; and every error is a status 500 with ``{"Err": ...}``, since Podman looks at the status only. (Docker
Engine API, "Docker volume plugins".)
"""

import json
import logging
from collections.abc import Callable, Mapping

from orlop.errors import Invalid, NotFound, OrlopError
from orlop.state import Holder, Row
from orlop.volumes.service import VolumeService

CONTENT_TYPE = "application/vnd.docker.plugins.v1.1+json"

_PODMAN = "2f73349cfc4630255319c6c8dfc1b46a8996ace9d14d8e07563b165915918ec2"
"""The one id of all of Podman's mounts, SHA-256 of "placeholder\\n" (libpod, volume_internal): it counts for itself."""

_PATIENCE = 1.0
"""Seconds in which a backend may tell what other hosts have done."""

Reply = Mapping[str, object]
_log = logging.getLogger(__name__)


def answer(service: VolumeService, verb: str, body: bytes, engine: Holder) -> tuple[int, Reply]:
    """The HTTP status and JSON for one call of ``verb``; ``engine`` says which process asks."""
    try:
        handler = VERBS.get(verb)
        if handler is None:
            return 404, {"Err": f"no verb {verb!r}"}
        return 200, handler(service, _parse(body), engine)
    except OrlopError as error:
        return 500, {"Err": str(error)}
    except Exception as error:  # noqa: BLE001 - the engine must get an answer it can show
        _log.exception("%s", verb)
        return 500, {"Err": f"orlop has a defect: {type(error).__name__}: {error}"}


def _activate(service: VolumeService, request: Reply, engine: Holder) -> Reply:
    return {"Implements": ["VolumeDriver"]}


def _capabilities(service: VolumeService, request: Reply, engine: Holder) -> Reply:
    # Docker asks before any volume is named: so what is so of those for which nothing is said.
    return {"Capabilities": {"Scope": service.driver(service.default_driver).scope}}


def _create(service: VolumeService, request: Reply, engine: Holder) -> Reply:
    service.create(_name(request), _options(request))
    return {"Err": ""}


def _remove(service: VolumeService, request: Reply, engine: Holder) -> Reply:
    service.remove(_name(request))
    return {"Err": ""}


def _mount(service: VolumeService, request: Reply, engine: Holder) -> Reply:
    return {"Mountpoint": str(service.mount(_name(request), _holder(request, engine))), "Err": ""}


def _unmount(service: VolumeService, request: Reply, engine: Holder) -> Reply:
    service.unmount(_name(request), _holder(request, engine))
    return {"Err": ""}


def _path(service: VolumeService, request: Reply, engine: Holder) -> Reply:
    return {"Mountpoint": str(service.path(service.get(_name(request)))), "Err": ""}


def _get(service: VolumeService, request: Reply, engine: Holder) -> Reply:
    row = _known(service, _name(request))
    return {
        "Volume": {
            **_described(service, row.name, row.key, row.in_place, row.created),
            "Status": _status(service, row),
        },
        "Err": "",
    }


def _list(service: VolumeService, request: Reply, engine: Holder) -> Reply:
    service.everywhere.fresh(_PATIENCE)
    return {"Volumes": [_described(service, *found) for found in service.state.names()], "Err": ""}


VERBS: Mapping[str, Callable[[VolumeService, Reply, Holder], Reply]] = {
    "/Plugin.Activate": _activate,
    "/VolumeDriver.Capabilities": _capabilities,
    "/VolumeDriver.Create": _create,
    "/VolumeDriver.Remove": _remove,
    "/VolumeDriver.Mount": _mount,
    "/VolumeDriver.Unmount": _unmount,
    "/VolumeDriver.Path": _path,
    "/VolumeDriver.Get": _get,
    "/VolumeDriver.List": _list,
}


def _known(service: VolumeService, name: str) -> Row:
    try:
        return service.get(name)
    except NotFound:
        service.everywhere.fresh(_PATIENCE)
        return service.get(name)


def _described(service: VolumeService, name: str, key: str, in_place: bool, created: str) -> Reply:
    return {"Name": name, "Mountpoint": service.attachments.place(key, in_place=in_place), "CreatedAt": created}


def _status(service: VolumeService, row: Row) -> Reply:
    """What ``docker volume inspect`` shows: only what is known here, never a question to a backend."""
    holds, trouble = service.state.holds(row.key), service.state.trouble(row.key)
    return {
        "Driver": row.driver,
        "Options": dict(row.options),
        "Attached": service.state.is_attached(row.key),
        "Holders": {hold.holder.id: hold.count for hold in holds},
        **({"Degraded": trouble} if trouble else {}),
        **service.status(row),
    }


def _parse(body: bytes) -> Reply:
    if not body.strip():
        return {}
    try:
        request = json.loads(body)
    except ValueError as error:
        raise Invalid(f"the request is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise Invalid("the request is not a JSON object")
    return request


def _name(request: Reply) -> str:
    name = request.get("Name")
    if not isinstance(name, str) or not name:
        raise Invalid("the request names no volume; nothing was done")
    return name


def _holder(request: Reply, engine: Holder) -> Holder:
    container = request.get("ID")
    if container is not None and not isinstance(container, str):
        raise Invalid("the request's ID is not a string")
    return Holder(engine.client, container or "", engine.pid, engine.started, counted=container != _PODMAN)


def _options(request: Reply) -> Mapping[str, str]:
    options = request.get("Opts") or {}
    if not isinstance(options, dict) or not all(isinstance(value, str) for value in options.values()):
        raise Invalid("the request's Opts are not strings")
    return options
