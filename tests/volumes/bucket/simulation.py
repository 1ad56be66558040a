"""Several hosts on one store, in time that only the simulation moves: the real protocol under every kind of bad luck.

Each host is a thread, and one thread runs at a time: whoever asks the store or sleeps gives the turn back, and a seeded
random chooses who goes on and what befalls it. So a seed is a history, the same each time.
"""

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from orlop.errors import Conflict, Unavailable
from orlop.objects.store import MemoryStore, ObjectInfo, ObjectStore
from orlop.volumes.bucket.lease import Clock


class Killed(BaseException):
    """The host is killed in the middle of what it does."""


@dataclass
class Luck:
    """How often what happens, of 1."""

    lost: float = 0.08
    """Of requests: an error, and nothing was done."""
    unknown: float = 0.08
    """Of writes: an error, and it was done; or will be, up to a minute later."""
    pause: float = 0.03
    """Of requests: the host stands still before or after, up to a minute and a half."""
    kill: float = 0.004
    drift: float = 0.08
    """Clocks run so much faster or slower at most."""


class World:
    """Time, the store, and the hosts."""

    def __init__(self, seed: int, luck: Luck | None = None, hours: float = 0.25) -> None:
        self.chance, self.luck, self.end = random.Random(seed), luck or Luck(), hours * 3600
        self.store, self.now, self.hosts = MemoryStore(), 0.0, []
        self.late: list[tuple[float, Callable[[], object]]] = []
        self.changes: list[tuple[str, bytes]] = []
        self.over, self.stopping = threading.Event(), False
        self.failure: BaseException | None = None

    def host(self, name: str, life: "Callable[[Host], None]") -> None:
        """A host whose program is ``life``: begun again after each kill, until time is up."""
        self.hosts.append(Host(self, name, life))

    def run(self) -> None:
        """Play until time is up. An error of a host's program is raised."""
        for host in self.hosts:
            host.thread.start()
        try:
            self.next().go_on()
            assert self.over.wait(120)
        finally:
            self.stopping = True
            for host in self.hosts:
                host.go_on()
                host.thread.join(10)
        if self.failure:
            raise self.failure

    def next(self) -> "Host | None":
        """Who goes on now; None if the play is over."""
        self.now = max(self.now, min(host.wakes for host in self.hosts))
        for late in [each for each in self.late if each[0] <= self.now]:
            self.late.remove(late)
            late[1]()
        if self.now >= self.end or self.failure:
            self.over.set()
            return None
        return self.chance.choice([host for host in self.hosts if host.wakes <= self.now])


class Host:
    """One host's thread, its clock, and its way to the store."""

    def __init__(self, world: World, name: str, life: "Callable[[Host], None]") -> None:
        self.world, self.name, self.life = world, name, life
        chance = world.chance
        self.rate = 1 + chance.uniform(-1, 1) * world.luck.drift
        self.wall_offset = chance.uniform(-86400, 86400)
        self.wakes, self.lives = chance.uniform(0, 20), 0
        self._turn = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._live, name=name, daemon=True)
        self.store: ObjectStore = _Way(self)
        self.clock = Clock(self._time, self._sleep, lambda: self._time() + self.wall_offset)

    def go_on(self) -> None:
        """It is this host's turn."""
        self._turn.release()

    def wait(self, seconds: float) -> None:
        """So much true time passes for it, and the turn goes to another."""
        self._wait(seconds)
        if self.world.stopping or self.world.chance.random() < self.world.luck.kill:
            raise Killed

    def _wait(self, seconds: float) -> None:
        self.wakes = self.world.now + seconds
        after = self.world.next()
        if after is not self:
            if after:
                after.go_on()
            self._turn.acquire()

    def _time(self) -> float:
        return 1000 + self.world.now * self.rate

    def _sleep(self, seconds: float) -> None:
        self.wait(seconds / self.rate)

    def _live(self) -> None:
        self._turn.acquire()
        while not self.world.stopping:
            self.lives += 1
            try:
                self.life(self)
            except Killed:
                if not self.world.stopping:
                    self._wait(self.world.chance.uniform(0, 40))
            except BaseException as failure:  # noqa: BLE001 - it is the test's to judge
                self.world.failure = failure
                self._wait(0)


class _Way:
    """The store as a host reaches it."""

    def __init__(self, host: Host) -> None:
        self._host, self._world = host, host.world

    def stat(self, key: str) -> ObjectInfo:
        return self._ask(lambda: self._world.store.stat(key))

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        yield self._ask(lambda: b"".join(self._world.store.read(key, start, end)))

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        body = b"".join(data)

        def do() -> ObjectInfo:
            info = self._world.store.write(key, [body], only_if=only_if)
            self._world.changes.append((key, body))
            return info

        chance = self._world.chance
        if chance.random() < self._world.luck.unknown:
            self._pass()
            self._world.late.append((self._world.now + chance.choice([0, 1, 60]) * chance.random(), _ignoring(do)))
            self._pass()
            raise Unavailable("no answer")
        return self._ask(do)

    def _ask(self, do: Callable[[], object]) -> object:
        self._pass()
        if self._world.chance.random() < self._world.luck.lost:
            raise Unavailable("not reached")
        try:
            return do()
        finally:
            self._pass()

    def _pass(self) -> None:
        chance = self._world.chance
        paused = chance.random() < self._world.luck.pause
        self._host.wait(chance.uniform(0, 90) if paused else chance.expovariate(20))


def _ignoring(do: Callable[[], object]) -> Callable[[], None]:
    def attempt() -> None:
        try:
            do()
        except Conflict:
            return

    return attempt


@dataclass
class History:
    """What hosts did, in the order of true time."""

    writes: list[tuple[float, int, str]] = field(default_factory=list)
    """When, in which epoch, in whose session a container wrote."""
    published: list[tuple[int, str]] = field(default_factory=list)
    """What a host was told is published: epoch and snapshot."""
    restored: list[tuple[int, str]] = field(default_factory=list)
    """What a host restored when its epoch began."""
