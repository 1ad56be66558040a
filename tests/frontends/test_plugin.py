"""The plugin protocol as engines really speak it: no name is never a success, every error is a status 500."""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from orlop.frontends.plugin import VERBS, answer
from orlop.kernel.processes import start_time
from orlop.state import Holder
from orlop.volumes.service import VolumeService

Call = Callable[..., tuple[int, Any]]
NAMED = sorted(set(VERBS) - {"/Plugin.Activate", "/VolumeDriver.Capabilities", "/VolumeDriver.List"})


@pytest.fixture
def call(service: VolumeService) -> Call:
    engine = Holder("dockerd/0", "", os.getpid(), start_time(os.getpid()) or 0)

    def post(verb: str, body: object = b"") -> tuple[int, Any]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode() + b"\n"
        status, reply = answer(service, verb if verb.startswith("/") else f"/VolumeDriver.{verb}", raw, engine)
        return status, json.loads(json.dumps(reply))

    return post


@pytest.mark.part("P1")
def test_a_volumes_life_in_the_eight_verbs(call: Call) -> None:
    assert call("/Plugin.Activate") == (200, {"Implements": ["VolumeDriver"]})
    assert call("Capabilities", {}) == (200, {"Capabilities": {"Scope": "local"}})
    assert call("Create", {"Name": "data", "Opts": None}) == (200, {"Err": ""})

    status, mounted = call("Mount", {"Name": "data", "ID": "c1"})
    assert status == 200
    assert mounted["Mountpoint"].endswith("/mounts/data")
    assert call("Path", {"Name": "data"}) == (200, mounted)
    status, got = call("Get", {"Name": "data"})
    assert got["Volume"]["CreatedAt"] == "2027-01-15T08:00:00Z"
    assert got["Volume"]["Status"]["Holders"] == {"c1": 1}
    listed = call("List")[1]["Volumes"]
    assert [volume["Name"] for volume in listed] == ["data"]

    assert call("Unmount", {"Name": "data", "ID": "c1"}) == (200, {"Err": ""})
    assert call("Remove", {"Name": "data"}) == (200, {"Err": ""})
    assert call("List")[1]["Volumes"] == []


@pytest.mark.parametrize("verb", NAMED)
@pytest.mark.parametrize(
    "body", [b"", b"\n", b"{}", b'{"Name":""}', b'{"Name":null}', b'{"Name":7}', b"[]", b"{", b"\xff"]
)
def test_a_verb_without_a_name_is_an_error_and_does_nothing(call: Call, verb: str, body: bytes) -> None:
    status, reply = call(verb, body)

    assert (status, bool(reply["Err"])) == (500, True)
    assert call("List")[1]["Volumes"] == []


@pytest.mark.parametrize("verb", ["Get", "Path", "Mount", "Unmount", "Remove"])
def test_an_unknown_volume_is_an_error_that_names_it_and_nothing_else(call: Call, verb: str) -> None:
    assert call(verb, {"Name": "nobody", "ID": "x"}) == (500, {"Err": "no volume 'nobody'"})


@pytest.mark.parametrize("name", ["../../esc", "..", "a/b", "x y", "a\nb", "x" * 300, "\u00e9", "\x00"])
def test_names_are_checked_here_since_docker_does_not(call: Call, name: str) -> None:
    status, reply = call("Create", {"Name": name})

    assert status == 500
    assert "invalid" in reply["Err"] or "long" in reply["Err"]


def test_options_must_be_strings(call: Call) -> None:
    assert call("Create", {"Name": "data", "Opts": {"size": 5}})[0] == 500
    assert call("Create", {"Name": "data", "Opts": "size=5"})[0] == 500


def test_an_unknown_verb_is_not_found(call: Call) -> None:
    assert call("Explode", {"Name": "data"})[0] == 404


def test_a_defect_of_ours_is_an_answer_too(call: Call, service: VolumeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "get", lambda name: 1 / 0)

    assert call("Get", {"Name": "data"}) == (500, {"Err": "orlop has a defect: ZeroDivisionError: division by zero"})
