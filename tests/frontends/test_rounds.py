"""Commands that the daemon starts every now and then."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.frontends.rounds import Rounds
from orlop.testing.waiting import eventually

SLEEPER = 'echo begin >>"$0"; sleep 0.2; echo end >>"$0"'


@pytest.fixture
def rounds(tmp_path: Path) -> Iterator[Callable[..., Rounds]]:
    """Starts a shell script again and again; its ``$0`` is a file for it."""
    started = []

    def start(script: str, wanted: Callable[[], bool] = lambda: True) -> Rounds:
        found = Rounds(["sh", "-c", script, str(tmp_path / "file")], wanted, 0.01)
        found.start()
        started.append(found)
        return found

    yield start
    for each in started:
        each.stop(5)


@pytest.mark.part("S4")
def test_it_runs_again_and_again_and_never_twice_at_once(rounds, tmp_path):
    file = tmp_path / "file"

    found = rounds(SLEEPER)
    eventually(lambda: file.exists() and file.read_text().count("end") >= 3)
    found.stop(5)

    story = file.read_text().split()
    assert story[:6] == ["begin", "end"] * 3


def test_what_is_not_wanted_does_not_run(rounds, tmp_path):
    asked = []

    rounds(SLEEPER, lambda: bool(asked.append(1)))
    eventually(lambda: len(asked) > 3)

    assert not (tmp_path / "file").exists()


@pytest.mark.part("S4")
def test_stopping_ends_it_at_once_and_it_may_clean_up(rounds, tmp_path):
    file = tmp_path / "file"
    found = rounds('trap "echo cleaned >$0.end; exit" TERM; echo $$ >$0; while :; do sleep 0.05; done')
    eventually(lambda: file.exists() and file.read_text())

    begun = time.monotonic()
    found.stop(10)

    assert time.monotonic() - begun < 5
    assert (tmp_path / "file.end").read_text() == "cleaned\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


def test_what_went_wrong_is_logged_as_a_warning(rounds, caplog):
    caplog.set_level(logging.INFO)

    rounds("echo done; echo 'orlop: snapshot of volume data: no room' >&2; kill -9 $$")
    eventually(lambda: len(caplog.records) >= 3)

    said = [(record.levelname, record.getMessage()) for record in caplog.records[:3]]
    assert said[:2] == [("INFO", "done"), ("WARNING", "orlop: snapshot of volume data: no room")]
    assert said[2][1].endswith("was ended by signal 9")


@pytest.mark.feature("S4")
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_the_daemon_makes_what_is_due_and_shows_what_fails(tmp_path):
    home = {
        **os.environ,
        "ORLOP_ROOT": str(tmp_path / "root"),
        "ORLOP_RUN": str(tmp_path / "run"),
        "ORLOP_NO_ENGINE": "1",
    }

    def orlop(*words: str) -> str:
        argv = [sys.executable, "-m", "orlop", *words]
        return subprocess.run(argv, env=home, check=True, capture_output=True, text=True, timeout=60).stdout

    orlop("volume", "create", "data", "--label", "orlop.snapshot.schedule=daily")
    orlop("volume", "create", "bad", "--label", "orlop.snapshot.schedule=never")
    argv = [sys.executable, "-m", "orlop", "serve", "--socket", str(tmp_path / "sock"), "--snapshot-interval", "0.1s"]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(argv, env=home, stderr=log) as daemon:
        try:
            said = tmp_path / "log"
            eventually(lambda: said.read_text().count("WARNING orlop: snapshot of volume 'bad'") >= 2)
        finally:
            daemon.send_signal(signal.SIGTERM)

    assert daemon.returncode == 0
    assert orlop("snapshot", "ls", "-q").split()[0].startswith("data@")
    assert "INFO data@" in said.read_text()
    status = json.loads(orlop("volume", "inspect", "bad"))[0]["Status"]
    assert "schedule 'never' is none of" in status["LastSnapshotError"]
