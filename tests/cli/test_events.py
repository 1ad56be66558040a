import json
import re
import subprocess
import sys
import time

import pytest


@pytest.fixture
def history(orlop):
    """Two volumes, one removed; returns the moment between."""
    orlop("volume", "create", "old")
    time.sleep(0.1)
    between = time.time()
    orlop("volume", "create", "new", "-d", "tmpfs")
    orlop("volume", "rm", "old")
    return between


def actions(text: str) -> list[str]:
    return [" ".join(line.split()[2:4]) for line in text.splitlines()]


@pytest.mark.part("E5")
def test_events_are_in_order_as_docker_prints_them(orlop, history):
    found = orlop("system", "events").stdout

    assert actions(found) == ["create old", "create new", "remove old"]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z volume create old \(driver=local\)\n", found)


@pytest.mark.part("E5")
def test_events_are_chosen_by_time_volume_and_kind(orlop, history):
    def chosen(*words: str) -> list[str]:
        return actions(orlop("system", "events", *words).stdout)

    assert chosen("--since", str(history)) == ["create new", "remove old"]
    assert chosen("--until", str(history)) == ["create old"]
    assert chosen("--since", "1h", "--filter", "volume=old") == ["create old", "remove old"]
    assert chosen("-f", "event=create", "-f", "event=purge") == ["create old", "create new"]
    assert chosen("--until", "2001-01-01T00:00:00Z") == []
    assert chosen("--since", "2001-01-01", "-f", "event=remove") == ["remove old"]


@pytest.mark.part("E5")
def test_events_as_json_are_those_of_dockers_api(orlop, history):
    first = json.loads(orlop("system", "events", "--format", "json").stdout.splitlines()[0])

    assert first.pop("time") == first.pop("timeNano") // 1_000_000_000
    actor = {"ID": "old", "Attributes": {"driver": "local"}}
    assert first == {"Type": "volume", "Action": "create", "Actor": actor, "scope": "local"}
    template = "{{.Action}} {{.Actor.ID}}"
    assert orlop("system", "events", "--format", template).stdout.splitlines()[2] == "remove old"


@pytest.mark.part("E5")
def test_following_shows_what_happens_from_now_on(orlop, environment):
    argv = [sys.executable, "-m", "orlop", "system", "events", "--follow", "--until", str(time.time() + 3)]

    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as process:
        time.sleep(0.5)
        orlop("volume", "create", "data")
        found = process.communicate(timeout=20)[0]

    assert actions(found) == ["create data"]
    assert process.returncode == 0


def test_a_moment_that_is_none_is_wrong_usage(orlop):
    assert "is not a duration" in orlop("system", "events", "--since", "yesterday", status=2).stderr
