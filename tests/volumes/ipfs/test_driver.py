"""The driver on DAGs made by hand: what is right arrives, what is not is named and nothing of it is mounted."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.dag import Dag, FakeNode, field, name_of

from orlop.errors import Corrupt, Invalid, NoSpace, OrlopError, Unavailable
from orlop.mount import Mount
from orlop.testing.drivers import VolumeDriverContract
from orlop.testing.waiting import eventually
from orlop.volumes.driver import Volume
from orlop.volumes.ipfs.driver import IpfsDriver

pytestmark = pytest.mark.part("D7")


@pytest.fixture
def dag() -> Dag:
    return Dag()


@pytest.fixture
def node(dag: Dag):
    with FakeNode(dag.blocks) as node:
        yield node


@pytest.fixture
def fetched(tmp_path: Path, node: FakeNode):
    """What a volume of a CID holds."""

    def fetch(cid: bytes | str, patience: float = 20, **options: str) -> Path:
        name = cid if isinstance(cid, str) else name_of(cid)
        volume = Volume("data", "ipfs", {"cid": name, **options}, {}, "data~2")
        driver = IpfsDriver(tmp_path / "ipfs", {"IPFS_API": node.api}, patience)
        driver.create(volume)
        (mount,) = driver.attach(volume)
        assert mount == Mount.bind(tmp_path / "ipfs/data~2" / name, "ro", "nosuid", "nodev")
        return Path(mount.source)

    return fetch


_FOLDER = Dag()
_ROOT = _FOLDER.folder(("a", _FOLDER.raw(b"hello")))


class TestIpfs(VolumeDriverContract):
    options = {"cid": name_of(_ROOT), "uid": "7", "gid": "8", "limit": "1g"}
    refused = {
        "cid": "Qmnope",
        "ipns": "../up",
        "uid": "root",
        "limit": "0",
        "api": "ftp://nas",
    }

    @pytest.fixture
    def driver(self, tmp_path: Path):
        with FakeNode(_FOLDER.blocks) as node:
            yield IpfsDriver(tmp_path, {"IPFS_API": node.api})


def test_all_kinds_of_files_arrive(dag: Dag, fetched) -> None:
    inner = dag.folder(("raw", dag.raw(b"raw")), ("leaf", dag.leaf(b"leaf")), ("empty", dag.leaf(b"")))
    root = dag.folder(
        ("sub", inner), ("none", dag.folder()), ("Größe ☃", dag.raw(b"")), ("up", dag.symlink(b"../../etc/passwd"))
    )

    found = fetched(root, uid="7", gid="8")

    assert sorted(path.relative_to(found).as_posix() for path in found.rglob("*")) == sorted(
        ["sub", "sub/raw", "sub/leaf", "sub/empty", "none", "Größe ☃", "up"]
    )
    assert [(found / "sub" / name).read_bytes() for name in ("raw", "leaf", "empty")] == [b"raw", b"leaf", b""]
    assert os.readlink(found / "up") == "../../etc/passwd"
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in [found, *found.rglob("*")]} == {(7, 8)}
    assert [oct((found / name).stat().st_mode) for name in ("sub", "sub/raw")] == ["0o40755", "0o100644"]


@pytest.mark.parametrize("kind", ["raw", "leaf"])
def test_a_root_that_is_a_file_is_a_file_of_its_name(dag: Dag, fetched, kind: str) -> None:
    cid = getattr(dag, kind)(b"alone")

    found = fetched(cid)

    assert [path.name for path in found.iterdir()] == [name_of(cid)]
    assert (found / name_of(cid)).read_bytes() == b"alone"


def test_a_link_may_hold_its_block_itself(dag: Dag, fetched, node: FakeNode) -> None:
    inline = dag.block(b"inside", 0x55, 0x00, b"inside")

    found = fetched(dag.folder(("f", inline)))

    assert (found / "f").read_bytes() == b"inside"
    assert len(node.asked) == 1


@pytest.mark.parametrize(("function", "name"), [(0x13, "sha512"), (0x14, "sha3_512"), (0xB220, "blake2b")])
def test_other_hashes_are_checked_too(dag: Dag, fetched, node: FakeNode, function: int, name: str) -> None:
    digest = hashlib.blake2b(b"x", digest_size=32) if name == "blake2b" else hashlib.new(name, b"x")
    good = dag.block(b"x", 0x55, function, digest.digest())

    assert (fetched(good) / name_of(good)).read_bytes() == b"x"
    node.change = lambda cid, data: b"y"
    with pytest.raises(Corrupt, match="other bytes"):
        fetched(dag.folder(("f", good)))


def test_a_large_directory_in_shards_is_one_folder(dag: Dag, fetched) -> None:
    names = [f"file-{number}" for number in range(300)]
    deep = dag.shard(*[(f"{place:02X}{name}", dag.raw(name.encode())) for place, name in enumerate(names[:200])])
    root = dag.shard(
        ("00", deep), *[(f"{place:02X}{name}", dag.leaf(b"")) for place, name in enumerate(names[200:], 1)]
    )

    found = fetched(dag.folder(("many", root)))

    assert sorted(path.name for path in (found / "many").iterdir()) == sorted(names)
    assert (found / "many/file-7").read_text() == "file-7"


def test_a_name_in_two_shards_is_refused(dag: Dag, fetched) -> None:
    leaf = dag.raw(b"")
    root = dag.shard(("00", dag.shard(("01same", leaf))), ("02same", leaf))

    with pytest.raises(Corrupt, match="'same' is there twice"):
        fetched(root)


def test_a_large_file_comes_in_pieces_by_few_at_once_and_needs_little_memory(
    dag: Dag, node: FakeNode, tmp_path: Path
) -> None:
    pieces = [hashlib.sha256(bytes([number])).digest() * (1 << 13) for number in range(256)]
    middles = []
    for start in range(0, 256, 16):
        leaves = [(dag.leaf(piece) if start % 32 else dag.raw(piece), 1 << 18) for piece in pieces[start : start + 16]]
        middles.append((dag.file(leaves), 1 << 22))
    root = dag.folder(("big", dag.file(middles)))
    code = f"""
