import signal
import subprocess
import sys
import time


def test_help_names_every_command(orlop):
    page = orlop("--help").stdout

    for command in ("completion", "driver", "info", "secret", "serve", "system", "volume"):
        assert f"\n  {command} " in page


def test_wrong_usage_is_status_2_and_what_went_wrong_status_1(orlop):
    assert "No such command 'nope'" in orlop("nope", status=2).stderr
    assert "No such option" in orlop("volume", "ls", "--nope", status=2).stderr
    assert orlop("volume", "rm", "nope", status=1).stderr == "orlop: no volume 'nope'\n"


def test_a_folder_that_cannot_be_used_is_one_line(orlop, tmp_path):
    (tmp_path / "file").touch()

    refused = orlop("volume", "ls", "--root", str(tmp_path / "file/below"), status=1)

    assert refused.stderr == f"orlop: '{tmp_path}/file/below': Not a directory\n"


def test_a_reader_who_has_seen_enough_ends_it_quietly(orlop, environment):
    for number in range(3):
        orlop("volume", "create", f"v{number}")
    command = f"{sys.executable} -m orlop system events --follow | head -1"

    done = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    time.sleep(1)
    orlop("volume", "create", "more")
    stdout, stderr = done.communicate(timeout=20)

    assert len(stdout.splitlines()) == 1
    assert stderr == b""


def test_an_interrupt_is_status_130_without_a_word(orlop, environment):
    argv = [sys.executable, "-m", "orlop", "system", "events", "--follow"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    orlop("volume", "create", "data")
    assert b"create data" in process.stdout.readline()

    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)

    assert process.returncode == 130
    assert stderr == b""


def test_commands_do_not_load_the_web_server(environment):
    argv = [sys.executable, "-X", "importtime", "-m", "orlop", "volume", "ls"]

    loaded = subprocess.run(argv, capture_output=True, text=True, env=environment, check=True).stderr

    assert "orlop.state" in loaded
    assert "orlop.frontends.http" not in loaded
    assert "http.client" not in loaded


def test_it_leaves_no_memory_behind_when_it_crashes_whatever_limit_it_was_started_with(tmp_path):
    show = """
import resource, sys
from pathlib import Path
from orlop.kernel import processes
processes.leave_no_core()
print(resource.getrlimit(resource.RLIMIT_CORE), Path('/proc/self/coredump_filter').read_text().strip())
"""
    found = []
    for limit in ("unlimited", "0"):
        # Even root cannot raise it then.
        without = ["setpriv", "--bounding-set=-sys_resource"] if limit == "0" else []
        argv = [*without, "prlimit", f"--core={limit}", sys.executable, "-c", show]
        found.append(subprocess.run(argv, capture_output=True, text=True, check=False))

    assert [done.stdout for done in found] == ["(1, 1) 00000000\n", "(0, 0) 00000000\n"], found[1].stderr
