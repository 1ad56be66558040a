"""S, the second half: what the plugin itself remembers after kills, a power cut and a full disk."""

import random
import threading
from pathlib import Path

from orlop.testing.voltest.bench import Bench
from orlop.testing.voltest.checks import check, expect, not_applicable
from orlop.testing.voltest.crashes import Ledger
from orlop.testing.voltest.wire import Answer

_SEED = 20


@check("S9", needs="control")
def what_was_acknowledged_survives_kills_at_random_times(bench: Bench) -> None:
    """After kill -9 in create, mount, unmount or remove what was answered holds, and nothing stale stays mounted."""
    dice, ledger = random.Random(_SEED), Ledger()  # noqa: S311 - the same times in every run
    mounts = _mounts(bench)

    for _ in range(bench.kills):
        killer = threading.Timer(dice.uniform(0.001, 0.08), bench.plugin.kill9)
        killer.start()
        ledger.work_until_it_breaks(bench, dice)
        killer.join()
        bench.crash_plugin()
        bench.plugin.start()
        ledger.compare(bench)

    ledger.end_all(bench)
    stale = [mount for mount in _mounts(bench) if mount not in mounts]
    expect(not stale, f"after everything was unmounted and removed there is still {stale[:3]}")


@check("S10", needs="control")
def a_reboot_forgets_users_and_keeps_volumes(bench: Bench) -> None:
    """After a power cut nobody holds anything: the volume is there, mounts for others, and can be removed."""
    name, before, after = bench.create(), bench.holder(), bench.holder()
    mountpoint = bench.mount(name, before)
    bench.write(mountpoint, "kept", "data")

    bench.hang_up()
    bench.machine.power_off()
    bench.machine.boot()
    variable = bench.subject.reboot_variable
    bench.plugin.start({variable: "11111111-2222-4333-8444-555555555555"} if variable else None)

    expect(name in bench.wire.names(), "the volume is gone")
    bench.expect_content(bench.mount(name, after), "kept", "data")
    bench.unmount(name, after)
    expect((answer := bench.wire.remove(name)).ok, f"remove after the only unmount since the reboot: {answer}")


@check("S11", needs="control")
def a_full_disk_loses_no_definition(bench: Bench) -> None:
    """With its disk full the plugin answers, keeps what it acknowledged over a kill, and refuses what it cannot."""
    disk = _small_disk(bench)
    made = [bench.create() for _ in range(5)]
    _fill(disk)

    answers = _create_until_refused(bench)
    unanswered = [name for name in made if not bench.wire.get(name).ok]
    expect(not unanswered, f"with a full disk {len(unanswered)} of {len(made)} volumes are not found")
    bench.crash_plugin()
    (disk / "filler").unlink()
    bench.plugin.start()

    listed = bench.wire.names()
    promised = made + [name for name, answer in answers.items() if answer.ok]
    lost = [name for name in promised if name not in listed]
    refused = [name for name, answer in answers.items() if not answer.ok and name in listed]
    expect(not lost, f"{len(lost)} of {len(promised)} acknowledged volumes are gone")
    expect(not refused, f"{len(refused)} volumes whose create was refused exist")
    bench.create()


@check("S12")
def a_frozen_node_loses_its_lease(bench: Bench) -> None:
    """Two nodes, one volume: when the first is frozen the second takes over, and the first's late write is refused."""
    scope = bench.wire.call("Capabilities").json.get("Capabilities", {}).get("Scope", "local")
    if scope == "local":
        not_applicable("scope is local: a volume belongs to one node")
    not_applicable(
        "scope is global: this needs two nodes on one backend, which this suite cannot set up for any plugin"
    )


def _mounts(bench: Bench) -> list[str]:
    """The mount points of the machine."""
    return [line.split()[1] for line in bench.machine.run(["cat", "/proc/self/mounts"]).stdout.splitlines()]


def _small_disk(bench: Bench) -> Path:
    """Give the plugin a fresh folder on a disk of 16 MiB, and return that disk as this process reaches it."""
    if bench.subject.disk == "{state}":
        bench.renew()
        bench.spoil()
        bench.machine.boot()
        bench.plugin.state.mkdir()
        bench.machine.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(bench.plugin.state)])
        bench.plugin.start()
    return bench.see(bench.plugin.fill(bench.subject.disk))


def _create_until_refused(bench: Bench) -> dict[str, Answer]:
    """Create volumes until five were refused, or 60 made: some plugins have room in a file that they grew before."""
    answers: dict[str, Answer] = {}
    while len(answers) < 60 and sum(not answer.ok for answer in answers.values()) < 5:
        name = bench.name()
        answers[name] = bench.wire.create(name, bench.options(name))
    return answers


def _fill(disk: Path) -> None:
    """Write until not one more byte fits."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