from pathlib import Path
from orlop.volumes.driver import Volume
from orlop.volumes.ipfs.driver import IpfsDriver
driver = IpfsDriver(Path({str(tmp_path)!r}), {{"IPFS_API": {node.api!r}}})
driver.attach(Volume("v", "ipfs", {{"cid": {name_of(root)!r}}}))
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""
    node.wait = 0.002

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert (tmp_path / "v" / name_of(root) / "big").read_bytes() == b"".join(pieces)
    assert 1 < node.most <= 8
    assert int(done.stdout) < 64 << 10  # KiB: less than the file has


def test_what_is_here_is_not_asked_for_again(dag: Dag, fetched, node: FakeNode) -> None:
    root = dag.folder(("f", dag.raw(b"x")))
    fetched(root)
    node.asked.clear()
    node.change = lambda cid, data: b"lies"

    assert (fetched(root) / "f").read_bytes() == b"x"
    assert node.asked == []


def test_the_next_try_checks_what_came_and_fetches_the_rest(dag: Dag, fetched, node: FakeNode, tmp_path: Path) -> None:
    pieces = [os.urandom(1000) for _ in range(20)]
    names = [dag.raw(piece) if place % 2 else dag.leaf(piece) for place, piece in enumerate(pieces)]
    root = dag.folder(("f", dag.file([(name, 1000) for name in names])))
    missing = name_of(names[-1])
    block = dag.blocks.pop(missing)
    with pytest.raises(Unavailable, match=missing):
        fetched(root)
    dag.blocks[missing] = block
    (half,) = tmp_path.glob("ipfs/*/*.new/f")
    written = half.read_bytes()
    arrived = [piece for place, piece in enumerate(pieces) if written[place * 1000 :][:1000] == piece]
    with half.open("r+b") as file:
        file.write(b"damaged")  # the first piece, by a power cut, say
    # What was asked for last may still be on its way.
    eventually(lambda: not any(thread.name.startswith("ipfs") for thread in threading.enumerate()))
    node.asked.clear()

    found = fetched(root)

    assert (found / "f").read_bytes() == b"".join(pieces)
    assert len(arrived) >= 10
    assert len(node.asked) <= 2 + 1 + 20 - len(arrived)
    assert name_of(names[0]) in node.asked


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"\0" + data, lambda data: b""])
def test_a_node_that_lies_or_cuts_off_is_named_with_the_block(dag: Dag, fetched, node: FakeNode, damage) -> None:
    leaf = dag.raw(b"truth")
    root = dag.folder(("f", leaf))
    node.change = lambda cid, data: damage(data) if cid == name_of(leaf) else data

    with pytest.raises(Corrupt) as caught:
        fetched(root)

    assert node.api in str(caught.value)
    assert name_of(leaf) in str(caught.value)
    assert name_of(root) in str(caught.value)


