"""Servers that many tests share; each test has a prefix of its own in the bucket."""

import secrets
from collections.abc import Iterator

import pytest
from tests.objects import servers

from orlop.objects.places import locate
from orlop.objects.store import ObjectStore


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with servers.seaweed(tmp_path_factory.mktemp("seaweed")) as settings:
        yield settings


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with servers.azurite(tmp_path_factory.mktemp("azurite")) as settings:
        yield settings


@pytest.fixture(scope="session")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A store that ignores the conditions of a write."""
    with servers.rclone(tmp_path_factory.mktemp("rclone")) as settings:
        yield settings


@pytest.fixture
def seaweed_store(seaweed: dict[str, str]) -> ObjectStore:
    return locate(f"s3://bucket/{secrets.token_hex(6)}", seaweed)


@pytest.fixture
def azurite_store(azurite: dict[str, str]) -> ObjectStore:
    return locate(f"azure://bucket/{secrets.token_hex(6)}", azurite)
