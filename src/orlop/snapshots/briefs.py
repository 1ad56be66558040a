"""What index files say of packs, in brief: some bytes for each pack, however many blobs are in it.

A prune and a check look at every index file; as documents all together would take six times what the index takes.
"""

import msgspec

from orlop.snapshots.documents import IndexFile, PackEntry


class PackBrief(msgspec.Struct, frozen=True, gc=False):
    """A pack: the ``kind`` of its blobs, how many there are, their bytes in all, and where the last of them ends."""

    kind: str
    blobs: int
    content: int
    end: int


class FileBrief(msgspec.Struct, frozen=True):
    """An index file: its packs, those that it marks, and the sessions from before the marks (`IndexFile`)."""

    packs: dict[str, PackBrief]
    marks: dict[str, PackBrief]
    sessions: frozenset[str] | None


def brief(file: IndexFile) -> FileBrief:
    """An index file in brief."""
    sessions = None if file.orlop_sessions is None else frozenset(file.orlop_sessions)
    return FileBrief(_briefs(file.packs), _briefs(file.packs_to_delete), sessions)


def _briefs(packs: list[PackEntry] | None) -> dict[str, PackBrief]:
    return {pack.id: _brief(pack) for pack in packs or ()}


def _brief(pack: PackEntry) -> PackBrief:
    blobs = pack.blobs or []
    content = sum(blob.length for blob in blobs)
    return PackBrief(
        blobs[0].type if blobs else "", len(blobs), content, max((b.offset + b.length for b in blobs), default=0)
    )
