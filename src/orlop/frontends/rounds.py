"""A command that the daemon starts again and again, one at a time: it needs memory and a processor of its own."""

import logging
import subprocess
import threading
from collections.abc import Callable, Sequence

_log = logging.getLogger(__name__)


class Rounds:
    """Starts ``command`` every ``interval`` seconds if it is ``wanted``, and logs what it says."""

    def __init__(self, command: Sequence[str], wanted: Callable[[], bool], interval: float):
        """Nothing happens before `start`."""
        self._command, self._wanted, self._interval = command, wanted, interval
        self._over = threading.Event()
        self._starting = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="rounds")

    def start(self) -> None:
        """Go on until `stop`."""
        self._thread.start()

    def stop(self, patience: float) -> None:
        """Ask the command that runs now, if any, to end, and wait for that ``patience`` seconds."""
        with self._starting:
            self._over.set()
            if self._child:
                self._child.terminate()
        self._thread.join(patience)
        if self._thread.is_alive():
            _log.warning("'%s' did not end in time; it ends by itself", " ".join(self._command[1:]))

    def _run(self) -> None:
        while not self._over.wait(self._interval):
            try:
                if self._wanted():
                    self._once()
            except Exception:  # noqa: BLE001 - the next round may well succeed
                _log.exception("rounds")

    def _once(self) -> None:
        with self._starting:
            if self._over.is_set():
                return
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                errors="replace",
            )  # fmt: skip
        with self._child as child:
            for line in child.stdout or ():
                # As on a terminal: what went wrong begins with our name.
                _log.log(logging.WARNING if line.startswith("orlop: ") else logging.INFO, "%s", line.rstrip())
        if child.returncode < 0 and not self._over.is_set():
            _log.warning("'%s' was ended by signal %d", " ".join(self._command[1:]), -child.returncode)
        with self._starting:
            self._child = None
