"""What only newer engines do with volumes and binds, with orlop's volumes: parts of a volume, mounts below a bind."""

import pytest

pytestmark = pytest.mark.timeout(180)

SUB = "volume-subpath"
VOLUME = (
    "type=volume",
    "source=vol",
    "target=/data",
    "volume-driver=orlop",
    "volume-opt=type=tmpfs",
    "volume-opt=device=tmpfs",
    '"volume-opt=o=size=2m,uid=7,noexec"',
    "volume-label=team=blue",
    "volume-nocopy",
)
BIND = (
    "type=bind",
    "src=/srv/bound",
    "dst=/data",
    "readonly",
    "bind-propagation=rprivate",
    "bind-recursive=readonly",
    "consistency=cached",
)
TMPFS = ("type=tmpfs", "destination=/data", "tmpfs-size=1m", "tmpfs-mode=0700", "ro=false")
either_order = pytest.mark.parametrize("step", [1, -1], ids=["in order", "reversed"])


@pytest.fixture
def volume(newer):
    """A volume ``vol`` of orlop: a folder, a file, a link inside, a link that leads out of it."""
    newer.sh("docker volume create -d orlop vol")
    fill = "mkdir -p sub/deep; echo text >sub/file; echo secret >top; ln -s sub inside; ln -s /etc outside; ln -s .. up"
    newer.sh(f"docker run --rm -v vol:/data -w /data busybox sh -c '{fill}'")


@pytest.fixture
def bound(newer):
    """A folder ``/srv/bound`` of the machine with a mount below it."""
    newer.sh("mkdir -p /srv/bound/below && mount -t tmpfs none /srv/bound/below && touch /srv/bound/below/there")
    yield
    newer.sh("umount /srv/bound/below")


@pytest.mark.feature("V3")
@pytest.mark.parametrize("subpath", ["sub", "sub/", "./sub", "sub/../sub", "inside"])
def test_a_folder_of_a_volume_is_mounted_without_the_rest(newer, volume, subpath):
    look = "cat file; ls -A; ls -A ..; echo more >new"

    seen = newer.out(f"docker run --rm -w /d/x --mount source=vol,target=/d/x,{SUB}={subpath} busybox sh -c '{look}'")

    assert seen.split() == ["text", "deep", "file", "x"]
    assert newer.out("docker run --rm -v vol:/data busybox cat /data/sub/new") == "more"


@pytest.mark.part("V3")
def test_a_file_of_a_volume_is_mounted_read_only_and_several_parts_at_once(newer, volume):
    parts = f"--mount source=vol,target=/one,{SUB}=sub/file,readonly --mount source=vol,target=/two,{SUB}=sub/deep"

    seen = newer.out(f"docker run --rm {parts} busybox sh -c 'cat /one; touch /two/x; echo no >/one || ls -A /two'")

    assert seen.split() == ["text", "x"]
    newer.sh("docker volume rm vol")


@pytest.mark.feature("V3")
@pytest.mark.parametrize(
    ("subpath", "words"),
    [
        ("missing", "no such file or directory"),
        ("sub/missing", "no such file or directory"),
        ("../x", "subpath must be a relative path within the volume"),
        ("sub/../../x", "subpath must be a relative path within the volume"),
        ("/etc", "subpath must be a relative path within the volume"),
        ("outside", "escapes the base directory"),
        ("up", "escapes the base directory"),
        ("sub/../outside", "escapes the base directory"),
    ],
)
def test_what_is_not_in_the_volume_is_refused_and_nothing_stays_mounted(newer, volume, subpath, words):
    error = newer.refused(f"docker run --rm --mount source=vol,target=/data,{SUB}={subpath} busybox true")

    assert words in error
    assert str(newer.root) not in newer.out("cat /proc/mounts")
    newer.sh("docker volume rm vol")


