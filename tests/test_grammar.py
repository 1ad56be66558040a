"""What mount flags mean; whether Docker agrees is kernel/test_grammar_like_docker.py's."""

import string
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.errors import Invalid
from orlop.grammar import (
    MountSpec,
    VolumesFrom,
    as_flag,
    parse_flags,
    parse_mount,
    parse_tmpfs,
    parse_volume,
    parse_volumes_from,
    size,
    tmpfs_options,
    volume_name,
)

DATA = MountSpec(kind="volume", source="data", target="/d")
HOST = MountSpec(kind="bind", source="/srv", target="/d")
MEMORY = MountSpec(kind="tmpfs", target="/d")


@pytest.mark.part("V2")
@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("/d", MountSpec(kind="volume", target="/d")),
        ("//d/./e/../", MountSpec(kind="volume", target="/d")),
        ("data:/d", DATA),
        ("d:/d", replace(DATA, source="d")),
        ("data:/d:ro", replace(DATA, read_only=True)),
        ("data:/d:rw", DATA),
        ("data:/d:nocopy,ro", replace(DATA, no_copy=True, read_only=True)),
        ("data:/d:z,cached", replace(DATA, relabel="z", consistency="cached")),
        ("/srv:/d", replace(HOST, create_source=True)),
        ("/srv/../srv/:/d:Z", replace(HOST, create_source=True, relabel="Z")),
        ("/srv:/d:ro,rslave", replace(HOST, create_source=True, read_only=True, propagation="rslave")),
        ("./x:/d", MountSpec(kind="bind", source="/home/me/x", target="/d", create_source=True)),
        ("..:/d", MountSpec(kind="bind", source="/home", target="/d", create_source=True)),
    ],
)
def test_a_volume_flag_means(text: str, meaning: MountSpec):
    assert parse_volume(text, cwd="/home/me") == meaning


@pytest.mark.part("V2")
def test_the_volume_driver_is_for_volumes_and_not_for_paths_of_the_host():
    assert parse_volume("data:/d", driver="orlop").driver == "orlop"
    assert parse_volume("/d", driver="orlop").driver == "orlop"
    assert parse_volume("/srv:/d", driver="orlop").driver == ""


@pytest.mark.part("V2")
def test_a_relative_source_means_nothing_to_somebody_elsewhere():
    with pytest.raises(Invalid, match="use absolute path"):
        parse_volume("./x:/d")
    with pytest.raises(Invalid, match=r"'\./x' mount path must be absolute"):
        parse_mount("type=bind,source=./x,target=/d")


@pytest.mark.part("V3")
@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("source=data,target=/d", DATA),
        ("dst=/d,src=data,type=volume", DATA),
        ("TYPE=Volume,Source=data,DESTINATION=/d", DATA),
        ("target=/d", MountSpec(kind="volume", target="/d")),
        ("src=data,dst=/d,readonly", replace(DATA, read_only=True)),
        ("src=data,dst=/d,ro=1", replace(DATA, read_only=True)),
        ("src=data,dst=/d,ro=true,readonly=0", DATA),
        ("src=data,dst=/d,volume-nocopy", replace(DATA, no_copy=True)),
        ("src=data,dst=/d,volume-driver=orlop", replace(DATA, driver="orlop")),
        ("src=data,dst=/d,volume-label=a=b=c", replace(DATA, labels={"a": "b=c"})),
        ("src=data,dst=/d,volume-subpath=a/b", replace(DATA, subpath="a/b")),
        (
            'src=data,dst=/d,volume-opt=type=nfs,"volume-opt=o=addr=10.0.0.1,rw"',
            replace(DATA, driver_options={"type": "nfs", "o": "addr=10.0.0.1,rw"}),
        ),
        ("type=bind,src=/srv,dst=/d", HOST),
        ("type=bind,src=/srv,dst=/d,bind-propagation=rshared", replace(HOST, propagation="rshared")),
        ("type=bind,src=/srv,dst=/d,bind-nonrecursive", replace(HOST, recursive="disabled")),
        ("type=bind,src=/srv,dst=/d,bind-recursive=disabled", replace(HOST, recursive="disabled")),
        (
            "type=bind,src=/srv,dst=/d,bind-recursive=readonly,ro,bind-propagation=rprivate",
            replace(HOST, recursive="readonly", read_only=True, propagation="rprivate"),
        ),
        ("type=bind,src=/srv,dst=/d,consistency=CACHED", replace(HOST, consistency="cached")),
        ("type=tmpfs,dst=/d", MEMORY),
        (
            "type=tmpfs,tmpfs-size=1m,tmpfs-mode=01770,dst=/d",
            replace(MEMORY, options=("mode=1770", "size=1048576")),
        ),
        ("type=tmpfs,tmpfs-size=0,tmpfs-mode=0,dst=/d", MEMORY),
        ('type=tmpfs,"dst=/d,""e"""', MountSpec(kind="tmpfs", target='/d,"e"')),
    ],
)
def test_a_mount_flag_means(text: str, meaning: MountSpec):
    assert parse_mount(text) == meaning


