"""The protocol of leases and heads as states and steps, small enough to look at every order in which they can happen.

It is written from the words in `orlop.volumes.bucket`, not from the code. What keeps it finite: a version is only ever
compared with the one that is there, so all that is kept of one is whether it still is; and a time is only ever an age,
which is not counted beyond the point where it decides.

Two questions are asked of it apart, which keeps them small. Of the lease: does time keep holders apart? Of the head
(``timed`` False): are epochs enough, if everybody may take the lease whenever it likes, as with clocks that are wrong?

A request is on its way (``sent``), then carried out or refused (``ok``, ``no``), then answered; any time may pass in
between. If the answer is lost, a request that was not carried out yet may be so at any later time, or never: it is a
``stray``.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

TTL, MARGIN = 3, 1
"""Ticks. Each clock may be one tick off in each measurement: as much as the two margins allow for together."""
_CAP = TTL + MARGIN


class Rules(NamedTuple):
    """The protocol's ideas, each of which can be left out."""

    conditional: bool = True
    margin: bool = True
    counts_from_before: bool = True
    claims: bool = True
    watches_anew: bool = True
    timed: bool = True


class Request(NamedTuple):
    kind: str
    """take, renew, release (of the lease); claim, publish (of the head)."""
    epoch: int
    session: int
    current: bool
    """Whether the version that it is conditional on is still there; once it is done, the version that it made."""
    stage: str = "sent"
    age: int = 0
    """Since it was sent, by its sender's clock."""
    off: bool = False
    """That clock has had its wrong tick since."""


class Host(NamedTuple):
    session: int
    epoch: int = 0
    """Of its lease; 0 is none."""
    age: int = 0
    """Since it sent what made it the holder; of who has none, since it saw this version first."""
    off: bool = False
    """Its clock has had its wrong tick."""
    current: bool = False
    """Whether the version of the lease that it knows is still there."""
    claimed: bool = False
    head_current: bool = False
    asks: Request | None = None
    stray: Request | None = None

    @property
    def believes(self) -> bool:
        releasing = self.asks is not None and self.asks.kind == "release"
        return self.epoch > 0 and self.age < TTL - MARGIN and not releasing


class State(NamedTuple):
    hosts: tuple[Host, ...]
    epoch: int = 0
    owner: int = 0
    """A session; 0 is nobody."""
    head: int = 0
    """The epoch in the head."""
    restored: int = 0
    """The newest epoch whose holder has read what it begins with."""
    kills: int = 0


class Broken(Exception):
    """A state or a step that must not be."""


def explore(rules: Rules, timed: bool, hosts: int = 2, epochs: int = 3, kills: int = 1) -> int:
    """The number of states that there are. Raises `Broken`, with the steps that lead there."""
    if not timed:
        rules = rules._replace(timed=False)
    first = State(tuple(Host(session) for session in range(1, hosts + 1)))
    came: dict[State, tuple[State, str] | None] = {first: None}
    queue = deque([first])
    while queue:
        state = queue.popleft()
        try:
            for step, after in _steps(state, rules, epochs, kills):
                after = _simplest(after, rules)
                if after not in came:
                    _check(after, rules)
                    came[after] = (state, step)
                    queue.append(after)
        except Broken as problem:
            raise Broken(f"{problem}: {' > '.join(_story(came, state))}") from None
    return len(came)


