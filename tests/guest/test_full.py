"""Servers without room: their error reaches who writes, nothing is damaged, and with room again all goes on."""

import errno

import pytest
from tests.full import fill, goes_on
from tests.guest.plugin import Plugin
from tests.guest.servers import Servers
from tests.guest.test_remote import login


@pytest.mark.part("D2", "D3")
@pytest.mark.parametrize("kind", ["nfs", "nfs with bindfs", "cifs"])
def test_a_full_server_is_an_error_for_the_writer_and_freeing_room_heals_it(
    plugin: Plugin, servers: Servers, kind: str
) -> None:
    small = servers.small_share if kind == "cifs" else servers.small_export
    if kind == "cifs":
        plugin.create("full", driver="cifs", share="//127.0.0.1/small", **login(servers))
    else:
        owner = {"uid": "0", "filemode": "0600"} if "bindfs" in kind else {}
        plugin.create("full", driver="nfs", share="127.0.0.1:/small", **owner)
    place = plugin.mount("full")

    error = fill(place)
    on_server = (small / "kept").read_text()
    verbs = [plugin.ask(verb, Name="full", ID="c2")[0] for verb in ("Get", "List", "Path", "Mount", "Unmount")]
    goes_on(place)
    plugin.unmount("full")

    assert error == errno.ENOSPC
    assert on_server == "kept"
    assert verbs == [200] * 5
    assert (small / "new").read_text() == "new"
    assert plugin.mounts() == []
    assert plugin.check() == "all is well"
