"""The command ``orlop`` as a shell runs it, on folders of its own; no engine of this host is asked."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

DRIVERS = [
    "azurefile",
    "bucket",
    "ceph",
    "cifs",
    "gluster",
    "ipfs",
    "local",
    "nfs",
    "rclone",
    "s3",
    "secret",
    "shared",
    "sshfs",
    "tmpfs",
]
"""Every driver of orlop's own, in order."""
Orlop = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def environment(tmp_path: Path, root: Path) -> dict[str, str]:
    ours = {"ORLOP_ROOT": str(root), "ORLOP_RUN": str(tmp_path / "run"), "ORLOP_NO_ENGINE": "1", "LANG": "C.UTF-8"}
    return {"PATH": os.environ["PATH"], **ours}


@pytest.fixture
def orlop(environment: dict[str, str]) -> Orlop:
    """Run the command; ``status`` is how it has to end."""

    def run(*words: str, status: int = 0, env: dict[str, str] | None = None, **more: object):
        argv = [sys.executable, "-m", "orlop", *words]
        done = subprocess.run(argv, capture_output=True, text=True, env=environment | (env or {}), timeout=120, **more)
        assert done.returncode == status, f"{words}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    return run
