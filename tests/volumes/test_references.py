"""Secrets by reference: which texts are one, and where they lead."""

from pathlib import Path

import pytest

from orlop.errors import Corrupt, Invalid, Unavailable
from orlop.volumes import references
from orlop.volumes.driver import Volume
from orlop.volumes.local import LocalDriver
from orlop.volumes.vault import Vault


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "vault", tmp_path / "vault.key")


def test_each_kind_leads_to_its_secret(vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("from a file")
    monkeypatch.setenv("KEY", "from the environment")
    vault.put("nas", b"from the vault")
    resolve = references.resolver(vault)

    assert resolve("password", f"file:{tmp_path}/key") == b"from a file"
    assert resolve("password", "env:KEY") == b"from the environment"
    assert resolve("password", "secret:nas") == b"from the vault"


@pytest.mark.parametrize("text", ["hunter2", "", "file:hunter2", "secret:hunter2/x", "secret:", "Secret:hunter2"])
def test_what_is_no_reference_is_refused_without_showing_it(vault: Vault, text: str) -> None:
    for refuse in (references.check, references.resolve, references.resolver(vault)):
        with pytest.raises(Invalid, match="'password'") as caught:
            refuse("password", text)

        assert "hunter2" not in str(caught.value)


def test_a_secret_that_is_not_there_is_named_with_the_option(vault: Vault) -> None:
    with pytest.raises(Unavailable, match="option 'password': no secret 'nas'"):
        references.resolver(vault)("password", "secret:nas")


def test_one_that_cannot_be_read_says_so(vault: Vault, tmp_path: Path) -> None:
    vault.put("nas", b"hunter2")
    (tmp_path / "vault/nas").write_bytes(b"nonsense")

    with pytest.raises(Corrupt, match="'nas' cannot be read"):
        references.resolver(vault)("password", "secret:nas")


def test_without_a_vault_a_named_secret_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="secret 'nas' is in a vault, and there is none here"):
        references.resolve("password", "secret:nas")


def test_the_secrets_that_options_refer_to_are_found_amidst_other_words() -> None:
    options = {"password": "secret:a", "o": "user=u,password=secret:b,ro", "key": "file:/secret:c", "text": "xsecret:d"}

    assert references.named(options) == {"a", "b"}


def test_the_local_driver_takes_a_password_from_the_vault(vault: Vault, tmp_path: Path) -> None:
    vault.put("nas", b"hunter2\n")
    driver = LocalDriver(tmp_path, references.resolver(vault))
    volume = Volume("data", "local", {"type": "cifs", "device": "//127.0.0.1/a", "o": "user=u,password=secret:nas"})
    driver.create(volume)

    (mount,) = driver.attach(volume)

    assert mount.options == ("addr=127.0.0.1", "user=u")
    assert mount.secrets == (("password", "hunter2"),)
