"""Drivers ``nfs`` and ``cifs`` with a kernel that has both: their options arrive, and nothing of them stays."""

import errno
from pathlib import Path

import pytest
from tests.guest.plugin import Plugin
from tests.guest.servers import PASSWORD, USER, Servers


def login(servers: Servers) -> dict[str, str]:
    return {"username": USER, "password": f"file:{servers.password}"}


@pytest.mark.feature("D2")
@pytest.mark.parametrize("vers", ["3", "4.0", "4.1", "4.2"])
def test_files_are_in_the_export_and_nothing_is_left(plugin: Plugin, servers: Servers, vers: str) -> None:
    options = {"nolock": "true"} if vers == "3" else {}
    soft = {"soft": "true", "timeo": "70", "retrans": "3", "rsize": "65536"}
    plugin.create("data", driver="nfs", share="127.0.0.1:/export", vers=vers, **soft, **options)
    mounted = plugin.mount("data")
    (servers.export / "there").write_text("from the server")

    (mounted / "here").write_text("from the volume")
    seen, words = (mounted / "there").read_text(), plugin.mounts()[0].split()[3].split(",")
    plugin.unmount("data")
    plugin.remove("data")

    assert seen == "from the server"
    assert (servers.export / "here").read_text() == "from the volume"
    assert {f"vers={vers}", "soft", "timeo=70", "retrans=3", "rsize=65536", "nosuid", "nodev"} <= {*words}
    assert plugin.mounts() == []


@pytest.mark.part("D2")
def test_an_export_that_is_read_only_refuses_a_write_and_a_stale_one_is_mounted_anew(
    plugin: Plugin, servers: Servers
) -> None:
    (servers.export / "sub").mkdir()
    plugin.create("data", driver="nfs", share="127.0.0.1:/export/sub", ro="true", actimeo="0")
    mounted = plugin.mount("data")
    with pytest.raises(OSError) as refused:
        (mounted / "file").write_text("x")
    (servers.export / "sub").rename(servers.export / "old")
    (servers.export / "sub").mkdir()
    (servers.export / "sub/file").write_text("new")
    servers.remove("old")

    with pytest.raises(OSError) as stale:
        (mounted / "file").read_text()
    plugin.mount("data", by="c2")
    seen = (mounted / "file").read_text()
    plugin.unmount("data", by="c2")
    plugin.unmount("data")

    assert (refused.value.errno, stale.value.errno) == (errno.EROFS, errno.ESTALE)
    assert seen == "new"
    assert plugin.mounts() == []


@pytest.mark.part("D2")
@pytest.mark.parametrize("owner", [{}, {"uid": "1000"}], ids=["as stored", "shown by bindfs"])
def test_an_export_that_is_withdrawn_is_an_error_and_one_that_is_offered_again_is_the_same_volume(
    plugin: Plugin, servers: Servers, owner: dict[str, str]
) -> None:
    (servers.export / "file").write_text("kept")
    plugin.create("data", driver="nfs", share="127.0.0.1:/export", actimeo="0", **owner)
    mounted = plugin.mount("data")
    servers.withdraw()

    with pytest.raises(OSError) as stale:
        (mounted / "file").read_text()
    error = plugin.refused("Mount", "data", by="c2")
    servers.offer()
    plugin.mount("data", by="c2")
    seen = (mounted / "file").read_text()
    for user in ("c1", "c2"):
        plugin.unmount("data", by=user)

    assert stale.value.errno in (errno.ESTALE, errno.EACCES, errno.EPERM, errno.ENOENT)
    assert "127.0.0.1:/export" in error
    assert seen == "kept"
    assert plugin.mounts() == []
    assert plugin.check() == "all is well"


@pytest.mark.feature("D3")
@pytest.mark.parametrize(
    "version", [{"vers": "2.1"}, {"vers": "3.0"}, {"vers": "3.1.1", "seal": "true"}], ids=lambda each: each["vers"]
)
def test_files_are_in_the_share_with_the_owner_and_modes_asked_for_and_the_password_is_nowhere(
    plugin: Plugin, servers: Servers, version: dict[str, str]
) -> None:
    (servers.share / "dir").mkdir()
    modes = {"uid": "7", "gid": "8", "filemode": "0640", "dirmode": "0750"}
    plugin.create("data", driver="cifs", share="//127.0.0.1/share/dir", **login(servers), **version, **modes)
    mounted = plugin.mount("data")

    (mounted / "file").write_text("x")
    found = [(stat.st_uid, stat.st_gid, oct(stat.st_mode)) for stat in (mounted.stat(), (mounted / "file").stat())]
    words = plugin.mounts()[0].split()[3].split(",")
    told = everything_told(plugin)
    plugin.unmount("data")
    plugin.remove("data")

    assert found == [(7, 8, "0o40750"), (7, 8, "0o100640")]
    assert (servers.share / "dir/file").read_text() == "x"
    assert {f"vers={version['vers']}", "hard", f"username={USER}", "nosuid", "nodev"} <= {*words}
    assert ("seal" in words) == ("seal" in version)
    assert [where for where, text in told.items() if USER.encode() in text]
    assert [where for where, text in told.items() if PASSWORD.encode() in text] == []
    assert plugin.mounts() == []


@pytest.mark.part("D3")
def test_a_guest_reads_what_is_public_and_a_wrong_password_is_an_error_that_does_not_show_it(
    plugin: Plugin, servers: Servers, tmp_path: Path
) -> None:
    (servers.share / "public").mkdir()
    (servers.share / "public/file").write_text("for all")
    wrong = tmp_path / "wrong"
    wrong.write_text("hunter2")
    plugin.create("open", driver="cifs", share="//127.0.0.1/public", ro="true")
    plugin.create("closed", driver="cifs", share="//127.0.0.1/share", username=USER, password=f"file:{wrong}")

    mounted = plugin.mount("open")
    seen = (mounted / "file").read_text()
    with pytest.raises(OSError) as refused:
        (mounted / "file").write_text("x")
    plugin.unmount("open")
    error = plugin.refused("Mount", "closed")

    assert (seen, refused.value.errno) == ("for all", errno.EROFS)
    assert error == "volume 'closed': mount of '//127.0.0.1/share' (cifs): Permission denied"
    assert [where for where, text in everything_told(plugin).items() if b"hunter2" in text] == []
    assert plugin.mounts() == []


def everything_told(plugin: Plugin) -> dict[str, bytes]:
    """By place: what the machine's processes, its kernel, orlop's state and logs show of a volume."""
    lab = plugin.lab
    places = [*lab.inside("/proc").glob("[0-9]*/cmdline"), *lab.inside("/proc").glob("[0-9]*/environ")]
    places += [lab.inside(f"/proc/1/{name}") for name in ("mounts", "mountinfo", "mountstats")]
    # What volumes hold is below "mounts", and none of orlop's.
    places += [path for path in lab.root.rglob("*") if path.is_file() and "mounts" not in path.parts]
    told = {"Get": repr(plugin.ask("Get", Name="data")).encode(), "log": lab.log.read_bytes()}
    for place in places:
        try:
            told[str(place)] = place.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    assert len(told) > 10
    return told
