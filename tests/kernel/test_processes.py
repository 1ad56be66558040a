import os
import subprocess

import pytest

from orlop.kernel.processes import gently


def test_what_is_done_gently_and_what_it_starts_is_nice_and_nobody_else_is() -> None:
    def both() -> tuple[int, int]:
        started = subprocess.run(["nice"], capture_output=True, text=True, check=True)
        return os.getpriority(os.PRIO_PROCESS, 0), int(started.stdout)

    before = os.getpriority(os.PRIO_PROCESS, 0)

    assert gently(both) == (5, 5)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_what_goes_wrong_gently_is_raised() -> None:
    with pytest.raises(KeyError, match="here"):
        gently(lambda: {}["here"])