def test_a_block_larger_than_any_is_not_read_to_its_end(dag: Dag, fetched) -> None:
    largest, larger = dag.raw(bytes(2 << 20)), dag.raw(bytes((2 << 20) + 1))

    assert (fetched(largest) / name_of(largest)).stat().st_size == 2 << 20
    with pytest.raises(Corrupt, match="has more than the 2097152 bytes"):
        fetched(larger)


@pytest.mark.parametrize("name", ["..", ".", "", "/etc/passwd", "../x", "a/b", "a\0b", b"\xff"])
def test_a_hostile_name_is_refused_and_nothing_is_mounted(dag: Dag, fetched, tmp_path: Path, name: str | bytes) -> None:
    with pytest.raises(Corrupt, match=r"is no file name|is not UTF-8"):
        fetched(dag.folder(("good", dag.raw(b"g")), (name, dag.raw(b"evil"))))

    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"evil"]


def test_a_name_that_is_a_link_first_and_a_folder_then_leads_nowhere(dag: Dag, fetched, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    link = dag.symlink(str(tmp_path / "outside").encode())

    with pytest.raises(Corrupt, match="'x' is there twice"):
        fetched(dag.folder(("x", link), ("x", dag.folder(("evil", dag.raw(b"e"))))))

    assert not list((tmp_path / "outside").iterdir())


def _of_kind(dag: Dag, kind: int) -> bytes:
    return dag.block(dag.node(kind))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda dag: dag.block(b"\xff\xff"), "a number in it has no end"),
        (lambda dag: dag.block(b"\x0a\x7f"), "it is cut off"),
        (lambda dag: dag.block(b""), "its UnixFS type -1"),
        (lambda dag: _of_kind(dag, 3), "its UnixFS type 3"),
        (lambda dag: dag.block(b"{}", 0x71), "its codec 0x71"),
        (lambda dag: dag.block(field(1, 5)), "a number stands where bytes must"),
        (lambda dag: dag.block(b"\x0b"), "unknown type 3"),
        (lambda dag: dag.folder(("f", b"\x01\x55\x1e\x20" + bytes(32))), "hash 'blake3' is not supported"),
        (lambda dag: dag.folder(("f", b"\x01\x55\x12\x10" + bytes(16))), "its digest has a wrong length"),
        (lambda dag: dag.folder(("f", dag.symlink(b""))), "a symbolic link to b''"),
        (lambda dag: dag.symlink(b"/"), "a symbolic link by itself"),
        (lambda dag: dag.shard(fanout=7), "a shard of 7 places"),
        (lambda dag: dag.shard(("00", dag.raw(b"x"))), "it is no shard of a folder"),
        (lambda dag: dag.file([(dag.raw(b"abc"), 5)]), "no part of a file with 5 bytes"),
        (lambda dag: dag.file([(dag.raw(b""), 0)]), "sizes of its parts"),
        (lambda dag: dag.file([(dag.folder(), 5)]), "no part of a file"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(dag: Dag, fetched, make, complaint: str) -> None:
    root = make(dag)

    with pytest.raises(Corrupt) as caught:
        fetched(root)

    assert complaint in str(caught.value)
    assert name_of(root) in str(caught.value)


def test_a_tree_is_as_deep_as_the_host_allows_and_no_deeper(dag: Dag, fetched) -> None:
    cid = dag.raw(b"bottom")
    for _ in range(400):
        cid = dag.folder(("d", cid))
    deeper = cid
    for _ in range(20):
        deeper = dag.folder(("d" * 200, deeper))

    assert (fetched(cid).joinpath(*["d"] * 400)).read_bytes() == b"bottom"
    with pytest.raises(Unavailable, match="File name too long"):
        fetched(deeper)


@pytest.mark.parametrize("made_of", ["folders", "files", "shards"])
def test_a_few_blocks_that_unfold_without_end_are_stopped(dag: Dag, fetched, made_of: str) -> None:
    cid, size = (dag.leaf(bytes(100)), 100) if made_of == "files" else (dag.shard(), 0)
    for _ in range(7):
        if made_of == "files":
            cid, size = dag.file([(cid, size)] * 100), size * 100
        elif made_of == "folders":
            cid = dag.folder(*[(str(number), cid) for number in range(100)])
        else:
            cid = dag.shard(*[(f"{number:02X}", cid) for number in range(100)])

    with pytest.raises(NoSpace, match="option 'limit'"):
        fetched(cid, limit="1m")


@pytest.mark.parametrize("state", ["down", "silent", "slow"])
def test_a_node_that_gives_no_answer_is_given_up_in_time(dag: Dag, fetched, node: FakeNode, state: str) -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        api = {"down": "http://127.0.0.1:1", "silent": f"http://127.0.0.1:{server.getsockname()[1]}"}.get(
            state, node.api
        )
        node.wait = 0.3
        root = dag.folder(*[(str(number), dag.raw(str(number).encode())) for number in range(200)])

        with pytest.raises(Unavailable, match=name_of(root)):
            fetched(root, patience=1, api=api)

    assert time.monotonic() - began < 5
    until = time.monotonic() + 5
    while any(thread.name.startswith("ipfs_") for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_name_of_ipns_is_looked_up_at_each_attaching_and_old_content_goes(
    dag: Dag, node: FakeNode, tmp_path: Path
) -> None:
    old, new = name_of(dag.folder(("f", dag.raw(b"old")))), name_of(dag.folder(("f", dag.raw(b"new"))))
    driver, volume = IpfsDriver(tmp_path, {}), Volume("v", "ipfs", {"ipns": "docs.example", "api": node.api})
    driver.create(volume)
    with pytest.raises(Unavailable, match=r"docs\.example"):
        driver.attach(volume)
    node.names["docs.example"] = old
    (before,) = driver.attach(volume)
    node.names["docs.example"] = new

    (after,) = driver.attach(volume)

    assert [Path(mount.source, "f").read_text() for mount in (before, after)] == ["old", "new"]
    driver.detach(volume)
    assert not Path(before.source).exists()
    assert driver.usage(volume, None) >= 4096
    driver.remove(volume)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "needs option 'cid' or option 'ipns'"),
        ({"ipns": "../x"}, "is no IPNS name"),
        ({"cid": "Qm" + "0" * 44}, "is no CID"),
        ({"cid": "x" * 300}, "more than 200 characters"),
        ({"cid": "b" + "a" * 58}, "is no CID"),
        ({"cid": name_of(_ROOT), "api": "http://user:secret@nas:5001"}, "is no address"),
        ({"cid": name_of(_ROOT), "api": "http://nas:port"}, "is no address"),
    ],
)
def test_options_that_make_no_sense_are_refused_when_the_volume_is_created(
    tmp_path: Path, options: dict[str, str], complaint: str
) -> None:
    with pytest.raises(Invalid, match=complaint):
        IpfsDriver(tmp_path, {}).create(Volume("v", "ipfs", options))

    assert list(tmp_path.iterdir()) == []


