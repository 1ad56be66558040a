"""Objects in a folder: what was acknowledged is there after a power cut, and what was not is whole or not there."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.power import Disk, doing

from orlop.errors import NotFound
from orlop.objects.files import FileStore

KEYS = ("new", "folder/below/new", "replaced", "compared", "deleted")
WRITER = """
import sys, time
from pathlib import Path
from orlop.objects.files import FileStore
store = FileStore(Path(sys.argv[1]))
for key in ("replaced", "compared", "deleted"):
    store.write(key, [b"old" * 10_000])
what = sys.argv[2]
if what == "deleted":
    store.delete(what)
else:
    store.write(what, [b"new" * 10_000], only_if=store.stat(what).version if what == "compared" else None)
print("done", flush=True)
time.sleep(60)
"""


@pytest.fixture(params=["ext4", "xfs", "btrfs"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    disk = Disk(tmp_path, request.param)
    yield disk
    disk.close()


@pytest.mark.parametrize("key", KEYS)
def test_a_change_that_was_acknowledged_is_there(disk: Disk, key: str) -> None:
    with doing(WRITER, str(disk.place), key) as process:
        assert process.hear() == "done"
        disk.cut()
    disk.come_back()

    store = FileStore(disk.place)
    if key == "deleted":
        with pytest.raises(NotFound):
            store.stat(key)
    else:
        assert b"".join(store.read(key)) == b"new" * 10_000


@pytest.mark.parametrize("place", ["filled", "named", "unlinked"])
def test_one_that_was_not_is_whole_or_did_not_happen(disk: Disk, place: str) -> None:
    step: Callable[[str], object] = lambda at: disk.cut() if at == place else None  # noqa: E731
    FileStore(disk.place).write("key", [b"old" * 10_000])
    store = FileStore(disk.place, step)
    if place == "unlinked":
        store.delete("key")
    else:
        store.write("key", [b"new" * 10_000])
    disk.come_back()

    try:
        found = b"".join(FileStore(disk.place).read("key"))
    except NotFound:
        assert place == "unlinked"
    else:
        assert found in (b"old" * 10_000, b"new" * 10_000)
