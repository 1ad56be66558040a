"""The daemon: turns requests into calls of the front ends, and makes true again what is not, every now and then."""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

from orlop.frontends import http, plugin
from orlop.frontends.listeners import Listener
from orlop.frontends.metrics import Metrics
from orlop.frontends.rounds import Rounds
from orlop.state import Holder
from orlop.volumes.reconcile import reconcile
from orlop.volumes.service import VolumeService

_FAREWELL = 5.0
"""Seconds that verbs under way have to end when the daemon is stopped."""
_SWITCH_INTERVAL = 0.0005
"""Seconds that a thread which computes, such as a list of ten thousand volumes, may keep others waiting."""

_WATCH_INTERVAL = 0.5
"""Seconds between looks at the FUSE programs."""

_log = logging.getLogger(__name__)


class Daemon:
    """Answers the plugin protocol and Prometheus on its listeners, and reconciles every ``interval`` seconds."""

    def __init__(
        self,
        service: VolumeService,
        listeners: Sequence[Listener],
        interval: float = 30.0,
        snapshots: Rounds | None = None,
    ):
        """Nothing is answered before `run`; ``snapshots`` go on beside it."""
        self._service, self._listeners, self._interval = service, listeners, interval
        self._metrics = Metrics(service)
        self._server = http.Server(self._handle)
        self._stop, self._snapshots = threading.Event(), snapshots

    def run(self, ready: Callable[[], object] = lambda: None) -> None:
        """Serve until SIGTERM or SIGINT; ``ready`` is called when connections are answered.

        A verb that hangs in a backend is left behind: its volume is put right by the next reconcile.
        """
        sys.setswitchinterval(_SWITCH_INTERVAL)
        told = _signals(signal.SIGTERM, signal.SIGINT)
        for listener in self._listeners:
            self._server.serve(listener)
        ready()
        threading.Thread(target=self._keep_true, daemon=True, name="reconcile").start()
        if self._snapshots:
            self._snapshots.start()
        os.read(told, 1)
        self._stop.set()
        for listener in self._listeners:
            listener.forget()
        if self._snapshots:
            self._snapshots.stop(_FAREWELL)
        if not self._server.wait_until_idle(_FAREWELL):
            _log.warning("%d verbs did not end in time", self._server.busy)
        http.leave()

    def _keep_true(self) -> None:
        known: frozenset[str] = frozenset()
        while True:
            self._reconcile()
            end = time.monotonic() + self._interval
            # A FUSE program that died is noticed at once, but only once: its server may be down for long.
            while (dead := self._looked()) <= known and time.monotonic() < end:
                known = dead  # one that is well again is news when it dies again
                if self._stop.wait(min(_WATCH_INTERVAL, self._interval)):
                    return
            known = dead

    def _looked(self) -> frozenset[str]:
        """See to what drivers have to see to; returns the volumes whose FUSE program has ended."""
        try:
            self._service.tend()
        except Exception:  # noqa: BLE001 - as below
            _log.exception("tend")
        return self._service.attachments.died()

    def _reconcile(self) -> None:
        try:
            for action in reconcile(self._service):
                _log.info("%s %s: %s", action.verb, action.key, action.why)
            self._service.everywhere.fresh(0)
        except Exception:  # noqa: BLE001 - the next round may well succeed, and serving must go on
            _log.exception("reconcile")

    def _handle(self, path: str, body: bytes, peer: http.Peer) -> http.Answer:
        if path == "/metrics":
            return http.Answer(200, self._metrics.content_type, self._metrics.text())
        with self._metrics.timed(path) as outcome:
            status, content = plugin.answer(self._service, path, body, _engine(peer))
            outcome.failed = status != 200
        _log.debug("%s answered with %d", path, status)
        return http.Answer(status, plugin.CONTENT_TYPE, json.dumps(content).encode())


def _signals(*numbers: signal.Signals) -> int:
    """A file descriptor that can be read as soon as one of the signals came.

    It is written by the C part of Python's signal handling. A handler in Python runs between two of its instructions: a
    signal just before a system call would be noticed only after it, and this one would never return.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return told


def _engine(peer: http.Peer) -> Holder:
    """Which process is at the other end: ``dockerd/0``, ``podman/1000``, or an address."""
    client = peer.address or f"{peer.command or 'engine'}/{peer.uid}"
    return Holder(client, "", peer.pid, peer.started)
