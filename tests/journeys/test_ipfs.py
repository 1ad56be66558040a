"""A volume goes to one IPFS node, and its content comes from another: real Kubo, a real Docker Engine."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.journeys.lab import Lab
from tests.kubo import Kubo

_ORLOP = f"{sys.executable} -m orlop"
pytestmark = [pytest.mark.feature("D7"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def nodes(computer: Lab) -> Iterator[tuple[Kubo, Kubo]]:
    """Two that know each other and nobody else."""
    there, here = Kubo(computer.machine, "there", 15001), Kubo(computer.machine, "here", 15011)
    try:
        there.start()
        here.start()
        here.connect(there)
        yield there, here
    finally:
        there.stop()
        here.stop()


@pytest.fixture
def filled(lab: Lab) -> str:
    """A volume with all kinds of files; returns what a container sees of them."""
    lab.sh("docker volume create -d orlop site")
    lab.sh(
        "docker run --rm -v site:/s ubuntu bash -c '"
        "mkdir -p /s/a/b /s/none; head -c 3000000 /dev/urandom >/s/a/big; echo hello >/s/a/b/small; : >/s/empty; "
        'echo sp >"/s/a name & ümlaut"; ln -s a/b/small /s/link\''
    )
    return _seen(lab, "site")


def _seen(lab: Lab, volume: str) -> str:
    return lab.out(
        f"docker run --rm -v {volume}:/s ubuntu sh -c 'cd /s; find . | sort; readlink link; "
        "find . -type f -print0 | sort -z | xargs -0 sha256sum'"
    )


def test_what_one_publishes_another_mounts_and_both_keep_it(lab: Lab, nodes: tuple[Kubo, Kubo], filled: str) -> None:
    there, here = nodes
    before = here.blocks()

    published = json.loads(
        lab.out(f"{_ORLOP} volume publish site --root {lab.root} --api {there.api} --pin {here.api} --format json")
    )
    cid = published["Cid"]
    lab.sh(f"docker volume create -d orlop -o driver=ipfs -o cid={cid} -o api={here.api} copy")

    assert _seen(lab, "copy") == filled
    assert "Read-only file system" in lab.refused("docker run --rm -v copy:/s ubuntu touch /s/new")
    assert published["Pinned"] == [there.api, here.api]
    assert cid in there.pins() & here.pins()
    assert here.blocks() - before > 12  # 256 KiB each: they came from the other


def test_content_is_fetched_from_afar_when_it_is_used_and_needs_no_node_afterwards(
    lab: Lab, nodes: tuple[Kubo, Kubo], filled: str
) -> None:
    there, here = nodes
    before = here.blocks()
    cid = lab.out(f"{_ORLOP} volume publish site --root {lab.root} --api {there.api}")
    assert here.blocks() == before

    lab.sh(f"docker volume create -d orlop -o driver=ipfs -o cid={cid} -o api={here.api} copy")
    first = _seen(lab, "copy")
    here.stop()
    second = _seen(lab, "copy")
    here.start()
    here.connect(there)

    assert first == second == filled
    assert here.blocks() > before


def test_a_node_that_is_away_is_named_and_the_volume_works_when_it_is_back(
    lab: Lab, nodes: tuple[Kubo, Kubo], filled: str
) -> None:
    there, here = nodes
    cid = lab.out(f"{_ORLOP} volume publish site --root {lab.root} --api {there.api}")
    lab.sh(f"docker volume create -d orlop -o driver=ipfs -o cid={cid} -o api={here.api} copy")
    here.stop()

    refused = lab.refused("docker run --rm -v copy:/s ubuntu true")
    unpinned = lab.sh(f"{_ORLOP} volume publish site --root {lab.root} --api {there.api} --pin {here.api}", check=False)
    here.start()
    here.connect(there)

    assert here.api in refused
    assert cid in refused
    assert (unpinned.returncode, unpinned.stdout) == (1, f"{cid}\n")
    assert here.api in unpinned.stderr
    assert _seen(lab, "copy") == filled


def test_a_node_with_a_damaged_block_is_caught(lab: Lab, nodes: tuple[Kubo, Kubo], filled: str) -> None:
    there, _ = nodes
    cid = lab.out(f"{_ORLOP} volume publish site --root {lab.root} --api {there.api}")
    largest = max((there.folder / "repo/blocks").glob("*/*.data"), key=lambda path: path.stat().st_mtime_ns)
    whole = largest.read_bytes()
    largest.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    lab.sh(f"docker volume create -d orlop -o driver=ipfs -o cid={cid} -o api={there.api} copy")

    refused = lab.refused("docker run --rm -v copy:/s ubuntu true")
    largest.write_bytes(whole)

    assert "answers with other bytes than those of block" in refused
    assert _seen(lab, "copy") == filled


def test_the_pages_commands_do_what_it_says(lab: Lab, nodes: tuple[Kubo, Kubo]) -> None:
    there, here = nodes
    page = (Path(__file__).parents[2] / "docs/ipfs.md").read_text()
    commands = re.findall(r"^\$ (.*)$", page, re.MULTILINE)
    words = f'export THERE={there.api} HERE={here.api} ORLOP_ROOT={lab.root}; orlop() {{ {_ORLOP} "$@"; }};'

    for command in commands:
        line, _, remark = command.partition("    # ")
        done = lab.sh(f"{words} {line}", check=False)

        assert (done.returncode != 0) == remark.startswith("fails"), f"{command}\n{done.stdout}{done.stderr}"
    assert len(commands) == 9
