"""A guest: a throw-away computer with Debian's own kernel, for tests of what the host's kernel lacks.

    layer = prepare(cache)
    status = run(Job(["pytest", "tests/guest"], cwd=checkout), layer, cache)

QEMU emulates it in software, so it runs wherever a program runs, and is 20 to 60 times slower than its host. Its ``/``
is the host's, read-only, below a layer of tools that were never installed and an empty folder in memory: the guest
sees this checkout and this Python, and what it writes vanishes with it. ``/scratch`` is a disk of its own.

    python -m orlop.testing.guest -- uname -r
"""

from orlop.testing.guest.boot import LOST, TIMED_OUT, Job, run
from orlop.testing.guest.layer import Layer, check_host, prepare

__all__ = ["LOST", "TIMED_OUT", "Job", "Layer", "check_host", "prepare", "run"]
