import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from orlop.testing import images
from orlop.testing.engine import Engine
from orlop.testing.machine import Machine

pytestmark = [pytest.mark.timeout(280), pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def machine():
    # A short path: the engine's sockets are below it.
    folder = Path(tempfile.mkdtemp(prefix="story-"))
    with Machine(folder / "m", "tutorial") as machine:
        yield machine
    shutil.rmtree(folder)


def tutorial(machine, *args, check=True):
    argv = [sys.executable, str(PROJECT / "scripts/tutorial.py"), *args]
    return machine.run(argv, check=check, timeout=240, env={"ORLOP_DEMO": str(machine.folder / "demo")})


@pytest.mark.part("V6", "V13", "V15", "P11")
def test_the_tutorial_is_true_twice_and_leaves_nothing_when_it_is_stopped(machine):
    plugin = machine.root / "run/docker/plugins/orlop.sock"

    first = tutorial(machine).stdout
    second = tutorial(machine).stdout
    stopped = tutorial(machine, "--stop").stdout
    again = tutorial(machine, "--stop").stdout

    for told in (first, second):
        assert "written by the first container" in told
        assert "No space left on device" in told
        assert "1 | still here" in told
        assert "nothing was lost" in told
        assert f"docker -H unix://{machine.folder}/demo/docker.sock volume create -d orlop" in told
        assert "driver: orlop" in told
        assert ("8. Cloudstor: one volume" in told) != ("Cloudstor is left out: this kernel has no SMB" in told)
    engine = "Docker Engine    process "
    assert first.split(engine)[1].split(",")[0] == second.split(engine)[1].split(",")[0]
    assert stopped == "stopped: dockerd, engine2, orlop, orlop2\n"
    assert again == "stopped: nothing was running\n"
    left = machine.run(["ps", "-eo", "args"]).stdout
    assert not [line for line in left.splitlines() if "demo" in line or "orlop serve" in line]
    assert str(machine.folder / "demo") not in machine.run(["cat", "/proc/mounts"]).stdout
    assert not plugin.exists()
    assert (machine.folder / "demo/orlop/volumes/tutorial-notes/_data/note").read_text()


def test_the_tutorial_uses_the_engine_that_answers_and_leaves_what_is_yours_alone(machine):
    engine = Engine(machine)
    engine.start()
    # Yours: another alpine, and a container and a volume with names that the story does not use.
    engine.load(images.build("nginx"))
    engine.docker("tag", "nginx", "alpine")
    engine.docker("run", "-d", "--name", "app", "-v", "data:/data", "nginx")
    yours = engine.docker("inspect", "-f", "{{.Id}}", "alpine").stdout

    told = tutorial(machine).stdout
    busybox = engine.docker("inspect", "-f", "{{.Id}}", "busybox").stdout
    stopped = tutorial(machine, "--stop").stdout

    assert "Docker Engine    your own, at /run/docker.sock" in told
    assert "  docker volume create -d orlop data" in told
    assert engine.docker("inspect", "-f", "{{.Id}}", "alpine").stdout == yours != busybox
    assert stopped == "stopped: engine2, orlop, orlop2\n"
    assert engine.docker("ps", "--format", "{{.Names}}").stdout == "app\n"
    assert "data" in engine.docker("volume", "ls", "-q", "--filter", "driver=local").stdout.split()


def test_the_tutorial_says_why_it_cannot_begin(machine):
    machine.run(["sh", "-c", f"mkdir -p {machine.folder}/demo && rm -rf /run/docker && touch /run/docker"])

    refused = tutorial(machine, check=False)

    assert refused.returncode == 1
    assert "does not start; the end of" in refused.stderr
    tutorial(machine, "--stop")


def test_the_story_fails_if_an_output_is_not_what_it_says():
    sys_path = f"import sys; sys.path.insert(0, {str(PROJECT / 'scripts')!r})"
    code = f"""{sys_path}
from pathlib import Path
from demo import Demo, Trouble
from tutorial import Story
story = Story(Demo(Path("/tmp/story")))
story.run("echo true", "^true$")
for command, says, status in (("echo false", "^true$", 0), ("false", "", 0), ("true", "", 1)):
    try:
        story.run(command, says, status)
    except Trouble:
        continue
    sys.exit(f"believed: {{command}}")
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""