@pytest.mark.feature("V3")
@pytest.mark.parametrize(
    ("keys", "seen", "writable"),
    [
        ("bind-recursive=enabled", ["there"], {"/data", "/data/below"}),
        ("bind-recursive=disabled", [], {"/data", "/data/below"}),
        ("bind-nonrecursive", [], {"/data", "/data/below"}),
        ("readonly", ["there"], set()),
        ("bind-recursive=disabled,readonly", [], set()),
        ("bind-recursive=writable,readonly", ["there"], {"/data/below"}),
        ("readonly,bind-propagation=rprivate,bind-recursive=readonly", ["there"], set()),
    ],
)
def test_mounts_below_a_bind_are_shown_hidden_or_read_only_as_told(newer, bound, keys, seen, writable):
    newer.sh(f"docker run -d --name user --mount type=bind,source=/srv/bound,target=/data,{keys} busybox top")

    inside = newer.out("docker exec user ls -A /data/below").split()
    tried = {
        place
        for place in ("/data", "/data/below")
        if newer.sh(f"docker exec user touch {place}/mark", check=False).returncode == 0
    }

    assert (inside, tried) == (seen, writable)


@pytest.mark.feature("V3")
@either_order
def test_every_key_of_a_volume_works_in_any_order(newer, step):
    keys, more = ",".join(VOLUME[::step]), ",".join((*VOLUME, "readonly", f"{SUB}=sub")[::step])

    newer.sh(f"docker run -d --name holder --mount '{keys}' busybox top")
    newer.sh("docker exec holder sh -c 'mkdir /data/sub && touch /data/sub/file'")
    look = "ls -A /data; df -k /data; stat -c owner=%u /data; touch /data/x || grep /data /proc/mounts"
    newer.sh(f"docker create --name reader --mount '{more}' busybox sh -c '{look}'")
    seen = newer.out("docker start -a reader")

    volume, mount = newer.volume("vol"), newer.mounts("reader")["/data"]
    assert (volume["Driver"], volume["Labels"]) == ("orlop", {"team": "blue"})
    assert volume["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=2m,uid=7,noexec"}
    assert (mount["Name"], mount["Driver"], mount["RW"]) == ("vol", "orlop", False)
    assert seen.startswith("file\n")
    assert " 2048 " in seen
    assert "owner=0" in seen
    assert " ro," in seen
    assert newer.out("docker exec holder stat -c %u /data") == "7"


@pytest.mark.part("V3")
@either_order
def test_every_key_of_a_bind_works_in_any_order(newer, bound, step):
    look = "ls -A /data /data/below; touch /data/x || touch /data/below/x || echo no"

    seen = newer.out(f"docker run --name user --mount {','.join(BIND[::step])} busybox sh -c '{look}'")

    assert seen.split() == ["/data:", "below", "/data/below:", "there", "no"]
    assert newer.mounts("user")["/data"]["Propagation"] == "rprivate"


@pytest.mark.part("V3")
@either_order
def test_every_key_of_a_tmpfs_works_in_any_order(newer, step):
    look = "touch /data/x; stat -c %a /data; df -k /data"

    seen = newer.out(f"docker run --rm --mount {','.join(TMPFS[::step])} busybox sh -c '{look}'").split()

    assert (seen[0], seen[-6], seen[-5]) == ("700", "tmpfs", "1024")


@pytest.mark.part("V11")
def test_prune_takes_anonymous_volumes_only_and_with_a_the_named_ones(newer):
    newer.sh(
        "docker volume create --label keep=yes kept; docker volume create named; docker volume create -d orlop ours"
    )
    newer.sh("docker run -d --name user -v used:/data -v /anonymous busybox top")
    loose = newer.out("docker volume create")

    asked = newer.out("docker volume prune", typed="y\n", tty=True)
    after = newer.volumes()
    all_ = newer.out("docker volume prune -f -a --filter label!=keep")

    used = {mount["Name"] for mount in newer.mounts("user").values()}
    assert "remove anonymous local volumes not used" in asked
    assert asked.split("Deleted Volumes:")[1].split()[0] == loose
    assert after == {"kept", "named", "ours"} | used
    assert all_.startswith("Deleted Volumes:\nnamed\n")
    # Docker prunes its own driver's volumes only.
    assert newer.volumes() == {"kept", "ours"} | used
