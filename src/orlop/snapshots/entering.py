"""Coming into a repository: the lock, then the index as it is now, with few answers waited for one after another."""

import contextlib
from collections.abc import Iterator

from orlop.snapshots import ahead
from orlop.snapshots.index import Index
from orlop.snapshots.locks import Lock
from orlop.snapshots.repository import Repository


def enter(lock: Lock, repository: Repository) -> Index:
    """Take the lock; returns what is live in the index from then on. Raises `Busy`, and what reading raises.

    What takes long is read while the lock is taken. It counts if all of it is still there afterwards: whoever works
    exclusively, or has marked something, has deleted what said otherwise before.
    """
    indexes = repository.indexes
    with contextlib.nullcontext() if indexes.were_read else ahead.beside(indexes.look):
        lock.__enter__()
    try:
        found = indexes.look()
        indexes.keep()
        return found
    except BaseException:
        lock.__exit__()
        raise


@contextlib.contextmanager
def reading(repository: Repository) -> Iterator[None]:
    """What the snapshots need stays meanwhile, even if somebody forgets them."""
    with contextlib.ExitStack() as held:
        lock = Lock(repository)
        enter(lock, repository)
        held.push(lock)
        yield
