"""S: what is left after something was killed, with a real Docker Engine where it has a part in it."""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orlop.testing.voltest.bench import Bench
from orlop.testing.voltest.checks import check, expect, not_applicable
from orlop.testing.voltest.crashes import Ledger

_SEED = 20

# Nothing that was written may depend on what the container's death flushed.
_WRITE = "echo {0} > /data/{0}; sync"


@check("S1", needs="engine")
def docker_cp_leaves_a_running_container_its_volume(bench: Bench) -> None:
    """``docker cp`` mounts and unmounts with the container's own ID; what the container writes later must land."""
    volume = bench.volume()
    container = bench.container(volume)
    bench.inside(container, _WRITE.format("early"))
    bench.docker("cp", f"{container}:/data/early", str(bench.machine.folder))
    bench.docker("cp", "/etc/hostname", f"{container}:/data/copied")
    other = bench.container(volume)

    bench.inside(container, _WRITE.format("late"))

    found = bench.inside(other, "cat /data/early /data/late; [ -s /data/copied ] && echo copied")
    expect(found.split() == ["early", "late", "copied"], f"after docker cp another container finds: {found}")
    bench.drop(container, other)
    expect(bench.once(volume, "cat /data/late") == "late", "the write after docker cp is lost")
    bench.docker("volume", "rm", volume)


@check("S2", needs="engine")
def a_container_starts_after_the_engine_was_killed(bench: Bench) -> None:
    """After kill -9 of dockerd the container is started with the ID that was never unmounted."""
    volume = bench.volume()
    container = bench.container(volume)
    bench.inside(container, _WRITE.format("early"))

    bench.engine.kill9()
    bench.start_engine()
    bench.docker("start", container)

    expect(bench.inside(container, "cat /data/early") == "early", "the data is not there")
    bench.drop(container)
    bench.docker("volume", "rm", volume)


@check("S3", needs="engine")
def a_volume_can_be_removed_after_the_engine_was_killed(bench: Bench) -> None:
    """After kill -9 of dockerd a removed container is never unmounted: a mere count would keep the volume for ever."""
    volume = bench.volume()
    container = bench.container(volume)

    bench.engine.kill9()
    bench.start_engine()
    bench.drop(container)

    bench.docker("volume", "rm", volume)
    expect(volume not in bench.docker("volume", "ls", "-q").split(), "it is still listed")


@check("S4", needs="engine")
def a_container_keeps_its_volume_when_the_plugin_is_killed(bench: Bench) -> None:
    """After kill -9 of the plugin and its restart the same container goes on reading and writing, without a restart."""
    _needs_a_plugin(bench)
    volume = bench.volume()
    container = bench.container(volume)
    bench.inside(container, _WRITE.format("early"))

    bench.crash_plugin()
    bench.plugin.start()

    found = bench.eventually(container, f"cat /data/early; {_WRITE.format('late')}; cat /data/late")
    expect(found.split() == ["early", "late"], f"the container reads {found}")
    bench.drop(container)
    expect(bench.once(volume, "cat /data/late") == "late", "the next container does not see the data")
    bench.docker("volume", "rm", volume)


@check("S5", needs="engine")
def a_restarted_plugin_knows_its_volumes_and_their_users(bench: Bench) -> None:
    """Definitions, labels and holders are there after an orderly restart: a volume in use is still not removed."""
    _needs_a_plugin(bench)
    idle, used = bench.volume("--label", "tier=gold"), bench.volume()
    container = bench.container(used)

    bench.restart_plugin()

    listed = bench.docker("volume", "ls", "-q").split()
    expect({idle, used} <= set(listed), f"of {idle} and {used} only these are listed: {listed}")
    expect(_labels(bench, idle) == {"tier": "gold"}, f"labels are {_labels(bench, idle)}")
    answer = bench.wire.remove(used)
    expect(not answer.ok, f"the plugin removed a volume that a container uses: {answer}")
    bench.drop(container)
    bench.docker("volume", "rm", idle, used)


@check("S6", needs="engine")
def live_restore_keeps_the_volume(bench: Bench) -> None:
    """With ``--live-restore`` containers outlive an engine upgrade; their volume does too, and can be removed later."""
    with _live_restore(bench):
        volume = bench.volume()
        container = bench.container(volume)
        pid = bench.docker("inspect", "-f", "{{.State.Pid}}", container)

        bench.engine.restart()

        expect(bench.docker("inspect", "-f", "{{.State.Pid}}", container) == pid, "the container was restarted")
        found = bench.inside(container, f"{_WRITE.format('late')}; cat /data/late")
        expect(found == "late", f"the container reads {found}")
        bench.drop(container)
        bench.docker("volume", "rm", volume)


@check("S7", needs="engine")
def a_plugin_that_starts_after_the_engine_delays_it_little(bench: Bench) -> None:
    """The plugin comes a second later: the engine answers in 15 s, labels are kept, and ``restart: always`` runs."""
    _needs_a_plugin(bench)
    volume = bench.volume("--label", "tier=gold")
    container = bench.container(volume, "--restart=always")
    bench.engine.stop()
    bench.hang_up()
    bench.plugin.stop()

    late = threading.Timer(1, bench.plugin.launch)
    late.start()
    start = time.monotonic()
    bench.start_engine()
    took = time.monotonic() - start
    late.join()

    expect(took < 15, f"the engine took {took:.0f} s to answer")
    expect(_labels(bench, volume) == {"tier": "gold"}, f"labels are {_labels(bench, volume)}")
    bench.eventually(container, _WRITE.format("late"))
    bench.drop(container)
    bench.docker("volume", "rm", volume)


@check("S8", needs="engine")
def labels_survive_a_start_while_the_backend_is_down(bench: Bench) -> None:
    """Engine and plugin start while the storage server is silent: one failed Get would cost the labels for ever."""
    volume = bench.volume("--label", "tier=gold", options=bench.backend_options("server"))
    bench.engine.stop()
    bench.hang_up()
    if bench.controlled:
        bench.plugin.stop()

    with bench.backend_hangs():
        if bench.controlled:
            bench.plugin.start()
        bench.start_engine()
        listed = bench.docker("volume", "ls", "-q", timeout=30).split()
        expect(volume in listed, f"the volume is gone, there are {listed}")
        labels = _labels(bench, volume)

    expect(labels == {"tier": "gold"}, f"labels are {labels}")
    expect(bench.once(volume, "echo back > /data/f; cat /data/f") == "back", "unusable when the backend is back")
    bench.docker("volume", "rm", volume)


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

    answers = {name: bench.wire.create(name, bench.options(name)) for name in [bench.name() for _ in range(10)]}
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


def _needs_a_plugin(bench: Bench) -> None:
    if not bench.controlled:
        not_applicable("part of dockerd: there is no plugin to stop")


def _labels(bench: Bench, volume: str) -> object:
    return json.loads(bench.docker("volume", "inspect", "-f", "{{json .Labels}}", volume, timeout=30))


@contextmanager
def _live_restore(bench: Bench) -> Iterator[None]:
    bench.engine.stop()
    usual, bench.engine.options = bench.engine.options, (*bench.engine.options, "--live-restore")
    try:
        bench.start_engine()
        yield
    finally:
        bench.engine.options = usual
        bench.engine.stop()


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


def _fill(disk: Path) -> None:
    """Write until not one more byte fits."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
