import json

import pytest
from tests.cli.conftest import DRIVERS


def test_ls_names_the_drivers_and_their_options(orlop):
    lines = orlop("driver", "ls").stdout.splitlines()

    assert lines[0].split() == ["DRIVER", "SCOPE", "OPTIONS"]
    assert [line.split()[0] for line in lines[1:]] == DRIVERS
    assert orlop("driver", "ls", "--format", "{{.Name}} {{.Scope}}").stdout.startswith(
        "azurefile global\nbucket global\nceph global\n"
    )


def test_inspect_gives_each_option_with_its_help(orlop):
    page = orlop("driver", "inspect", "tmpfs").stdout
    (document,) = json.loads(orlop("driver", "inspect", "tmpfs", "--format", "json").stdout)

    assert "Can grow: no" in page
    assert "  size        most bytes it may hold, such as 64m" in page
    assert document["Options"]["uid"] == "owner of its root (default 0)"


def test_inspect_of_a_remote_driver_says_what_it_needs_and_how_its_health_is_seen(orlop):
    page = orlop("driver", "inspect", "gluster").stdout
    (document,) = json.loads(orlop("driver", "inspect", "nfs", "--format", "json").stdout)

    assert "Needs: the package glusterfs-client\nHealth: its program runs, and answers within 5 s" in page
    assert (document["Needs"], document["Health"].split(":")[0]) == ("a kernel with nfs", "asked for its free space")


def test_inspect_of_a_driver_that_is_not_there_says_which_there_are(orlop):
    refused = orlop("driver", "inspect", "nope", status=1)

    assert refused.stderr == f"orlop: no volume driver 'nope'; there are {', '.join(DRIVERS)}\n"


@pytest.mark.parametrize("said", ["option", "setting"])
def test_a_daemon_whose_default_driver_is_not_there_does_not_start(orlop, tmp_path, said):
    env = {"ORLOP_DRIVER": "nope" if said == "setting" else "tmpfs"}
    words = ["--default-driver", "nope"] if said == "option" else []

    refused = orlop("serve", "--socket", str(tmp_path / "orlop.sock"), *words, status=1, env=env)

    assert "no volume driver 'nope'; there are azurefile" in refused.stderr
    assert not (tmp_path / "orlop.sock").exists()
