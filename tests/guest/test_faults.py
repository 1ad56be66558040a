"""Servers that die and servers that fall silent under a volume: nothing is lost, and nobody waits for ever.

Both kinds meet each fault at the same time, since there is much to wait for.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.guest.plugin import Plugin
from tests.guest.servers import Servers
from tests.guest.test_remote import login
from tests.journeys.lab import Lab

from orlop.testing.waiting import eventually

KINDS = ("nfs", "cifs")
# Each line reaches the server before the next one is written, until it is told to stop; then it says how many there
# are. After an error it does what it is told to: the kernel's cifs gives one to a call that is under way while its
# server dies, hard or not.
_WRITER = """
i=0
until [ -e $3 ]; do i=$((i+1)); until echo $i >>$0 && sync $0; do $2 || break 2; done; done
echo $i >$1
"""


@pytest.fixture
def both(plugin: Plugin, servers: Servers) -> Iterator[Callable[..., list[object]]]:
    """Does something for both kinds at once."""
    with ThreadPoolExecutor(2) as pool:
        yield lambda work: list(pool.map(work, KINDS))


def options(kind: str, servers: Servers) -> dict[str, str]:
    if kind == "nfs":
        return {"driver": "nfs", "share": "127.0.0.1:/export"}
    return {"driver": "cifs", "share": "//127.0.0.1/share", **login(servers)}


def folder(kind: str, servers: Servers) -> Path:
    return servers.export if kind == "nfs" else servers.share


@pytest.mark.part("D2", "D3")
def test_while_a_server_is_dead_hard_mounts_wait_soft_ones_give_errors_and_other_volumes_go_on(
    plugin: Plugin, servers: Servers, both: Callable[..., list[object]]
) -> None:
    lab, ended, stop = plugin.lab, {}, plugin.lab.folder / "stop"
    stop.unlink(missing_ok=True)
    plugin.create("other")
    for kind in KINDS:
        soft = {"soft": "true", **({"timeo": "20", "retrans": "1"} if kind == "nfs" else {})}
        plugin.create(kind, **options(kind, servers))
        plugin.create(f"soft-{kind}", **options(kind, servers), **soft)
        for name in (kind, f"soft-{kind}"):
            ended[name] = lab.folder / f"{name}.ended"
            ended[name].unlink(missing_ok=True)
            place = str(plugin.mount(name)).removeprefix(str(lab.inside("/")))
            after_error = "sleep 0.2" if name == "cifs" else "false"
            lab.machine.spawn(["bash", "-c", _WRITER, f"{place}/{name}", str(ended[name]), after_error, str(stop)])
    eventually(lambda: all((folder(kind, servers) / kind).exists() for kind in KINDS))

    servers.kill()
    both(lambda kind: eventually(ended[f"soft-{kind}"].exists, 100))
    waiting = not (ended["nfs"].exists() or ended["cifs"].exists())
    errors = both(lambda kind: Plugin(lab).refused("Mount", kind, by="c2"))
    took = []
    for verb in ("List", "Get", "Mount", "Unmount"):
        plugin.ask(verb, Name="other", ID="c1")
        took.append(plugin.took)
    servers.start()
    stop.touch()
    both(lambda kind: eventually(lambda: ended[kind].exists() and ended[kind].read_text(), 120))

    assert waiting
    assert all("does not answer" in error for error in errors)
    assert max(took) < 5
    for kind in KINDS:
        # With cifs, the line with the error may be there twice.
        lines = (folder(kind, servers) / kind).read_text().split()
        assert list(dict.fromkeys(lines) if kind == "cifs" else lines) == lines_to(ended[kind])
    for kind in KINDS:
        plugin.unmount(f"soft-{kind}")
        plugin.unmount(kind)
    assert plugin.mounts() == []
    assert plugin.check() == "all is well"


@pytest.mark.part("D2", "D3")
def test_a_server_that_falls_silent_holds_up_no_verb_for_ever_and_leaves_nothing_behind(
    plugin: Plugin, servers: Servers, both: Callable[..., list[object]]
) -> None:
    def timed(verb: str) -> Callable[[str], tuple[str, float]]:
        def work(kind: str) -> tuple[str, float]:
            mine = Plugin(plugin.lab)
            return str(mine.ask(verb, Name=kind, ID="c1")[1]["Err"]), mine.took

        return work

    for kind in KINDS:
        plugin.create(kind, **options(kind, servers))
        (plugin.mount(kind) / "file").write_text("kept")
    servers.silence()

    unmounted = both(timed("Unmount"))
    left = plugin.mounts()
    mounted = both(timed("Mount"))
    servers.speak()

    assert left == []
    assert all(took < 40 for _, took in unmounted)
    assert all("no answer within" in error and took < 50 for error, took in mounted)
    both(lambda kind: came_back(plugin.lab, kind))
    assert [(folder(kind, servers) / "file").read_text() for kind in KINDS] == ["kept", "kept"]
    for kind in KINDS:
        plugin.unmount(kind)
    assert plugin.mounts() == []
    assert plugin.check() == "all is well"


def lines_to(ended: Path) -> list[str]:
    """What a writer has written that ended with so many lines."""
    return [str(number) for number in range(1, int(ended.read_text()) + 1)]


def came_back(lab: Lab, kind: str) -> None:
    """It can be mounted again, soon, and what was there is there."""
    mine = Plugin(lab)
    eventually(lambda: mine.ask("Mount", Name=kind, ID="c1")[0] == 200, 120)
    assert (mine.mount(kind, by="c2") / "file").read_text() == "kept"
    mine.unmount(kind, by="c2")
