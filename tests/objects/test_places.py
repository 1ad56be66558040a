"""An address and its settings: what they mean, and what is refused before anything is asked."""

from pathlib import Path

import pytest

from orlop.errors import Invalid
from orlop.objects.places import locate


@pytest.mark.parametrize(
    ("address", "meaning"),
    [
        ("/var/lib/objects", "FileStore('/var/lib/objects')"),
        ("file:///var/lib/objects", "FileStore('/var/lib/objects')"),
        ("s3://bucket", "CloudStore('s3://bucket')"),
        ("s3://bucket/", "CloudStore('s3://bucket')"),
        ("s3://bucket/team/a/", "Prefixed(CloudStore('s3://bucket'), 'team/a/')"),
        ("azure://container/a", "Prefixed(CloudStore('azure://container'), 'a/')"),
    ],
)
def test_an_address_means_a_store(address: str, meaning: str) -> None:
    settings = {"s3": {"access_key": "A" * 16, "secret_key": "hidden"}, "az": {"account": "a", "key": "aGlkZGVu"}}

    store = locate(address, settings.get(address[:2], {}))

    assert repr(store) == meaning


@pytest.mark.parametrize(
    ("address", "settings", "words"),
    [
        ("folder", {}, "begins with /, file:///, s3://"),
        ("ftp://there/a", {}, "begins with /"),
        ("file://there/a", {}, "write file:///folder"),
        ("s3://", {}, "names no bucket"),
        ("s3://bucket/../x", {}, "no name for an object"),
        ("s3://key:hidden@bucket", {}, "give them as settings"),
        ("s3://bucket?secret_key=hidden", {}, "give them as settings"),
        ("s3://b", {"end_point": "hidden"}, "unknown setting 'end_point' for s3://; did you mean 'endpoint'?"),
        ("gs://b", {"xyz": "hidden"}, "it knows endpoint, service_account, timeout"),
        ("/folder", {"region": "x"}, "it knows none"),
        ("s3://b", {"access_key": "hidden"}, "'access_key' needs 'secret_key' beside it"),
        ("azure://b", {"key": "hidden"}, "'key' needs 'account' beside it"),
        ("s3://b", {"endpoint": "not an address"}, "setting 'endpoint' is written http"),
        ("s3://b", {"endpoint": "http://me:hidden@there"}, "setting 'endpoint' is written http"),
        ("s3://b", {"timeout": "soon"}, "'timeout' is 'soon'"),
        ("s3://b", {"timeout": "0"}, "'timeout' is '0'"),
        ("s3://b", {"timeout": "nan"}, "'timeout' is 'nan'"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_no_secret_is_repeated(
    address: str, settings: dict[str, str], words: str
) -> None:
    with pytest.raises(Invalid) as caught:
        locate(address, settings)

    assert words in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_credentials_come_from_the_environment_where_none_are_given(
    seaweed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed["access_key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed["secret_key"])
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweed["endpoint"])

    store = locate("s3://bucket/from-the-environment", {})

    store.write("a", [b"1"])
    assert [info.key for info in store.walk()] == ["a"]


def test_a_prefix_keeps_two_stores_of_one_bucket_apart(seaweed: dict[str, str], tmp_path: Path) -> None:
    first, second = locate("s3://bucket/apart/1", seaweed), locate("s3://bucket/apart/1-2", seaweed)

    first.write("a", [b"1"])

    assert list(second.walk()) == []
    assert [info.key for info in first.walk()] == ["a"]
