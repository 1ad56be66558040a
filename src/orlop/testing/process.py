"""Programs that run in other namespaces: waiting for them, killing them, and giving them a terminal.

``nsenter`` and ``unshare`` are the *outer* process, a child of ours on the host; the program itself is its
only child.
"""

import errno
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orlop.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Process:
    """A program that was left running; ``pid`` is its number as the host sees it."""

    pid: int
    _outer: "subprocess.Popen[str]"

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._outer.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; ended already is fine."""
        if self.running:
            os.kill(self.pid, number)

    def go_on(self) -> None:
        """After SIGCONT: the program that started it has stopped when it did, and waits for the same."""
        self._outer.send_signal(signal.SIGCONT)

    def kill9(self) -> None:
        """End it at once, as a crash would, and wait until it has gone."""
        self.send(signal.SIGKILL)
        self.wait()

    def terminate(self, timeout: float = 20) -> int:
        """Ask it to end, and return its exit status. Raises `subprocess.TimeoutExpired` if it goes on."""
        self.send(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = 20) -> int:
        """The exit status, as soon as there is one; as `subprocess.Popen.wait`."""
        return self._outer.wait(timeout)


def run(
    argv: Sequence[str],
    *,
    check: bool,
    input: str | None,  # noqa: A002 - subprocess's word for it
    env: Mapping[str, str],
    timeout: float,
    tty: bool,
) -> "subprocess.CompletedProcess[str]":
    """As `subprocess.run` with captured text, and with a terminal if ``tty``."""
    done = (_run_in_terminal if tty else _run_in_pipes)(argv, input or "", env, timeout)
    if check and done.returncode:
        error = subprocess.CalledProcessError(done.returncode, argv, done.stdout, done.stderr)
        error.add_note(f"{done.stdout}{done.stderr}".strip())
        raise error
    return done


def stand_still(pid: int, timeout: float = 10) -> None:
    """Stop process ``pid`` (SIGSTOP), and wait until none of its threads runs: until then it may still answer.

    Raises `TimeoutError`.
    """
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + timeout
    for thread in Path(f"/proc/{pid}/task").iterdir():
        # After the name in parentheses (proc(5)), which may hold anything.
        while thread.joinpath("stat").read_text().rpartition(") ")[2][0] not in "TtZX":
            if time.monotonic() > end:
                raise TimeoutError(f"process {pid} does not stop")
            time.sleep(0.01)


def child_of(pid: int, timeout: float = 10) -> int:
    """The only child of a process, waited for; 0 if the process ended before it was seen."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            ended = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return 0
        if children:
            return int(children[0])
        if ended:
            return 0
        time.sleep(0.002)
    raise Unavailable(f"process {pid} starts nothing")


def _run_in_pipes(
    argv: Sequence[str], given: str, env: Mapping[str, str], timeout: float
) -> "subprocess.CompletedProcess[str]":
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=env, text=True) as outer:
        try:
            stdout, stderr = outer.communicate(given, timeout)
        except BaseException:
            _kill(outer)
            raise
    return subprocess.CompletedProcess(argv, outer.returncode, stdout, stderr)


def _run_in_terminal(
    argv: Sequence[str], typed: str, env: Mapping[str, str], timeout: float
) -> "subprocess.CompletedProcess[str]":
    ours, theirs = pty.openpty()
    _do_not_echo(theirs)
    environment = {"TERM": "xterm", **env}
    outer = subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, text=True, start_new_session=True
    )
    os.close(theirs)
    try:
        os.write(ours, typed.encode())
        screen = _read_all(ours, time.monotonic() + timeout, argv, timeout)
        status = outer.wait(timeout)
    except BaseException:
        _kill(outer)
        raise
    finally:
        os.close(ours)
    return subprocess.CompletedProcess(argv, status, screen.replace("\r\n", "\n"), "")


def _kill(outer: "subprocess.Popen[str]") -> None:
    """End the program; the outer process reaps it and ends. The other way round leaves a zombie."""
    inner = child_of(outer.pid)
    if inner:
        os.kill(inner, signal.SIGKILL)
    outer.wait(10)


def _do_not_echo(terminal: int) -> None:
    # The text is typed before the program has set its terminal up, and would be on the screen twice.
    settings = termios.tcgetattr(terminal)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, settings)


def _read_all(terminal: int, until: float, argv: Sequence[str], timeout: float) -> str:
    read = bytearray()
    while select.select([terminal], [], [], max(0.0, until - time.monotonic()))[0]:
        try:
            block = os.read(terminal, 65536)
        except OSError as error:
            # How a terminal says that nobody has it open any more.
            if error.errno == errno.EIO:
                return read.decode(errors="replace")
            raise
        read += block
    raise subprocess.TimeoutExpired(argv, timeout, read.decode(errors="replace"))
