"""Buckets of real servers keep the contract, and a dead one says so in time and without secrets."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.objects import servers

from orlop.errors import NotFound, Unavailable
from orlop.objects.places import locate
from orlop.objects.store import ABSENT, ObjectStore
from orlop.testing.stores import ObjectStoreContract


class TestSeaweedFS(ObjectStoreContract):
    examples = 8

    @pytest.fixture
    def store(self, seaweed_store: ObjectStore) -> ObjectStore:
        return seaweed_store


class TestAzurite(ObjectStoreContract):
    examples = 6

    @pytest.fixture
    def store(self, azurite_store: ObjectStore) -> ObjectStore:
        return azurite_store


_VERBS: dict[str, Callable[[ObjectStore], object]] = {
    "stat": lambda store: store.stat("a"),
    "read": lambda store: list(store.read("a")),
    "write": lambda store: store.write("a", [b"1"]),
    "write in parts": lambda store: store.write("a", [bytes(5 << 20)] * 4),
    "create": lambda store: store.write("a", [b"1"], only_if=ABSENT),
    "update": lambda store: store.write("a", [b"1"], only_if="version"),
    "delete": lambda store: store.delete("a"),
    "walk": lambda store: list(store.walk()),
}


@pytest.mark.parametrize("verb", _VERBS)
def test_a_server_that_is_not_there_is_unavailable_in_time(verb: str) -> None:
    store = locate("s3://bucket", {**servers.S3, "endpoint": "http://127.0.0.1:9", "timeout": "3"})
    begin = time.monotonic()

    with pytest.raises(Unavailable, match=r"^s3://bucket does not answer: no connection$"):
        _VERBS[verb](store)

    assert time.monotonic() - begin < 6


@pytest.mark.parametrize("verb", _VERBS)
def test_a_server_that_takes_a_request_and_says_nothing_is_unavailable_in_time(verb: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        store = locate("s3://bucket", {**servers.S3, "endpoint": endpoint, "timeout": "2"})
        begin = time.monotonic()

        with pytest.raises(Unavailable, match="s3://bucket does not answer"):
            _VERBS[verb](store)

    assert time.monotonic() - begin < 6


def test_a_wrong_key_is_refused_in_words_without_the_key(seaweed: dict[str, str], azurite: dict[str, str]) -> None:
    wrong = "d3Jvbmctc2VjcmV0LWtleQ=="
    stores = (
        locate("s3://bucket", {**seaweed, "secret_key": wrong}),
        locate("azure://bucket", {**azurite, "key": wrong}),
    )

    for store in stores:
        for ask in _VERBS.values():
            with pytest.raises(Unavailable, match=r"refuses the credentials") as caught:
                ask(store)
            shown = f"{caught.value!r} {caught.value.__cause__!r} {store!r} {vars(store)!r}"
            assert caught.value.__suppress_context__
            for secret in (wrong, servers.SECRET_KEY, servers.ACCOUNT.key, servers.ACCESS_KEY):
                assert secret not in shown


@pytest.mark.parametrize("address", ["s3://no-such-bucket", "azure://no-such-bucket"])
def test_a_bucket_that_is_missing_is_named(address: str, careless: dict[str, str], azurite: dict[str, str]) -> None:
    # Not SeaweedFS, which makes a bucket of whatever it is asked to write to.
    store = locate(address, careless if address.startswith("s3") else azurite)

    for verb in ("write", "create", "walk"):
        with pytest.raises(Unavailable, match=f"there is no {address}: make the bucket"):
            _VERBS[verb](store)
    with pytest.raises(NotFound):
        store.stat("a")


def test_a_server_that_comes_back_is_used_again(tmp_path: Path) -> None:
    with servers.rclone(tmp_path) as settings:
        store = locate("s3://bucket", settings | {"timeout": "2"})
        store.write("a", [b"1"])
    with pytest.raises(Unavailable):
        store.stat("a")
    with servers.rclone(tmp_path, settings["endpoint"]):
        assert store.stat("a").size == 1


def test_obstore_is_not_loaded_before_a_bucket_is_opened() -> None:
    import subprocess
    import sys

    code = "import sys, orlop.objects.places as p; p.locate('/tmp', {}); print('obstore' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_eight_threads_share_one_client(seaweed_store: ObjectStore) -> None:
    def work(number: int) -> None:
        for turn in range(10):
            seaweed_store.write(f"{number}/{turn}", [b"%d" % turn])
            assert b"".join(seaweed_store.read(f"{number}/{turn}")) == b"%d" % turn

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(list(seaweed_store.walk())) == 80
