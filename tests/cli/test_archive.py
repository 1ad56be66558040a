import io
import os
import signal
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from orlop.state import State
from orlop.testing.waiting import eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture
def outside(tmp_path):
    """A folder that no import may change."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("mine")
    return folder


@pytest.fixture
def content(root):
    """The folder with the files of a volume."""
    return lambda name: root / "volumes" / name / "_data"


def entry(name, type_=tarfile.REGTYPE, linkname="", content=b"evil", headers=None):
    found = tarfile.TarInfo(name)
    found.pax_headers = headers or {}
    found.type, found.linkname, found.mode = type_, linkname, 0o644
    found.size = len(content) if type_ == tarfile.REGTYPE else 0
    return found, io.BytesIO(content)


def archive(folder: Path, *entries) -> str:
    with tarfile.open(folder / "archive.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, content)
    return str(folder / "archive.tar")


def is_attached(root: Path) -> bool:
    if not (root / "state.db").exists():
        return False
    with closing(State(root / "state.db")) as state:
        return state.is_attached("data")


def fill(folder: Path) -> None:
    """A bit of everything that a volume can hold."""
    (folder / "d/e").mkdir(parents=True)
    file = folder / "d/e/f"
    file.write_text("hi")
    os.chown(file, 1000, 1001)
    file.chmod(0o4755)
    os.setxattr(file, "user.note", b"not \xff text\n\0")
    os.link(file, folder / "hard")
    (folder / "sym").symlink_to("/etc/passwd")
    os.mkfifo(folder / "fifo")
    (folder / "new\nline").touch()
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe"))).touch()
    with (folder / "sparse").open("wb") as sparse:
        sparse.seek(50_000_000)
        sparse.write(b"x")
        sparse.truncate(100_000_000)
    access = "02000000 0100 0600 ffffffff 0200 0400 e8030000 0400 0400 ffffffff 1000 0600 ffffffff 2000 0000 ffffffff"
    os.setxattr(folder / "sparse", "system.posix_acl_access", bytes.fromhex(access))
    (folder / "closed").mkdir(mode=0o500)
    os.utime(folder / "d", ns=(1, 978_307_200_123_456_789))
    folder.chmod(0o751)


def seen(folder: Path) -> list[object]:
    """All that can be seen of each file: names, owners, modes, times, links, holes, attributes."""
    found = []
    for path in sorted([folder, *folder.rglob("*")]):
        stat = path.lstat()
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
        }
        size = None if path.is_dir() else stat.st_size
        plain = (
            oct(stat.st_mode),
            stat.st_uid,
            stat.st_gid,
            stat.st_nlink,
            size,
            stat.st_mtime_ns,
            stat.st_blocks < 1000,
        )
        found.append((path.relative_to(folder), *plain, attributes, os.readlink(path) if path.is_symlink() else ""))
    return found


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz", "tar.zst"])
def test_a_volume_comes_back_from_its_archive_as_it_was(orlop, tmp_path, content, suffix):
    orlop("volume", "create", "data")
    fill(content("data"))
    file = str(tmp_path / f"data.{suffix}")

    orlop("volume", "export", "data", "-o", file)
    assert orlop("volume", "import", "copy", file).stdout == "copy\n"

    assert seen(content("copy")) == seen(content("data"))
    assert oct(Path(file).stat().st_mode & 0o777) == "0o600"
    assert ("tar" in subprocess.run(["file", "-b", file], capture_output=True, text=True).stdout) == (suffix == "tar")


def test_a_volume_goes_through_a_pipe_into_one_with_a_size_limit(orlop, content, environment):
    orlop("volume", "create", "data")
    fill(content("data"))
    command = f"{sys.executable} -m orlop volume"

    pipe = f"{command} export data | {command} import -o size=64m copy - && {command} export copy | tar t"
    done = subprocess.run(["sh", "-c", pipe], capture_output=True, text=True, env=environment)

    assert done.stderr == ""
    assert {"./d/e/f", "./sparse", "./hard"} <= set(done.stdout.splitlines())


def test_the_archive_of_a_volume_is_one_that_stock_tar_unpacks(orlop, tmp_path, content):
    orlop("volume", "create", "data")
    fill(content("data"))
    (tmp_path / "out").mkdir()

    orlop("volume", "export", "data", "-o", str(tmp_path / "x.tar"))
    tar = [
        "tar",
        "-x",
        "--xattrs",
        "--acls",
        "--numeric-owner",
        "-C",
        str(tmp_path / "out"),
        "-f",
        str(tmp_path / "x.tar"),
    ]
    subprocess.run(tar, check=True)

    assert seen(tmp_path / "out") == seen(content("data"))


def test_an_archive_with_access_lists_in_words_only_is_understood(orlop, tmp_path, content):
    info, data = entry("f")
    info.pax_headers = {"SCHILY.acl.access": "user::rw-\nuser:1000:r--\ngroup::r--\nmask::r--\nother::---"}

    orlop("volume", "import", "data", archive(tmp_path, (info, data)))

    exact = "02000000 0100 0600 ffffffff 0200 0400 e8030000 0400 0400 ffffffff 1000 0400 ffffffff 2000 0000 ffffffff"
    assert os.getxattr(content("data") / "f", "system.posix_acl_access") == bytes.fromhex(exact)


@pytest.mark.parametrize("name", ["/etc/evil", "../../../evil", "a/../../../../evil", "./../evil"])
def test_names_that_lead_outside_lead_inside(orlop, tmp_path, content, outside, name):
    orlop("volume", "import", "data", archive(tmp_path, entry(name)))

    assert [path.name for path in content("data").rglob("*") if path.is_file()] == ["evil"]
    assert not Path("/etc/evil").exists()
    assert list(tmp_path.rglob("evil")) == list(content("data").rglob("evil"))


@pytest.mark.parametrize("up", [False, True])
def test_a_file_behind_a_symbolic_link_to_the_outside_lands_inside(orlop, tmp_path, content, outside, up):
    target = ("../" * 30 if up else "/") + str(outside)[1:]
    tricks = [entry("out", tarfile.SYMTYPE, target), entry("out/new"), entry("out/file")]

    orlop("volume", "import", "data", archive(tmp_path, *tricks))

    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "mine"
    assert (content("data") / "out/new").read_text() == "evil"


def test_a_file_in_the_place_of_a_symbolic_link_replaces_the_link_not_what_it_names(orlop, tmp_path, content, outside):
    tricks = [entry("link", tarfile.SYMTYPE, str(outside / "file")), entry("link")]

    orlop("volume", "import", "data", archive(tmp_path, *tricks))

    assert (outside / "file").read_text() == "mine"
    assert not (content("data") / "link").is_symlink()


@pytest.mark.parametrize("behind_link", [False, True])
def test_a_hard_link_to_the_outside_is_refused(orlop, tmp_path, outside, behind_link):
    tricks = [entry("x", tarfile.LNKTYPE, str(outside / "file"))]
    if behind_link:
        tricks = [entry("out", tarfile.SYMTYPE, str(outside)), entry("x", tarfile.LNKTYPE, "out/file")]

    refused = orlop("volume", "import", "data", archive(tmp_path, *tricks), status=1)

    assert "is a hard link to" in refused.stderr
    assert (outside / "file").stat().st_nlink == 1
    assert orlop("volume", "ls", "-q").stdout == orlop("volume", "ls", "-q", "--trash").stdout == ""


def test_a_file_in_the_place_of_a_fifo_replaces_it_and_waits_for_nobody(orlop, tmp_path, content):
    orlop("volume", "import", "data", archive(tmp_path, entry("f", tarfile.FIFOTYPE), entry("f")))

    assert (content("data") / "f").read_text() == "evil"


@pytest.mark.parametrize(
    ("trick", "complaint"),
    [
        (entry("sda", tarfile.BLKTYPE), "'sda' is a device node, which a volume must not get from an archive"),
        (entry("null", tarfile.CHRTYPE), "'null' is a device node"),
        (entry("x" * 300), "File name too long"),
        (entry("d/" * 3000 + "x"), "File name too long"),
        (entry("a", b"Z"), "'a' is of unknown type b'Z'"),
        (entry("old", headers={"mtime": "never"}), "'old' has a number or an attribute that makes no sense"),
        (entry("f", headers={"SCHILY.xattr.nonsense": "1"}), "'f': Operation not supported"),
        (entry("f", headers={"SCHILY.acl.access": "user:somebody:rwx"}), "an access list names 'somebody'"),
        (entry("f", headers={"SCHILY.acl.access": "nonsense"}), "access list 'nonsense' is not understood"),
    ],
)
def test_after_what_is_not_allowed_there_is_no_volume(orlop, tmp_path, root, trick, complaint):
    refused = orlop("volume", "import", "data", archive(tmp_path, entry("first"), trick), status=1)

    assert refused.stderr.startswith("orlop: the archive is not imported: ")
    assert complaint in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert orlop("volume", "ls", "-q").stdout == orlop("volume", "ls", "-q", "--trash").stdout == ""
    assert list((root / "volumes").iterdir()) == []


@pytest.mark.parametrize("kept", [0, 100, 512, 600, 1536, 2048])
def test_an_archive_that_is_cut_off_makes_no_volume(orlop, tmp_path, kept):
    file = Path(archive(tmp_path, entry("a"), entry("b")))
    file.write_bytes(file.read_bytes()[:kept])

    refused = orlop("volume", "import", "data", str(file), status=1)

    assert refused.stderr.startswith("orlop: the archive is not imported: ")
    assert orlop("volume", "ls", "-q").stdout == ""


def test_names_are_not_obeyed_by_the_terminal(orlop, tmp_path):
    refused = orlop("volume", "import", "data", archive(tmp_path, entry("\x1b[31m", tarfile.CHRTYPE)), status=1)

    assert "\x1b" not in refused.stderr


def test_a_header_without_end_is_refused_before_it_fills_the_memory(orlop, tmp_path, environment):
    header = tarfile.TarInfo("./PaxHeaders/x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 32
    (tmp_path / "head").write_bytes(header.tobuf())
    command = f"cat {tmp_path}/head /dev/zero | {sys.executable} -m orlop volume import data"

    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=environment, timeout=100)

    assert done.stderr == "orlop: the archive is not imported: it needs more memory than any honest one\n"
    assert orlop("volume", "ls", "-q").stdout == ""


def test_what_does_not_fit_makes_no_volume(orlop, tmp_path):
    file = archive(tmp_path, entry("large", content=bytes(20_000_000)))

    refused = orlop("volume", "import", "data", file, "-o", "size=8m", status=1)

    assert "no room for 'large'" in refused.stderr
    assert orlop("volume", "ls", "-q").stdout == ""


def test_a_volume_that_exists_and_a_folder_that_is_not_empty_are_never_imported_into(orlop, tmp_path, outside):
    file = archive(tmp_path, entry("file"))
    orlop("volume", "create", "data")

    exists = orlop("volume", "import", "data", file, status=1)
    filled = orlop("volume", "import", "new", file, "-o", f"mountpoint={outside}", status=1)

    assert exists.stderr == "orlop: a volume 'data' exists already; choose another name\n"
    assert "is not empty" in filled.stderr
    assert (outside / "file").read_text() == "mine"
    assert orlop("volume", "ls", "-q").stdout == "data\n"


def test_a_folder_of_yours_is_empty_again_after_an_import_that_did_not_end(orlop, tmp_path):
    file = archive(tmp_path, entry("first"), entry("null", tarfile.CHRTYPE))

    orlop("volume", "import", "new", file, "-o", f"mountpoint={tmp_path}/mine", status=1)

    assert list((tmp_path / "mine").iterdir()) == []


def test_a_slow_import_is_neither_detached_nor_removed_meanwhile(orlop, tmp_path, root, environment, content):
    whole = Path(archive(tmp_path, entry("file"))).read_bytes()
    argv = [sys.executable, "-m", "orlop", "volume", "import", "data"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        process.stdin.write(whole[:100])
        process.stdin.flush()
        eventually(lambda: is_attached(root))
        impatient = {"ORLOP_HOLD_GRACE": "0"}

        refused = orlop("volume", "rm", "data", env=impatient, status=1)
        orlop("system", "check", "--repair", env=impatient)
        assert is_attached(root)
        process.communicate(whole[100:], timeout=20)

    assert "is in use" in refused.stderr
    assert process.returncode == 0
    assert (content("data") / "file").read_text() == "evil"
    assert not is_attached(root)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_import_that_is_told_to_end_leaves_nothing(orlop, root, environment, number):
    argv = [sys.executable, "-m", "orlop", "volume", "import", "data"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        process.stdin.write(bytes(100))
        eventually(lambda: is_attached(root))
        process.send_signal(number)
        process.communicate(timeout=20)

    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert orlop("volume", "ls", "-q").stdout == orlop("volume", "ls", "-q", "--trash").stdout == ""
    assert not is_attached(root)


def test_an_export_that_does_not_end_leaves_no_file(orlop, tmp_path):
    orlop("volume", "create", "data", "-o", "mountpoint=" + str(tmp_path / "mine"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tar").symlink_to("/bin/false.not")

    orlop("volume", "export", "data", "-o", str(tmp_path / "x.tar"), status=1, env={"PATH": str(tmp_path / "bin")})

    assert not list(tmp_path.glob("x.tar*"))


def test_a_terminal_gets_a_bar_and_no_archive(orlop, tmp_path, environment):
    orlop("volume", "create", "data")
    command = f"{sys.executable} -m orlop volume export data"

    refused = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, text=True, env=environment)
    bar = subprocess.run(
        ["script", "-qec", f"{command} -o {tmp_path}/x.tar", "/dev/null"],
        capture_output=True,
        text=True,
        env=environment,
    )

    assert "an archive is not for a terminal" in refused.stdout
    assert "export data" in bar.stdout
    assert "100%" in bar.stdout
