"""I: asking twice, losing an answer, racing: a state that was asked for twice is the state that was asked for."""

import threading
import time

from orlop.testing.voltest.bench import Bench
from orlop.testing.voltest.checks import check, expect, not_applicable
from orlop.testing.voltest.wire import PODMAN, PODMAN_ID, Answer


@check("I1")
def creating_twice_is_creating_once(bench: Bench) -> None:
    """Swarm and retries create a volume that is there: it succeeds, and the data stays."""
    name, holder = bench.create(), bench.holder()
    bench.write(bench.mount(name, holder), "kept", "before")
    bench.unmount(name, holder)

    answer = bench.wire.create(name, bench.options(name))

    expect(answer.ok, f"second create: {answer}")
    expect(bench.wire.names().count(name) == 1, f"list has it {bench.wire.names().count(name)} times")
    bench.expect_content(bench.mount(name, holder), "kept", "before")


@check("I2")
def creating_again_with_other_options_is_refused(bench: Bench) -> None:
    """Success would tell the user that the volume now has the options that it does not have."""
    if bench.subject.other_options is None:
        not_applicable("no second set of options is known for this plugin")
    name = bench.create()

    answer = bench.wire.create(name, bench.other_options(name))

    expect(not answer.ok, f"create with {bench.other_options(name)} over {bench.options(name)}: {answer}")
    expect(bench.wire.get(name).ok, "the refused create took the volume away")


@check("I3")
def removing_twice_ends_where_removing_once_does(bench: Bench) -> None:
    """A second Remove is answered in JSON, either way; the name stays unknown, and free."""
    name = bench.create()
    expect((first := bench.wire.remove(name)).ok, f"remove: {first}")

    again = bench.wire.remove(name)

    expect(again.ok or again.err, f"second remove: {again}")
    expect(not bench.wire.get(name).ok and name not in bench.wire.names(), "it is still known after remove")
    bench.create(name)


@check("I4")
def a_mounted_volume_is_not_removed(bench: Bench) -> None:
    """Remove while somebody has it mounted is refused, and every byte stays."""
    name, holder = bench.create(), bench.holder()
    mountpoint = bench.mount(name, holder)
    bench.write(mountpoint, "precious", "data")

    answer = bench.wire.remove(name)

    expect(not answer.ok, f"remove while mounted: {answer}")
    bench.expect_content(mountpoint, "precious", "data")
    bench.unmount(name, holder)
    expect((last := bench.wire.remove(name)).ok, f"remove after the last unmount: {last}")


@check("I5")
def the_same_holder_may_mount_twice(bench: Bench) -> None:
    """``docker cp`` mounts and unmounts with the running container's own ID: the container must keep its data."""
    name, holder = bench.create(), bench.holder()
    mountpoint = bench.mount(name, holder)
    bench.write(mountpoint, "running", "data")
    where = bench.device(mountpoint)

    for _ in range(2):
        expect(bench.mount(name, holder) == mountpoint, "the second mount is elsewhere")
        bench.unmount(name, holder)
        expect(bench.device(mountpoint) == where, "the first mount was taken away by the second's unmount")
        bench.expect_content(mountpoint, "running", "data")

    bench.unmount(name, holder)
    expect((answer := bench.wire.remove(name)).ok, f"remove after as many unmounts as mounts: {answer}")


@check("I6")
def a_stranger_cannot_unmount_for_others(bench: Bench) -> None:
    """An Unmount with an ID that never mounted (Docker sends them after a failed Mount) takes nothing from anybody."""
    name, holder = bench.create(), bench.holder()
    mountpoint = bench.mount(name, holder)
    bench.write(mountpoint, "mine", "data")
    where = bench.device(mountpoint)

    answer = bench.wire.unmount(name, bench.holder())

    expect(answer.ok or answer.err, f"unmount with an unknown ID: {answer}")
    expect(bench.device(mountpoint) == where, "an unmount with an unknown ID took the mount away")
    bench.expect_content(mountpoint, "mine", "data")
    expect(not bench.wire.remove(name).ok, "it was removed although its holder never unmounted")


@check("I7")
def parallel_creates_of_one_name_make_one_volume(bench: Bench) -> None:
    """All nodes and services that name a volume create it at once: all succeed, with one storage behind."""
    # A race is not lost every time.
    for _ in range(5):
        name = bench.name()
        answers = _create_in_parallel(bench, name)
        refused = [answer for answer in answers if isinstance(answer, str) or not answer.ok]
        expect(not refused, f"{len(refused)} of {len(answers)} creates were refused: {(refused or [''])[0]}")
        expect(bench.wire.names().count(name) == 1, f"list has it {bench.wire.names().count(name)} times")

    one, two = bench.holder(), bench.holder()
    bench.write(bench.mount(name, one), "shared", "data")
    bench.expect_content(bench.mount(name, two), "shared", "data")


@check("I8")
def a_mount_whose_answer_was_lost_can_be_asked_again(bench: Bench) -> None:
    """The connection breaks, dockerd repeats with no body, the user starts the container again: it starts."""
    name, holder = bench.create(), bench.holder()
    with bench.dial() as wire:
        wire.send("/VolumeDriver.Mount", wire.encode({"Name": name, "ID": holder}))
        time.sleep(0.5)
    expect(not (empty := bench.wire.raw("/VolumeDriver.Mount", b"")).ok, f"mount with no body: {empty}")

    mountpoint = bench.mount(name, holder)

    bench.write(mountpoint, "after", "data")
    bench.unmount(name, holder)
    bench.wire.unmount(name, holder)  # of the mount whose answer was lost; whether it counted is the plugin's business
    expect((answer := bench.wire.remove(name)).ok, f"remove after both unmounts: {answer}")


@check("I9")
def podmans_one_id_may_mount_again(bench: Bench) -> None:
    """Podman has one ID for all mounts, and after a crash mounts again with no Unmount: one Unmount then frees it."""
    name = bench.create()
    with bench.dial(PODMAN) as wire:
        first, second = wire.mount(name, PODMAN_ID), wire.mount(name, PODMAN_ID)
        expect(first.ok and second.ok, f"first mount: {first}; second: {second}")
        expect(first.json.get("Mountpoint") == second.json.get("Mountpoint"), f"{first} is not {second}")
        bench.write(str(second.json["Mountpoint"]), "podman", "data")

        expect((answer := wire.unmount(name, PODMAN_ID)).ok, f"unmount: {answer}")
        expect((answer := wire.remove(name)).ok, f"remove after Podman's one unmount: {answer}")


def _create_in_parallel(bench: Bench, name: str) -> list[Answer | str]:
    """What 32 creates at once were answered, or why they were not."""
    answers: list[Answer | str] = []

    def create() -> None:
        with bench.dial() as wire:
            try:
                answers.append(wire.create(name, bench.options(name)))
            except OSError as error:
                answers.append(repr(error))

    threads = [threading.Thread(target=create) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
