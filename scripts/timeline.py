"""The tutorial's chapters on data in time and place: snapshots, and a volume that moves from one engine to another."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from demo import OWN_ENGINE, Demo, answers
from orlop.testing import images

if TYPE_CHECKING:
    from tutorial import Story

_PLUGIN = Path("/run/docker/plugins/orlop2.sock")


def snapshots(story: "Story", demo: Demo) -> None:
    """A snapshot while a container writes, and the way back."""
    orlop = _command(demo, "orlop-here", demo.root)
    story.chapter("6. Back in time")
    story.run("docker volume create -d orlop -o size=400m tutorial-diary", "^tutorial-diary$")
    story.run("docker run -d --name tutorial-author -v tutorial-diary:/data busybox sh -c "
              "'echo \"a good day\" >/data/diary; while :; do date >>/data/log; sleep 0.1; done'",
              "^[0-9a-f]{64}$", quiet=True)  # fmt: skip
    story.until("docker exec tutorial-author test -s /data/diary")
    story.why("The container goes on; it stands still for a few thousandths of a second.")
    snapshot = story.run(f"{orlop} snapshot create tutorial-diary", "^tutorial-diary@[0-9a-f]+$")
    story.run("docker exec tutorial-author sh -c 'echo \"a mistake\" >/data/diary'")
    story.run(f"{orlop} snapshot create tutorial-diary --note mistake", "^tutorial-diary@[0-9a-f]+$")
    story.run(f"{orlop} snapshot diff {snapshot} tutorial-diary@latest", "C /diary")
    story.run("docker rm -f tutorial-author", "^tutorial-author$")
    story.run(f"{orlop} volume rollback tutorial-diary {snapshot}", "is what it was in")
    story.run("docker run --rm -v tutorial-diary:/data busybox cat /data/diary", "^a good day$")
    story.why("What it was until then is in a snapshot too. Stock restic reads them all.")
    story.run(f"{orlop} snapshot ls tutorial-diary", "before rollback")


def moving(story: "Story", demo: Demo) -> None:
    """Two engines that share a bucket and nothing else."""
    other = _second_engine(demo)
    bucket, password = demo.folder / "bucket", demo.folder / "bucket.password"
    options = f"-o driver=bucket -o store={bucket} -o password=file:{password} -o size=300m -o lease=4"
    story.chapter("7. A volume that moves from one engine to another")
    story.run(f"mkdir -p {bucket} && {{ test -s {password} || head -c 24 /dev/urandom | base64 >{password}; }}")
    story.why("The bucket is a folder here; s3://, azure:// and gs:// are the same.")
    story.run(f"docker volume create -d orlop {options} tutorial-moving", "^tutorial-moving$")
    story.run("docker run --rm -v tutorial-moving:/data busybox sh -c 'echo \"written on engine 1\" >/data/note'")
    story.why("Engine 2 has an orlop of its own, which knows the bucket and its password.")
    story.run(f"{other} volume create -d orlop2 {options} tutorial-moving", "^tutorial-moving$")
    story.run(f"{other} run --rm -v tutorial-moving:/data busybox cat /data/note", "^written on engine 1$")
    story.why("One engine at a time: while a container of engine 2 has it, engine 1 is refused.")
    story.run(
        f"{other} run -d --name tutorial-there -v tutorial-moving:/data busybox sleep 600", "^[0-9a-f]{64}$", quiet=True
    )
    story.run("docker run --rm -v tutorial-moving:/data busybox true", "is in use on host", status=125)
    story.run(f"{other} exec tutorial-there sh -c 'echo \"and on engine 2\" >>/data/note'")
    story.run(f"{other} rm -f tutorial-there", "^tutorial-there$")
    story.run("docker run --rm -v tutorial-moving:/data busybox cat /data/note", "and on engine 2$")
    story.run(f"{other} volume rm tutorial-moving", "^tutorial-moving$")
    story.run("docker volume rm tutorial-moving", "^tutorial-moving$")


def _second_engine(demo: Demo) -> str:
    """Another engine with an orlop, which has the name of its own that plugins of one host need; its client."""
    home, orlop = demo.folder / "two", demo.folder / "orlop2"
    home.mkdir(exist_ok=True)
    client = f"docker -H unix://{home}/docker.sock"
    serve = [sys.executable, "-m", "orlop", "serve", "--root", str(orlop), "--socket", str(_PLUGIN)]
    demo.start_program("orlop2", serve, lambda: answers(_PLUGIN), {})
    (home / "daemon.json").write_text("{}")
    if not demo.running("engine2"):
        (home / "docker.pid").unlink(missing_ok=True)
    # In a network of its own: an engine without a bridge takes away the one that another engine has.
    argv = ["unshare", "--net", "dockerd", f"--host=unix://{home}/docker.sock", f"--config-file={home}/daemon.json"]
    argv += [f"--data-root={home}/data", f"--exec-root={home}/exec", f"--pidfile={home}/docker.pid", *OWN_ENGINE]

    def answering() -> bool:
        return subprocess.run([*shlex.split(client), "version"], capture_output=True).returncode == 0

    demo.start_program("engine2", argv, answering, {})
    load = [*shlex.split(client), "load", "--quiet", "--input", str(images.build("busybox"))]
    subprocess.run(load, check=True, capture_output=True)
    subprocess.run([*shlex.split(client), "rm", "-f", "-v", "tutorial-there"], capture_output=True)
    return client


def _command(demo: Demo, name: str, root: Path) -> Path:
    """A command that is orlop on this host."""
    command = demo.folder / name
    words = [f"ORLOP_ROOT={root}", "ORLOP_NO_ENGINE=1", sys.executable, "-m", "orlop"]
    command.write_text(f'#!/bin/sh\nexec env {shlex.join(words)} "$@"\n')
    command.chmod(0o700)
    return command
