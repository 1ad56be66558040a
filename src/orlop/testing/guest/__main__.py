"""``python -m orlop.testing.guest [--disk SIZE]... [--timeout SECONDS] -- PROGRAM [ARGUMENT]...``: see the package."""

import argparse
import sys
from pathlib import Path

from orlop.errors import Unavailable
from orlop.testing import images
from orlop.testing.guest import LOST, Job, prepare, run


def main() -> int:
    """The program's status; 124 if it took too long, 125 if there is no guest."""
    parser = argparse.ArgumentParser(prog="python -m orlop.testing.guest", description="Run a program in a guest.")
    parser.add_argument("--disk", action="append", default=[], metavar="SIZE", help="an empty disk: /dev/vdb, ...")
    parser.add_argument("--timeout", type=float, default=900, help="seconds of the host (default 900)")
    parser.add_argument("argv", nargs="+", metavar="PROGRAM")
    asked = parser.parse_args()
    cache = default_cache()
    try:
        return run(Job(asked.argv, Path.cwd(), disks=asked.disk, timeout=asked.timeout), prepare(cache), cache)
    except Unavailable as error:
        print(error, file=sys.stderr)
        return LOST


def default_cache() -> Path:
    """Beside the images' cache."""
    return images.default_cache().with_name("guest")


if __name__ == "__main__":
    sys.exit(main())
