"""The tutorial's chapter on Cloudstor is true where the kernel has SMB: on a machine with an engine of its own."""

import sys
from pathlib import Path

import pytest

from orlop.testing.machine import Machine

SCRIPTS = Path(__file__).parents[2] / "scripts"
_CHAPTER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import cloudstor, tutorial
from demo import Demo
demo = Demo(Path(sys.argv[2]))
assert cloudstor.missing(demo) == "", cloudstor.missing(demo)
demo.start()
demo.load("busybox")
try:
    cloudstor.chapter(tutorial.Story(demo), demo)
finally:
    print("stopped:", *demo.stop())
"""


@pytest.mark.part("D4", "P4", "P7")
def test_the_chapter_on_cloudstor_is_true_and_ends_without_a_trace() -> None:
    # A short path: the engine's sockets are below it.
    with Machine(Path("/scratch/story"), "story") as machine:
        argv = [sys.executable, "-c", _CHAPTER, str(SCRIPTS), str(machine.folder / "demo")]

        told = machine.run(argv, timeout=500).stdout

        assert "8. Cloudstor: one volume for all nodes" in told
        assert "  1000 640\n" in told
        assert "  from node 1\n" in told
        assert "it has not been compared with the real one" in told
        assert told.endswith("stopped: dockerd orlop cloudstor azure\n")
        assert "cifs" not in machine.run(["cat", "/proc/mounts"]).stdout
        assert not machine.run(["pgrep", "-x", "smbd"], check=False).stdout
