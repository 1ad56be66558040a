"""Who owns files that cannot say so: what is decided for each kind of volume, and that the page's table says so too."""

import re
from pathlib import Path

import pytest

from orlop.errors import Invalid
from orlop.kernel import idmap
from orlop.mount import Mount
from orlop.volumes.driver import Volume
from orlop.volumes.local import LocalDriver
from orlop.volumes.ownership import OPTIONS, Owner, mapped, shown
from orlop.volumes.recipes import RECIPES
from orlop.volumes.remote import RemoteDriver
from orlop.volumes.shared import SharedDriver

PAGE = Path(__file__).parents[2] / "docs/remote.md"
BIND = Mount.bind(Path("/srv"))
NEEDED = {
    "ceph": {"monitors": "mon1"},
    "cifs": {"share": "//127.0.0.1/share"},
    "gluster": {"share": "gl1:/gv"},
    "nfs": {"share": "127.0.0.1:/export"},
    "rclone": {"remote": "there:", "config": "file:/etc/rclone"},
    "s3": {"bucket": "photos"},
    "sshfs": {"sshcmd": "me@nas:"},
}
ASKED = {"uid": "1000", "gid": "7", "filemode": "0640", "dirmode": "2750"}


def attached(kind: str, folder: Path, options: dict[str, str]) -> list[Mount]:
    driver = RemoteDriver(RECIPES[kind], folder, lambda *_: b"secret")
    volume = Volume("data", kind, {**NEEDED[kind], **options})
    driver.create(volume)
    return list(driver.attach(volume))


def words(mount: Mount) -> list[str]:
    """What bindfs is told."""
    assert mount.program[:3] == ("bindfs", "-f", "-o")
    assert mount.program[4:] == ("{target}", "{target}")
    return mount.program[3].split(",")


def test_nothing_asked_is_nothing_more() -> None:
    assert shown(BIND, Owner()) == mapped(BIND, (0, 0), Owner(), by_kernel=True) == [BIND]


def test_all_that_is_asked_is_bindfs_over_the_place_itself() -> None:
    below, above = shown(BIND, Owner(1000, 7, 0o640, 0o751), read_only=True)

    assert below == BIND
    assert {*words(above)} == {
        *("nosuid", "nodev", "multithreaded", "ro", "create-as-mounter"),
        *("force-user=1000", "chown-ignore", "force-group=7", "chgrp-ignore", "chmod-ignore"),
        "perms=fa-rwx:fu+rw:fg+r:da-rwx:du+rwx:dg+rx:do+x",
    }


def test_permissions_alone_leave_owners_as_they_are_stored() -> None:
    (_, above) = shown(BIND, Owner(filemode=0o600))

    assert words(above) == ["nosuid", "nodev", "multithreaded", "perms=fa-rwx:fu+rw", "chmod-ignore"]


def test_the_kernel_maps_a_folder_if_it_can_and_bindfs_does_the_same_if_not() -> None:
    owner = Owner(1000, 7)

    (by_kernel,) = mapped(BIND, (5, 7), owner, by_kernel=True)
    (_, by_program) = mapped(BIND, (5, 7), owner, by_kernel=False)
    (_, with_modes) = mapped(BIND, (5, 7), Owner(1000, filemode=0o600), by_kernel=True)

    assert by_kernel.options == ("bind", f"{idmap.OPTION}{idmap.swap('u', 5, 1000)} {idmap.swap('g', 7, 7)}")
    assert words(by_program)[3:] == ["map=5/1000:1000/5"]
    assert words(with_modes)[3:] == ["map=5/1000:1000/5", "perms=fa-rwx:fu+rw", "chmod-ignore"]


@pytest.mark.parametrize("kind", RECIPES)
def test_every_kind_takes_the_four_options_and_bindfs_does_what_the_filesystem_cannot(
    kind: str, tmp_path: Path
) -> None:
    owns = RECIPES[kind].owns

    plain, *none = attached(kind, tmp_path, {})
    first, *above = attached(kind, tmp_path, ASKED)

    assert none == []
    assert len(above) == (0 if set(owns) == set(OPTIONS) else 1)
    assert (first == plain) == (not owns), "what it does not own itself, it is not told"
    told = ",".join(words(above[0])) if above else ""
    for option, word in zip(OPTIONS, ("force-user=1000", "force-group=7", "fu+rw", "du+rwx"), strict=True):
        assert (word in told) == (option not in owns)


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("bad", [{"uid": "-1"}, {"gid": "staff"}, {"filemode": "0999"}, {"dirmode": "10000"}])
def test_an_owner_that_makes_no_sense_is_refused_and_named(kind: str, bad: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=f"option '{next(iter(bad))}'"):
        attached(kind, tmp_path, bad)


def test_the_number_that_means_nobody_is_refused() -> None:
    with pytest.raises(Invalid, match="option 'uid' of volume 'data' is 4294967295"):
        Owner.asked(Volume("data", "nfs", {"uid": "4294967295"}))


def test_a_folder_of_yours_is_mapped_from_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "yours"
    folder.mkdir()
    volume = Volume("data", "local", {"mountpoint": str(folder), "uid": "1000"})

    found = {can: LocalDriver(tmp_path, can_map=lambda _, can=can: can).attach(volume) for can in (True, False)}

    assert [mount.type for mount in found[True]] == ["none"]
    assert [mount.type for mount in found[False]] == ["none", "fuse.bindfs"]


def test_the_table_on_the_page_is_what_is_decided() -> None:
    section = PAGE.read_text().partition("## Who owns the files")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z0-9]+)` \| ([^|]*) \| ([^|]*) \|", section, re.MULTILINE)
    said = {kind: (owner.strip(), modes.strip()) for kind, owner, modes in rows}

    for kind, recipe in RECIPES.items():
        owner = "mount option" if {"uid", "gid"} <= set(recipe.owns) else "bindfs"
        modes = "mount option" if {"filemode", "dirmode"} <= set(recipe.owns) else "bindfs"
        assert said[kind] == (owner, modes)
    assert said["azurefile"] == ("mount option", "mount option")
    assert said["local"] == ("idmapped mount, else bindfs", "bindfs")
    assert said["shared"] == ("stored", "bindfs")
    assert {*OPTIONS} <= {*SharedDriver("").options()} & {*LocalDriver(Path("/none")).options()}
