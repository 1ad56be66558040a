"""Network filesystems mount with what Docker's users say, which is less than the kernel wants to know."""

import pytest

from orlop.errors import Unavailable
from orlop.volumes.network import complete


@pytest.mark.part("V12")
@pytest.mark.parametrize(
    ("kind", "device", "options", "expected"),
    [
        ("nfs", ":/export", ("addr=127.0.0.1", "rw"), ("addr=127.0.0.1", "rw", "vers=3")),
        ("nfs", ":/export", ("rw", "addr=localhost", "nfsvers=4"), ("addr={localhost}", "rw", "nfsvers=4")),
        ("nfs4", "localhost:/export", ("vers=4.2",), ("addr={localhost}", "vers=4.2")),
        ("nfs", "[::1]:/export", ("v4.2",), ("addr=::1", "v4.2")),
        ("cifs", "//localhost/share", ("username=u",), ("addr={localhost}", "username=u")),
        ("cifs", "//nas/share", ("ip=127.0.0.1",), ("addr=127.0.0.1",)),
        ("nfs4", "/no/host", ("rw",), ("rw", "vers=4")),
        ("tmpfs", "tmpfs", ("size=1m",), ("size=1m",)),
    ],
)
def test_the_kernel_gets_an_address_whoever_named_the_host_and_a_version(
    kind: str, device: str, options: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    found = complete(kind, device, options)

    assert found in [tuple(word.format(localhost=ip) for word in expected) for ip in ("127.0.0.1", "::1")]


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 300])
def test_a_server_without_an_address_is_named(host: str) -> None:
    with pytest.raises(Unavailable, match=f"server '{host}' has no address"):
        complete("nfs", ":/export", (f"addr={host}",))