def _story(came: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    steps = []
    while (origin := came[state]) is not None:
        state, step = origin
        steps.append(step)
    return steps[::-1]


def _simplest(state: State, rules: Rules) -> State:
    """The same without what can make no difference any more."""
    return state._replace(hosts=tuple(_simpler(host, rules) for host in state.hosts))


def _simpler(host: Host, rules: Rules) -> Host:
    if rules.conditional and host.stray and not host.stray.current:
        host = host._replace(stray=None)
    asks, decided = host.asks, TTL - MARGIN if host.epoch else TTL + MARGIN
    if asks and (asks.age >= TTL - MARGIN or not rules.timed):
        host = host._replace(asks=asks._replace(age=TTL - MARGIN, off=False))
    if host.age >= decided or not rules.timed:
        host = host._replace(age=decided, off=False)
    if not host.epoch and not host.current and rules.watches_anew:
        host = host._replace(age=0, off=False)
    return host


def _check(state: State, rules: Rules) -> None:
    believers = [host for host in state.hosts if host.believes]
    if rules.timed and len(believers) > 1:
        raise Broken("two hosts believe to hold the lease")
    holders = [host.epoch for host in state.hosts if host.epoch]
    if len(holders) != len(set(holders)):
        raise Broken("two holders in one epoch")


def _steps(state: State, rules: Rules, epochs: int, kills: int) -> Iterator[tuple[str, State]]:
    if rules.timed:
        yield from _tick(state)
    for number, host in enumerate(state.hosts):
        who = f"n{number}"
        if host.stray:
            yield (
                f"{who}'s {host.stray.kind} arrives late",
                _carry_out(_with(state, number, stray=None), host.stray, rules),
            )
        if state.kills < kills:
            reborn = Host(host.session + len(state.hosts), stray=_still_on_its_way(host))
            yield f"{who} is killed", _with(state, number, reborn)._replace(kills=state.kills + 1)
        if host.asks:
            yield from _network(state, number, host, host.asks, rules)
        else:
            for step, after in _acts(state, host, rules, epochs):
                yield f"{who} {step}", _restored(_with(state, number, after), after)


def _tick(state: State) -> Iterator[tuple[str, State]]:
    yield "tick", state._replace(hosts=tuple(_older(host, 1) for host in state.hosts))
    for number, host in enumerate(state.hosts):
        if not (host.off or (host.asks and host.asks.off)):
            hosts = [_older(each, 1) for each in state.hosts]
            # Bad luck only: a holder's clock that is slow, another's that is fast.
            asks = host.asks and host.asks._replace(off=True)
            hosts[number] = _older(host._replace(off=True, asks=asks), 0 if host.epoch or asks else 2)
            yield f"tick, n{number}'s clock is off", state._replace(hosts=tuple(hosts))


def _older(host: Host, ticks: int) -> Host:
    asks = host.asks and host.asks._replace(age=min(host.asks.age + ticks, _CAP))
    return host._replace(age=min(host.age + ticks, _CAP), asks=asks)


def _network(state: State, number: int, host: Host, asks: Request, rules: Rules) -> Iterator[tuple[str, State]]:
    who = f"n{number}'s {asks.kind}"
    if asks.stage == "sent":
        yield f"{who} is carried out", _carry_out(state, asks, rules, number)
    else:
        answered = _answered(state, host, asks, rules)
        yield f"{who} is answered {asks.stage}", _restored(_with(state, number, answered), answered)
    lost = host._replace(asks=None, stray=_still_on_its_way(host))
    goes_on = lost.epoch and asks.kind != "release"
    yield f"{who} is not answered", _with(state, number, lost if goes_on else _without_lease(lost))


def _still_on_its_way(host: Host) -> Request | None:
    if host.asks and host.asks.stage == "sent":
        return host.asks._replace(age=0, off=False)
    return host.stray


def _carry_out(state: State, request: Request, rules: Rules, asking: int | None = None) -> State:
    """The store compares and writes, in one step."""
    of_lease = request.kind in ("take", "renew", "release")
    done = request.current or (of_lease and not rules.conditional)
    if done:
        state = _lease_written(state, request) if of_lease else _head_written(state, request)
    if asking is not None:
        asks = request._replace(stage="ok" if done else "no", current=done)
        state = _with(state, asking, asks=asks)
    return state


def _lease_written(state: State, request: Request) -> State:
    if request.epoch < state.epoch:
        raise Broken("the epoch of the lease goes back")
    hosts = tuple(
        host._replace(
            current=False,
            asks=_outdated(host.asks, ("take", "renew", "release")),
            stray=_outdated(host.stray, ("take", "renew", "release")),
        )
        for host in state.hosts
    )
    owner = 0 if request.kind == "release" else request.session
    return state._replace(hosts=hosts, epoch=request.epoch, owner=owner)


def _head_written(state: State, request: Request) -> State:
    if request.epoch < max(state.head, state.restored):
        raise Broken("the head of an old epoch replaces a newer one, or what was restored from")
    hosts = tuple(
        host._replace(
            head_current=False,
            asks=_outdated(host.asks, ("claim", "publish")),
            stray=_outdated(host.stray, ("claim", "publish")),
        )
        for host in state.hosts
    )
    return state._replace(hosts=hosts, head=request.epoch)


def _outdated(request: Request | None, kinds: tuple[str, ...]) -> Request | None:
    return request._replace(current=False) if request and request.kind in kinds else request


def _answered(state: State, host: Host, asks: Request, rules: Rules) -> Host:
    host, ok = host._replace(asks=None), asks.stage == "ok"
    if asks.kind in ("take", "renew") and ok:
        age = asks.age if rules.counts_from_before else 0
        claimed, head_current = (host.claimed, host.head_current) if host.epoch else (False, False)
        return host._replace(
            epoch=asks.epoch, age=age, off=asks.off, current=asks.current, claimed=claimed, head_current=head_current
        )
    if asks.kind == "release" or (asks.kind == "take" and not ok):
        return _without_lease(host)
    if asks.kind in ("claim", "publish") and ok:
        return host._replace(claimed=True, head_current=asks.current)
    # Refused: what is there is read, and is ours still, after an answer that was lost; or it is over.
    if asks.kind == "renew":
        return host._replace(current=True) if _is_owner(state, host) else _without_lease(host)
    if state.head > host.epoch:
        return _without_lease(host)
    return host._replace(claimed=state.head == host.epoch, head_current=True)


def _is_owner(state: State, host: Host) -> bool:
    return (state.owner, state.epoch) == (host.session, host.epoch)


def _without_lease(host: Host) -> Host:
    return Host(host.session, stray=host.stray)


def _restored(state: State, host: Host) -> State:
    return state._replace(restored=max(state.restored, host.epoch)) if host.claimed else state


def _acts(state: State, host: Host, rules: Rules, epochs: int) -> Iterator[tuple[str, Host]]:
    if host.epoch:
        yield from _acts_with_lease(state, host, rules)
        return
    if not host.current:
        age = 0 if rules.watches_anew else host.age
        yield "looks", host._replace(current=True, age=age, off=False)
        return
    patience = TTL + (MARGIN if rules.margin else -MARGIN)
    if state.owner == host.session:
        yield "finds its own", _ask(host, "renew", state.epoch, host.current)
    elif (state.owner == 0 or host.age >= patience) and state.epoch < epochs:
        yield "takes", _ask(host, "take", state.epoch + 1, host.current)


def _acts_with_lease(state: State, host: Host, rules: Rules) -> Iterator[tuple[str, Host]]:
    yield "renews", _ask(host, "renew", host.epoch, host.current)
    yield "releases", _ask(host, "release", host.epoch, host.current)
    if rules.timed:
        return
    if host.claimed:
        # Whatever it believes: it may be late, or have been asleep.
        yield "publishes", _ask(host, "publish", host.epoch, host.head_current)
    elif state.head <= host.epoch and not rules.claims:
        yield "only reads the head", host._replace(claimed=True, head_current=True)
    elif state.head <= host.epoch:
        yield "claims", _ask(host, "claim", host.epoch, current=True)
    else:
        yield "is fenced", _without_lease(host)


def _ask(host: Host, kind: str, epoch: int, current: bool) -> Host:
    return host._replace(asks=Request(kind, epoch, host.session, current))


def _with(state: State, number: int, host: Host | None = None, **changes: object) -> State:
    hosts = list(state.hosts)
    hosts[number] = (host or hosts[number])._replace(**changes)
    return state._replace(hosts=tuple(hosts))
