"""Docker's client and engine are asked what flags mean, and orlop has to say the same, errors included.

Seen with the clients 29.1.3, 28.5.2, 28.2.2, 26.1.5 and 20.10.24 and the engines 29.1.3, 28.5.2, 26.1.5 and 20.10.24.
``@`` in a flag stands for a folder of the host, which is also where the client is started.
"""

import argparse
import functools
import json
import os
import posixpath
import re
import shlex
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from orlop.errors import Invalid
from orlop.grammar import MountSpec, parse_flags, parse_tmpfs, parse_volumes_from, tmpfs_options
from orlop.testing.engine import Engine
from orlop.testing.machine import Machine

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.part("V2", "V3", "V4", "V9"),
]

# Every client and engine says what orlop says.
AGREED = r"""
-v /t
-v //t//u/
-v data:/d
-v data:/d:ro
-v data:/d:rw
-v data:/d:nocopy
-v data:/d:ro,nocopy,z,delegated
-v data:/d:consistent
-v data:/d:rw,z,nocopy,cached,rprivate
-v data:/d:shared
-v "data:/d "
-v "data: /d"
-v data:/x,y
-v data:/d:foo
-v data:/d:rro
-v data:/d:nocopy,nocopy
-v data:/d:z,nocopy,z
-v data:/d:ro,
-v data:d
-v data:d:ro
-v data:..
-v data:/d/..
-v data:/../
-v data:/
-v _a:/d
-v -a:/d
-v "a b:/d"
-v ü1:/d
-v b/c:/d
-v ~/b:/d
-v aa:ro
-v /d:ro
-v /d:rw,z
-v @/b:/d
-v @/b/:/d/
-v @/b/../b:/d
-v @/missing:/d
-v @/b:/d:ro,rslave
-v @/b:/d:Z,rshared,cached
-v @/b:/d:nocopy
-v @/b:/d:rw,ro
-v @/b:/d:ro,ro
-v @/b:/d:z,Z
-v @/b:/d:,
-v @/b:/d:RO
-v "@/b:/d: ro"
-v @/b:/d:default
-v @/b:/
-v @/b:d
-v @/b:/x -v @/b:/x
-v aa:/x -v bb:/x
-v aa:/x -v bb:/x/
-v aa:/x -v /x
-v /x -v /x
-v aa:/x --tmpfs /x
-v /x --tmpfs /x
-v aa:/x --mount type=tmpfs,target=/x
-v /x --mount type=tmpfs,target=/x
-v /x --mount type=volume,target=/x,source=aa
-v aa:/d --volume-driver local
-v aa:/d -v @/b:/e --mount source=bb,target=/f --tmpfs /g --volume-driver local
--mount ""
--mount type=volume
--mount target=/x
--mount dst=/x
--mount TARGET=/x
--mount Type=VOLUME,Target=/x,Source=Aa
--mount dst=/x,src=aa,type=volume
--mount source=aa,destination=/x/y/../
--mount source=aa,target=/x,volume-nocopy
--mount source=aa,target=/x,volume-nocopy=true
--mount source=aa,target=/x,volume-nocopy=x
--mount source=ab,target=/x,volume-label=k=v,volume-label=k2,volume-driver=local
--mount 'source=ac,target=/x,volume-opt=type=tmpfs,volume-opt=device=tmpfs,"volume-opt=o=size=1m,uid=5"'
--mount source=aa,target=/x,volume-opt
--mount source=aa,target=/x,readonly
--mount source=aa,target=/x,ro
--mount source=aa,target=/x,ro=1
--mount source=aa,target=/x,ro=T,readonly=False
--mount source=aa,target=/x,ro=yes
--mount source=aa,target=/x,ro=
--mount source=aa,target=/x,readonly=tRue
--mount source=aa,target=/x,RO=x
--mount source=aa,target=/x,rw
--mount source=aa,target=/x,rw=true
--mount source=aa,target=/x,x=1
--mount source=aa,target=/x,X=1
--mount source=aa,target=/x,
--mount 'type=volume, source=aa,target=/x'
--mount 'source=aa ,target=/x'
--mount target=/x,readonly
--mount source=aa,target=/x,volume-subpath
--mount source=a/b,target=/x
--mount source=/tmp,target=/x
--mount type=,target=/x
--mount type=foo,target=/x
--mount type=foo,target=x
--mount type=foo,target=/x,tmpfs-size=3
--mount type=npipe,source=aa,target=/x
--mount type=bind,target=/x
--mount type=bind,source=@/b,target=/x
--mount type=bind,source=@//b/,target=/x/
--mount type=bind,source=b,target=/x
--mount type=bind,source=@/b,target=x
--mount type=bind,source=@/b,target=/
--mount type=bind,source=@/b,target=
--mount type=bind,source=@/b,target=/x,volume-nocopy
--mount type=bind,source=@/b,target=/x,volume-label=a=b
--mount type=bind,source=@/b,target=/x,tmpfs-size=1
--mount type=bind,source=@/b,target=/x,bind-propagation=RSLAVE
--mount type=bind,source=@/b,target=/x,bind-propagation=foo
--mount type=bind,source=@/b,target=/x,bind-propagation=
--mount type=bind,source=@/b,target=/x,bind-nonrecursive
--mount type=bind,source=@/b,target=/x,bind-nonrecursive=no
--mount type=bind,source=@/b,target=/x,bind-recursive
--mount type=bind,source=@/b,target=/x,consistency=DELEGATED
--mount source=aa,target=/x,bind-propagation=rslave
--mount type=tmpfs,target=/x,bind-propagation=rslave
--mount type=tmpfs,target=/x,volume-nocopy
--mount type=tmpfs,target=/x,bind-propagation=slave,volume-nocopy
--mount 'target=/x,a\b'
--mount type=tmpfs,source=a,target=/x
--mount type=tmpfs,target=/x,tmpfs-size=64m,tmpfs-mode=1770
--mount type=tmpfs,target=/x,tmpfs-mode=0700,tmpfs-size=1.5GiB,ro
--mount type=tmpfs,target=/x,tmpfs-size=0
--mount type=tmpfs,target=/x,tmpfs-size=foo
--mount type=tmpfs,target=/x,tmpfs-size=-1
--mount type=tmpfs,target=/x,tmpfs-size=
--mount 'type=tmpfs,target=/x,tmpfs-size=64 mb'
--mount 'type=tmpfs,target=/x,tmpfs-size=64  m'
--mount type=tmpfs,target=/x,tmpfs-mode=999
--mount type=tmpfs,target=/x,tmpfs-mode=37777777777
--mount type=tmpfs,target=/x,tmpfs-mode=40000000000
--mount type=tmpfs,target=/x,tmpfs-mode=0o700
--mount type=tmpfs,target=/x,tmpfs-mode=
--mount 'type=tmpfs,"target=/x,y"'
--mount 'type=tmpfs,"target=/x""y"'
--mount 'type=tmpfs,target="/x"'
--mount 'type=tmpfs,"target=/x'
--mount 'type=tmpfs,"target=/ü"y'
--mount ,
--mount type=tmpfs,type=volume,target=/x,target=/y
--mount target=/x,source=aa --mount target=/x,source=bb
--tmpfs /x
--tmpfs /x:
--tmpfs /x:ro
--tmpfs /x:size=64m,mode=1770,uid=5,gid=6,nr_inodes=100,exec,dev,suid
--tmpfs x
--tmpfs /
--tmpfs ""
--tmpfs :ro
--tmpfs /x --tmpfs /x:ro
--volumes-from dc
--volumes-from dc:
--volumes-from dc:ro
--volumes-from dc:rw,z
--volumes-from dc:consistent
--volumes-from dc:nocopy
--volumes-from dc:rslave
--volumes-from dc:foo
--volumes-from dc:ro,rw
--volumes-from dc:ro:rw
--volumes-from ""
--volumes-from :ro
--volumes-from dc -v aa:/dv
"""

