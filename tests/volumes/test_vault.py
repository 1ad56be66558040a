"""Named secrets at rest: whole or not there, readable with the key alone, and nothing else is ever said of them."""

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orlop.errors import Conflict, Corrupt, Invalid, NotFound, Unavailable
from orlop.volumes.vault import LIMIT, Vault

CONTENT = b"correct horse battery staple"
STEPS = ["vault: written", "vault: renamed", "vault: key made", "vault: written", "vault: renamed"]
"""The first secret of a host: its key, and then itself."""


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "vault", tmp_path / "vault.key")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_was_put_is_there_for_a_process_that_comes_later(vault: Vault, tmp_path: Path) -> None:
    vault.put("nas", CONTENT)
    vault.put("binary@home+1", bytes(range(256)))

    later = Vault(tmp_path / "vault", tmp_path / "vault.key")
    assert later.get("nas") == CONTENT
    assert later.get("binary@home+1") == bytes(range(256))
    assert later.names() == ["binary@home+1", "nas"]


def test_nothing_is_made_before_the_first_secret(vault: Vault, tmp_path: Path) -> None:
    assert vault.names() == []
    with pytest.raises(NotFound, match="no secret 'nas'"):
        vault.get("nas")
    vault.delete("nas")

    assert list(tmp_path.iterdir()) == []


