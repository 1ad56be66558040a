"""Which volumes there are in a bucket: one object each, which says what it was created with."""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orlop.errors import Conflict, Corrupt, NotFound
from orlop.objects.store import ABSENT, ObjectStore
from orlop.volumes.bucket.settings import STORE
from orlop.volumes.driver import Volume

_FOLDER = "volumes/"
_SHARED = ("size", "sync", "lease", "uid", "gid", "mode")
"""The options that all hosts must agree on."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A volume in the bucket. ``id`` tells it from earlier and later ones of the same name."""

    id: str
    name: str
    options: Mapping[str, str]
    labels: Mapping[str, str]
    created: str

    def as_volume(self) -> Volume:
        """What another host learns of it."""
        return Volume(self.name, "bucket", self.options, self.labels, created=self.created)


class Catalog:
    """The definitions in ``store``."""

    def __init__(self, store: ObjectStore):
        """Nothing is asked yet."""
        self._store = store
        self._seen: dict[str, tuple[str, Definition]] = {}

    def get(self, name: str) -> Definition:
        """The volume ``name``; raises `NotFound`."""
        try:
            return _parsed(name, b"".join(self._store.read(_FOLDER + name)))
        except NotFound:
            raise NotFound(f"no volume {name!r} in the bucket; another host may have removed it") from None

    def all(self) -> Iterator[Definition]:
        """Every volume, by name; one that goes meanwhile is left out."""
        seen, self._seen = self._seen, {}
        for info in self._store.walk(_FOLDER):
            name = info.key.removeprefix(_FOLDER)
            version, definition = seen.get(name, ("", None))
            if definition is None or version != info.version:  # what has not changed is not read again
                try:
                    definition = self.get(name)
                except (NotFound, Corrupt):
                    continue
            self._seen[name] = (info.version, definition)
            yield definition

    def add(self, volume: Volume) -> Definition:
        """Make ``volume`` known to all hosts; one that is there with the same options is fine, whoever made it.

        Raises `Conflict`.
        """
        new = Definition(uuid.uuid4().hex, volume.name, _told(volume.options), dict(volume.labels), volume.created)
        try:
            self._store.write(_FOLDER + volume.name, [_text(new)], only_if=ABSENT)
        except Conflict:
            there = self.get(volume.name)
            _refuse_difference(there, volume)
            return there
        return new

    def resize(self, name: str, size: str) -> None:
        """Let all hosts know of another size."""
        version = self._store.stat(_FOLDER + name).version
        there = self.get(name)
        new = Definition(there.id, name, {**there.options, "size": size}, there.labels, there.created)
        self._store.write(_FOLDER + name, [_text(new)], only_if=version)

    def remove(self, name: str) -> None:
        """No host knows of it any more; none is fine."""
        self._store.delete(_FOLDER + name)


def _told(options: Mapping[str, str]) -> dict[str, str]:
    """What others are told: how a host reaches the bucket is its own business."""
    return {name: text for name, text in options.items() if name not in ("store", "password", *STORE)}


def _refuse_difference(there: Definition, volume: Volume) -> None:
    for name in _SHARED:
        if there.options.get(name) != volume.options.get(name):
            has = there.options.get(name, "none")
            raise Conflict(f"volume {volume.name!r} exists in the bucket with option {name!r} {has!r}")


def _text(definition: Definition) -> bytes:
    return json.dumps(
        {
            "id": definition.id,
            "options": dict(definition.options),
            "labels": dict(definition.labels),
            "created": definition.created,
        },
        indent=1,
    ).encode()


def _parsed(name: str, text: bytes) -> Definition:
    try:
        told = json.loads(text)
        return Definition(told["id"], name, told["options"], told["labels"], told["created"])
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"object '{_FOLDER}{name}' in the bucket makes no sense: {error!r}") from None