RELATIVE = "the client finds relative sources itself since 23"
PARENT = "since 27 also those that begin with a dot and no slash after it"
RECURSIVE = "bind-recursive came with client and engine 25"
SUBPATH = "volume-subpath came with client and engine 26"
IMAGES = "the client knows images as mounts since 28"
SIZES = "the client reads sizes in another way since 23, unless a distribution builds it with an older library"
READONLY = (25, 25, RECURSIVE)
OPTION = "the engines up to 24 and from 29 on put a tmpfs option that they do not know into brackets, others do not"
EMPTY = "the client looks for empty sections since 28; older ones leave them to the engine, or make them a path"

# Since these versions of the client and the engine they say what orlop says; older ones say something else.
SINCE = {
    "-v ./b:/d": (23, 0, RELATIVE),
    "-v .:/d:ro": (23, 0, RELATIVE),
    "-v ../x/b:/d": (27, 0, PARENT),
    "-v .b:/d": (27, 0, PARENT),
    "-v .:.": (23, 0, RELATIVE),
    "--mount type=bind,source=./b,target=/x": (23, 0, RELATIVE),
    "--mount type=bind,source=.,target=/x": (23, 0, RELATIVE),
    "--mount source=./b,target=/x": (23, 0, RELATIVE),
    "--mount type=bind,source=@/b,target=/x,bind-recursive=enabled": (25, 0, RECURSIVE),
    "--mount type=bind,source=@/b,target=/x,bind-recursive=disabled": (25, 0, RECURSIVE),
    "--mount type=bind,source=@/b,target=/x,bind-recursive=writable,ro": READONLY,
    "--mount type=bind,source=@/b,target=/x,bind-recursive=writable": (25, 0, RECURSIVE),
    "--mount type=bind,source=@/b,target=/x,bind-recursive=readonly": (25, 0, RECURSIVE),
    "--mount type=bind,source=@/b,target=/x,bind-recursive=readonly,ro": (25, 0, RECURSIVE),
    "--mount type=bind,source=@/b,target=/x,bind-recursive=readonly,ro,bind-propagation=rprivate": READONLY,
    "--mount type=bind,source=@/b,target=/x,bind-recursive=foo": (25, 0, RECURSIVE),
    "--mount type=bind,source=@/b,target=/x,bind-recursive=": (25, 0, RECURSIVE),
    "--mount type=bind,source=@/b,target=/x,bind-recursive=Disabled": (25, 0, RECURSIVE),
    "--mount type=bind,source=@/b,target=/x,bind-recursive=writable,ro=false": (25, 0, RECURSIVE),
    "--mount type=bind,source=@/b,target=/x,bind-recursive=disabled,ro": (25, 0, RECURSIVE),
    "--mount type=bind,source=@/b,target=/x,bind-recursive=readonly,ro,bind-propagation=RPRIVATE": READONLY,
    "--mount type=bind,source=@/b,target=/x,bind-propagation=rprivate,readonly,bind-recursive=readonly": READONLY,
    "--mount type=bind,source=@/b,target=/x,bind-recursive=readonly,ro,bind-propagation=private": (25, 0, RECURSIVE),
    "--mount source=aa,target=/x,bind-recursive=disabled": (25, 0, RECURSIVE),
    "--mount type=tmpfs,target=/x,bind-recursive=disabled": (25, 0, RECURSIVE),
    "--mount 'source=aa,target=/x,volume-subpath='": (26, 0, SUBPATH),
    "--mount 'source=aa,target=/x,volume-subpath=/a'": (26, 26, SUBPATH),
    "--mount 'source=aa,target=/x,volume-subpath=.'": (26, 26, SUBPATH),
    "--mount 'source=aa,target=/x,volume-subpath=..'": (26, 26, SUBPATH),
    "--mount 'source=aa,target=/x,volume-subpath=a/..'": (26, 26, SUBPATH),
    "--mount 'source=aa,target=/x,volume-subpath=a/../..'": (26, 26, SUBPATH),
    "--mount 'source=aa,target=/x,volume-subpath=a/../b'": (26, 26, SUBPATH),
    "--mount 'source=aa,target=/x,volume-subpath=a//b/'": (26, 26, SUBPATH),
    "--mount 'source=aa,target=/x,volume-subpath=..a'": (26, 26, SUBPATH),
    "--mount 'source=aa,target=/x,volume-subpath=a b'": (26, 26, SUBPATH),
    "--mount source=aa,target=/x,volume-subpath=a,volume-subpath=b": (26, 26, SUBPATH),
    "--mount type=bind,source=@/b,target=/x,volume-subpath=a": (26, 0, SUBPATH),
    "--mount type=tmpfs,target=/x,volume-subpath=a": (26, 0, SUBPATH),
    "--mount volume-subpath=../a,target=/x": (26, 26, SUBPATH),
    "--mount target=/x,ro,volume-subpath=a": (26, 26, SUBPATH),
    "--mount target=/x,source=aa,ro,volume-nocopy,volume-driver=local,volume-subpath=a": (26, 26, SUBPATH),
    "--mount source=aa,target=/x,volume-subpath=a": (26, 26, SUBPATH),
    "--mount target=/x,volume-subpath=a": (26, 26, SUBPATH),
    "--mount source=aa,target=/x,volume-subpath=../a": (26, 26, SUBPATH),
    "--mount type=bind,source=@/b,target=/x,image-subpath=a": (28, 0, IMAGES),
    "--mount type=tmpfs,target=/x,bind-propagation=slave,image-subpath=a": (28, 0, IMAGES),
    "--mount source=aa,target=/x,volume-opt==v": (23, 0, "older clients pass on options without a name"),
    "--mount type=tmpfs,target=/x,tmpfs-size=64iB": (0, 0, SIZES),
    "--mount type=tmpfs,target=/x,tmpfs-size=.5m": (0, 0, SIZES),
    "--mount type=tmpfs,target=/x,tmpfs-size=1.k": (0, 0, SIZES),
    '-v ""': (28, 0, EMPTY),
    "-v data:": (28, 0, EMPTY),
    "-v data::ro": (28, 0, EMPTY),
    "-v :/d": (28, 0, EMPTY),
    "-v :/d:ro": (28, 0, EMPTY),
    "-v @/b:/d:": (28, 0, EMPTY),
    **dict.fromkeys(
        (
            "--tmpfs /x:foo",
            "--tmpfs /x:foo=bar",
            "--tmpfs /x:size",
            "--tmpfs /x:ro=1",
            "--tmpfs /x:,",
            "--tmpfs /x:ro:rw",
            "--tmpfs /x:SIZE=1m",
            '--tmpfs "/x:size=1m, mode=700"',
            "--tmpfs /x:z",
            "--tmpfs /x:huge=always",
        ),
        (0, 25, OPTION),
    ),
    "-v aa:/x:ro:rw": (28, 0, "older clients leave it to the engine to count colons"),
}

