"""``make test-guest [ARGS=...]``: the tests that need a full kernel, as one run of pytest in one guest.

Their outcomes go to .cache/tests-guest.json, where ``make features`` finds them. Where no guest can be had the tests
are counted and the reason is kept in .cache/tests-guest.skipped. With ``$CI`` set, only a host of another kind is a
reason.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from orlop.errors import Unavailable
from orlop.testing import images
from orlop.testing.guest import LOST, TIMED_OUT, Job, Layer, check_host, prepare, run

HOME = Path(__file__).parent.parent
CACHE, RESULTS, SKIPPED = (HOME / ".cache" / name for name in ("guest", "tests-guest.json", "tests-guest.skipped"))
# Everything is 20 to 60 times slower in there, and slower still while the host runs its own tests.
ENV = {"ORLOP_GUEST": "1"}
PYTEST = ["-m", "pytest", "-o", "testpaths=tests/guest", "-o", "timeout=600", "-p", "no:cacheprovider"]
LIMIT = 1800


def main() -> int:
    # So that a guest is switched off, and its folder removed, when we are asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()
    try:
        check_host()
    except Unavailable as reason:
        return _skip(str(reason))
    try:
        layer = _prepare()
    except Unavailable as reason:
        # Where it has worked and has to work, that it cannot be prepared is not to be overlooked.
        return _skip(str(reason)) or bool(os.environ.get("CI"))
    SKIPPED.unlink(missing_ok=True)
    ready = time.monotonic()
    job = Job([sys.executable, *PYTEST, *sys.argv[1:]], HOME, ENV, result=RESULTS, timeout=LIMIT)
    status = run(job, layer, CACHE)
    why = {TIMED_OUT: f"stopped after {LIMIT} s", LOST: "the guest died"}.get(status, f"status {status}")
    print(f"guest: {why}, prepared in {ready - begun:.0f} s, ran {time.monotonic() - ready:.0f} s")
    return status


def _prepare() -> Layer:
    done = subprocess.run([HOME / "scripts/setup", "--guest"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable("\n".join(done.stderr.strip().splitlines()[-2:]) or "scripts/setup --guest does not work")
    # The guest has no network to fetch it with.
    images.build("busybox")
    return prepare(CACHE)


def _skip(reason: str) -> int:
    argv = [sys.executable, *PYTEST, "--collect-only", "-q"]
    listed = subprocess.run(argv, cwd=HOME, env={**os.environ, **ENV}, capture_output=True, text=True, check=False)
    count = re.search(r"(\d+) tests? collected", listed.stdout)
    SKIPPED.write_text(reason)
    print(f"guest: {count[1] if count else 'all'} tests skipped: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
