"""P: what goes over the socket, in the forms in which engines send it and need it answered."""

import json
import re
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from orlop.testing.voltest.bench import Bench
from orlop.testing.voltest.checks import check, expect, not_applicable
from orlop.testing.voltest.wire import DOCKER, PODMAN, Answer, Wire

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")

# Docker checks no names for plugins: all of these arrive as they were typed.
_BAD_NAMES = ("../../escape", "..", ".", "a/b", "line\nbreak", "nul\0byte")


@check("P1")
def activation_says_volume_driver(bench: Bench) -> None:
    """The handshake, which has no body, is answered with VolumeDriver to Docker and to Podman; or nothing works."""
    for dialect in (DOCKER, PODMAN):
        with bench.dial(dialect) as wire:
            answer = wire.activate()
            expect(answer.ok and "VolumeDriver" in answer.json.get("Implements", ()), f"activate: {answer}")


@check("P2")
def requests_are_understood_as_engines_send_them(bench: Bench) -> None:
    """A volume's life works without Content-Type, with an empty Host, a newline after the JSON, and in Podman's way."""
    for dialect in (DOCKER, PODMAN):
        name, holder = bench.name(), bench.holder()
        with bench.dial(dialect) as wire:
            for verb, answer in (
                ("create", wire.create(name, bench.options(name))),
                ("get", wire.get(name)),
                ("mount", wire.mount(name, holder)),
                ("path", wire.path(name)),
                ("list", wire.call("List")),
                ("unmount", wire.unmount(name, holder)),
                ("remove", wire.remove(name)),
            ):
                expect(answer.ok, f"{verb}: {answer}")


@check("P3")
def an_empty_body_is_an_error_and_changes_nothing(bench: Bench) -> None:
    """A call whose connection broke is repeated with no body: success would make or mount a volume called nothing."""
    bench.create()
    before = bench.wire.names()

    for verb in ("Create", "Get", "Path", "Mount", "Unmount", "Remove"):
        for payload in (b"", b"{}\n", b'{"Name":""}\n'):
            answer = bench.wire.raw(f"/VolumeDriver.{verb}", payload)
            expect(not answer.ok, f"{verb} with body {payload!r}: {answer}")

    expect(sorted(bench.wire.names()) == sorted(before), f"volumes were {before}, are {bench.wire.names()}")


@check("P4")
def errors_are_a_status_and_json(bench: Bench) -> None:
    """An error is not status 200 and has an ``Err``: Podman looks only at the status, and reads nothing but JSON."""
    name = bench.name()

    for verb in ("Get", "Path", "Mount"):
        answer = bench.wire.call(verb, {"Name": name, "ID": bench.holder()})
        expect(answer.status != 200, f"{verb} of an unknown volume has status 200: {answer}")
        expect(answer.err, f"{verb} of an unknown volume has no Err: {answer}")


@check("P5")
def null_options_are_no_options(bench: Bench) -> None:
    """Docker sends ``null`` for ``-v name:/path`` and anonymous volumes; it means the same as ``{}``."""
    verdicts = []
    for options in ("null", "{}"):
        name = bench.name()
        answer = bench.wire.call("Create", {"Name": name, "Opts": json.loads(options)})
        expect(answer.ok or answer.err, f"create with options {options}: {answer}")
        expect(bench.wire.get(name).ok == answer.ok, f"create said {answer}, get says {bench.wire.get(name)}")
        verdicts.append(answer)

    expect(verdicts[0].ok == verdicts[1].ok, f"null: {verdicts[0]}; {{}}: {verdicts[1]}")


@check("P6")
def an_unknown_volume_is_an_error_without_a_volume(bench: Bench) -> None:
    """Docker asks Get before every verb and believes a Volume that it gets; only an Err sends it on to Create."""
    answer = bench.wire.get(bench.name())

    expect(not answer.ok and answer.err, f"get: {answer}")
    expect(not answer.json.get("Volume"), f"get answers an error and a volume: {answer}")


@check("P7")
def a_mountpoint_is_never_empty(bench: Bench) -> None:
    """For an empty mountpoint Docker 20.10 shows the container the engine's own bundle folder, writable."""
    name, holder = bench.create(), bench.holder()
    before = bench.wire.path(name).json.get("Mountpoint") or "/"
    expect(before.startswith("/"), f"path before mount: '{before}'")

    mountpoint = bench.mount(name, holder)

    expect(bench.see(mountpoint).is_dir() and mountpoint != "/", f"mount: '{mountpoint}' is no folder")
    again = bench.wire.path(name)
    expect(again.json.get("Mountpoint") == mountpoint, f"mount says '{mountpoint}', path says {again}")