def test_a_hash_that_cannot_be_checked_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="its hash 'sha1' is not supported"):
        IpfsDriver(tmp_path, {}).create(Volume("v", "ipfs", {"cid": name_of(b"\x01\x55\x11\x14" + bytes(20))}))


@pytest.mark.parametrize("base", ["v0", "b", "f", "u", "z", "k"])
def test_a_cid_is_the_same_in_every_base(base: str) -> None:
    from orlop.volumes.ipfs.cid import Cid

    # As printed by Kubo (ipfs cid format) for the empty folder.
    texts = {
        "v0": "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",
        "b": "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354",
        "f": "f01701220" + "59948439065f29619ef41280cbb932be52c56d99c5966b65e0111239f098bbef",
    }
    cid = Cid.parse(texts["b"])
    found = Cid.parse(texts[base]) if base in texts else Cid.parse(_written(base, bytes(cid)))

    assert found.digest == cid.digest
    assert str(cid) == texts["b"]
    assert base != "v0" or str(found) == texts["v0"]


def _written(base: str, data: bytes) -> str:
    import base64

    if base == "u":
        return "u" + base64.urlsafe_b64encode(data).decode().rstrip("=")
    alphabet = {
        "z": "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz",
        "k": "0123456789abcdefghijklmnopqrstuvwxyz",
    }[base]
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, len(alphabet))
        text = alphabet[digit] + text
    return base + text


