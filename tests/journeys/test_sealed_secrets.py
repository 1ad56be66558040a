"""A password typed as an option of a real engine reaches the driver, and is in no file, answer, log line or process."""

import json
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from orlop.testing.engine import Engine
from orlop.testing.machine import Machine

LITERAL = "testpassword-hunter2-8471"
OTHER = "otherpassword-swordfish-5520"
DRIVER = '''
from hashlib import sha256
from orlop.mount import Mount
from orlop.volumes import references


class Locker:
    """Shows the digest of its password, to prove that it has it."""

    scope = "local"

    def __init__(self, folder, resolve):
        self.folder, self.resolve = folder, resolve

    def options(self):
        return {"password": "what opens it"}

    def secrets(self):
        return ["password"]

    def create(self, volume):
        references.check("password", volume.options["password"])

    def remove(self, volume):
        pass

    def attach(self, volume):
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "digest").write_text(sha256(self.resolve("password", volume.options["password"])).hexdigest())
        return [Mount.bind(self.folder)]

    def detach(self, volume):
        pass
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A driver of another package, some of whose options are secrets."""
    information = tmp_path / "site/locker-1.0.dist-info"
    information.mkdir(parents=True)
    (tmp_path / "site/locker.py").write_text(DRIVER)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: locker\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[orlop.volume_drivers]\nlocker = locker:Locker\n")
    return tmp_path / "site"


@pytest.fixture
def volume(engine: Engine, serve, package: Path) -> Iterator[str]:
    """A volume that was made with the password, and a container that uses it."""
    serve("--run", "/run/orlop", DEBUG="1", PYTHONPATH=str(package))
    create = ("volume", "create", "-d", "orlop", "-o", "driver=locker", "-o", f"password={LITERAL}", "vault-data")
    engine.docker(*create)
    engine.docker(*create)
    container = engine.docker("run", "-d", "-v", "vault-data:/data", "shell", "sleep", "1000").stdout.strip()
    yield container
    engine.docker("rm", "-f", container, check=False)
    engine.docker("volume", "rm", "vault-data", check=False)


def ask(machine: Machine, verb: str, **body: object) -> str:
    """What the daemon answers to a verb; the body is in no argument."""
    curl = ["curl", "-sS", "--unix-socket", "/run/docker/plugins/orlop.sock", f"http://orlop/{verb}"]
    return machine.run([*curl, "-d", "@-"], input=json.dumps(body), timeout=20).stdout


def orlop(machine: Machine, package: Path, *words: str) -> str:
    env = {"ORLOP_ROOT": str(machine.folder / "store"), "ORLOP_RUN": "/run/orlop", "PYTHONPATH": str(package)}
    return machine.run([sys.executable, "-m", "orlop", *words], env=env).stdout


def shows(content: bytes | str) -> bool:
    content = content.encode() if isinstance(content, str) else content
    return LITERAL.encode() in content or OTHER.encode() in content


def test_it_reaches_the_driver_and_no_file_of_orlop_holds_it(engine: Engine, machine: Machine, volume: str) -> None:
    digest = engine.docker("exec", volume, "cat", "/data/digest").stdout

    folders = [machine.root / str(machine.folder / "store").lstrip("/"), machine.root / "run/orlop"]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert digest == sha256(LITERAL.encode()).hexdigest()
    assert {"state.db", "volume.json", "vault.key"} <= {path.name for path in files}
    assert [path for path in files if shows(path.read_bytes())] == []


def test_no_process_shows_it_in_its_arguments_or_its_environment(machine: Machine, volume: str) -> None:
    looked, shown = 0, []
    for process in (machine.root / "proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                content = (process / name).read_bytes()
            except OSError:
                continue
            looked += 1
            if shows(content):
                shown.append((process.name, name))

    assert looked > 6
    assert shown == []


def test_no_answer_of_the_daemon_or_the_command_line_shows_it_nor_the_log(
    machine: Machine, package: Path, volume: str
) -> None:
    name, options = "vault-data", {"driver": "locker", "password": LITERAL}
    answers = {
        "again": ask(machine, "VolumeDriver.Create", Name=name, Opts=options),
        "another": ask(machine, "VolumeDriver.Create", Name=name, Opts={**options, "password": OTHER}),
        "misspelt": ask(machine, "VolumeDriver.Create", Name="bad", Opts={**options, "pasword": OTHER}),
        "local": ask(machine, "VolumeDriver.Create", Name="bad",
                     Opts={"type": "cifs", "device": "//a/b", "o": f"username=u,password={OTHER}"}),
        "mount": ask(machine, "VolumeDriver.Mount", Name=name, ID="c2"),
        **{verb: ask(machine, f"VolumeDriver.{verb}", Name=name) for verb in ("Get", "List", "Path", "Capabilities")},
        "unmount": ask(machine, "VolumeDriver.Unmount", Name=name, ID="c2"),
        "remove": ask(machine, "VolumeDriver.Remove", Name=name),
        "metrics": ask(machine, "metrics"),
    }  # fmt: skip
    reference = json.loads(answers["Get"])["Volume"]["Status"]["Options"]["password"]
    secret = reference.removeprefix("secret:")
    told = [
        orlop(machine, package, *words.split())
        for words in ("volume ls --format json", f"volume inspect {name}", "system events", "system df -v", "info",
                      "system check", f"secret inspect {secret}", "secret ls")
    ]  # fmt: skip
    log = (machine.folder / "serve.log").read_text()

    assert json.loads(answers["again"]) == {"Err": ""}
    assert "exists with another secret in option 'password'" in answers["another"]
    assert "did you mean 'password'" in answers["misspelt"]
    assert "must name a secret" in answers["local"]
    assert reference.startswith("secret:vault-data~password~")
    assert "in use" in answers["remove"]
    assert [verb for verb, answer in answers.items() if shows(answer)] == []
    assert reference in told[1]
    assert [text for text in told if shows(text)] == []
    assert "DEBUG" in log
    assert "create vault-data" in log
    assert not shows(log)


def test_docker_itself_keeps_and_shows_what_was_typed(engine: Engine, volume: str) -> None:
    (found,) = json.loads(engine.docker("volume", "inspect", "vault-data").stdout)

    assert found["Options"]["password"] == LITERAL
    assert found["Status"]["Options"]["password"].startswith("secret:vault-data~password~")


def test_it_is_gone_when_the_volume_has_gone_for_good(
    engine: Engine, machine: Machine, package: Path, volume: str
) -> None:
    engine.docker("rm", "-f", volume)
    engine.docker("volume", "rm", "vault-data")
    in_the_trash = orlop(machine, package, "secret", "ls", "-q")
    orlop(machine, package, "volume", "prune", "-f", "--trash")

    assert in_the_trash.startswith("vault-data~password~")
    assert orlop(machine, package, "secret", "ls", "-q") == ""
