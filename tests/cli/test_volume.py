import json
import re
import socket
import sqlite3
import threading
import time

import pytest
from click.testing import CliRunner
from tests.azure_account import ACCOUNT, KEY
from tests.cli.conftest import DRIVERS

from orlop.cli import volume
from orlop.cli.main import main


@pytest.mark.feature("V5")
def test_create_prints_the_name_and_makes_one_up_if_none_is_given(orlop):
    assert orlop("volume", "create", "data").stdout == "data\n"
    assert re.fullmatch(r"[0-9a-f]{64}\n", orlop("volume", "create").stdout)


@pytest.mark.feature("V5")
def test_create_again_is_fine_and_with_other_options_an_error(orlop):
    orlop("volume", "create", "data", "-d", "tmpfs", "-o", "size=1m")

    assert orlop("volume", "create", "data", "-o", "driver=tmpfs", "-o", "size=1m").stdout == "data\n"
    differs = orlop("volume", "create", "data", "-d", "tmpfs", "-o", "size=2m", status=1)

    assert differs.stderr.startswith("orlop: volume 'data' exists with option 'size' '1m'")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ["-d", "nope"],
            f"no volume driver 'nope'; there are {', '.join(DRIVERS)}",
        ),
        (["-d", "local", "-o", "driver=tmpfs"], "exclude each other"),
        (["-o", "szie=1m"], "did you mean 'size'?"),
        (["-o", "=1m"], "'=1m' is not KEY=VALUE"),
        (["--label", ""], "'' is not KEY=VALUE"),
        (["../x"], "../x"),
    ],
)
def test_what_cannot_be_created_is_one_line_and_status_1(orlop, words, complaint):
    refused = orlop("volume", "create", *words, status=1)

    assert refused.stdout == ""
    assert refused.stderr.startswith("orlop: ")
    assert complaint in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_ls_shows_what_is_known_and_says_so_while_the_store_of_all_hosts_is_silent(orlop, environment, monkeypatch):
    orlop("volume", "create", "data")
    monkeypatch.setattr(volume, "_PATIENCE", 0.2)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        account = {"AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": KEY}
        address = {"AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        listed = CliRunner().invoke(main, ["volume", "ls", "-q"], env={**environment, **account, **address})
    for thread in threading.enumerate():
        if thread.name == "volumes of all hosts":
            thread.join()

    assert listed.exit_code == 0
    assert listed.stdout == "data\n"
    assert listed.stderr == "orlop: volumes of other hosts may be missing: no answer about them in 0 s\n"


@pytest.mark.feature("V5")
def test_ls_shows_dockers_table_names_json_and_templates(orlop):
    orlop("volume", "create", "data", "--label", "a=1", "--label", "b")
    orlop("volume", "create", "memory", "-d", "tmpfs")

    assert orlop("volume", "ls").stdout == "DRIVER    VOLUME NAME\nlocal     data\ntmpfs     memory\n"
    assert orlop("volume", "ls", "-q").stdout == "data\nmemory\n"
    assert orlop("volume", "ls", "--format", "{{.Name}}: {{.Labels}}").stdout == "data: a=1,b=\nmemory: \n"
    table = orlop("volume", "ls", "--format", r"table {{.Name}}\t{{.Scope}}").stdout
    assert table == "VOLUME NAME   SCOPE\ndata          local\nmemory        local\n"
    lines = [json.loads(line) for line in orlop("volume", "ls", "--format", "json").stdout.splitlines()]
    assert (lines[0]["Name"], lines[0]["Driver"], lines[0]["Labels"]) == ("data", "local", "a=1,b=")


@pytest.mark.feature("V5")
@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["name=da"], ["data", "date"]),
        (["name=date", "name=mem"], ["date", "memory"]),
        (["driver=tmpfs"], ["memory"]),
        (["label=tier"], ["data", "date"]),
        (["label=tier=db"], ["data"]),
        (["label=tier", "label=old"], ["date"]),
        (["label=tier", "driver=tmpfs"], []),
        (["dangling=1"], ["data", "date", "memory"]),
        (["dangling=false"], []),
    ],
)
def test_ls_filters_by_name_driver_label_and_dangling(orlop, filters, names):
    orlop("volume", "create", "data", "--label", "tier=db")
    orlop("volume", "create", "date", "--label", "tier=web", "--label", "old")
    orlop("volume", "create", "memory", "-d", "tmpfs")

    found = orlop("volume", "ls", "-q", *(word for text in filters for word in ("--filter", text)))

    assert found.stdout.split() == names


def test_ls_says_what_it_does_not_understand(orlop):
    orlop("volume", "create", "data")

    assert "invalid filter 'size'; there are name=" in orlop("volume", "ls", "-f", "size=1", status=1).stderr
    assert "neither true nor false" in orlop("volume", "ls", "-f", "dangling=maybe", status=1).stderr
    assert "no field 'Nmae'; there are" in orlop("volume", "ls", "--format", "{{.Nmae}}", status=1).stderr


@pytest.mark.feature("V5")
def test_inspect_shows_dockers_fields_and_ours(orlop, root):
    orlop("volume", "create", "data", "-o", "mode=0700", "--label", "a=1")

    (found,) = json.loads(orlop("volume", "inspect", "data").stdout)

    created = found.pop("CreatedAt")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", created)
    assert found == {
        "Driver": "local",
        "Labels": {"a": "1"},
        "Mountpoint": str(root / "volumes/data/_data"),
        "Name": "data",
        "Options": {"mode": "0700"},
        "Scope": "local",
        "Status": {"Attached": False, "InUse": False, "Size": 0},
        "Holders": [],
        "Containers": [],
    }


@pytest.mark.feature("V5")
def test_inspect_goes_on_after_a_volume_that_is_not_there(orlop):
    orlop("volume", "create", "data")

    found = orlop("volume", "inspect", "nope", "data", status=1)

    assert found.stderr == "orlop: no volume 'nope'\n"
    assert [each["Name"] for each in json.loads(found.stdout)] == ["data"]
    assert orlop("volume", "inspect", "nope", status=1).stdout == "[]\n"
    assert orlop("volume", "inspect", "-f", "{{.Name}} {{json .Options}}", "data").stdout == "data {}\n"


@pytest.mark.part("V15")
def test_update_makes_a_volume_larger_and_labels_it(orlop):
    orlop("volume", "create", "data", "-o", "size=8m")

    orlop("volume", "update", "data", "-o", "size=12m", "--label", "a=1")

    assert orlop("volume", "inspect", "-f", "{{.Options.size}} {{.Labels.a}}", "data").stdout == "12m 1\n"
    assert "can grow, not shrink" in orlop("volume", "update", "data", "-o", "size=8m", status=1).stderr
    assert "nothing to change" in orlop("volume", "update", "data", status=1).stderr


def test_listing_a_thousand_volumes_is_quick(orlop, root):
    orlop("volume", "ls")
    rows = [(f"v{i}", f"v{i}", "local", "{}", "{}", "2026-01-01T00:00:00Z", "ready") for i in range(1000)]
    with sqlite3.connect(root / "state.db") as db:
        columns = "key, name, driver, options, labels, created, phase"
        db.executemany(f"INSERT INTO volumes ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    db.close()

    began = time.monotonic()
    found = orlop("volume", "ls", "-q", "--filter", "dangling=true")

    assert len(found.stdout.split()) == 1000
    assert time.monotonic() - began < 5
