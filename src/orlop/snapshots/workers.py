"""Worker processes, kept busy: jobs go out, what they read comes back, and a worker that dies is an error."""

import contextlib
import fcntl
import sys
import threading
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Final, Generic, Protocol, Self, TypeVar

import msgspec

from orlop.errors import Unavailable
from orlop.snapshots import worker

if TYPE_CHECKING:
    import subprocess

_AHEAD: Final = 2
"""Jobs that wait at a worker: enough that it never waits, few enough that their results fit into memory."""
_PIPE: Final = 1 << 20
"""Bytes in a pipe: the most that everybody may ask for. A job goes through it with few changes of process."""
_PROGRAM: Final = """
import sys; sys.path[:] = {path!r}
from orlop.kernel.lasting import lasting
with lasting():
    from {module} import main
main()
"""

D = TypeVar("D", bound="HasNumber")


class HasNumber(Protocol):
    """A job or its outcome."""

    @property
    def number(self) -> int:
        """Which job it is."""


class Workers(Generic[D]):
    """A few processes running ``main`` of a module; a context. ``put`` gets what is done; an `Unavailable` is the end.

    Each gets ``start`` as its first message, inherits the folder ``root``, and answers jobs with ``outcome``.
    """

    def __init__(self, module: str, start: object, root: int, outcome: type[D],
                 put: Callable[[D | Unavailable], None], *, count: int) -> None:  # fmt: skip
        self._program = _PROGRAM.format(path=sys.path, module=module)
        self._start, self._root, self._outcome = worker.encode(start), root, outcome
        self._put, self._count = put, count
        self._processes: list[subprocess.Popen[bytes]] = []
        self._waiting: list[int] = []
        self._at: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            _pipe(process.stdin).close()

    @property
    def are_started(self) -> bool:
        """Whether there are processes yet."""
        return bool(self._processes)

    @property
    def are_full(self) -> bool:
        """Whether every worker has enough to do."""
        return len(self._at) >= _AHEAD * self._count

    def submit(self, job: HasNumber) -> None:
        """Give the job to the worker with the least to do; the first one starts them."""
        if not self._processes:
            self._launch()
        number = min(range(self._count), key=self._waiting.__getitem__)
        self._waiting[number] += 1
        self._at[job.number] = number
        try:
            worker.send(_pipe(self._processes[number].stdin), worker.encode(job))
        except BrokenPipeError:
            raise _ended() from None

    def received(self, done: D) -> None:
        """The job has come out of the results."""
        self._waiting[self._at.pop(done.number)] -= 1

    def _launch(self) -> None:
        # Not at the beginning: a save of what nobody has touched starts no process, and need not wait for this.
        import subprocess

        for _ in range(self._count):
            # -S and -I: nothing is imported but what is used, and nothing of the environment is obeyed.
            process = subprocess.Popen(
                [sys.executable, "-S", "-I", "-c", self._program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(self._root,),
            )
            for pipe in (_pipe(process.stdin), _pipe(process.stdout)):
                with contextlib.suppress(OSError):  # who has many pipes gets no more of them larger
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
            worker.send(_pipe(process.stdin), self._start)
            self._processes.append(process)
            self._waiting.append(0)
            threading.Thread(target=self._listen, args=(_pipe(process.stdout),), name="worker", daemon=True).start()

    def _listen(self, pipe: IO[bytes]) -> None:
        decoder = msgspec.msgpack.Decoder(self._outcome)
        with pipe:
            while message := worker.receive(pipe):
                self._put(decoder.decode(message))
        self._put(_ended())


def _ended() -> Unavailable:
    return Unavailable("a worker process ended before its work was done; there may be too little memory")


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101 - every process is started with both
    return pipe