NEVER = 1000
# Which version changed what had been as orlop says it: the client, the engine.
UNTIL = {
    "--mount type=bind,source=@/b,target=/x,bind-nonrecursive": (29, NEVER),
    "--mount type=bind,source=@/b,target=/x,bind-nonrecursive=no": (29, NEVER),
    **{flags: (NEVER, 29) for flags, (_, _, reason) in SINCE.items() if reason is OPTION},
}

DRIVE = "one letter before a colon is a drive for Docker's client; orlop's volumes may have one letter"
SHORT = "one letter is too short a name for Docker's local driver, not for its plugins and orlop"
TWICE_SAID = "of words that contradict each other the last one counts for orlop; Docker keeps what they say together"
NOWHERE = "Docker makes an anonymous volume at a place where nothing can be mounted, as long as nothing starts"
TWICE = "Docker mounts both, one hides the other"
HOST = "whether it exists is not the grammar's to see, but the engine's"

# On purpose orlop says something else than every version of Docker.
DIFFERENT = {
    "-v a:/d": DRIVE,
    "-v d:x": DRIVE,
    "-v a:/d:ro": SHORT,
    "--mount source=a,target=/x": SHORT,
    "--mount type=bind,source=@/b,target=/x,bind-recursive=disabled,bind-recursive=enabled": TWICE_SAID,
    "--mount type=bind,source=@/b,target=/x,bind-nonrecursive,bind-recursive=enabled": TWICE_SAID,
    "--mount type=bind,source=@/b,target=/x,bind-recursive=writable,bind-nonrecursive": TWICE_SAID,
    "-v t": NOWHERE,
    "-v /": NOWHERE,
    "-v .": NOWHERE,
    "-v /t/..": NOWHERE,
    "-v :": NOWHERE,
    r"-v 'aa:\d'": "Docker takes a backslash for a slash when it checks a target, but not when it mounts",
    "--tmpfs /x --tmpfs /x/": TWICE,
    "--tmpfs /x --mount type=tmpfs,target=/x": TWICE,
    "-v aa:/x --tmpfs /x/": TWICE,
    "-v aa:/x --mount type=tmpfs,target=/x/": "orlop names the place, Docker the flag's spelling of it",
    "--tmpfs /x:=1": "an option without a name is none",
    "--mount source=aa,target=/x,bind-recursive=enabled": "the default, but it is not for volumes",
    "--mount type=tmpfs,target=/x,tmpfs-size=9999999p": "Docker's number of bytes overflows",
    "--mount type=bind,source=@/missing,target=/x": HOST,
    "--volumes-from nobody": HOST,
}


