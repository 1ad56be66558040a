"""Who uses a volume: what engines said is a hint, what the kernel shows is the truth.

An engine that is killed never gives back what it took, so a hold counts without the kernel only for a while, and
only while the process that took it runs: time enough to start a container.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from orlop.kernel import processes
from orlop.mount import Mounter
from orlop.state import Hold, State


class Uses:
    """The uses of one host's volumes, in the boot ``boot``; ``grace`` is in seconds."""

    def __init__(self, state: State, mounter: Mounter, boot: str, now: Callable[[], float], grace: float):
        """``now`` is the clock."""
        self._state, self._mounter, self._boot, self._now, self._grace = state, mounter, boot, now, grace

    def of(self, key: str, target: Path) -> list[str]:
        """Who uses volume ``key``, mounted at ``target``, in words; empty if nobody does."""
        seen = [f"process {pid} ({processes.command(pid)})" for pid in self.seen(target)]
        return seen + [f"{hold.holder.client} for {hold.holder.id[:12]}" for hold in self.vouched(key)]

    def seen(self, target: Path) -> Sequence[int]:
        """The processes that see what is mounted at ``target`` elsewhere."""
        return self._mounter.holders([target]).get(target, ())

    def vouched(self, key: str | None = None) -> list[Hold]:
        """The holds, of one volume or all, that count without the kernel: recent ones of living engines."""
        young = self._now() - self._grace
        return [hold for hold in self._state.holds(key) if hold.since > young and self._is_alive(hold)]

    def _is_alive(self, hold: Hold) -> bool:
        if hold.boot != self._boot:
            return False
        holder = hold.holder
        return holder.pid == 0 or processes.start_time(holder.pid) == holder.started
