"""The process that brings a volume's missing files here, while the volume is used: one for each, and only as long.

It is started by whoever attaches the volume, and by the keeper if it dies.
"""

import logging
import time
from contextlib import suppress

from orlop.errors import Busy, OrlopError
from orlop.volumes.bucket import lazy
from orlop.volumes.bucket.sessions import Session
from orlop.volumes.bucket.use import Use
from orlop.volumes.bucket.waiting import Waiting

_SOON, _AGAIN = 0.02, 1.0
_log = logging.getLogger(__name__)


def fetch_missing(use: Use, key: str) -> None:
    """Fetch until nothing is missing, or the volume is used no more; return at once if another process does.

    Call it in a process of its own, before any file is opened (`orlop.volumes.bucket.waiting`).
    """
    with suppress(Busy), use.sessions.hydrating(key):
        place, began = use.sessions.place(key), use.sessions.get(key)
        if began is None:
            return
        waiting = Waiting(place.wait, place.numbers)
        # Read while the placeholders are made: somebody will wait for it.
        use.backend(began.options).repository.index  # noqa: B018
        while (session := use.sessions.get(key)) is not None and session.token == began.token:
            if session.phase in ("broken", "lost"):
                return
            if session.phase == "fetching":
                time.sleep(_SOON)
            elif _is_done(use, session, waiting):
                return


def _is_done(use: Use, session: Session, waiting: Waiting) -> bool:
    copy, before = use.copy(session.key), session.fetched
    base = copy.base
    if base is None or not base.lazy:
        return True

    def meanwhile(fetched: int) -> bool:
        now = use.sessions.change(session, fetched=before + fetched)
        return now is None or now.phase == "lost"

    try:
        repository = use.backend(session.options).repository
        return lazy.hydrate(repository, copy, use.sessions.place(session.key), waiting, meanwhile)
    except lazy.Unheld as error:
        if use.sessions.is_kept:
            # The keeper may have what nobody else holds any more: it starts holders and another of us, or stops it.
            return True
        use.stop(session, "broken", str(error))
    except (OrlopError, OSError) as error:
        _log.warning("volume %r is not fetched: %s", session.name, error)
        time.sleep(_AGAIN)
    return False
