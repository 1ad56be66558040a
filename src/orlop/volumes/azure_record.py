"""What orlop writes on a share, so that any host can tell what it is: the volume's definition, in the metadata.

The service carries metadata in HTTP headers and signs them, so the definition is JSON in printable ASCII without a
blank (docs/cloudstor.md has the fields). A share has at most 8 KiB of metadata.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from orlop.errors import Corrupt, Invalid
from orlop.volumes.driver import Volume

FIELD = "orlop"
"""The name of the metadata; the service takes no hyphens in it, and no difference of case."""
LIMIT = 8192
"""Bytes of metadata that a share can have."""


@dataclass(frozen=True, slots=True)
class Record:
    """The volume that a share is for; ``made`` says that orlop made the share, and may delete it."""

    volume: Volume
    made: bool


def written(record: Record, others: Mapping[str, str]) -> dict[str, str]:
    """The metadata with ``record`` in it, and the ``others`` that are there. Raises `Invalid` if that is too much."""
    volume = record.volume
    content = {
        "volume": volume.name,
        "options": dict(volume.options),
        "labels": dict(volume.labels),
        "created": volume.created,
        "made": record.made,
    }
    # Blanks stand in strings only; the service and its clients do not agree about several of them in a row.
    text = json.dumps(content, separators=(",", ":")).replace(" ", "\\u0020")
    found = {**without(others), FIELD: text}
    if sum(len(name) + len(value) for name, value in found.items()) > LIMIT:
        raise Invalid(f"the labels of volume {volume.name!r} are more than a share can hold ({LIMIT} bytes)")
    return found


def without(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata that is not orlop's."""
    return {name: value for name, value in metadata.items() if name.lower() != FIELD}


def read(share: str, driver: str, metadata: Mapping[str, str]) -> Record | None:
    """What is written on ``share``; None if nothing is. Raises `Corrupt` if it makes no sense."""
    text = next((value for name, value in metadata.items() if name.lower() == FIELD), None)
    if text is None:
        return None
    try:
        found = json.loads(text)
        options, labels = _strings(found["options"]), _strings(found["labels"])
        volume = Volume(str(found["volume"]), driver, options, labels, created=str(found["created"]))
        return Record(volume, found["made"] is True)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(
            f"the metadata {FIELD!r} of share {share!r} makes no sense; correct it, or delete it to give up the share"
        ) from error


def _strings(mapping: Mapping[object, object]) -> dict[str, str]:
    return {str(key): str(value) for key, value in mapping.items()}
