"""Sockets, threads and the clock: turns HTTP requests into calls. The only module that knows asyncio.

Looking verbs are answered at once in the event loop: they read a little local state, and a thread would cost more
than they do. Every other verb gets a thread of its own, so one that hangs in a backend holds up nobody else.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import uvloop
from aiohttp import web

from orlop.frontends import plugin
from orlop.frontends.listeners import Listener
from orlop.frontends.metrics import Metrics
from orlop.kernel import processes
from orlop.state import Holder
from orlop.volumes.reconcile import reconcile
from orlop.volumes.service import VolumeService

_THREADS = 256
"""Verbs that may be under way at once; more are refused, so that none ever waits behind one that hangs."""
_LARGEST_BODY = 1 << 20
_FAREWELL = 5.0
"""Seconds that verbs under way have to end when the daemon is stopped."""
_NOBODY = Holder("", "")

_log = logging.getLogger(__name__)


class Daemon:
    """Answers the plugin protocol and Prometheus on its listeners, and reconciles every ``interval`` seconds."""

    def __init__(self, service: VolumeService, listeners: Sequence[Listener], interval: float = 30.0):
        """Nothing listens before `run`."""
        self._service, self._listeners, self._interval = service, listeners, interval
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="verb")
        self._busy = 0
        self._metrics = Metrics(service)

    def run(self, ready: Callable[[], object] = lambda: None) -> None:
        """Serve until SIGTERM or SIGINT; ``ready`` is called when connections are answered.

        A verb that hangs in a backend is left behind: its volume is put right by the next reconcile.
        """
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run(ready))
        if self._busy:
            _log.warning("%d verbs did not end in time", self._busy)
            os._exit(0)  # Python would wait for their threads

    async def _run(self, ready: Callable[[], object]) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        runner = web.ServerRunner(
            web.Server(self._handle, access_log=None, lingering_time=1), shutdown_timeout=_FAREWELL
        )
        await runner.setup()
        try:
            for listener in self._listeners:
                await web.SockSite(runner, listener.socket, ssl_context=listener.tls).start()
            ready()
            await self._keep_true(stop)
        finally:
            for listener in self._listeners:
                listener.forget()
            await runner.cleanup()
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _keep_true(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.get_running_loop().run_in_executor(None, self._reconcile)
            try:
                await asyncio.wait_for(stop.wait(), self._interval)
            except TimeoutError:
                continue

    def _reconcile(self) -> None:
        try:
            for action in reconcile(self._service):
                _log.info("%s %s: %s", action.verb, action.key, action.why)
        except Exception:  # noqa: BLE001 - the next round may well succeed, and serving must go on
            _log.exception("reconcile")

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/metrics":
            return await self._scrape()
        if request.content_length and request.content_length > _LARGEST_BODY:
            return _reply(500, {"Err": "the request is too large"})
        body = await request.read()
        with self._metrics.timed(request.path) as outcome:
            status, content = await self._call(request.path, body, request)
            outcome.failed = status != 200
        _log.debug("%s answered with %d", request.path, status)
        return _reply(status, content)

    def _call(self, verb: str, body: bytes, request: web.BaseRequest) -> Awaitable[tuple[int, plugin.Reply]]:
        if verb in plugin.LOOKING:
            return _now(plugin.answer(self._service, verb, body, _NOBODY))
        if self._busy >= _THREADS:
            return _now((500, {"Err": f"{_THREADS} calls are under way; try again later"}))
        self._busy += 1
        call = asyncio.get_running_loop().run_in_executor(
            self._threads, plugin.answer, self._service, verb, body, _engine(request)
        )
        call.add_done_callback(self._done)
        # An engine that hangs up does not stop what was begun: its next try finds it done.
        return asyncio.shield(call)

    def _done(self, _: object) -> None:
        self._busy -= 1

    async def _scrape(self) -> web.Response:
        text = await asyncio.get_running_loop().run_in_executor(None, self._metrics.text)
        return web.Response(body=text, headers={"Content-Type": self._metrics.content_type})


async def _now(result: tuple[int, plugin.Reply]) -> tuple[int, plugin.Reply]:
    return result


def _reply(status: int, content: plugin.Reply) -> web.Response:
    body = json.dumps(content).encode()
    return web.Response(status=status, body=body, headers={"Content-Type": plugin.CONTENT_TYPE})


def _engine(request: web.BaseRequest) -> Holder:
    """Which process is at the other end: ``dockerd/0``, ``podman/1000``, or an address."""
    connection = request.transport.get_extra_info("socket") if request.transport else None
    if connection is None or connection.family != socket.AF_UNIX:
        return Holder(str(request.remote or "unknown"), "")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    started = processes.start_time(pid) if pid else None
    if started is None:
        # It lives in a process namespace that we cannot see.
        return Holder(f"engine/{uid}", "")
    return Holder(f"{processes.command(pid)}/{uid}", "", pid, started)
