"""Real FUSE programs (bindfs): started, watched, ended, and healed wherever somebody sees their mount."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orlop.errors import Busy, Unavailable
from orlop.kernel import mountinfo
from orlop.kernel import syscalls as sc
from orlop.kernel.mounter import KernelMounter
from orlop.kernel.programs import Programs
from orlop.mount import Mount
from orlop.packaging.host import CAPABILITIES
from orlop.testing.process import stand_still
from orlop.testing.waiting import eventually

BINDFS = ("bindfs", "-f", "-o", "attr_timeout=0")


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path / "programs", patience=5, in_memory=(sc.magic(tmp_path),))


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "mounts" / "with space"
    yield place
    while list(mountinfo.at([str(place)])):
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "file").write_text("content")
    (source / "sub/file").write_text("content below")
    return Mount("fuse.bindfs", str(source), (), (), (*BINDFS, str(source), "{target}"))


def test_a_program_serves_its_mount_and_ends_with_it(programs: Programs, target: Path, mount: Mount) -> None:
    mounter = KernelMounter(programs)

    mounter.mount([mount], target)
    pid = programs.pids(target)[0]
    assert (target / "file").read_text() == "content"
    assert os.getsid(pid) == pid, "it belongs to nobody's terminal"

    mounter.unmount(target)
    assert programs.pids(target) == []
    assert not Path(f"/proc/{pid}/exe").exists()
    assert not target.exists()


def test_an_unwilling_program_is_quoted_and_nothing_is_left(programs: Programs, target: Path) -> None:
    broken = Mount("fuse.bindfs", "/nowhere", (), (), (*BINDFS, "/nowhere", "{target}"))

    with pytest.raises(Unavailable, match=r"'/nowhere' by bindfs: .*No such file"):
        KernelMounter(programs).mount([broken], target)

    assert programs.pids(target) == []
    assert not target.exists()


def test_a_program_that_mounts_but_cannot_say_what_is_there_is_not_up(
    tmp_path: Path, target: Path, mount: Mount
) -> None:
    mounter = KernelMounter(Programs(tmp_path / "programs", patience=0.5))
    absent, unanswerable = replace(mount, question=".nobodys"), replace(mount, question="x" * 300)

    mounter.mount([absent], target)
    mounter.unmount(target)
    with pytest.raises(Unavailable, match="no answer within"):
        mounter.mount([unanswerable], target)

    assert mounter.programs.pids(target) == []
    assert not target.exists()


def test_a_program_that_never_mounts_is_ended_in_time(tmp_path: Path, target: Path) -> None:
    programs = Programs(tmp_path / "programs", patience=0.3)
    silent = Mount("fuse.sleep", "x", (), (), ("sleep", "54321"))

    with pytest.raises(Unavailable, match="'x' by sleep: no answer within"):
        KernelMounter(programs).mount([silent], target)

    assert subprocess.run(["pgrep", "-f", "sleep 54321"], check=False, capture_output=True).returncode == 1


def test_a_program_that_is_not_installed_is_named(programs: Programs, target: Path) -> None:
    with pytest.raises(Unavailable, match="'nosuchfs' is not installed"):
        KernelMounter(programs).mount([Mount("fuse.nosuchfs", "x", (), (), ("nosuchfs", "{target}"))], target)


def test_secrets_come_in_files_of_their_own_and_on_standard_input(
    programs: Programs, tmp_path: Path, target: Path
) -> None:
    # What it was given, it says; what it says, is quoted.
    tell = Mount(
        "fuse.sh",
        "x",
        (),
        (("stdin", "from-stdin"), ("key", "from-file")),
        ("sh", "-c", "cat - {key}; stat -Lc %a {key}"),
    )

    with pytest.raises(Unavailable, match=r"from-stdinfrom-file600"):
        KernelMounter(programs).mount([tell], target)
    assert "from-file" not in repr(tell)
    assert not list((tmp_path / "programs").iterdir())
    with pytest.raises(Unavailable, match="kept in memory only"):
        KernelMounter(Programs(tmp_path / "programs", in_memory=())).mount([tell], target)


def test_a_program_outlives_who_started_it_and_is_known_to_the_next(
    tmp_path: Path, programs: Programs, target: Path, mount: Mount
) -> None:
    KernelMounter(programs).mount([mount], target)

    later = Programs(tmp_path / "programs")

    assert later.pids(target) == programs.pids(target)
    assert list(later.died()) == []
    KernelMounter(later).unmount(target)
    assert later.pids(target) == []


def test_a_second_program_waits_for_the_first_to_finish(programs: Programs, target: Path, mount: Mount) -> None:
    mounter = KernelMounter(programs)
    mounter.mount([mount], target)
    stand_still(programs.pids(target)[0])
    subprocess.run(["umount", "-l", str(target)], check=True)
    try:
        with pytest.raises(Busy, match="still writing"):
            mounter.mount([mount], target)
    finally:
        os.kill(programs.pids(target)[0], signal.SIGCONT)
    eventually(lambda: not programs.pids(target))
    mounter.unmount(target)


@pytest.fixture
def crashing(mount: Mount) -> Mount:
    """Its program crashes when its mount has gone."""
    script = 'bindfs -f "$1" "$2"; echo out of luck; kill -ABRT $$'
    return replace(mount, program=("sh", "-c", script, "sh", mount.source, "{target}"))


def test_a_program_that_crashes_while_it_writes_the_rest_is_told_once(
    programs: Programs, target: Path, crashing: Mount
) -> None:
    mounter = KernelMounter(programs)
    mounter.mount([crashing], target)

    with pytest.raises(Unavailable, match=r"its program crashed \(SIGABRT\).*\(out of luck\)"):
        mounter.unmount(target)
    mounter.unmount(target)

    assert not target.exists()


def test_how_a_program_ends_that_holds_nothing_back_is_no_error(
    programs: Programs, target: Path, crashing: Mount
) -> None:
    mounter = KernelMounter(programs)
    mounter.mount([replace(crashing, holds_back=False)], target)

    mounter.unmount(target)

    assert not target.exists()


def test_a_program_that_had_died_before_its_mount_was_taken_away_is_no_error(
    programs: Programs, target: Path, mount: Mount
) -> None:
    mounter = KernelMounter(programs)
    mounter.mount([mount], target)
    os.kill(programs.pids(target)[0], signal.SIGKILL)
    eventually(lambda: not programs.pids(target))

    mounter.unmount(target)

    assert not target.exists()


def test_a_server_that_hangs_is_noticed_and_nothing_is_unmounted(
    programs: Programs, target: Path, mount: Mount
) -> None:
    mounter = KernelMounter(programs, patience=0.2)
    mounter.mount([mount], target)
    pid = programs.pids(target)[0]
    stand_still(pid)
    try:
        for _ in range(2):
            with pytest.raises(Unavailable, match="does not answer"):
                mounter.mounted(target)
    finally:
        os.kill(pid, signal.SIGCONT)

    eventually(lambda: mounter.mounted(target))
    mounter.unmount(target)


def test_a_dead_mount_is_healed_wherever_it_is_seen(
    programs: Programs, tmp_path: Path, target: Path, mount: Mount
) -> None:
    """As containers see it: all of it, a folder of it read-only, each in a namespace of its own."""
    mounter = KernelMounter(programs)
    with_secret = replace(mount, secrets=(("key", "hidden"),))
    mounter.mount([with_secret], target)
    seen, below = tmp_path / "seen", tmp_path / "below"
    seen.mkdir(), below.mkdir()
    script = f"""mount --bind '{target}' '{seen}' && mount --bind -o ro '{target}/sub' '{below}' && umount '{target}'
    echo ready; while read command; do eval "$command" 2>&1; echo; echo end; done"""
    container = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )

    def inside(command: str) -> str:
        container.stdin.write(command + "\n")
        return "".join(iter(container.stdout.readline, "end\n")).rstrip("\n")

    try:
        assert container.stdout.readline() == "ready\n"
        assert inside(f"cat {seen}/file {below}/file") == "contentcontent below"
        os.kill(programs.pids(target)[0], signal.SIGKILL)
        eventually(lambda: list(mounter.died()) == [target])
        assert "not connected" in inside(f"cat {seen}/file")

        mounter.heal([with_secret], target)

        assert inside(f"cat {seen}/file {below}/file") == "contentcontent below"
        assert "Read-only" in inside(f"touch {below}/new")
        assert inside(f"echo changed > {seen}/file; cat {seen}/file") == "changed"
        assert (target / "file").read_text() == "changed\n"
        assert list(mounter.died()) == []
    finally:
        container.communicate("exit\n")
    mounter.unmount(target)
    assert not list((tmp_path / "programs").iterdir())


def test_what_the_services_unit_may_do_is_enough_to_heal(tmp_path: Path, target: Path, mount: Mount) -> None:
    script = f"""
