"""How a real dockerd finds orlop where no socket lies in /run/docker/plugins: over TLS, and by a line with a URL."""

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from orlop.cli.main import main
from orlop.testing.engine import Engine
from orlop.testing.machine import Machine

ADDRESS = "127.0.0.1:7070"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a certificate of it for the daemon and for the engine."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=30)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl("req", "-x509", *key, "-subj", "/CN=throwaway", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("daemon", "engine"):
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1")
        openssl("req", "-x509", *key, *signed, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    return folder


def spec(*words: object) -> str:
    done = CliRunner().invoke(main, ["plugin", "spec", *map(str, words)])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def place(machine: Machine, name: str, content: str) -> None:
    folder = machine.root / "etc/docker/plugins"
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath(name).write_text(content)


@pytest.mark.feature("P1")
def test_docker_finds_it_over_tls_and_nobody_without_a_certificate_is_heard(
    engine: Engine, machine: Machine, serve, certificates: Path
) -> None:
    serve(
        *("--socket", "/run/orlop-alone.sock", "--tcp", ADDRESS, "--tls-ca", str(certificates / "ca.pem")),
        *("--tls-cert", str(certificates / "daemon.pem"), "--tls-key", str(certificates / "daemon.key")),
        socket="run/orlop-alone.sock",
    )
    mine = ("--cert", certificates / "engine.pem", "--key", certificates / "engine.key")
    place(machine, "far.json", spec("far", ADDRESS, "--ca", certificates / "ca.pem", *mine))

    engine.docker("volume", "create", "-d", "far", "data")
    engine.docker("run", "--rm", "-v", "data:/data", "shell", "sh", "-c", "echo came over TLS >/data/x")
    shown = engine.docker("run", "--rm", "-v", "data:/data", "shell", "cat", "/data/x")
    engine.docker("volume", "rm", "data")

    assert shown.stdout == "came over TLS\n"
    activate = f"https://{ADDRESS}/Plugin.Activate"
    curl = ["curl", "-sS", "--max-time", "10", "-X", "POST", "--cacert", str(certificates / "ca.pem"), activate]
    known = machine.run([*curl, "--cert", str(certificates / "engine.pem"), "--key", str(certificates / "engine.key")])
    stranger = machine.run(curl, check=False)
    plain = machine.run(["curl", "-sS", "--max-time", "10", activate.replace("https", "http")], check=False)
    assert json.loads(known.stdout) == {"Implements": ["VolumeDriver"]}
    assert (stranger.returncode != 0, stranger.stdout) == (True, "")
    assert (plain.returncode != 0, plain.stdout) == (True, "")


@pytest.mark.feature("P1")
def test_docker_finds_it_by_a_spec_file(engine: Engine, machine: Machine, serve) -> None:
    serve("--socket", "/run/elsewhere/orlop.sock", socket="run/elsewhere/orlop.sock")
    place(machine, "near.spec", spec("near", "unix:///run/elsewhere/orlop.sock"))

    created = engine.docker("volume", "create", "-d", "near", "data3")

    assert created.stdout == "data3\n"
    assert engine.docker("volume", "inspect", "-f", "{{.Driver}}", "data3").stdout == "near\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("orlop", "tcp://nas:7070"), "--ca"),
        (("orlop", "nas:7070", "--ca", "ca.pem"), "--key"),
        (("orlop", "nas", "--ca", "ca.pem", "--cert", "c.pem", "--key", "k.pem"), "HOST:PORT"),
        (("orlop", "unix:///x.sock", "--ca", "ca.pem", "--cert", "c.pem", "--key", "k.pem"), "HOST:PORT"),
    ],
)
def test_an_address_that_no_engine_could_use_is_refused(words: tuple[str, ...], complaint: str) -> None:
    done = CliRunner().invoke(main, ["plugin", "spec", *words])

    assert done.exit_code == 1
    assert complaint in done.stderr
