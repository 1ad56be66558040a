"""The process that keeps this host's leases, and ships: one for all volumes, beside the daemon and without it.

It lives as long as volumes are used, whoever started it. Renewing, shipping and stopping a writer never wait for each
other: a store that does not answer keeps one thread, and when the time is over the filesystem refuses its writers.
"""

import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress

from orlop.errors import Busy, NotFound, OrlopError
from orlop.kernel import freeze, loop
from orlop.snapshots.prune import prune
from orlop.volumes import image
from orlop.volumes.bucket import holding
from orlop.volumes.bucket.lease import Fenced, acquire, release, renew
from orlop.volumes.bucket.sessions import Session
from orlop.volumes.bucket.settings import sync, ttl
from orlop.volumes.bucket.use import Use

_LOOK = 0.25
"""Seconds between looks at the sessions: how late a writer may be stopped at most, of the margin of 3."""
_IDLE = 5.0
"""Seconds without a volume in use after which it ends."""
_TIDY = 3600.0
"""Seconds between prunes of a bucket by one host, on the average."""
_AGAIN = 1.0
"""Seconds until a store that did not answer is asked again."""
_log = logging.getLogger(__name__)


class Keeper:
    """Keeps the sessions of this host's ``use``."""

    def __init__(self, use: Use):
        """Nothing happens before `run`."""
        self._use, self._sessions, self._clock = use, use.sessions, use.clock
        self._tended, self._late = set[str](), set[str]()
        self._works = (self._renew, self._ship, self._hydrate)

    def run(self) -> None:
        """Keep them until there have been none for a while; return at once if another keeper does."""
        threading.Thread(target=self._tidy, daemon=True, name="prune").start()
        with suppress(Busy):
            # Whoever began to use a volume while this one let go has found it still there.
            self._keep()
            while self._sessions.all():
                self._keep()

    def _keep(self) -> None:
        with self._sessions.keeping():
            idle = self._clock.now()
            while self._clock.now() - idle < _IDLE:
                if self._look():
                    idle = self._clock.now()
                self._clock.sleep(_LOOK)

    def _look(self) -> bool:
        """Stop what is over, begin with what is new; whether there is anything to keep."""
        found = [session for session in self._sessions.all() if session.epoch and session.phase != "lost"]
        for session in found:
            late = self._clock.now() >= session.lost_at
            if session.token not in self._tended:
                self._tended.add(session.token)
                if late:
                    self._late.add(session.token)
                self._start(session, *([self._regain] if late else self._works))
            elif late and session.token not in self._late:
                self._lose(session, "the store did not answer, and the lease could not be renewed in time")
        return bool(found)

    def _start(self, session: Session, *works: Callable[[Session], None]) -> None:
        for work in works:
            threading.Thread(target=work, args=(session,), daemon=True, name=session.name).start()

    def _regain(self, session: Session) -> None:
        """Its keeper was dead for longer than its lease, which is still ours if no other host has taken it."""
        regained, reason = False, "nobody renewed the lease in time, and another host has had it since"
        try:
            regained = self._use.regain(session)
        except OrlopError as error:
            reason = f"nobody renewed the lease in time, and now: {error}"
        if regained:
            self._start(session, *self._works)
        else:
            self._lose(session, reason)
        self._late.discard(session.token)

    def _tidy(self) -> None:
        """Shipments leave small packs and what is needed no more; any host takes that away, at times of its own."""
        while True:
            self._clock.sleep(_TIDY * (0.5 + random.random()))  # noqa: S311 - no secret
            for backend in {self._use.backend(session.options) for session in self._sessions.all()}:
                try:
                    prune(backend.repository)
                except (OrlopError, OSError) as error:
                    _log.warning("the bucket is not pruned: %s", error)

    def _renew(self, session: Session) -> None:
        backend, lease = self._use.backend(session.options), None
        while (now := self._current(session)) is not None:
            try:
                if lease is None:
                    owner = self._use.owner(session.token)
                    lease = acquire(backend.store, session.name, owner, self._clock, ttl=self._ttl(session))
                    if lease.epoch != session.epoch or self._sessions.get(session.key) is None:
                        release(backend.store, lease, self._clock)
                        raise Fenced(f"the lease of volume {session.name!r} was over")
                else:
                    lease = renew(backend.store, lease, self._clock)
                self._sessions.change(now, lost_at=lease.lost_at)
                pause = lease.renew_at - self._clock.now()
            except (Fenced, Busy) as error:
                self._lose(session, str(error))
                return
            except OrlopError as error:
                _log.warning("volume %r: %s", session.name, error)
                pause = _AGAIN
            self._clock.sleep(max(pause, _LOOK))

    def _ship(self, session: Session) -> None:
        seconds, written, due = sync(session.volume), -1, 0.0
        while (now := self._current(session)) is not None:
            due = due or self._clock.now() + seconds
            if now.phase != "using" or self._clock.now() < due or self._is_lazy(now):
                self._clock.sleep(min(_LOOK * 2, seconds))
                continue
            try:
                if (before := self._written(now)) != written:
                    self._use.ship(now)
                    written = before
                due = 0.0
            except Fenced as error:
                self._lose(session, str(error))
            except (OrlopError, OSError) as error:
                _log.warning("volume %r is not shipped: %s", session.name, error)
                self._sessions.change(now, reason=f"not shipped: {error}")
                due = self._clock.now() + min(seconds, 10)

    def _hydrate(self, session: Session) -> None:
        """See to it that a process fetches the files of a volume that is used before they are here.

        Meanwhile what holds back their readers is held here, too.
        """
        with holding.Kept(self._sessions.place(session.key).hold) as kept:
            while (now := self._unfetched(session)) is not None:
                if now.phase in ("using", "leaving"):
                    self._keep_fetching(now, kept)
                self._clock.sleep(_LOOK)

    def _keep_fetching(self, session: Session, kept: holding.Kept) -> None:
        is_held = kept.look()
        if self._sessions.is_hydrated(session.key):
            return  # it holds, and lets others hold, what it needs
        # Looked at once more: who lets go of it on purpose has said first that nothing is missing, or nobody uses it.
        if not is_held and self._unfetched(session) is not None and not kept.hold_again():
            self._use.stop(session, "broken", holding.UNHELD)
            return
        self._use.hydrate(session.key)
        self._clock.sleep(_AGAIN)

    def _unfetched(self, session: Session) -> Session | None:
        """The session as it is now; None if it is over, or all files are here."""
        now = self._current(session)
        return now if now is not None and (now.phase == "fetching" or self._is_lazy(now)) else None

    def _is_lazy(self, session: Session) -> bool:
        base = self._use.copy(session.key).base
        return base is not None and base.lazy > 0

    def _ttl(self, session: Session) -> float:
        return ttl(self._use.backend(session.options).catalog.get(session.name).as_volume())

    def _current(self, session: Session) -> Session | None:
        """The session as it is now; None if it is over."""
        now = self._sessions.get(session.key)
        return now if now is not None and now.token == session.token and now.phase != "lost" else None

    def _written(self, session: Session) -> int:
        """Grows with everything that is written to the volume."""
        file = self._use.copy(session.key).image
        with suppress(OSError, NotFound):
            with image.opened(file) as root:
                freeze.sync(root)
            return loop.written(file)
        return -2

    def _lose(self, session: Session, reason: str) -> None:
        """Another host may write from now on: nobody here does."""
        self._use.stop(session, "lost", reason)
