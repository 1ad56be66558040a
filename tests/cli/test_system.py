import json

import pytest


@pytest.mark.part("E5")
def test_info_tells_what_there_is(orlop, root):
    orlop("volume", "create", "one")
    orlop("volume", "create", "two", "-d", "tmpfs")
    orlop("volume", "create", "three")
    orlop("volume", "rm", "three")

    page = orlop("info", "--socket", "/nowhere.sock").stdout
    found = json.loads(orlop("info", "--format", "json").stdout)

    assert f"Root: {root}\n" in page
    assert "Volumes: 2\nBy Driver: local 1, tmpfs 1\nBy Phase: ready 2, trashed 1\nAttached: 0\n" in page
    assert "Daemon: does not answer on /nowhere.sock ([Errno 2] No such file or directory)\n" in page
    assert found["ByPhase"] == {"ready": 2, "trashed": 1}
    assert (
        orlop("info", "-f", "{{.Drivers}}").stdout
        == "azurefile, cifs, local, nfs, rclone, s3, secret, shared, sshfs, tmpfs\n"
    )


@pytest.mark.feature("V15")
def test_df_sums_up_and_shows_each_volume(orlop, root):
    orlop("volume", "create", "data")
    (root / "volumes/data/_data/file").write_bytes(b"x" * 8192)
    orlop("volume", "create", "limited", "-o", "size=16m")
    orlop("volume", "create", "memory", "-d", "tmpfs")
    orlop("volume", "create", "gone")
    orlop("volume", "rm", "gone")

    lines = [line.split() for line in orlop("system", "df").stdout.splitlines()]
    each = [line.split() for line in orlop("system", "df", "-v").stdout.splitlines()[3:]]

    assert lines[0] == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert lines[1][:3] == ["Volumes", "3", "0"]
    assert lines[1][-1] == "(100%)"
    assert lines[2] == ["Removed", "1", "0", "0B", "0B"]
    assert each == [["data", "0", "8.19kB"], ["limited", "0", "16.8MB"], ["memory", "0", "N/A"]]
    assert orlop("system", "df", "-v", "--format", "{{.Name}}={{.Size}}").stdout.splitlines()[0] == "data=8.19kB"