def test_a_kill_at_any_moment_is_harmless(dag: Dag, node: FakeNode, tmp_path: Path) -> None:
    root = dag.folder(*[(str(number), dag.raw(os.urandom(5000))) for number in range(150)])
    code = (
        "from pathlib import Path; from orlop.volumes.driver import Volume; "
        "from orlop.volumes.ipfs.driver import IpfsDriver; "
        f"IpfsDriver(Path({str(tmp_path)!r}), {{}})"
        f".attach(Volume('v', 'ipfs', {{'cid': {name_of(root)!r}, 'api': {node.api!r}}}))"
    )
    node.wait = 0.02
    seen = set()
    for moment in (0.3, 0.45, 0.6):
        process = subprocess.Popen([sys.executable, "-c", code])
        time.sleep(moment)
        process.kill()
        process.wait()
        seen |= {path.name for path in tmp_path.glob("v/*")}
        assert (
            not (tmp_path / "v" / name_of(root)).exists()
            or len(list((tmp_path / "v" / name_of(root)).iterdir())) == 150
        )

    subprocess.run([sys.executable, "-c", code], check=True)

    found = tmp_path / "v" / name_of(root)
    assert len(list(found.iterdir())) == 150
    assert seen <= {name_of(root) + ".new", name_of(root), "current"}
    assert len(node.asked) < 4 * 151


def test_removing_stops_at_a_mount(dag: Dag, fetched, tmp_path: Path) -> None:
    found = fetched(dag.folder(("inside", dag.folder())))
    subprocess.run(["mount", "-t", "tmpfs", "none", str(found / "inside")], check=True)
    try:
        (found / "inside/precious").write_text("kept")

        with pytest.raises(OrlopError, match="inside"):
            IpfsDriver(tmp_path / "ipfs", {}).remove(Volume("data", "ipfs", {}, {}, "data~2"))

        assert (found / "inside/precious").read_text() == "kept"
    finally:
        subprocess.run(["umount", str(found / "inside")], check=True)
