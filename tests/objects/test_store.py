"""The store in memory keeps the contract that it defines."""

import pytest

from orlop.objects.store import MemoryStore
from orlop.testing.stores import ObjectStoreContract


class TestMemoryStore(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()
