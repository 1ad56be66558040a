import json
import os
import subprocess
import sys

import pytest

from orlop.errors import Unavailable
from orlop.testing import _apt, engines
from orlop.testing.engine import Engine
from orlop.testing.machine import Machine


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
def test_a_newer_engine_runs_beside_the_hosts_with_programs_of_its_own(tmp_path, newer_programs):
    with Machine(tmp_path / "machine", "engines") as machine:
        engine = Engine(machine, "--bridge=none", "--iptables=false", programs=newer_programs)
        engine.start()

        version = json.loads(engine.docker("version", "--format={{json .}}").stdout)
        running = machine.run(["sh", "-c", "readlink /proc/[0-9]*/exe"]).stdout.split()

    parts = {part["Name"]: part["Version"] for part in version["Server"]["Components"]}
    assert int(version["Client"]["Version"].split(".")[0]) >= 28
    assert int(parts["Engine"].split(".")[0]) >= 28
    assert int(parts["containerd"].split(".")[0]) >= 2
    # Those that are named as programs run; a loader in front of them would be seen instead.
    assert {str(newer_programs / name) for name in ("dockerd", "containerd")} <= set(running)


@pytest.mark.parametrize("program", ["dockerd", "docker", "containerd", "containerd-shim-runc-v2", "runc"])
def test_the_programs_use_no_library_of_the_host(newer_programs, program):
    loader = subprocess.run(
        ["patchelf", "--print-interpreter", newer_programs / program], check=True, capture_output=True, text=True
    ).stdout.strip()

    listed = subprocess.run(
        [loader, "--list", newer_programs / program], check=True, capture_output=True, text=True
    ).stdout

    used = [word for word in listed.split() if word.startswith("/")]
    assert any("libc.so" in path for path in used)
    assert [path for path in used if not path.startswith(f"{newer_programs}/lib/")] == []
    assert loader.startswith(f"{newer_programs}/lib/")


def test_what_is_there_is_not_made_again(newer_programs):
    before = (newer_programs / "dockerd").stat()

    again = engines.newer(newer_programs.parent)

    assert again == newer_programs
    assert (newer_programs / "dockerd").stat() == before


def test_a_release_that_cannot_be_had_is_told_with_its_reason(tmp_path):
    with pytest.raises(Unavailable, match="'no-such-release'"):
        _apt.another("no-such-release", tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
def test_without_a_network_it_is_told_soon_and_nothing_half_made_stays(tmp_path):
    program = f"from pathlib import Path; from orlop.testing import engines; engines.newer(Path({str(tmp_path)!r}))"

    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )

    assert "orlop.errors.Unavailable: apt-get update: " in done.stderr
    assert "see that the archive can be reached" in done.stderr
    assert list(tmp_path.glob("docker-*")) == []
