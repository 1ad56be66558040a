"""A mount that has not been made yet.

`Mount` is what volume drivers return and what one module, `orlop.kernel.mounter`, makes. It reads like a line of
``fstab(5)``: a type, a source, and options in mount(8)'s words (``ro``, ``nosuid``, ``bind``, ``loop``, or whatever the
filesystem understands).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount: ``type`` and ``source`` as in mount(8), ``options`` in order.

    A bind mount has type ``none`` and the option ``bind`` or ``rbind``. The option ``loop`` says that ``source`` is
    a file which holds the filesystem.

    ``program`` is the command line of a FUSE program that makes the mount and serves it in the foreground; in it,
    ``{target}`` stands for the place. Without one, the kernel mounts.

    ``secrets`` are names and values that nobody is shown. The kernel takes them as options; of a program's command
    line, ``{NAME}`` becomes the path of a file with the value, and the one named ``stdin`` is its standard input.

    ``question`` is a name that no file has, for a program that makes its mount before it has asked its server anything:
    it is asked for that name, and what it says tells whether it can serve.

    ``holds_back`` says of a program that it may have something to write when all files are closed and the mount is
    taken away; if not, nothing is lost however it ends.
    """

    type: str
    source: str
    options: tuple[str, ...] = ()
    secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    program: tuple[str, ...] = ()
    question: str = ""
    holds_back: bool = True

    @classmethod
    def bind(cls, source: Path, *options: str) -> "Mount":
        """The folder or file ``source`` itself, seen at another place."""
        return cls("none", str(source), ("bind", *options))

    @property
    def is_bind(self) -> bool:
        """Whether this shows something that is already mounted elsewhere."""
        return "bind" in self.options or "rbind" in self.options


class Mounter(Protocol):
    """Makes mounts and tells the truth about them.

    The kernel's is `orlop.kernel.mounter.KernelMounter`; tests that need no root use
    `orlop.testing.paper.PaperMounter`, which only remembers.
    """

    def mount(self, mounts: Sequence[Mount], target: Path) -> None:
        """Make ``mounts`` at ``target``, the last on top: all of them or none.

        ``target`` is made if it is missing. Raises `Unavailable` with the kernel's reason, or because a server does not
        answer: nobody waits for one for ever.
        """

    def unmount(self, target: Path) -> None:
        """Take away everything mounted at ``target`` and the empty folder itself; nothing there is fine.

        Raises `InUse` if a process still has files open there, `Busy` if its server does not answer in time: the mount
        has gone then, and what was written last gets to the server when that is back. Raises `Unavailable` if the mount
        has gone, but its program has crashed while it wrote the rest.
        """

    def mounted(self, target: Path) -> bool:
        """Whether ``target`` is a mount point that answers; a dead FUSE mount is not.

        Raises `Unavailable` if its server gives no answer in time.
        """

    def died(self) -> Iterable[Path]:
        """The places whose FUSE program has ended although nobody took the mount away."""

    def heal(self, mounts: Sequence[Mount], target: Path) -> None:
        """Make ``mounts`` in the place of those that died at ``target``, and wherever processes see these.

        Files that were open stay broken; files opened from now on are served. Raises `Unavailable` as `mount` does.
        """

    def holders(self, targets: Iterable[Path]) -> Mapping[Path, Sequence[int]]:
        """For each of ``targets`` that is used: one process of every mount namespace that shows it elsewhere.

        One look at the host answers for all of them.
        """

    def left(self, image: Path, target: Path) -> Sequence[int]:
        """As `holders`, for the filesystem in the file ``image`` that is mounted at ``target`` no more.

        So it is after a plugin was started anew: it has a new mount namespace, and containers have their old ones.
        """

    def reach(self, pid: int, target: Path) -> None:
        """See to it that process ``pid``, an engine, sees what is mounted at ``target``; one that ended needs nothing.

        Raises `Unavailable` if it does not see that.
        """