@pytest.mark.part("V3")
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("", "EOF"),
        ("type=volume", "target is required"),
        ("type=,target=/d", "type is required"),
        ("target=/d,x=1", "unexpected key 'x' in 'x=1'"),
        ("target=/d,rw", "invalid field 'rw' must be a key=value pair"),
        ("target=/d,ro=yes", "invalid value for ro: yes"),
        ("type=bind,target=/d,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
    ],
)
def test_what_the_client_refuses_is_an_invalid_argument(options: str, problem: str):
    with pytest.raises(Invalid) as caught:
        parse_mount(options)

    assert str(caught.value) == f'invalid argument "{options}" for "--mount" flag: {problem}'


@pytest.mark.part("V3")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("target=/d,volume-subpath=a", "must not set Subpath when using anonymous volumes"),
        ("source=data,target=/d,volume-subpath=a/../..", "subpath must be a relative path within the volume"),
        ("source=data,target=/d,volume-subpath=/a", "subpath must be a relative path within the volume"),
        ("target=/d,ro", "must not set ReadOnly mode when using anonymous volumes"),
    ],
)
def test_what_the_engine_refuses_is_an_invalid_mount_config(text: str, problem: str):
    with pytest.raises(Invalid) as caught:
        parse_mount(text)

    assert str(caught.value) == f'invalid mount config for type "volume": {problem}'


@pytest.mark.part("V4")
@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("/d", MEMORY),
        ("/d:", MEMORY),
        ("/d:ro", replace(MEMORY, read_only=True)),
        ("/d:ro,rw", MEMORY),
        ("/d:size=50%,mode=700,uid=5", replace(MEMORY, options=("size=50%", "mode=700", "uid=5"))),
        ("/d:size=1m,exec,size=2m,noexec,exec", replace(MEMORY, options=("size=2m", "exec"))),
        ("/d:defaults,size=1m,size=1m", replace(MEMORY, options=("size=1m",))),
    ],
)
def test_a_tmpfs_flag_means(text: str, meaning: MountSpec):
    assert parse_tmpfs(text) == meaning


@pytest.mark.part("V4")
def test_a_tmpfs_runs_no_programs_unless_asked():
    closed = parse_tmpfs("/d:ro,size=1m")
    opened = parse_tmpfs("/d:exec,suid")

    assert tmpfs_options(closed) == ("noexec", "nosuid", "nodev", "ro", "size=1m")
    assert tmpfs_options(opened) == ("nodev", "exec", "suid")


@pytest.mark.part("V9")
@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("dc", VolumesFrom("dc")),
        ("dc:", VolumesFrom("dc")),
        ("dc:rw", VolumesFrom("dc")),
        ("dc:ro,Z", VolumesFrom("dc", read_only=True, relabel="Z")),
    ],
)
def test_volumes_from_means(text: str, meaning: VolumesFrom):
    assert parse_volumes_from(text) == meaning


@pytest.mark.parametrize("text", ["", ":ro", "dc:nocopy", "dc:rslave", "dc:ro,rw", "dc:x"])
def test_volumes_from_refuses(text: str):
    with pytest.raises(Invalid):
        parse_volumes_from(text)


@pytest.mark.part("V2", "V3", "V4")
def test_two_mounts_of_one_place_are_refused():
    with pytest.raises(Invalid, match="Duplicate mount point: /d"):
        parse_flags(volumes=["data:/d", "other:/d/"])
    with pytest.raises(Invalid, match="Duplicate mount point: /d"):
        parse_flags(volumes=["data:/d"], mounts=["type=tmpfs,target=/d"])
    with pytest.raises(Invalid, match="Duplicate mount point: /d"):
        parse_flags(volumes=["data:/d"], tmpfs=["/d"])


@pytest.mark.part("V2", "V3", "V4")
def test_what_is_said_twice_or_in_general_gives_way_to_what_is_said_in_particular():
    assert parse_flags(volumes=["data:/d", "data:/d"]) == (DATA,)
    assert parse_flags(volumes=["/d", "data:/d"]) == (DATA,)
    assert parse_flags(volumes=["/d"], tmpfs=["/d:ro", "/d"]) == (MEMORY,)


@pytest.mark.parametrize("name", ["a", "A9", "0", "a.b_c-d", "x" * 255])
def test_a_legal_volume_name(name: str):
    assert volume_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../esc", "a/b", "-a", "_a", "a b", "a\n", "\n", "ü", "a\0", "x" * 256]
)
def test_an_illegal_volume_name_is_named(name: str):
    with pytest.raises(Invalid) as caught:
        volume_name(name)

    assert str(caught.value).startswith(f"create {name}: ")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1b", 1),
        ("64k", 65536),
        ("64 KiB", 65536),
        ("10m", 10485760),
        ("1.5GiB", 1610612736),
        (".5mb", 524288),
        ("1T", 1 << 40),
        ("1p", 1 << 50),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_a_size_in_bytes(text: str, count: int):
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "m", "-1", " 1", "1  m", "1x", "1iB", "1kk", "1,5g", "٣", "1\n", "8192p"])
def test_a_bad_size_is_named(text: str):
    with pytest.raises(Invalid) as caught:
        size(text)

    assert str(caught.value) == f"invalid size: '{text}'"


