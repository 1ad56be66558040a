"""The tutorial's chapter on Cloudstor: one volume for many nodes, on a stand-in for an Azure account and a real Samba.

It needs a kernel with SMB, which not every one has: `missing` says so.
"""

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from demo import Demo

if TYPE_CHECKING:
    from tutorial import Story

PLUGIN = Path("/run/docker/plugins/cloudstor.sock")
_ADDRESS, _REST, _SMB = "127.0.0.1", 10445, 445
# Nobody else can reach it, and it is no secret: it stands here.
_KEY = "dHV0b3JpYWwta2V5"
_SETTINGS = {
    "CLOUD_PLATFORM": "AZURE",
    "AZURE_STORAGE_ACCOUNT": "tutorial",
    "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
    "AZURE_STORAGE_ENDPOINT": f"http://{_ADDRESS}:{_REST}",
}


def missing(demo: Demo) -> str:
    """Why this computer cannot play the chapter; empty if it can."""
    subprocess.run(["modprobe", "-q", "cifs"], check=False)
    if "cifs" not in Path("/proc/filesystems").read_text().split():
        return "this kernel has no SMB (cifs)"
    if not demo.running("azure") and _taken(_SMB):
        return f"something else listens on port {_SMB}, which SMB needs"
    return ""


def chapter(story: "Story", demo: Demo) -> None:
    """Two nodes share a volume: the engine's plugin, and another orlop that knows the account and nothing else."""
    _start(demo)
    node2 = _second_node(demo)
    story.chapter("8. Cloudstor: one volume for all nodes")
    story.why("The account is a stand-in for Azure's, on this computer; it has not been compared with the real one.")
    story.why("Its shares are exported by a real Samba, and this kernel mounts them by SMB 3.")
    story.run("docker volume create -d cloudstor -o uid=1000 -o filemode=0640 tutorial-shared", "^tutorial-shared$")
    story.run("docker run --rm --user 1000 -v tutorial-shared:/data busybox "
              "sh -c 'echo \"from node 1\" >/data/note; stat -c \"%u %a\" /data/note'", "^1000 640$")  # fmt: skip
    story.why("The second node is another orlop, with a state of its own: what it knows, the account told it.")
    story.run(f"{node2} volume ls --format '{{{{.Name}}}} {{{{.Driver}}}}'", "tutorial-shared azurefile")
    story.run(f"{node2} volume export tutorial-shared | tar -xO ./note", "^from node 1$")
    story.why("What one node removes has gone for all.")
    story.run(f"{node2} volume rm tutorial-shared", "tutorial-shared")
    story.run("docker volume ls -q --filter name=tutorial-shared", "^$")


def _start(demo: Demo) -> None:
    """The stand-in with its Samba, and orlop as the plugin ``cloudstor``."""
    azure = [sys.executable, "-u", "-m", "orlop.testing.azure", str(demo.folder / "azure")]
    words = ["--host", _ADDRESS, "--port", str(_REST), "--smb"]
    demo.start_program("azure", [*azure, *words], lambda: _taken(_REST), _SETTINGS)
    serve = [sys.executable, "-m", "orlop", "serve", "--root", str(demo.folder / "cloudstor")]
    demo.start_program("cloudstor", [*serve, "--socket", str(PLUGIN)], PLUGIN.exists, _SETTINGS)


def _second_node(demo: Demo) -> Path:
    """A command that is orlop on the other node."""
    command = demo.folder / "node2"
    settings = {**_SETTINGS, "ORLOP_ROOT": str(demo.folder / "second"), "ORLOP_NO_ENGINE": "1"}
    words = [*(f"{name}={value}" for name, value in settings.items()), sys.executable, "-m", "orlop"]
    command.write_text(f'#!/bin/sh\nexec env {shlex.join(words)} "$@"\n')
    command.chmod(0o700)
    return command


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((_ADDRESS, port)) == os.EX_OK
