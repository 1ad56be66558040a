"""Servers of network filesystems are found by name, as Docker's local driver finds them."""

import pytest

from orlop.errors import Unavailable
from orlop.volumes.addresses import with_address


@pytest.mark.part("V12")
@pytest.mark.parametrize(
    ("kind", "device", "options", "expected"),
    [
        ("nfs", ":/export", ("addr=127.0.0.1", "rw"), ("addr=127.0.0.1", "rw")),
        ("nfs", ":/export", ("rw", "addr=localhost"), ("addr={localhost}", "rw")),
        ("nfs4", "localhost:/export", ("vers=4.2",), ("addr={localhost}", "vers=4.2")),
        ("nfs", "[::1]:/export", (), ("addr=::1",)),
        ("cifs", "//localhost/share", ("username=u",), ("addr={localhost}", "username=u")),
        ("cifs", "//nas/share", ("ip=127.0.0.1",), ("addr=127.0.0.1",)),
        ("nfs", "/no/host", ("rw",), ("rw",)),
        ("tmpfs", "tmpfs", ("size=1m",), ("size=1m",)),
    ],
)
def test_the_kernel_gets_an_address_whoever_named_the_host(
    kind: str, device: str, options: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    found = with_address(kind, device, options)

    assert found in [tuple(word.format(localhost=ip) for word in expected) for ip in ("127.0.0.1", "::1")]


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 300])
def test_a_server_without_an_address_is_named(host: str) -> None:
    with pytest.raises(Unavailable, match=f"server '{host}' has no address"):
        with_address("nfs", ":/export", (f"addr={host}",))