@check("P8")
def an_unknown_verb_is_an_error(bench: Bench) -> None:
    """A verb from a newer engine must not look as if it had been done."""
    answer = bench.wire.call("Levitate", {"Name": bench.create()})

    expect(answer.status >= 400, f"VolumeDriver.Levitate: {answer}")


@check("P9")
def names_that_are_paths_are_refused(bench: Bench) -> None:
    """Docker passes ``../../x``, slashes and newlines on; a plugin that joins paths writes, and deletes, elsewhere."""
    for name in (*_BAD_NAMES, str(bench.elsewhere)):
        answer = bench.wire.create(name, bench.options("plain"))
        expect(not answer.ok, f"create {name!r}: {answer}")
        expect(name not in bench.wire.names(), f"create {name!r} was refused, yet it is listed")


@check("P10")
def an_unknown_option_is_refused(bench: Bench) -> None:
    """A mistyped option that is ignored gives a volume that is not what was asked for, found out months later."""
    name = bench.name()

    answer = bench.wire.create(name, {**bench.options(name), bench.subject.bad_option: "1"})

    expect(not answer.ok, f"create with {bench.subject.bad_option}=1: {answer}")
    expect(not bench.wire.get(name).ok, "create was refused, yet the volume is there")


@check("P11", needs="control")
def a_mount_that_hangs_holds_up_nobody_else(bench: Bench) -> None:
    """While one Mount waits for a dead server, 100 Gets and another volume's life go on: no lock over everything."""
    stuck, other = bench.create_on_backend(), bench.create()
    with bench.backend.hangs():
        hanging = _in_background(lambda wire: wire.mount(stuck, bench.holder()), bench)
        time.sleep(0.3)
        slow = _slowest([lambda wire: wire.get(other)] * 100, bench)
        expect(slow < 2, f"of 100 gets during a mount that hangs the slowest took {slow:.1f} s")
        holder = bench.holder()
        bench.mount(other, holder)
        bench.unmount(other, holder)
    hanging.join(20)


@check("P12", needs="control")
def get_and_list_do_not_wait_for_the_backend(bench: Bench) -> None:
    """Docker asks Get before everything, and forgets labels where it fails: it is answered at once, from memory."""
    name = bench.create_on_backend()
    with bench.backend.hangs():
        with bench.dial(timeout=5) as wire:
            times = [_seconds_of_get_and_list(wire, name) for _ in range(20)]

    median = statistics.median(times) * 1000 / 2
    expect(median < 10, f"get and list take {median:.1f} ms while the backend hangs")


@check("P13")
def capabilities_say_a_scope(bench: Bench) -> None:
    """``local`` or ``global``: cluster tools read it once per engine life."""
    answer = bench.wire.call("Capabilities")

    scope = answer.json.get("Capabilities", {}).get("Scope")
    expect(answer.ok and scope in ("local", "global"), f"capabilities: {answer}")


@check("P14")
def a_creation_time_is_rfc3339_and_stays(bench: Bench) -> None:
    """For a ``CreatedAt`` that it cannot parse dockerd believes that the volume does not exist; and birthdays stay."""
    name, holder = bench.create(), bench.holder()
    created = _created(bench.wire.get(name))
    if not created:
        not_applicable("gives no CreatedAt; the protocol leaves it out too")
    expect(_RFC3339.fullmatch(created), f"CreatedAt is '{created}'")
    time.sleep(1.1)  # the coarsest clocks in use tick once a second

    bench.mount(name, holder)
    bench.unmount(name, holder)
    if bench.controlled:
        bench.restart_plugin()

    listed = {one["Name"]: one.get("CreatedAt") for one in bench.wire.call("List").json["Volumes"]}
    now = _created(bench.wire.get(name))
    expect(now == created, f"CreatedAt was {created}, is {now}")
    expect(listed[name] in (None, created), f"get says {created}, list says {listed[name]}")


def _seconds_of_get_and_list(wire: Wire, name: str) -> float:
    start = time.monotonic()
    answer = wire.get(name)
    expect(answer.ok and name in wire.names(), f"get while the backend hangs: {answer}")
    return time.monotonic() - start


def _created(answer: Answer) -> str:
    return str(answer.json.get("Volume", {}).get("CreatedAt") or "")


def _in_background(call: Callable[[Wire], Answer], bench: Bench) -> threading.Thread:
    """Make a call on its own connection; whatever comes of it is lost."""

    def run() -> None:
        with bench.dial(timeout=60) as wire:
            with suppress(OSError):
                call(wire)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def _slowest(calls: list[Callable[[Wire], Answer]], bench: Bench) -> float:
    """Seconds that the slowest of these concurrent calls took, at most 5 each."""
    times: list[float] = []

    def run(call: Callable[[Wire], Answer]) -> None:
        start = time.monotonic()
        with bench.dial(timeout=5) as wire:
            with suppress(OSError):
                call(wire)
        times.append(time.monotonic() - start)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(times)
