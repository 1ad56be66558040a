import json
import os
import shutil

import pytest

CONTENT = "hunter2-8471"


@pytest.fixture
def nas(orlop):
    """A secret."""
    orlop("secret", "create", "nas", input=CONTENT)


@pytest.fixture
def share(orlop, nas):
    """A volume that refers to it, amidst other words."""
    words = ("-o", "type=cifs", "-o", "device=//nas/a", "-o", "o=username=u,password=secret:nas")
    orlop("volume", "create", "share", *words)


def test_create_takes_a_file_or_standard_input_and_prints_the_name(orlop, root, tmp_path):
    (tmp_path / "file").write_text(CONTENT)

    created = [
        orlop("secret", "create", "one", str(tmp_path / "file")),
        orlop("secret", "create", "two", "-", input=CONTENT),
        orlop("secret", "create", "three", input=CONTENT),
    ]

    assert [done.stdout for done in created] == ["one\n", "two\n", "three\n"]
    assert orlop("secret", "ls", "-q").stdout == "one\nthree\ntwo\n"
    assert [oct(path.stat().st_mode & 0o777) for path in (root, root / "vault")] == ["0o711", "0o700"]
    assert {path.stat().st_mode & 0o777 for path in (root / "vault").iterdir()} == {0o600}
    assert [path for path in root.rglob("*") if path.is_file() and CONTENT.encode() in path.read_bytes()] == []


def test_create_refuses_what_is_there_unless_it_is_to_be_replaced(orlop, nas):
    refused = orlop("secret", "create", "nas", input="other", status=1)
    replaced = orlop("secret", "create", "--replace", "nas", input="other")

    assert refused.stderr == "orlop: a secret 'nas' exists already; choose another name\n"
    assert replaced.stdout == "nas\n"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a/b", CONTENT, "'a/b' is not allowed"),
        ("data~password~0123456789abcdef", CONTENT, "'~' is in those that orlop makes"),
        ("nas", "", "'nas' would be empty"),
        ("nas", "x" * 600_000, "'nas' is too large"),
    ],
)
def test_create_refuses_what_cannot_be_kept(orlop, name, content, problem):
    refused = orlop("secret", "create", name, input=content, status=1)

    assert problem in refused.stderr
    assert orlop("secret", "ls", "-q").stdout == ""


def test_ls_shows_who_refers_to_them_as_a_table_json_or_by_a_template(orlop, share):
    orlop("secret", "create", "mine", input=CONTENT)
    orlop("volume", "create", "other")

    lines = orlop("secret", "ls").stdout.splitlines()
    (record,) = [
        json.loads(line) for line in orlop("secret", "ls", "-f", "name=na", "--format", "json").stdout.splitlines()
    ]

    assert lines[0].split() == ["NAME", "CREATED", "AT", "VOLUMES"]
    assert [(line.split()[0], line.split()[2:]) for line in lines[1:]] == [("mine", []), ("nas", ["share"])]
    assert (record["Name"], record["Volumes"], record["Sealed"]) == ("nas", "share", False)
    assert orlop("secret", "ls", "--format", "{{.Name}}:{{.Volumes}}").stdout == "mine:\nnas:share\n"


def test_inspect_shows_everything_but_the_content(orlop, share):
    done = orlop("secret", "inspect", "nas")
    (document,) = json.loads(done.stdout)

    assert sorted(document) == ["CreatedAt", "Name", "Sealed", "Volumes"]
    assert document["Volumes"] == ["share"]
    assert orlop("secret", "inspect", "-f", "{{.Name}}", "nas").stdout == "nas\n"
    assert CONTENT not in done.stdout


def test_inspect_of_one_that_is_not_there_shows_the_others(orlop, nas):
    done = orlop("secret", "inspect", "-f", "{{.Name}}", "nope", "nas", status=1)

    assert done.stdout == "nas\n"
    assert done.stderr == "orlop: no secret 'nope'; 'orlop secret ls' shows which there are\n"


def test_rm_is_refused_while_a_volume_refers_to_it_also_one_that_can_come_back(orlop, share):
    used = orlop("secret", "rm", "nas", status=1)
    orlop("volume", "rm", "share")
    removed = orlop("secret", "rm", "nas", status=1)
    orlop("volume", "prune", "-f", "--trash")
    done = orlop("secret", "rm", "nas")

    assert used.stderr == "orlop: secret 'nas' is in use by volume share; remove that first\n"
    assert removed.stderr == "orlop: secret 'nas' is in use by volume share (removed); remove that first\n"
    assert done.stdout == "nas\n"
    assert orlop("secret", "ls", "-q").stdout == ""


def test_rm_of_one_that_is_not_there_goes_on_with_the_others(orlop, nas):
    done = orlop("secret", "rm", "nope", "nas", status=1)

    assert done.stderr == "orlop: no secret 'nope'; 'orlop secret ls' shows which there are\n"
    assert done.stdout == "nas\n"


def test_the_key_can_be_kept_elsewhere(orlop, root, tmp_path):
    key = tmp_path / "elsewhere.key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o400)

    orlop("secret", "create", "nas", input=CONTENT, env={"ORLOP_KEY_FILE": str(key)})

    assert not (root / "vault.key").exists()
    assert orlop("system", "check", env={"ORLOP_KEY_FILE": str(key)}).stdout == "all is well\n"
    assert "key file" in orlop("system", "check", status=1).stderr


def test_check_finds_secrets_that_cannot_be_read(orlop, nas, root):
    (root / "vault/nas").write_bytes(b"nonsense")

    found = orlop("system", "check", "--repair", status=1)

    assert found.stderr.startswith("nas: secret 'nas' cannot be read: its file was changed")
    assert orlop("secret", "ls", "-q").stdout == "nas\n"


def test_check_finds_sealed_secrets_without_a_volume_and_repair_deletes_no_others(orlop, nas, root):
    orphan = "data~password~0123456789abcdef"
    shutil.copy(root / "vault/nas", root / "vault" / orphan)
    shutil.copy(root / "vault/nas", root / "vault/with~tilde")

    found = orlop("system", "check", status=1)
    repaired = orlop("system", "check", "--repair", status=1)

    assert f"{orphan}: this secret was made for a volume that is not there; --repair deletes it\n" in found.stderr
    assert repaired.stdout.startswith(f"done: deleted secret {orphan}, which no volume owns\n")
    assert orlop("secret", "ls", "-q").stdout == "nas\nwith~tilde\n"