def test_only_the_owner_can_read_it_whatever_the_umask(vault: Vault, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        vault.put("nas", CONTENT)
    finally:
        os.umask(before)

    assert mode(tmp_path / "vault") == 0o700
    assert mode(tmp_path / "vault/nas") == 0o600
    assert mode(tmp_path / "vault.key") == 0o600


def test_the_files_do_not_show_it_and_two_alike_do_not_look_alike(vault: Vault, tmp_path: Path) -> None:
    vault.put("one", CONTENT)
    vault.put("two", CONTENT)

    one, two = (tmp_path / "vault/one").read_bytes(), (tmp_path / "vault/two").read_bytes()
    assert CONTENT not in one
    assert one[-len(CONTENT) :] != two[-len(CONTENT) :]


def test_a_second_of_the_same_name_is_a_conflict_unless_it_replaces(vault: Vault) -> None:
    vault.put("nas", b"old")

    with pytest.raises(Conflict, match="'nas' exists already"):
        vault.put("nas", b"new")
    assert vault.get("nas") == b"old"

    vault.put("nas", b"new", replace=True)
    assert vault.get("nas") == b"new"


def test_what_was_deleted_is_gone(vault: Vault) -> None:
    vault.put("nas", CONTENT)

    vault.delete("nas")
    vault.delete("nas")

    assert vault.names() == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", "..", ".new", "a\nb", "x" * 201, "-x", "naïve", "a b", "nas\n"])
def test_a_bad_name_is_refused(vault: Vault, tmp_path: Path, name: str) -> None:
    for verb in (lambda: vault.put(name, CONTENT), lambda: vault.get(name), lambda: vault.delete(name)):
        with pytest.raises(Invalid, match="is not allowed"):
            verb()

    assert list(tmp_path.iterdir()) == []


def test_one_that_is_too_large_is_refused(vault: Vault) -> None:
    with pytest.raises(Invalid, match="too large"):
        vault.put("film", bytes(LIMIT + 1))

    assert vault.names() == []


@pytest.mark.parametrize("byte", [0, 3, 15, 20, 27, 30, -1])
def test_a_changed_byte_is_noticed_wherever_it_is(vault: Vault, tmp_path: Path, byte: int) -> None:
    vault.put("nas", CONTENT)
    content = bytearray((tmp_path / "vault/nas").read_bytes())
    content[byte] ^= 1
    (tmp_path / "vault/nas").write_bytes(content)

    with pytest.raises(Corrupt, match="'nas' cannot be read") as caught:
        vault.get("nas")

    assert CONTENT.decode() not in str(caught.value)


@pytest.mark.parametrize("length", [0, 5, 15, 20, 27, 40, -1])
def test_a_cut_file_is_noticed_wherever_it_is_cut(vault: Vault, tmp_path: Path, length: int) -> None:
    vault.put("nas", CONTENT)
    (tmp_path / "vault/nas").write_bytes((tmp_path / "vault/nas").read_bytes()[:length])

    with pytest.raises(Corrupt, match="'nas' cannot be read"):
        vault.get("nas")


def test_a_file_under_another_secrets_name_is_not_taken_for_it(vault: Vault, tmp_path: Path) -> None:
    vault.put("mine", CONTENT)
    vault.put("yours", b"other")
    (tmp_path / "vault/mine").rename(tmp_path / "vault/yours")

    with pytest.raises(Corrupt, match="'yours' cannot be read"):
        vault.get("yours")


def test_another_key_is_named_together_with_the_secret(vault: Vault, tmp_path: Path) -> None:
    vault.put("nas", CONTENT)
    (tmp_path / "vault.key").write_bytes(os.urandom(32))

    with pytest.raises(Corrupt, match=f"'nas' cannot be read.*'{tmp_path}/vault.key'") as caught:
        vault.get("nas")

    assert CONTENT.decode() not in str(caught.value)


def test_a_lost_key_is_not_replaced_while_secrets_depend_on_it(vault: Vault, tmp_path: Path) -> None:
    vault.put("nas", CONTENT)
    (tmp_path / "vault.key").rename(tmp_path / "kept")

    with pytest.raises(Unavailable, match=r"vault\.key' is missing"):
        vault.get("nas")
    with pytest.raises(Unavailable, match=r"vault\.key' is missing"):
        vault.put("more", CONTENT)
    (tmp_path / "kept").rename(tmp_path / "vault.key")

    assert vault.get("nas") == CONTENT
    assert vault.names() == ["nas"]


@pytest.mark.parametrize(("key", "bits", "problem"), [(b"short", 0o600, "32 bytes"), (bytes(32), 0o604, "chmod 600")])
def test_a_key_file_that_is_none_or_that_everybody_can_read_is_refused(
    vault: Vault, tmp_path: Path, key: bytes, bits: int, problem: str
) -> None:
    (tmp_path / "vault.key").write_bytes(key)
    (tmp_path / "vault.key").chmod(bits)

    with pytest.raises((Corrupt, Unavailable), match=problem):
        vault.put("nas", CONTENT)

    assert vault.names() == []


def test_a_key_file_in_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault", tmp_path / "credentials/key")

    with pytest.raises(Unavailable, match="credentials/key' cannot be written: No such file or directory"):
        vault.put("nas", CONTENT)


def test_many_at_once_keep_all_and_one_of_each_name(tmp_path: Path) -> None:
    def put(number: int) -> bool:
        try:
            Vault(tmp_path / "vault", tmp_path / "vault.key").put(f"s{number % 10}", str(number).encode())
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        kept = [number for number, done in enumerate(pool.map(put, range(40))) if done]

    vault = Vault(tmp_path / "vault", tmp_path / "vault.key")
    assert sorted(vault.get(f"s{number}") for number in range(10)) == sorted(str(number).encode() for number in kept)
    assert len(kept) == 10


PUT = """
import os, signal, sys
from pathlib import Path
from orlop.volumes.vault import Vault

passed = 0
def step(name):
    global passed
    if passed == int(sys.argv[2]):
        print(name, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    passed += 1

vault = Vault(Path(sys.argv[1], "vault"), Path(sys.argv[1], "vault.key"), step)
vault.put("nas", b"correct horse battery staple")
print("done")
"""


@pytest.mark.parametrize("number", range(len(STEPS) + 1))
def test_a_kill_at_any_step_leaves_all_of_a_secret_or_nothing(vault: Vault, tmp_path: Path, number: int) -> None:
    done = subprocess.run([sys.executable, "-c", PUT, tmp_path, str(number)], capture_output=True, text=True)
    found = vault.names()
    there = [vault.get(name) for name in found]
    vault.put("next", b"another")

    # After the last step it lives on to its end: so these are all the steps there are.
    assert done.stdout.strip() == [*STEPS, "done"][number], done.stderr
    assert done.returncode == (0 if number == len(STEPS) else -signal.SIGKILL)
    assert there == ([CONTENT] if number >= 4 else [])
    assert vault.get("next") == b"another"
    assert sorted(path.name for path in (tmp_path / "vault").iterdir()) == [*found, "next"]


def test_whoever_has_no_secrets_does_not_load_the_cipher(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from orlop import engine\n"
        "service = engine.volumes(engine.Config(Path(sys.argv[1]), Path(sys.argv[1])))\n"
        "service.create('data', {}); service.seals.orphans()\n"
        "print([name for name in sys.modules if name.startswith('cryptography')])"
    )

    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)

    assert done.stdout == "[]\n", done.stderr
