"""Whether a mounted filesystem answers, found out without waiting for one that never does."""

import contextlib
import os
import threading
from pathlib import Path

from orlop.errors import Unavailable
from orlop.kernel import syscalls as sc


class _Question(threading.Thread):
    """Asks the filesystem at ``target``, also for ``file``; ``answer`` is None as long as there is none."""

    def __init__(self, target: Path, file: str) -> None:
        super().__init__(daemon=True, name=f"probe {target.name}")
        self.target, self.file = target, file
        self.answer: bool | None = None

    def run(self) -> None:
        # Only a question about the whole filesystem always reaches a FUSE server: attributes may be remembered.
        try:
            self.answer = bool(os.statvfs(self.target)) and (not self.file or self._knows(self.target / self.file))
        except OSError:
            self.answer = False

    def _knows(self, path: Path) -> bool:
        """Whether it can be said of a file that it is there, or is not."""
        with contextlib.suppress(FileNotFoundError):
            path.lstat()
        return True


_asked: dict[Path, _Question] = {}
"""Questions without an answer yet: each is asked once, however often somebody wants to know."""


def answers(target: Path, patience: float, file: str = "") -> bool:
    """True if the filesystem mounted at ``target`` answers, False if nothing is mounted or its server has died.

    With ``file`` it has to say of that name, too, whether there is such a file. Raises `Unavailable` if neither is
    known after ``patience`` seconds: then whatever is mounted must stay.
    """
    try:
        found = sc.mount_at(target)
        if found is None:
            return False
        # A block device's filesystem is the kernel's own and always answers.
        answered = bool(os.statvfs(target)) if found.on_device else _ask(target, patience, file)
        # Where a mount went meanwhile with its server, the folder below it has answered.
        return answered and sc.mount_at(target) == found
    except OSError:
        return False


def is_silent(target: Path) -> bool:
    """Whether somebody has asked the filesystem at ``target`` and still waits; that alone keeps it in use."""
    question = _asked.get(target)
    return question is not None and question.is_alive()


def wait_for(path: Path, patience: float) -> None:
    """Returns as soon as the filesystem that ``path`` is on answers, whatever it says.

    Raises `Unavailable` after ``patience`` seconds.
    """
    _ask(path, patience)


def _ask(target: Path, patience: float, file: str = "") -> bool:
    question = _asked.get(target)
    if question is None or question.answer is not None:
        question = _Question(target, file)
        question.start()  # before others can wait for it
        _asked[target] = question
    question.join(patience)
    if question.answer is None:
        raise Unavailable(f"the filesystem at '{target}' does not answer; its server may be down")
    _asked.pop(target, None)
    return question.answer
