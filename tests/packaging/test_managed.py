"""What ``orlop plugin build`` makes: complete, small, and never in the way of something else."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orlop.cli.main import main
from orlop.packaging import rootfs


def build(*words: object) -> Result:
    return CliRunner().invoke(main, ["plugin", "build", *map(str, words)])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("built") / "plugin"
    assert build(folder).exit_code == 0
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_orlop_and_every_program_it_runs_start_with_nothing_but_the_root_filesystem(built: Path) -> None:
    def run(*argv: str) -> "subprocess.CompletedProcess[str]":
        env = {"PATH": "/usr/sbin:/usr/bin", "PYTHONPATH": rootfs.PACKAGES}
        return subprocess.run(
            ["chroot", str(built / "rootfs"), *argv], env=env, capture_output=True, text=True, timeout=60
        )

    config = json.loads((built / "config.json").read_text())
    python, *words = config["entrypoint"]
    assert run(python, *words, "--help").stdout.startswith("Usage: ")
    modules = "import ctypes, httptools, orlop.frontends.serve, sqlite3, ssl, prometheus_client"
    modules += ", cryptography.hazmat.primitives.ciphers.aead"
    assert run(python, "-c", modules).stderr == ""
    for program in rootfs.PROGRAMS:
        shown = run(program, "--version" if program in ("rm", "tar") else "-V")
        # A program without its libraries ends with 127; resize2fs has no option that ends with 0.
        assert shown.returncode in (0, 1), shown.stderr


def test_it_holds_no_tests_no_other_pythons_bytecode_and_nothing_for_developers(built: Path) -> None:
    names = {path.name for path in (built / "rootfs").rglob("*")}

    assert f"os.{sys.implementation.cache_tag}.pyc" in names
    assert not names & {"test", "idlelib", "tkinter", "ensurepip", "pytest", "mypy", "pip"}
    assert [name for name in names if name.endswith(".pyc") and sys.implementation.cache_tag not in name] == []
    size = sum(path.lstat().st_size for path in (built / "rootfs").rglob("*"))
    assert size < 150 << 20


def test_only_settings_can_be_set(built: Path) -> None:
    config = json.loads((built / "config.json").read_text())

    assert {entry["name"] for entry in config["env"] if entry.get("settable")} == {
        "AZURE_STORAGE_ACCOUNT",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_ENDPOINT",
        "CLOUD_PLATFORM",
        "DEBUG",
        "IPFS_API",
        "ORLOP_BUCKET",
        "ORLOP_BUCKET_LAZY",
        "ORLOP_BUCKET_ACCESS_KEY",
        "ORLOP_BUCKET_ACCOUNT",
        "ORLOP_BUCKET_ENDPOINT",
        "ORLOP_BUCKET_KEY",
        "ORLOP_BUCKET_PASSWORD",
        "ORLOP_BUCKET_REGION",
        "ORLOP_BUCKET_SECRET_KEY",
        "ORLOP_DRIVER",
        "ORLOP_SHARED",
        "ORLOP_TRASH",
    }
    assert [mount["name"] for mount in config["mounts"] if mount["settable"]] == ["data"]
    assert config["network"] == {"type": "host"}
    assert config["pidhost"] is True


def test_a_folder_with_something_else_in_it_is_left_alone_even_by_force(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")

    refused, forced = build(tmp_path), build(tmp_path, "--force")

    assert (refused.exit_code, forced.exit_code) == (1, 1)
    assert "--force" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_building_again_replaces_by_force_only(built: Path) -> None:
    (built / "rootfs/old").write_text("old")

    refused, forced = build(built), build(built, "--force")

    assert (refused.exit_code, forced.exit_code) == (1, 0)
    assert not (built / "rootfs/old").exists()
    assert sorted(path.name for path in built.parent.iterdir()) == ["plugin"]
