"""What options of remote volumes mean as mounts, and that nothing hostile gets as far as a program or the kernel."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orlop.errors import Invalid, Unavailable
from orlop.mount import Mount
from orlop.testing.drivers import VolumeDriverContract
from orlop.volumes.driver import Volume, VolumeDriver
from orlop.volumes.recipes import RECIPES
from orlop.volumes.remote import RemoteDriver
from orlop.volumes.service import VolumeService

SECRET = "correct,horse"
SAFE = ("nosuid", "nodev")
NFS = {"share": "127.0.0.1:/export"}
CIFS = {"share": "//127.0.0.1/share"}
SSHFS = {"sshcmd": "me@127.0.0.1:/srv"}
S3 = {"bucket": "photos"}
RCLONE = {"remote": "there:", "config": "file:/etc/rclone"}
GLUSTER = {"share": "gl1:/gv"}
CEPH = {"monitors": "mon1"}
LOGIN = {"username": "me", "password": "file:/etc/keys/nas"}
SSH_WORDS = (
    "allow_other,reconnect,ServerAliveInterval=15,ServerAliveCountMax=4,ConnectTimeout=10,NumberOfPasswordPrompts=1"
)


def driver_of(kind: str, folder: Path) -> RemoteDriver:
    return RemoteDriver(RECIPES[kind], folder, lambda *_: f"{SECRET}\n".encode())


@pytest.fixture
def mount(tmp_path: Path) -> Callable[..., Mount]:
    """What a volume with these options is mounted as."""

    def mount(kind: str, options: dict[str, str]) -> Mount:
        driver, volume = driver_of(kind, tmp_path), Volume("data", kind, options)
        driver.create(volume)
        (found,) = driver.attach(volume)
        return found

    return mount


class _Contract(VolumeDriverContract):
    kind = ""

    @pytest.fixture
    def driver(self, tmp_path: Path) -> VolumeDriver:
        return driver_of(self.kind, tmp_path / "drivers")


class TestNfs(_Contract):
    kind, options = "nfs", NFS
    refused = {"share": "export", "vers": "2", "sec": "none", "soft": "maybe", "timeo": "-1", "rsize": "1k"}


class TestCifs(_Contract):
    kind, options = "cifs", {**CIFS, **LOGIN}
    refused = {"share": "//nas", "vers": "1.0", "uid": "root", "filemode": "0999", "seal": "x", "password": "plain"}


class TestSshfs(_Contract):
    kind, options = "sshfs", {**SSHFS, "password": "file:/etc/keys/nas"}
    refused = {"sshcmd": "nas", "port": "ssh", "umask": "0 22", "hostkeys": "maybe", "key": "plain"}


class TestS3(_Contract):
    kind, options = "s3", {**S3, "access_key": "id", "secret_key": "file:/etc/keys/s3"}
    refused = {"bucket": "x", "endpoint": "nas", "umask": "0 22", "retries": "often", "secret_key": "plain"}


class TestRclone(_Contract):
    kind, options = "rclone", RCLONE
    refused = {"remote": "there", "cache": "all", "uid": "root", "filemode": "0999", "config": "plain"}


class TestGluster(_Contract):
    kind, options = "gluster", GLUSTER
    refused = {"share": "gl1", "log-level": "LOUD", "acl": "maybe", "ro": "maybe"}


class TestCeph(_Contract):
    kind, options = "ceph", {**CEPH, "key": "file:/etc/keys/ceph"}
    refused = {"monitors": "a,b", "path": "relative", "user": "-admin", "key": "plain"}


@pytest.mark.part("D2")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ("addr=127.0.0.1", "vers=4.2", "sec=sys", "hard")),
        ({"vers": "3", "nolock": "true"}, ("addr=127.0.0.1", "vers=3", "sec=sys", "hard", "nolock")),
        (
            {"soft": "true", "timeo": "50", "retrans": "2", "rsize": "65536"},
            ("addr=127.0.0.1", "vers=4.2", "sec=sys", "soft", "timeo=50", "retrans=2", "rsize=65536"),
        ),
        ({"ro": "true"}, ("ro", "addr=127.0.0.1", "vers=4.2", "sec=sys", "hard")),
    ],
    ids=["defaults", "3", "soft", "ro"],
)
def test_options_of_nfs_become_the_kernels_words(
    mount: Callable[..., Mount], options: dict[str, str], words: tuple[str, ...]
) -> None:
    assert mount("nfs", {**NFS, **options}) == Mount("nfs", "127.0.0.1:/export", (*SAFE, *words))


@pytest.mark.part("D3")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ("vers=3.1.1", "uid=0", "gid=0", "file_mode=0755", "dir_mode=0755", "hard", "sec=none")),
        (
            {"vers": "2.1", "uid": "7", "gid": "8", "filemode": "640", "dirmode": "0750", "soft": "yes"},
            ("vers=2.1", "uid=7", "gid=8", "file_mode=0640", "dir_mode=0750", "soft", "echo_interval=10", "sec=none"),
        ),
        (
            {"seal": "1", "username": "me", "domain": "WORK", "port": "4450"},
            (
                *("vers=3.1.1", "uid=0", "gid=0", "file_mode=0755", "dir_mode=0755", "hard"),
                *("seal", "port=4450", "username=me", "domain=WORK"),
            ),
        ),
    ],
    ids=["defaults", "modes", "seal"],
)
def test_options_of_cifs_become_the_kernels_words(
    mount: Callable[..., Mount], options: dict[str, str], words: tuple[str, ...]
) -> None:
    assert mount("cifs", {**CIFS, **options}) == Mount("cifs", "//127.0.0.1/share", (*SAFE, "ip=127.0.0.1", *words), ())


@pytest.mark.part("D5")
def test_options_of_sshfs_become_one_command_line(mount: Callable[..., Mount], tmp_path: Path) -> None:
    found = mount("sshfs", {**SSHFS, "port": "2222", "uid": "7", "ro": "true"})

    assert (found.type, found.source, found.options) == ("fuse.sshfs", "me@127.0.0.1:/srv", ())
    (*program, words, source, target) = found.program
    assert (program, source, target) == (["sshfs", "-f", "-o"], "me@127.0.0.1:/srv", "{target}")
    assert words == (
        f"nosuid,nodev,ro,{SSH_WORDS},StrictHostKeyChecking=accept-new,port=2222,uid=7,"
        f"UserKnownHostsFile={tmp_path}/known_hosts,BatchMode=yes"
    )


@pytest.mark.parametrize(
    ("kind", "option", "source"),
    [("nfs", "[::1]:/export", "addr=::1"), ("cifs", "//[::1]/share", "ip=::1")],
)
def test_an_address_of_ipv6_is_in_brackets_in_the_source_only(
    mount: Callable[..., Mount], kind: str, option: str, source: str
) -> None:
    found = mount(kind, {"share": option})

    assert found.source == option
    assert source in found.options


HOSTILE = {
    "nfs": [
        *("", "/export", "nas", "nas:", "nas:export", ":/export", "-oProxyCommand=x:/export", "nas:/export,exec"),
        *("nas:/../etc", "nas:/a/..", "nas:/a/../b", "nas:/a\nb", "nas:/a\0b", "nas:/a\\b", "na s:/export"),
        *("nas,exec:/export", "../nas:/export", "[::1:/export", "[nas]:/export", "nas:/a\x7f"),
    ],
    "cifs": [
        *("", "/nas/share", "//nas", "//nas/", "///share", "//-x/share", "//nas/../x", "//nas/./x", "//nas/.."),
        *("//nas/share/..", "//nas/share/../x", "//nas/sh,exec", "//nas/sh\\x", "\\\\nas\\share", "//na s/x"),
        *("//nas,exec/x", "//nas/x\n", "//../x", "//nas/share/a,guest", "//user:pass@nas/x"),
    ],
    "sshfs": [
        *("", "nas", "-oProxyCommand=x:/srv", "me@-oProxyCommand=x:/srv", "-l@nas:/srv", "me@nas:/../etc"),
        *("me@nas:/a,ssh_command=x", "me@nas:/a\nb", "me@na s:/srv", "me@nas:/a\\b", "me;id@nas:/srv"),
    ],
    "s3": ["", "-oallow_root", "../x", "a/b", "photos,use_cache=/", "ph otos", "photos\n", "ab:/c", "x"],
    "rclone": [
        *("", "there", "-there:", "--config=x:", "there:../etc", "there:a/../b", "there:a,b", "there:a\nb", ":local:/"),
        *("there,type=local:/", "there:\\x"),
    ],
    "gluster": [
        *("", "gl1", "gl1:", "gl1:/", "-gl1:/gv", "--log-file=x:/gv", "gl1:/../x", "gl1:/gv/../x", "gl1:/gv,x"),
        *("gl1:/-gv", "gl1:/gv\n", "gl 1:/gv"),
    ],
    "ceph": ["", "-m", "mon1 mon2", "mon1,mon2", "mon1;-c", "mon1;", "mon1\n", "--conf=x", "mon1;mon2 --keyring"],
}


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in HOSTILE.items() for text in texts], ids=lambda text: repr(text)
)
def test_a_source_that_could_mean_more_is_refused_before_anything_is_asked(
    tmp_path: Path, kind: str, text: str
) -> None:
    driver = driver_of(kind, tmp_path / "drivers")
    option = RECIPES[kind].required[0]
    others = RCLONE if kind == "rclone" else {}
    volume = Volume("data", kind, {**others, option: text})

    with pytest.raises(Invalid, match=f"option '{option}'"):
        driver.create(volume)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("nfs", {**NFS, "timeo": "5,exec"}),
        ("nfs", {**NFS, "rsize": ""}),
        ("nfs", {**NFS, "vers": "4.2,exec"}),
        ("nfs", {**NFS, "sec": ""}),
        ("nfs", {**NFS, "ro": "true,suid"}),
        ("cifs", {**CIFS, "username": "me,guest"}),
        ("cifs", {**CIFS, "username": ""}),
        ("cifs", {**CIFS, "username": "-me"}),
        ("cifs", {**CIFS, "domain": "WORK\n"}),
        ("cifs", {**CIFS, "uid": "0,exec"}),
        ("cifs", {**CIFS, "dirmode": "10000"}),
        ("cifs", {**CIFS, **LOGIN, "password": "file:secret"}),
        ("sshfs", {**SSHFS, "Ciphers": "aes,ProxyCommand=x"}),
        ("sshfs", {**SSHFS, "idmap": ""}),
        ("sshfs", {**SSHFS, "port": "22 -o x"}),
        ("s3", {**S3, "prefix": "../other"}),
        ("s3", {**S3, "prefix": "a,use_cache=/"}),
        ("s3", {**S3, "endpoint": "https://-nas"}),
        ("s3", {**S3, "endpoint": "https://nas,url=x"}),
        ("s3", {**S3, "endpoint": "file:///etc"}),
        ("s3", {**S3, "region": "x,passwd_file=y"}),
        ("s3", {**S3, "secret_key": "file:/k", "access_key": "a:b"}),
        ("s3", {**S3, "secret_key": "file:/k", "access_key": "a\nb"}),
        ("s3", {**S3, "secret_key": "typed"}),
        ("rclone", {**RCLONE, "config": "typed"}),
        ("rclone", {**RCLONE, "cache": "full --rc"}),
        ("rclone", {**RCLONE, "umask": "0 --rc"}),
        ("rclone", {**RCLONE, "dir-cache-time": "--rc"}),
        ("gluster", {**GLUSTER, "backup-servers": "gl2 -gl3"}),
        ("gluster", {**GLUSTER, "backup-servers": "gl2,gl3"}),
        ("gluster", {**GLUSTER, "log-level": "DEBUG --x"}),
        ("ceph", {**CEPH, "path": "relative"}),
        ("ceph", {**CEPH, "path": "/a/../b"}),
        ("ceph", {**CEPH, "user": "-admin"}),
        ("ceph", {**CEPH, "fs": "a b"}),
        ("ceph", {**CEPH, "key": "typed"}),
    ],
    ids=lambda value: value if isinstance(value, str) else list(value.items())[-1][0] + "=" + list(value.values())[-1],
)
def test_a_value_that_could_mean_more_is_refused_and_named(tmp_path: Path, kind: str, options: dict[str, str]) -> None:
    wrong = list(options)[-1]

    with pytest.raises(Invalid, match=f"option '{wrong}'"):
        driver_of(kind, tmp_path / "drivers").create(Volume("data", kind, options))


@pytest.mark.parametrize(
    ("kind", "known", "option", "meant"),
    [("nfs", NFS, "timeout", "timeo"), ("cifs", CIFS, "file_mode", "filemode"), ("sshfs", SSHFS, "cipher", "Ciphers")],
)
def test_an_unknown_option_is_refused_with_the_one_that_was_meant(
    reopened: Callable[..., VolumeService], tmp_path: Path, kind: str, known: dict[str, str], option: str, meant: str
) -> None:
    service = reopened(**{kind: driver_of(kind, tmp_path / "drivers")})

    with pytest.raises(Invalid, match=f"unknown option '{option}' for driver '{kind}'; did you mean '{meant}'"):
        service.create("data", {"driver": kind, **known, option: "1"})


@pytest.mark.part("D3")
@pytest.mark.parametrize(
    ("kind", "options", "name"), [("cifs", {**CIFS, **LOGIN}, "password"), ("sshfs", {**SSHFS, **LOGIN}, "stdin")]
)
def test_a_password_is_a_secret_of_the_mount_and_not_in_its_description(
    mount: Callable[..., Mount], kind: str, options: dict[str, str], name: str
) -> None:
    if kind == "sshfs":
        options = {option: text for option, text in options.items() if option != "username"}

    found = mount(kind, options)

    assert dict(found.secrets)[name].rstrip("\n") == SECRET
    assert SECRET not in repr(found)


def test_a_password_that_is_written_out_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        driver_of("cifs", tmp_path).create(Volume("data", "cifs", {**CIFS, "username": "me", "password": "hunter2"}))

    assert "password" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_server_without_an_address_is_named_when_it_is_needed(mount: Callable[..., Mount]) -> None:
    with pytest.raises(Unavailable, match=r"server 'no\.such\.host\.invalid' has no address"):
        mount("nfs", {"share": "no.such.host.invalid:/export"})
