"""Undoes what must not outlast this process, if it is killed before it can do so itself."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# Waits for a word; the end of the pipe instead of it is the end of the process that should have said it.
_SCRIPT = """trap '' HUP INT TERM; echo ready; read -r word || "$@" """


@contextmanager
def guarded(command: Sequence[str], files: Sequence[int] = ()) -> Iterator[None]:
    """If this process dies inside, ``command`` is run; begin with what it undoes only inside, and undo it there.

    It has the open ``files`` under the same numbers.
    """
    guard = subprocess.Popen(
        ["sh", "-c", _SCRIPT, "sh", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        pass_fds=files,
    )  # fmt: skip
    assert guard.stdin is not None and guard.stdout is not None  # noqa: S101, PT018 - pipes were asked for
    with guard.stdin as told, guard.stdout as ready:
        ready.readline()
        try:
            yield
        finally:
            told.write(b"done\n")
            told.flush()
            guard.wait()
