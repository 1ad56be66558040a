"""``orlop install``: what it writes is what systemd and Podman understand, and asking again changes nothing."""

import configparser
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orlop.cli.main import main

SYSTEM = "etc/systemd/system"
NAMESPACED = (
    *("Protect", "Private", "ReadOnly", "ReadWrite", "Inaccessible", "Exec", "NoExec", "Bind", "TemporaryFileSystem"),
    *("RootDirectory", "RootImage", "MountFlags", "MountImages", "DynamicUser", "ProcSubset", "RuntimeDirectory"),
)
"""How systemd.exec(5)'s options begin that give a service a mount namespace of its own (ExecStart is none)."""


def orlop(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(path.read_text())
    return parser


def tree(folder: Path) -> dict[str, str]:
    """Every file and link, with its content or target."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    orlop("install", "--prefix", str(tmp_path), "--root", "/srv/with space/100%")

    units = [str(tmp_path / SYSTEM / name) for name in ("orlop.socket", "orlop.service")]
    verified = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=100)

    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_the_daemon_is_this_interpreters_starts_before_the_engines_and_comes_back(tmp_path: Path) -> None:
    orlop("install", "--prefix", str(tmp_path), "--root", "/srv/volumes")

    service, socket = unit(tmp_path / SYSTEM / "orlop.service"), unit(tmp_path / SYSTEM / "orlop.socket")
    assert service["Service"]["ExecStart"] == f"{sys.executable} -m orlop serve --root /srv/volumes"
    assert service["Service"]["Type"] == "notify"
    assert service["Service"]["Restart"] == "always"
    assert service["Service"]["KillMode"] == "process"
    assert "docker.service" in service["Unit"]["Before"].split()
    assert service["Unit"]["RequiresMountsFor"] == "/srv/volumes"
    assert socket["Socket"]["ListenStream"] == "/run/docker/plugins/orlop.sock"
    assert socket["Socket"]["SocketMode"] == "0600"


def test_nothing_gives_the_daemon_a_mount_namespace_of_its_own(tmp_path: Path) -> None:
    orlop("install", "--prefix", str(tmp_path))

    options = [name for name in unit(tmp_path / SYSTEM / "orlop.service")["Service"] if name != "ExecStart"]

    assert "NoNewPrivileges" in options
    assert [name for name in options if name.startswith(NAMESPACED)] == []


def test_podman_is_told_where_the_socket_is(tmp_path: Path) -> None:
    orlop("install", "--prefix", str(tmp_path))

    config = tomllib.loads((tmp_path / "etc/containers/containers.conf.d/orlop.conf").read_text())

    assert config["engine"]["volume_plugins"] == {"orlop": "/run/docker/plugins/orlop.sock"}


def test_it_starts_at_boot_and_installing_again_changes_nothing(tmp_path: Path) -> None:
    first = orlop("install", "--prefix", str(tmp_path))
    before = tree(tmp_path)
    again = orlop("install", "--prefix", str(tmp_path))

    assert first.exit_code == again.exit_code == 0
    assert first.stdout.count("write") == 3
    assert again.stdout == ""
    assert tree(tmp_path) == before
    assert before[f"{SYSTEM}/sockets.target.wants/orlop.socket"] == "../orlop.socket"
    assert before[f"{SYSTEM}/multi-user.target.wants/orlop.service"] == "../orlop.service"


def test_a_dry_run_says_the_same_and_does_nothing(tmp_path: Path) -> None:
    said = orlop("install", "--prefix", str(tmp_path), "--dry-run").stdout
    left = tree(tmp_path)
    done = orlop("install", "--prefix", str(tmp_path)).stdout
    would = orlop("uninstall", "--prefix", str(tmp_path), "--dry-run").stdout

    assert left == {}
    assert said == done
    assert would.count("remove") == 5
    assert len(tree(tmp_path)) == 5


def test_uninstalling_takes_away_what_was_written_and_nothing_else(tmp_path: Path) -> None:
    data = tmp_path / "var/lib/orlop/volumes/data/_data/precious"
    other = tmp_path / SYSTEM / "other.service"
    for path in (data, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("kept")

    orlop("install", "--prefix", str(tmp_path))
    gone = orlop("uninstall", "--prefix", str(tmp_path))
    again = orlop("uninstall", "--prefix", str(tmp_path))

    assert gone.exit_code == again.exit_code == 0
    assert set(tree(tmp_path).values()) == {"kept"}
    assert len(tree(tmp_path)) == 2


def test_a_changed_option_rewrites_the_unit(tmp_path: Path) -> None:
    orlop("install", "--prefix", str(tmp_path))
    changed = orlop("install", "--prefix", str(tmp_path), "--root", "/srv/volumes")

    assert changed.stdout == f"write {tmp_path / SYSTEM / 'orlop.service'}\n"


def test_starting_it_makes_no_sense_below_a_prefix(tmp_path: Path) -> None:
    refused = orlop("install", "--prefix", str(tmp_path), "--now")

    assert refused.exit_code == 1
    assert "--now" in refused.stderr
    assert tree(tmp_path) == {}


def test_now_starts_it_after_everything_is_written() -> None:
    said = orlop("install", "--now", "--dry-run").stdout.splitlines()
    unsaid = orlop("uninstall", "--now", "--dry-run").stdout.splitlines()

    assert said[-2:] == ["systemctl daemon-reload", "systemctl start orlop.socket orlop.service"]
    assert (unsaid[0], unsaid[-1]) == ("systemctl stop orlop.socket orlop.service", "systemctl daemon-reload")
