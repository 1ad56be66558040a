"""S: what users and their containers notice when the engine or the plugin is killed, restarted or late."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from orlop.testing.voltest.bench import Bench
from orlop.testing.voltest.checks import check, expect, not_applicable

# Nothing that was written may depend on what the container's death flushed.
_WRITE = "echo {0} > /data/{0}; sync"


@check("S1", needs="engine")
def docker_cp_leaves_a_running_container_its_volume(bench: Bench) -> None:
    """``docker cp`` mounts and unmounts with the container's own ID; what the container writes later must land."""
    volume = bench.volume()
    container = bench.docker.container(volume)
    bench.docker.inside(container, _WRITE.format("early"))
    bench.docker("cp", f"{container}:/data/early", str(bench.machine.folder))
    bench.docker("cp", "/etc/hostname", f"{container}:/data/copied")
    other = bench.docker.container(volume)

    bench.docker.inside(container, _WRITE.format("late"))

    found = bench.docker.inside(other, "cat /data/early /data/late; [ -s /data/copied ] && echo copied")
    expect(found.split() == ["early", "late", "copied"], f"after docker cp another container finds: {found}")
    bench.docker.drop(container, other)
    expect(bench.docker.once(volume, "cat /data/late") == "late", "the write after docker cp is lost")
    bench.docker("volume", "rm", volume)


@check("S2", needs="engine")
def a_container_starts_after_the_engine_was_killed(bench: Bench) -> None:
    """After kill -9 of dockerd the container is started with the ID that was never unmounted."""
    volume = bench.volume()
    container = bench.docker.container(volume)
    bench.docker.inside(container, _WRITE.format("early"))

    bench.docker.engine.kill9()
    bench.docker.start()
    bench.docker("start", container)

    expect(bench.docker.inside(container, "cat /data/early") == "early", "the data is not there")
    bench.docker.drop(container)
    bench.docker("volume", "rm", volume)


@check("S3", needs="engine")
def a_volume_can_be_removed_after_the_engine_was_killed(bench: Bench) -> None:
    """After kill -9 of dockerd a removed container is never unmounted: a mere count would keep the volume for ever."""
    volume = bench.volume()
    container = bench.docker.container(volume)

    bench.docker.engine.kill9()
    bench.docker.start()
    bench.docker.drop(container)

    bench.docker("volume", "rm", volume)
    expect(volume not in bench.docker("volume", "ls", "-q").split(), "it is still listed")


@check("S4", needs="engine")
def a_container_keeps_its_volume_when_the_plugin_is_killed(bench: Bench) -> None:
    """After kill -9 of the plugin and its restart the same container goes on reading and writing, without a restart."""
    _needs_a_plugin(bench)
    volume = bench.volume()
    container = bench.docker.container(volume)
    bench.docker.inside(container, _WRITE.format("early"))

    bench.crash_plugin()
    bench.plugin.start()

    found = bench.docker.eventually(container, f"cat /data/early; {_WRITE.format('late')}; cat /data/late")
    expect(found.split() == ["early", "late"], f"the container reads {found}")
    bench.docker.drop(container)
    expect(bench.docker.once(volume, "cat /data/late") == "late", "the next container does not see the data")
    bench.docker("volume", "rm", volume)


@check("S5", needs="engine")
def a_restarted_plugin_knows_its_volumes_and_their_users(bench: Bench) -> None:
    """Definitions, labels and holders are there after an orderly restart: a volume in use is still not removed."""
    _needs_a_plugin(bench)
    idle, used = bench.volume("--label", "tier=gold"), bench.volume()
    container = bench.docker.container(used)

    bench.restart_plugin()

    listed = bench.docker("volume", "ls", "-q").split()
    expect({idle, used} <= set(listed), f"of {idle} and {used} only these are listed: {listed}")
    expect(_labels(bench, idle) == {"tier": "gold"}, f"labels are {_labels(bench, idle)}")
    answer = bench.wire.remove(used)
    expect(not answer.ok, f"the plugin removed a volume that a container uses: {answer}")
    bench.docker.drop(container)
    bench.docker("volume", "rm", idle, used)


@check("S6", needs="engine")
def live_restore_keeps_the_volume(bench: Bench) -> None:
    """With ``--live-restore`` containers outlive an engine upgrade; their volume does too, and can be removed later."""
    with _live_restore(bench):
        volume = bench.volume()
        container = bench.docker.container(volume)
        pid = bench.docker("inspect", "-f", "{{.State.Pid}}", container)

        bench.docker.engine.restart()

        expect(bench.docker("inspect", "-f", "{{.State.Pid}}", container) == pid, "the container was restarted")
        found = bench.docker.inside(container, f"{_WRITE.format('late')}; cat /data/late")
        expect(found == "late", f"the container reads {found}")
        bench.docker.drop(container)
        bench.docker("volume", "rm", volume)


@check("S7", needs="engine")
def a_plugin_that_starts_after_the_engine_delays_it_little(bench: Bench) -> None:
    """The plugin comes a second later: the engine answers in 15 s, labels are kept, and ``restart: always`` runs."""
    _needs_a_plugin(bench)
    volume = bench.volume("--label", "tier=gold")
    container = bench.docker.container(volume, "--restart=always")
    bench.docker.engine.stop()
    bench.hang_up()
    bench.plugin.stop()

    late = threading.Timer(1, bench.plugin.launch)
    late.start()
    start = time.monotonic()
    bench.docker.start()
    took = time.monotonic() - start
    late.join()

    expect(took < 15, f"the engine took {took:.0f} s to answer")
    expect(_labels(bench, volume) == {"tier": "gold"}, f"labels are {_labels(bench, volume)}")
    bench.docker.eventually(container, _WRITE.format("late"))
    bench.docker.drop(container)
    bench.docker("volume", "rm", volume)


@check("S8", needs="engine")
def labels_survive_a_start_while_the_backend_is_down(bench: Bench) -> None:
    """Engine and plugin start while the storage server is silent: one failed Get would cost the labels for ever."""
    volume = bench.volume("--label", "tier=gold", options=bench.backend_options("server"))
    bench.docker.engine.stop()
    bench.hang_up()
    if bench.controlled:
        bench.plugin.stop()

    with bench.backend.hangs():
        if bench.controlled:
            bench.plugin.start()
        bench.docker.start()
        listed = bench.docker("volume", "ls", "-q", timeout=30).split()
        expect(volume in listed, f"the volume is gone, there are {listed}")
        labels = _labels(bench, volume)

    expect(labels == {"tier": "gold"}, f"labels are {labels}")
    expect(bench.docker.once(volume, "echo back > /data/f; cat /data/f") == "back", "unusable when the backend is back")
    bench.docker("volume", "rm", volume)


def _needs_a_plugin(bench: Bench) -> None:
    if not bench.controlled:
        not_applicable("part of dockerd: there is no plugin to stop")


def _labels(bench: Bench, volume: str) -> object:
    return json.loads(bench.docker("volume", "inspect", "-f", "{{json .Labels}}", volume, timeout=30))


@contextmanager
def _live_restore(bench: Bench) -> Iterator[None]:
    bench.docker.engine.stop()
    usual, bench.docker.engine.options = bench.docker.engine.options, (*bench.docker.engine.options, "--live-restore")
    try:
        bench.docker.start()
        yield
    finally:
        bench.docker.engine.options = usual
        bench.docker.engine.stop()
