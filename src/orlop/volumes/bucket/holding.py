"""A process that only holds: the files that others wait for are never shown empty because somebody was killed.

When the last process that has a fanotify group open dies, the kernel lets all who wait go on, and they read zeros. So
two small processes have it open beside whoever fills the files: the first answers whoever asks for it, the other waits
for its death, takes its place and makes another. They hold the filesystem, too: marks go when it is unmounted. The
keeper has both open as well (`Kept`), and starts the two anew if they are killed at once with whoever fills.

    python -m orlop.volumes.bucket.holding LISTENER GROUP ROOT    three open files, by number
"""

import array
import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from orlop.volumes.bucket.sessions import Place

UNHELD = "the processes that held back readers of files that are not here yet are dead; attach it again"
"""Why a volume is stopped of which nobody has anything open that holds."""
_GIVE, _END = b"g", b"e"
_PATIENCE = 5.0
"""Seconds for an answer that takes none."""


def start(place: Path, group: int, root: int) -> None:
    """Let two processes hold the open files ``group`` and ``root``, to be found at ``place``, until `end`."""
    from orlop.kernel.processes import Child, reap

    end(place)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, _short(place) as path:
        listener.bind(path)
        listener.listen()
        files = (listener.fileno(), group, root)
        argv = [sys.executable, "-P", "-m", __name__, *map(str, files)]
        nothing = subprocess.DEVNULL
        reap(Child(argv, stdin=nothing, stdout=nothing, stderr=nothing, pass_fds=files, start_new_session=True))


def held(place: Path) -> tuple[int, int] | None:
    """The open files that are held at ``place``, the group and the root; None if nobody holds any."""
    with contextlib.suppress(OSError), _asked(place, _GIVE) as asked:
        message, parts, _, _ = asked.recvmsg(1, socket.CMSG_SPACE(8), socket.MSG_CMSG_CLOEXEC)
        if message and parts:
            group, root = array.array("i", parts[0][2])
            return group, root
    return None


def end(place: Path) -> None:
    """Nobody has to hold anything at ``place`` any more; nobody does is fine."""
    with contextlib.suppress(OSError), _asked(place, _END) as asked:
        asked.recv(1)
    place.unlink(missing_ok=True)


class Kept:
    """What is held at ``place``, held by this process too; a context, that is entered and left by one thread."""

    def __init__(self, place: Path) -> None:
        """Nothing is kept before `look` has found it."""
        self._place = place
        self._files: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files or ():
            os.close(file)

    def look(self) -> bool:
        """Take what is held, unless that was done; whether anybody else holds it."""
        found = held(self._place)
        if self._files is None:
            self._files = found
        else:
            for file in found or ():
                os.close(file)
        return found is not None

    def hold_again(self) -> bool:
        """Nobody else holds it any more: let two processes do so; whether there was anything to be held."""
        if self._files is not None:
            start(self._place, *self._files)
        return self._files is not None


def forget(place: "Place") -> None:
    """Nobody waits for files of a volume any more, or everybody gets an error by now."""
    end(place.hold)
    for path in (place.wait, place.numbers):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _asked(place: Path, what: bytes) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as asked, _short(place) as path:
        asked.settimeout(_PATIENCE)
        asked.connect(path)
        asked.sendall(what)
        yield asked


@contextlib.contextmanager
def _short(place: Path) -> Iterator[str]:
    """A path for a socket at ``place``: the kernel takes 107 bytes."""
    folder = os.open(place.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{place.name}"
    finally:
        os.close(folder)


def main(listener: socket.socket, files: tuple[int, int]) -> None:
    """Hold ``files``, as the first or as the one who waits, until told that it is over."""
    with contextlib.suppress(OSError):
        # Out of memory, the kernel kills others first: these two have next to none.
        Path("/proc/self/oom_score_adj").write_text("-1000")
    while True:
        ours, theirs = socket.socketpair()
        if os.fork():
            theirs.close()
            _serve(listener, ours, files)
        else:
            ours.close()
            if theirs.recv(1) == _END:
                os._exit(0)
            theirs.close()


def _serve(listener: socket.socket, other: socket.socket, files: tuple[int, int]) -> None:
    """Answer, until the other process is dead."""
    poll = select.poll()
    for each in (listener, other):
        poll.register(each, select.POLLIN)
    while True:
        if other.fileno() in dict(poll.poll()):
            other.close()
            os.wait()
            return
        with contextlib.suppress(OSError):
            asked, _ = listener.accept()
            with asked:
                _answer(asked, other, files)


def _answer(asked: socket.socket, other: socket.socket, files: tuple[int, int]) -> None:
    asked.settimeout(_PATIENCE)
    match asked.recv(1):
        case b"g":
            asked.sendmsg([_GIVE], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
        case b"e":
            other.sendall(_END)
            os.wait()
            for file in files:
                os.close(file)
            asked.sendall(_END)
            os._exit(0)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), (int(sys.argv[2]), int(sys.argv[3])))
