import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
from tests.dag import FakeNode

from orlop.volumes.ipfs import publish

pytestmark = [
    pytest.mark.part("D7"),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
]
CID = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"


@pytest.fixture
def node():
    with FakeNode({}) as node:
        node.added = json.dumps({"Name": "data", "Hash": CID}).encode() + b"\n"
        yield node


@pytest.fixture
def content(orlop, root) -> Path:
    """The files of a volume ``data``."""
    orlop("volume", "create", "data")
    return root / "volumes/data/_data"


def parts(body: bytes) -> list[tuple[str, str, bytes]]:
    """File name, type and content of each part."""
    boundary = body[: body.index(b"\r\n")]
    *found, end = (b"\r\n" + body).split(b"\r\n" + boundary)[1:]
    assert end == b"--\r\n"
    pattern = rb'\r\nContent-Disposition: form-data; name="file"; filename="(.*)"\r\nContent-Type: (.*)\r\n\r\n'
    made = []
    for part in found:
        match = re.match(pattern, part)
        made.append((match[1].decode(), match[2].decode(), part[match.end() :]))
    return made


def test_files_are_sent_as_kubo_wants_them(orlop, content, node):
    (content / "b/c").mkdir(parents=True)
    (content / "b/c/f").write_text("deep")
    (content / "a & ü%").write_text("")
    (content / "z").symlink_to("/etc/passwd")

    done = orlop("volume", "publish", "data", "--api", node.api)

    assert done.stdout == f"{CID}\n"
    assert parts(node.body) == [
        ("data", "application/x-directory", b""),
        ("data%2Fa+%26+%C3%BC%25", "application/octet-stream", b""),
        ("data%2Fb", "application/x-directory", b""),
        ("data%2Fb%2Fc", "application/x-directory", b""),
        ("data%2Fb%2Fc%2Ff", "application/octet-stream", b"deep"),
        ("data%2Fz", "application/symlink", b"/etc/passwd"),
    ]


def test_a_large_file_is_sent_while_the_node_answers(orlop, content, node):
    (content / "big").write_bytes(os.urandom(40 << 20))

    orlop("volume", "publish", "data", "--api", node.api)

    assert parts(node.body)[1][2] == (content / "big").read_bytes()


def test_what_ipfs_cannot_hold_is_named_and_left_out(orlop, content, node):
    os.mkfifo(content / "pipe")
    (content / "f").write_text("here")

    done = orlop("volume", "publish", "data", "--api", node.api)

    assert done.stderr == "orlop: 'data/pipe' is left out: it is no file\n"
    assert [name for name, _, _ in parts(node.body)] == ["data", "data%2Ff"]


def test_other_filesystems_in_a_volume_are_left_out(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "lost+found").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path / "other")], check=True)
    try:
        (tmp_path / "other/secret").write_text("not ours")
        skipped = []

        sent = b"".join(publish.body(tmp_path, "data", skipped.append))
    finally:
        subprocess.run(["umount", str(tmp_path / "other")], check=True)

    assert parts(sent) == [("data", "application/x-directory", b"")]
    assert skipped == ["'data/other' is left out: it is another filesystem"]


def test_a_name_that_is_not_utf8_is_refused(orlop, content, node):
    Path(os.fsdecode(os.fsencode(content) + b"/\xff")).touch()

    refused = orlop("volume", "publish", "data", "--api", node.api, status=1)

    assert "is not UTF-8" in refused.stderr
    assert refused.stdout == ""


def test_it_is_pinned_on_every_node_and_gets_a_name(orlop, content, node):
    with FakeNode({}) as second, FakeNode({}) as third:
        options = ("--pin", second.api, "--pin", third.api, "--ipns", "site", "--format", "json")

        done = orlop("volume", "publish", "data", "--api", node.api, *options)

        assert json.loads(done.stdout) == {"Cid": CID, "Ipns": "k51name", "Pinned": [node.api, second.api, third.api]}
        assert (second.pinned, third.pinned) == ([CID], [CID])


def test_settings_name_the_nodes(orlop, content, node):
    with FakeNode({}) as second:
        orlop(
            "volume",
            "publish",
            "data",
            env={"IPFS_API": node.api, "IPFS_PIN": f"{second.api} http://127.0.0.1:1"},
            status=1,
        )

        assert second.pinned == [CID]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "does not say what it has added"),
        (b"nonsense\n", "nonsense"),
        (b'{"Message": "disk full", "Code": 0, "Type": "error"}\n', "disk full"),
    ],
)
def test_a_node_that_does_not_add_it_is_named_with_its_reason(orlop, content, node, answer, reason):
    node.added = answer

    refused = orlop("volume", "publish", "data", "--api", node.api, status=1)

    assert node.api in refused.stderr
    assert reason in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_node_that_hangs_up_is_named_and_the_volume_is_free_again(orlop, content, root):
    (content / "big").write_bytes(bytes(20 << 20))
    with socket.create_server(("127.0.0.1", 0)) as server:
        api = f"http://127.0.0.1:{server.getsockname()[1]}"
        argv = [
            "python3",
            "-c",
            "import socket; s = socket.socket(fileno=0); c, _ = s.accept(); c.recv(100); c.close()",
        ]
        with subprocess.Popen(argv, stdin=server.fileno()) as peer:
            refused = orlop("volume", "publish", "data", "--api", api, status=1)
            peer.wait()

    assert api in refused.stderr
    orlop("volume", "rm", "data")
