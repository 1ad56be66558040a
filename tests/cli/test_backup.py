"""``orlop backup`` and ``orlop restore``: into a store elsewhere, and onto another host."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.objects import servers

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture
def files(orlop, root) -> Path:
    """The files of a volume ``data``."""
    orlop("volume", "create", "data", "--label", "team=blue")
    folder = root / "volumes/data/_data"
    (folder / "sub").mkdir()
    (folder / "sub/file").write_bytes(b"one" * 100_000)
    os.chown(folder / "sub/file", 7, 8)
    return folder


@pytest.fixture
def place(tmp_path) -> list[str]:
    """The options of a repository in a folder."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "password").write_text("open sesame\n")
    return [str(tmp_path / "disk"), "--password", f"file:{tmp_path}/password"]


@pytest.fixture
def elsewhere(tmp_path) -> dict[str, str]:
    """The environment of another host."""
    return {"ORLOP_ROOT": str(tmp_path / "root2"), "ORLOP_RUN": str(tmp_path / "run2")}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory) -> Iterator[list[str]]:
    """The options of a repository in a real S3 store."""
    with servers.seaweed(tmp_path_factory.mktemp("seaweed")) as settings:
        named = {**settings, "access_key": "env:KEY", "secret_key": "env:SECRET"}
        yield [word for key, value in named.items() for word in ("--store", f"{key}={value}")]


@pytest.mark.feature("S2", "S3")
@pytest.mark.parametrize("options", [[], ["-o", "size=300m"]])
def test_a_volume_comes_back_on_a_host_that_never_saw_it(orlop, files, place, elsewhere, tmp_path, options):
    made = orlop("backup", "data", "--to", *place, "--init").stdout.strip()

    told = orlop("restore", "data", "--from", *place, "--as", "new", *options, "--label", "team=red", env=elsewhere)

    assert f"volume new is what {made} was on" in told.stdout
    orlop("volume", "export", "new", "-o", str(tmp_path / "tar"), env=elsewhere)
    listed = subprocess.run(["tar", "tvf", tmp_path / "tar"], check=True, capture_output=True, text=True).stdout
    assert "7/8          300000" in listed
    assert orlop("volume", "ls", "--format", "{{.Labels}}", env=elsewhere).stdout == "team=red\n"
    again = orlop("restore", "data", "--from", *place, "--as", "new", env=elsewhere, status=1)
    assert "'new' exists already" in again.stderr


@pytest.mark.feature("S2", "S3")
def test_a_backup_goes_into_a_bucket_and_only_what_changed_goes_again(orlop, files, bucket, elsewhere, tmp_path):
    keys = {"KEY": servers.ACCESS_KEY, "SECRET": servers.SECRET_KEY, "PASSWORD": "open"}
    place = ["s3://bucket/backups", "--password", "env:PASSWORD", *bucket]

    first = orlop("backup", "data", "--to", *place, "--init", env=keys).stdout.strip()
    (files / "new").write_text("two")
    orlop("backup", "data", "--to", *place, env=keys)
    orlop("restore", first, "--from", *place, env=keys | elsewhere)
    orlop("restore", "data", "--from", *place, "--as", "latest", env=keys | elsewhere)

    root = Path(elsewhere["ORLOP_ROOT"])
    assert (root / "volumes/data/_data/sub/file").read_bytes() == b"one" * 100_000
    assert sorted(os.listdir(root / "volumes/data/_data")) == ["sub"]
    assert sorted(os.listdir(root / "volumes/latest/_data")) == ["new", "sub"]
    address = f"s3:{_endpoint(bucket)}/bucket/backups"
    aws = {"AWS_ACCESS_KEY_ID": servers.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": servers.SECRET_KEY}
    done = subprocess.run(
        ["restic", "-r", address, "--no-cache", "check", "--read-data"],
        env={**os.environ, **aws, "RESTIC_PASSWORD": "open"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "no errors were found" in done.stdout


def _endpoint(bucket: list[str]) -> str:
    return next(word for word in bucket if word.startswith("endpoint=")).partition("=")[2]


@pytest.mark.part("S2")
def test_all_volumes_with_a_label_go_at_once(orlop, files, place):
    orlop("volume", "create", "other")
    orlop("volume", "create", "more", "--label", "team=blue")

    made = orlop("backup", "--all", "--filter", "label=team=blue", "--to", *place, "--init").stdout.split()

    assert [reference.partition("@")[0] for reference in made] == ["data", "more"]


def test_nothing_is_made_where_no_repository_is_and_none_is_asked_for(orlop, files, place, tmp_path):
    refused = orlop("backup", "data", "--to", *place, status=1)
    lost = orlop("restore", "data", "--from", *place, status=1)

    assert refused.stderr == lost.stderr
    assert f"there is no repository at '{tmp_path}/disk'; 'orlop backup --init' makes one" in lost.stderr
    assert os.listdir(tmp_path / "disk") == []


def test_a_folder_that_is_not_there_may_be_a_disk_that_is_not_mounted(orlop, files, tmp_path):
    to = ["--to", str(tmp_path / "missing"), "--password", "env:HOME", "--init"]

    refused = orlop("backup", "data", *to, env={"HOME": "x"}, status=1)

    assert "make it, or mount what it is on" in refused.stderr


@pytest.mark.parametrize("words", [[], ["data", "--all"], ["data", "--filter", "label=x"]])
def test_which_volumes_are_meant_must_be_said(orlop, files, place, words):
    refused = orlop("backup", *words, "--to", *place, "--init", status=1)

    assert "say which volumes" in refused.stderr


def test_the_latest_of_two_hosts_is_not_guessed(orlop, files, place, tmp_path):
    orlop("backup", "data", "--to", *place, "--init")
    restic = ["restic", "-r", place[0], "--password-file", tmp_path / "password", "--no-cache"]
    theirs = ["backup", tmp_path / "password", "--host", "other", "--tag", "orlop.volume=data"]
    subprocess.run([*restic, *theirs], check=True, capture_output=True)

    refused = orlop("restore", "data", "--from", *place, "--as", "new", status=1)

    assert "have backups of a volume 'data'; name one as data@ID" in refused.stderr
    assert orlop("volume", "ls", "-q").stdout == "data\n"