@dataclass
class Docker:
    """An engine, where the client is started, and how old both are."""

    engine: Engine
    folder: Path
    client_version: int
    engine_version: int

    @functools.cached_property
    def reads_fractions(self) -> bool:
        """Whether its client reads sizes as a number of Go with a unit."""
        return "invalid value" not in str(both_say(self, "--mount type=tmpfs,target=/x,tmpfs-size=5.m")[1])


@pytest.fixture(scope="module", params=["packaged", "newer"])
def docker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    programs = request.getfixturevalue("newer_programs") if request.param == "newer" else None
    folder = tmp_path_factory.mktemp("grammar")
    (folder / "x" / "b").mkdir(parents=True)
    image = folder / "shell.tar"
    with tarfile.open(image, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
    with Machine(folder / "machine", "grammar") as machine:
        engine = Engine(machine, "--iptables=false", "--bridge=none", programs=programs)
        engine.start()
        engine.docker("import", str(image), "shell")
        engine.docker("create", "--name=dc", "-v/dv", "shell", "/bin/busybox")
        version = json.loads(engine.docker("version", "--format={{json .}}").stdout)
        ages = [int(version[side]["Version"].split(".")[0]) for side in ("Client", "Server")]
        yield Docker(engine, folder / "x", *ages)


def is_still_so(docker: Docker, flags: str) -> bool:
    """Whether this version has not changed it yet."""
    client, engine = UNTIL.get(flags, (NEVER, NEVER))
    return docker.client_version < client and docker.engine_version < engine


@pytest.mark.feature("V2")
@pytest.mark.parametrize("flags", [line for line in AGREED.splitlines() if line])
def test_orlop_says_what_docker_says(docker: Docker, flags: str):
    ours, dockers = both_say(docker, flags)

    assert (ours == dockers) == is_still_so(docker, flags)


@pytest.mark.parametrize("flags", SINCE)
def test_orlop_says_what_newer_versions_of_docker_say(docker: Docker, flags: str):
    client, engine, reason = SINCE[flags]
    is_new = docker.client_version >= client and docker.engine_version >= engine and is_still_so(docker, flags)
    is_new = is_new and (reason is not SIZES or docker.reads_fractions)

    ours, dockers = both_say(docker, flags)

    assert (ours == dockers) == is_new, f"{reason}: {ours} and {dockers}"


@pytest.mark.parametrize("number", ["1e3", "1_000", "+5"])
def test_only_newer_clients_take_for_a_number_what_go_does(docker: Docker, number: str):
    ours, dockers = both_say(docker, f"--mount type=tmpfs,target=/x,tmpfs-size={number}")

    assert (ours != dockers) == docker.reads_fractions


@pytest.mark.parametrize("flags", DIFFERENT)
def test_orlop_differs_from_docker_where_it_means_to(docker: Docker, flags: str):
    ours, dockers = both_say(docker, flags)

    assert ours != dockers, f"no longer so: {DIFFERENT[flags]}"


@pytest.mark.parametrize(
    "options",
    [
        "",
        "ro",
        "ro,rw",
        "exec,suid,dev",
        "noexec,exec",
        "exec,size=1m,size=2m,mode=700,uid=5,gid=6",
        "defaults,size=1m,exec,noexec",
        "noatime,nodiratime,sync",
        "nr_inodes=100,nosuid,suid",
    ],
)
def test_the_kernel_is_told_the_same_about_a_tmpfs(docker: Docker, options: str):
    flag = f"/x:{options}"
    mount = [
        "busybox",
        "mount",
        "-t",
        "tmpfs",
        "-o",
        ",".join(tmpfs_options(parse_tmpfs(flag))),
        "tmpfs",
        "/mnt",
    ]

    by_docker = docker.engine.docker(
        *("run", "--rm", "--network=none", "--tmpfs", flag, "shell"),
        *("/bin/busybox", "cat", "/proc/mounts"),
    )
    docker.engine.machine.run(mount)
    by_orlop = docker.engine.machine.run(["cat", "/proc/mounts"])
    docker.engine.machine.run(["umount", "/mnt"])

    assert mounted_with(by_orlop.stdout, "/mnt") == mounted_with(by_docker.stdout, "/x")


def mounted_with(mounts: str, target: str) -> set[str]:
    [line] = [line for line in mounts.splitlines() if line.split()[1] == target]
    return set(line.split()[3].split(","))


def both_say(docker: Docker, flags: str) -> tuple[object, object]:
    """What orlop and Docker make of ``flags``: an error's text, or what is mounted at each place.

    Docker finds some errors only when the container starts.
    """
    args = [arg.replace("@", str(docker.folder)) for arg in shlex.split(flags)]
    ours = orlop_says(args, docker.folder)
    created = run(docker, "create", *args, "shell", "/bin/busybox", "true")
    if created.returncode:
        return ours, error(created)
    container = created.stdout.split()[-1]
    if isinstance(ours, str):
        started = run(docker, "start", container)
        return ours, error(started) if started.returncode else "no error"
    seen = docker_says(json.loads(run(docker, "inspect", container).stdout)[0])
    return {place: {key: mount.get(key) for key in seen.get(place, mount)} for place, mount in ours.items()}, seen


def run(docker: Docker, *args: str) -> subprocess.CompletedProcess[str]:
    return docker.engine.docker(*args, check=False, cwd=docker.folder)


def error(result: subprocess.CompletedProcess[str]) -> str:
    """Docker's message, without what the client says around it."""
    text = re.split(r"\n+(?:Run 'docker|See 'docker|Usage:|Error: failed to start)", result.stderr)[0].rstrip("\n")
    return text.removeprefix("docker: ").removeprefix("Error response from daemon: ")


def orlop_says(args: list[str], cwd: Path) -> str | dict[str, dict[str, object]]:
    parser = argparse.ArgumentParser()
    for flag in ("-v", "--mount", "--tmpfs", "--volumes-from"):
        parser.add_argument(flag, action="append", default=[])
    parser.add_argument("--volume-driver", default="")
    # "=" keeps argparse from taking a value such as "-a:/d" for a flag.
    said = parser.parse_args([f"{flag}={value}" for flag, value in zip(args[::2], args[1::2], strict=True)])
    try:
        inherited = [parse_volumes_from(text) for text in said.volumes_from]
        specs = parse_flags(
            volumes=[text.removeprefix("=") for text in said.v],
            mounts=said.mount,
            tmpfs=said.tmpfs,
            volume_driver=said.volume_driver,
            cwd=str(cwd),
        )
    except Invalid as problem:
        return str(problem)
    says: dict[str, dict[str, object]] = {}
    for other in inherited:
        says["/dv"] = {"kind": "volume", "source": "", "writable": not other.read_only}
    return says | {spec.target: as_docker_would(spec) for spec in specs}


def as_docker_would(spec: MountSpec) -> dict[str, object]:
    tmpfs = dict(option.split("=", 1) for option in spec.options if "=" in option)
    settings = {
        "Consistency": spec.consistency,
        "BindOptions": {
            "Propagation": spec.propagation,
            "NonRecursive": spec.recursive == "disabled",
            "ReadOnlyNonRecursive": spec.recursive == "writable",
            "ReadOnlyForceRecursive": spec.recursive == "readonly",
        },
        "VolumeOptions": {
            "NoCopy": spec.no_copy,
            "Labels": dict(spec.labels),
            "Subpath": spec.subpath,
            "DriverConfig": {"Name": spec.driver, "Options": dict(spec.driver_options)},
        },
        "TmpfsOptions": {
            "SizeBytes": int(tmpfs["size"]) if tmpfs.get("size", "").isdigit() else 0,
            "Mode": int(tmpfs.get("mode", "0"), 8),
        },
    }
    modes = {"ro" * spec.read_only, "nocopy" * spec.no_copy, spec.relabel, spec.propagation, spec.consistency}
    return {
        "kind": spec.kind,
        "source": spec.source,
        "writable": not spec.read_only,
        "settings": without_empty(settings),
        "modes": modes - {""},
        "options": set(spec.options),
    }


def docker_says(container: dict) -> dict[str, dict[str, object]]:
    """What the container will have at each place, and the options as the engine keeps them."""
    config = container["HostConfig"]
    places: dict[str, dict[str, object]] = {}
    for mount in container["Mounts"]:
        source = mount.get("Name", mount["Source"])
        places[mount["Destination"]] = {
            "kind": mount["Type"],
            "source": "" if re.fullmatch("[0-9a-f]{64}", source) else source,
            "writable": mount["RW"],
        }
    for bind in config["Binds"] or []:
        _, target, *modes = bind.split(":")
        places[posixpath.normpath(target)]["modes"] = set(",".join(modes).split(",")) - {"", "rw"}
    for mount in config.get("Mounts") or []:
        settings = {key: mount[key] for key in mount if key not in ("Type", "Source", "Target", "ReadOnly")}
        places[posixpath.normpath(mount["Target"])]["settings"] = without_empty(settings)
    for target, text in (config.get("Tmpfs") or {}).items():
        options = set(text.split(",")) - {""}
        places[target] = {
            "kind": "tmpfs",
            "source": "",
            "writable": "ro" not in options,
            "options": options - {"ro"},
        }
    return places


def without_empty(settings: dict) -> dict:
    """Only what says something; a label or an option of a driver may be empty."""
    named = ("Labels", "Options")
    kept = {
        key: without_empty(value) if isinstance(value, dict) and key not in named else value
        for key, value in settings.items()
    }
    return {key: value for key, value in kept.items() if value}
