"""Who uses a volume: what engines said is a hint, what the kernel shows is the truth.

An engine that is killed never gives back what it took. So where somebody asks to remove a volume, a hold counts
without the kernel only while it is young and the process that took it runs: time enough to start a container. But
nothing is taken down by itself because of its age: somebody may have mounted it to work in it without a container.
"""

import os
from collections.abc import Callable, Iterable

from orlop.kernel import processes
from orlop.state import Hold, Holder, State

_OURS = "orlop"
"""The client whose holds are of commands that work in a volume themselves."""


def holder(what: str) -> Holder:
    """This process, while it does ``what``."""
    pid = os.getpid()
    return Holder(_OURS, f"{what}-{pid}", pid, processes.start_time(pid) or 0)


class Uses:
    """The uses of one host's volumes, in the boot ``boot``; ``grace`` is in seconds."""

    def __init__(self, state: State, boot: str, now: Callable[[], float], grace: float):
        """``now`` is the clock."""
        self._state, self._boot, self._now, self._grace = state, boot, now, grace

    def of(self, key: str, seen: Iterable[int]) -> list[str]:
        """Who uses volume ``key``, which these processes have ``seen``, in words; empty if nobody does."""
        words = [f"process {pid} ({processes.command(pid)})" for pid in seen]
        return words + [f"{hold.holder.client} for {hold.holder.id[:12]}" for hold in self.vouched(key)]

    def vouched(self, key: str | None = None) -> list[Hold]:
        """The holds, of one volume or all, that count without the kernel: recent ones of living engines, and ours.

        A command of ours gives back what it holds, or ends; where nothing is mounted, nothing else tells of it.
        """
        young = self._now() - self._grace
        holds = (hold for hold in self._state.holds(key) if hold.since > young or hold.holder.client == _OURS)
        return [hold for hold in holds if self._is_alive(hold)]

    def standing(self) -> frozenset[str]:
        """The keys with a hold that nothing disproves: not an earlier boot, nor the end of the engine that took it."""
        return frozenset(hold.key for hold in self._state.holds() if not self._is_disproved(hold))

    def takers(self, key: str) -> list[str]:
        """The engines that hold volume ``key``, used or not, in words. What orlop works in itself it gives back."""
        return sorted({hold.holder.client for hold in self._state.holds(key)} - {_OURS})

    def _is_disproved(self, hold: Hold) -> bool:
        # An engine that counts for itself is no daemon: its processes end while its containers run.
        return hold.boot != self._boot or (hold.holder.counted and not self._is_running(hold))

    def _is_alive(self, hold: Hold) -> bool:
        return hold.boot == self._boot and self._is_running(hold)

    def _is_running(self, hold: Hold) -> bool:
        holder = hold.holder
        return holder.pid == 0 or processes.start_time(holder.pid) == holder.started