import os, signal, subprocess, time
from pathlib import Path
from orlop.kernel.mounter import KernelMounter
from orlop.kernel.programs import Programs
from orlop.mount import Mount
from orlop.packaging.host import CAPABILITIES
programs, target, mount = Programs(Path({str(tmp_path / "programs")!r})), Path({str(target)!r}), {mount!r}
mounter = KernelMounter(programs)
mounter.mount([mount], target)
seen = "mount --bind {target.parent}/* /mnt; umount {target.parent}/*; echo there; read x; cat /mnt/file"
container = subprocess.Popen(["unshare", "-m", "sh", "-c", seen], stdin=-1, stdout=-1, text=True)
assert container.stdout.readline() == "there\\n"
os.kill(programs.pids(target)[0], signal.SIGKILL)
while not list(mounter.died()): time.sleep(0.01)
mounter.heal([mount], target)
print(container.communicate("go on\\n")[0])
mounter.unmount(target)
"""
    bounds = ",".join(name.removeprefix("CAP_").lower() for name in CAPABILITIES if name != "CAP_SYS_RESOURCE")
    script = script.replace(f"{target.parent}/*", f"'{target}'")
    argv = ["setpriv", f"--bounding-set=-all,+{bounds.replace(',', ',+')}", sys.executable, "-c", script]

    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    assert done.stdout == "content\n", done.stderr


@pytest.fixture
def stack(mount: Mount) -> list[Mount]:
    """A program, and another above it that shows what the first one serves with another owner."""
    above = ("bindfs", "-f", "-o", "force-user=1000,attr_timeout=0", "{target}", "{target}")
    return [mount, Mount("fuse.bindfs", mount.source, (), (), above)]


def test_two_programs_serve_one_place_and_nothing_is_left_of_them(
    programs: Programs, tmp_path: Path, target: Path, stack: list[Mount]
) -> None:
    mounter = KernelMounter(programs)

    mounter.mount(stack, target)
    pids = programs.pids(target)
    shown = [entry.target for entry in mountinfo.ours() if entry.target.startswith(str(target.parent))]
    (target / "new").write_text("x")
    mounter.unmount(target)

    assert len(pids) == 2
    assert shown == [str(target)], "what is below cannot be reached, nor left behind"
    assert (tmp_path / "source/new").read_text() == "x"
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in pids)
    assert not list((tmp_path / "programs").iterdir())
    assert not list(target.parent.iterdir())


def test_if_the_second_program_does_not_start_the_first_one_ends(
    programs: Programs, tmp_path: Path, target: Path, stack: list[Mount]
) -> None:
    broken = replace(stack[1], program=("bindfs", "-f", "-o", "force-user=nosuchuser", "{target}", "{target}"))

    with pytest.raises(Unavailable, match=r"by bindfs: .*nosuchuser"):
        KernelMounter(programs).mount([stack[0], broken], target)

    assert subprocess.run(["pgrep", "-f", str(tmp_path / "source")], capture_output=True, check=False).stdout == b""
    assert not list((tmp_path / "programs").iterdir())
    assert not list(target.parent.iterdir())


def test_a_program_keeps_its_secrets_however_often_it_is_replaced(
    programs: Programs, tmp_path: Path, target: Path, stack: list[Mount]
) -> None:
    mounter = KernelMounter(programs)
    with_secret = [replace(stack[0], secrets=(("key", "hidden"),)), stack[1]]
    mounter.mount(with_secret, target)

    for _ in range(3):
        os.kill(programs.pids(target)[0], signal.SIGKILL)
        eventually(lambda: not mounter.mounted(target))
        mounter.heal(with_secret, target)

        assert [path.read_text() for path in (tmp_path / "programs").glob("*.secret")] == ["hidden"]
    mounter.unmount(target)
    assert not list((tmp_path / "programs").iterdir())


@pytest.mark.parametrize("level", [0, 1], ids=["lower", "upper"])
def test_whichever_of_two_programs_dies_both_are_replaced_wherever_they_are_seen(
    programs: Programs, tmp_path: Path, target: Path, stack: list[Mount], level: int
) -> None:
    mounter = KernelMounter(programs)
    mounter.mount(stack, target)
    seen = tmp_path / "seen"
    seen.mkdir()
    script = f"mount --bind '{target}' '{seen}'; umount '{target}'; echo ready; read go; stat -c %u '{seen}/file'"
    container = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script], stdin=-1, stdout=-1, text=True
    )
    assert container.stdout.readline() == "ready\n"
    old = programs.pids(target)
    os.kill(old[level], signal.SIGKILL)
    eventually(lambda: list(mounter.died()) == [target])
    eventually(lambda: not mounter.mounted(target))

    mounter.heal(stack, target)
    new = programs.pids(target)

    assert container.communicate("go\n", timeout=20)[0] == "1000\n"
    assert (target / "file").stat().st_uid == 1000
    assert len(new) == 2
    assert not {*old} & {*new}
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in old)
    assert list(mounter.died()) == []
    mounter.unmount(target)
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in new)
    assert not list(target.parent.iterdir())
