"""``python -m orlop.testing.crash STEP [COUNT] -- ARGUMENTS``: orlop, killed at STEP the COUNT-th time.

The steps are the places between two durable changes that the services name (``create: recorded``, ...). The process
dies as by ``kill -9``: no handler runs, nothing is flushed. STEP ``?`` prints each step to standard error instead
and kills nothing.
"""

import os
import signal
import sys
from collections.abc import Callable

from orlop.cli.main import main


def killer(step: str, count: int = 1) -> Callable[[str], None]:
    """A function for `orlop.engine.Config.step` that kills this process when ``step`` comes the ``count``-th time."""
    left = count

    def at(name: str) -> None:
        nonlocal left
        if step == "?":
            print(f"step {name}", file=sys.stderr, flush=True)
        elif name == step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return at


if __name__ == "__main__":
    split = sys.argv.index("--")
    words = sys.argv[1:split]
    main(sys.argv[split + 1 :], obj={"step": killer(words[0], *map(int, words[1:]))})
