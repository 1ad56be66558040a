import os

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="filesystems need root")


@pytest.fixture
def buckets(tmp_path) -> dict[str, str]:
    """The daemon's settings for one bucket; beside it is another, with its password in a file."""
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "password").write_text("another password")
    return {"ORLOP_BUCKET": str(tmp_path / "ours"), "ORLOP_BUCKET_PASSWORD": "a password"}


@pytest.mark.part("D9", "P3")
def test_a_volume_in_a_bucket_of_its_own_is_not_taken_for_one_that_another_host_removed(orlop, buckets, tmp_path):
    own = ["-o", f"store={tmp_path}/other", "-o", f"password=file:{tmp_path}/password", "-o", "size=300m"]
    orlop("volume", "create", "-d", "bucket", "-o", "size=300m", "listed", env=buckets)
    orlop("volume", "create", "-d", "bucket", *own, "apart", env=buckets)

    for _ in range(2):
        assert orlop("volume", "ls", "-q", env=buckets).stdout.split() == ["apart", "listed"]
    orlop("volume", "create", "-d", "bucket", *own, "apart", env=buckets)


@pytest.mark.part("P8")
def test_asking_for_a_relocatable_volume_again_is_fine_on_every_host(orlop, buckets, tmp_path):
    wish = ["volume", "create", "-o", "backing=relocatable", "-o", "size=300m", "-o", "iops=100", "moving"]
    other = {**buckets, "ORLOP_ROOT": str(tmp_path / "second"), "ORLOP_RUN": str(tmp_path / "run2")}

    for env in (buckets, other, buckets, other):
        orlop("volume", "ls", env=env)
        orlop(*wish, env=env)


def test_a_typed_password_is_sealed_and_never_shown(orlop, buckets, tmp_path):
    orlop("volume", "create", "-d", "bucket", "-o", f"store={tmp_path}/other", "-o", "password=hunter2 4711",
          "-o", "size=300m", "data", env=buckets)  # fmt: skip

    assert "hunter2" not in orlop("volume", "inspect", "data", env=buckets).stdout
    assert telling(tmp_path) == []


def telling(folder) -> list[str]:
    """The files below that have the password."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