WORDS = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
PATHS = st.lists(WORDS.map(lambda w: w.replace("/", "_")), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join("x" if part in (".", "..") else part for part in parts)
)
NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}", fullmatch=True)
ENTRIES = st.dictionaries(WORDS.map(lambda w: w.replace("=", "_")), WORDS, max_size=3)
PROPAGATIONS = st.sampled_from(["", "rprivate", "shared", "rslave"])

VOLUMES = st.builds(
    MountSpec,
    kind=st.just("volume"),
    source=NAMES,
    target=PATHS,
    read_only=st.booleans(),
    driver=st.one_of(st.just(""), NAMES),
    driver_options=ENTRIES,
    labels=ENTRIES,
    subpath=st.sampled_from(["", "a/b"]),
    no_copy=st.booleans(),
    consistency=st.sampled_from(["", "cached"]),
)
BINDS = st.builds(
    MountSpec,
    kind=st.just("bind"),
    source=PATHS,
    target=PATHS,
    read_only=st.booleans(),
    propagation=PROPAGATIONS,
    recursive=st.sampled_from(["enabled", "disabled"]),
)
WITHOUT_COLONS = PATHS.map(lambda path: path.replace(":", "_"))
CREATED_BINDS = st.builds(
    MountSpec,
    kind=st.just("bind"),
    source=WITHOUT_COLONS,
    target=WITHOUT_COLONS,
    read_only=st.booleans(),
    propagation=PROPAGATIONS,
    create_source=st.just(True),
    relabel=st.sampled_from(["", "z", "Z"]),
)
TMPFSES = st.builds(
    MountSpec,
    kind=st.just("tmpfs"),
    target=PATHS,
    read_only=st.booleans(),
    options=st.lists(st.sampled_from(["mode=1777", "size=4096"]), unique=True).map(sorted).map(tuple),
)
ANONYMOUS = st.builds(
    MountSpec, kind=st.just("volume"), target=PATHS, driver=NAMES, labels=ENTRIES, no_copy=st.booleans()
)
LABELLED = st.builds(
    MountSpec,
    kind=st.just("volume"),
    source=NAMES,
    target=WITHOUT_COLONS,
    read_only=st.booleans(),
    no_copy=st.booleans(),
    relabel=st.sampled_from(["z", "Z"]),
    consistency=st.sampled_from(["", "delegated"]),
)
TUNED_TMPFSES = st.builds(
    MountSpec,
    kind=st.just("tmpfs"),
    target=WITHOUT_COLONS,
    read_only=st.booleans(),
    options=st.lists(st.sampled_from(["uid=5", "exec", "size=50%", "nosuid"]), unique=True).map(tuple),
)


@pytest.mark.part("V2", "V3", "V4")
@settings(deadline=None)  # the machine may be busy
@given(st.one_of(VOLUMES, ANONYMOUS, LABELLED, BINDS, CREATED_BINDS, TMPFSES, TUNED_TMPFSES))
def test_a_mount_said_as_a_flag_means_itself(spec: MountSpec):
    flag, text = as_flag(spec)

    again = {"--mount": parse_mount, "-v": parse_volume, "--tmpfs": parse_tmpfs}[flag](text)

    assert again == spec


@pytest.mark.part("V2", "V3", "V4")
@pytest.mark.parametrize(
    ("spec", "flag"),
    [
        (DATA, ("--mount", "type=volume,source=data,target=/d")),
        (
            replace(DATA, labels={"a": 'b,"c"'}),
            ("--mount", 'type=volume,source=data,target=/d,"volume-label=a=b,""c"""'),
        ),
        (replace(DATA, relabel="z", read_only=True), ("-v", "data:/d:ro,z")),
        (replace(HOST, read_only=True), ("--mount", "type=bind,source=/srv,target=/d,readonly")),
        (replace(HOST, create_source=True), ("-v", "/srv:/d")),
        (replace(MEMORY, read_only=True, options=("size=64m",)), ("--tmpfs", "/d:ro,size=64m")),
    ],
)
def test_a_mount_is_said_as(spec: MountSpec, flag: tuple[str, str]):
    assert as_flag(spec) == flag


@settings(deadline=None)
@given(st.text(alphabet=string.printable + "ü\0\x7f"))
def test_any_text_has_a_meaning_or_a_problem_that_is_named(text: str):
    for parse in (parse_volume, parse_mount, parse_tmpfs, parse_volumes_from, size, volume_name):
        assert _meaning_or_problem(parse, text) not in (None, "")


def _meaning_or_problem(parse: Callable[[str], object], text: str) -> object:
    try:
        return parse(text)
    except Invalid as problem:
        return str(problem)
