"""Killing a plugin in the middle of its work, and holding it to what it had answered by then."""

import http.client
import random
import time
from dataclasses import dataclass, field
from typing import Literal

from orlop.testing.voltest.bench import Bench
from orlop.testing.voltest.checks import Failed, expect

_AT_MOST = 6
_Verb = Literal["create", "mount", "unmount", "remove"]


@dataclass(slots=True)
class Ledger:
    """What the plugin acknowledged; every volume has one holder of its own, and a file that says its name."""

    holders: dict[str, str] = field(default_factory=dict)
    """Volumes whose create was answered, and not their remove."""
    mountpoints: dict[str, str] = field(default_factory=dict)
    """Of those whose mount was answered, and not their unmount."""
    gone: set[str] = field(default_factory=set)
    """Volumes whose remove was answered."""
    cut_off: tuple[str, _Verb] | None = None
    """The call that was never answered: both outcomes are right."""

    def work_until_it_breaks(self, bench: Bench, dice: random.Random) -> None:
        """Create, mount, write, unmount and remove volumes until the plugin stops answering."""
        try:
            while True:
                if self.holders and dice.random() < len(self.holders) / _AT_MOST:
                    self._end(bench, dice.choice(sorted(self.holders)))
                else:
                    self._begin(bench)
        except (OSError, http.client.HTTPException):
            bench.hang_up()

    def compare(self, bench: Bench) -> None:
        """End the check as failed if the restarted plugin contradicts what was acknowledged."""
        listed = set(bench.wire.names())
        self._settle_the_cut_off(bench, listed)
        lost, back = self.holders.keys() - listed, self.gone & listed
        expect(not lost, f"created, acknowledged, and gone after a kill: {', '.join(lost)}")
        expect(not back, f"removed, acknowledged, and back after a kill: {', '.join(back)}")
        for name, mountpoint in self.mountpoints.items():
            _expect_soon(bench, mountpoint, name)

    def end_all(self, bench: Bench) -> None:
        """Unmount and remove everything; all of it must go."""
        for name in sorted(self.holders):
            self._end(bench, name)

    def _begin(self, bench: Bench) -> None:
        name, holder = bench.name(), bench.holder()
        self.cut_off = (name, "create")
        bench.create(name)
        self.holders[name] = holder
        self.cut_off = (name, "mount")
        mountpoint = bench.mount(name, holder)
        self.cut_off = None
        bench.write(mountpoint, "name", name)
        self.mountpoints[name] = mountpoint

    def _end(self, bench: Bench, name: str) -> None:
        if name in self.mountpoints:
            del self.mountpoints[name]
            self.cut_off = (name, "unmount")
            bench.unmount(name, self.holders[name])
        self.cut_off = (name, "remove")
        answer = bench.wire.remove(name)
        expect(answer.ok, f"remove of an unmounted volume: {answer}")
        del self.holders[name]
        self.gone.add(name)
        self.cut_off = None

    def _settle_the_cut_off(self, bench: Bench, listed: set[str]) -> None:
        """Find out what became of the call that was cut off, and take its volume out of the game."""
        if self.cut_off is None:
            return
        (name, verb), self.cut_off = self.cut_off, None
        holder = self.holders.pop(name, bench.holder())
        if name not in listed:
            expect(verb in ("create", "remove"), f"gone after a kill during {verb}")
            return
        # Whether the mount counted is unknown; an unmount too many must be harmless.
        bench.wire.unmount(name, holder)
        bench.wire.unmount(name, holder)
        answer = bench.wire.remove(name)
        expect(answer.ok, f"remove after a kill during {verb}: {answer}")
        self.gone.add(name)
        listed.discard(name)


def _expect_soon(bench: Bench, mountpoint: str, name: str) -> None:
    """The volume's file is there; a plugin that has to mount again may take a moment for it."""
    until = time.monotonic() + 3
    while True:
        try:
            return bench.expect_content(mountpoint, "name", name)
        except Failed as failure:
            if time.monotonic() > until:
                raise Failed(f"{failure} after a kill, though its mount was acknowledged") from None
        time.sleep(0.1)
