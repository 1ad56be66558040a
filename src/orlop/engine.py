"""Configuration, and one host's services put together; the only module that names every driver."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

from orlop.errors import Corrupt
from orlop.kernel import processes
from orlop.kernel.locks import Locks
from orlop.kernel.mounter import KernelMounter
from orlop.kernel.programs import Programs
from orlop.state import Row, State
from orlop.volumes import azure_account, reconcile, references
from orlop.volumes.azurefile import AzureFileDriver
from orlop.volumes.bucket import settings as bucket_settings
from orlop.volumes.bucket.driver import BucketDriver
from orlop.volumes.bucket.sessions import of_this_boot
from orlop.volumes.bucket.use import Use
from orlop.volumes.driver import VolumeDriver
from orlop.volumes.host import Host
from orlop.volumes.ipfs import node as ipfs
from orlop.volumes.ipfs.driver import IpfsDriver
from orlop.volumes.local import LocalDriver
from orlop.volumes.memory import TmpfsDriver
from orlop.volumes.recipes import RECIPES
from orlop.volumes.remote import RemoteDriver
from orlop.volumes.secret import SecretDriver
from orlop.volumes.service import DEFAULT_DRIVER, VolumeService
from orlop.volumes.shared import SETTING as SHARED
from orlop.volumes.shared import SharedDriver
from orlop.volumes.vault import Vault

if TYPE_CHECKING:
    from orlop.snapshots.repository import Repository
    from orlop.volumes.repositories import Place
    from orlop.volumes.timeline import Timeline

DRIVERS = "orlop.volume_drivers"
"""The entry point group of drivers from other packages: a callable that takes a folder of the driver's own.

One that has a parameter ``resolve`` is given an `orlop.volumes.references.Resolve` by that name.
"""

CACHE = "cache"
"""The folder of what can be read again, below the root."""
DRIVER = "ORLOP_DRIVER"
"""The setting that names the driver of volumes for which nothing is said."""


@dataclass(frozen=True, slots=True)
class Config:
    """Where this host's orlop keeps its things, and how patient it is (seconds)."""

    root: Path = Path("/var/lib/orlop")
    run: Path = Path("/run/orlop")
    trash_grace: float = 86_400.0
    hold_grace: float = 120.0
    patience: float = 100.0
    mounts: Path | None = None
    """Where volumes are mounted; None means below the root."""
    key_file: Path | None = None
    """The key of the secrets in the vault; None means below the root, beside the vault."""
    default_driver: str = ""
    """The driver of volumes for which nothing is said; empty means what the environment says."""
    boot: str = ""
    """The boot id; empty means the kernel's."""
    step: Callable[[str], object] = str
    """Called between two durable steps with the name of the place; tests kill the process there."""

    @property
    def state_file(self) -> Path:
        """The SQLite file."""
        return self.root / "state.db"


def volumes(config: Config) -> VolumeService:
    """The volumes that ``config`` speaks of; makes the folders that are missing.

    Raises `Corrupt` if the state file is damaged; `rebuild` is the way out.
    """
    config.root.mkdir(mode=0o711, parents=True, exist_ok=True)
    host = Host(config.boot or processes.boot_id(), time.time, config.step, config.hold_grace, config.trash_grace)
    state, locks = State(config.state_file), Locks(config.root / "locks", config.patience)
    mounter, found, default = KernelMounter(Programs(config.run / "programs")), drivers(config), default_driver(config)
    service = VolumeService(config.root, state, mounter, found, locks, host, vault(config), config.mounts, default)

    def fill(row: Row, folder: Path) -> None:
        timeline(config, service=service).fill(row, folder)

    service.life.fill = fill
    return service


def timeline(
    config: Config, place: "Place | None" = None, service: VolumeService | None = None, *, make: bool = False
) -> "Timeline":
    """The snapshots of ``config``'s volumes in the repository at ``place``; None means the host's own.

    That one is made if there is none; another only if the caller says ``make``.
    """
    # Imported here: what reads and writes repositories is large, and most commands do neither.
    from orlop.volumes import repositories
    from orlop.volumes.timeline import Timeline

    service = service or volumes(config)
    resolve = references.resolver(vault(config))

    def opened() -> "Repository":
        if place is None:
            return repositories.made(repositories.prepared(config.root), resolve, config.root / CACHE)
        return (repositories.made if make else repositories.opened)(place, resolve, config.root / CACHE)

    return Timeline(service, opened, place.address if place else "")


def vault(config: Config) -> Vault:
    """The secrets that are kept here; nothing is made before the first."""
    return Vault(config.root / "vault", config.key_file or config.root / "vault.key", config.step)


def drivers(config: Config) -> Mapping[str, VolumeDriver]:
    """Every volume driver there is, ours and those of other packages, by name; ours win."""
    resolve = references.resolver(vault(config))
    ours: dict[str, VolumeDriver] = {
        "local": LocalDriver(config.root / "volumes", resolve),
        "tmpfs": TmpfsDriver(),
        "secret": SecretDriver(config.run / "secrets", resolve=resolve),
        **{name: RemoteDriver(recipe, config.root / "drivers" / name, resolve) for name, recipe in RECIPES.items()},
        "azurefile": AzureFileDriver({name: os.environ.get(name, "") for name in azure_account.SETTINGS}),
        "ipfs": IpfsDriver(config.root / "drivers" / "ipfs", {ipfs.API: os.environ.get(ipfs.API, "")}),
        "bucket": BucketDriver(buckets(config), lambda: _keep(config)),
        "shared": SharedDriver(os.environ.get(SHARED, ""), config.step),
    }
    foreign = {
        entry.name: _made(entry.load(), config.root / "drivers" / entry.name, resolve)
        for entry in entry_points(group=DRIVERS)
    }
    return {**foreign, **ours}


def buckets(config: Config) -> Use:
    """What this host does with volumes in buckets."""
    told = {name: os.environ.get(name, "") for name in bucket_settings.SETTINGS}
    folders = config.root / "drivers" / "bucket", _sessions(config), config.mounts or config.root / "mounts"
    cache = config.root / CACHE
    resolve = references.resolver(vault(config))
    return Use(
        *folders, told, resolve, cache=cache, boot=config.boot, step=config.step,
        hydrate=lambda key: _start(config, "hydrate", key),
    )  # fmt: skip


def _sessions(config: Config) -> Path:
    told = os.environ.get(bucket_settings.SESSIONS)
    return of_this_boot(Path(told), config.boot or processes.boot_id()) if told else config.run / "bucket"


def _keep(config: Config) -> None:
    """Start a keeper; if there is one, it returns at once."""
    _start(config, "keep")


def _start(config: Config, *words: str) -> None:
    """Start an orlop that outlives this process."""
    run = config.run / "bucket"
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (run / "keeper.log").open("ab") as log:
        processes.reap(
            processes.Child(
                command(config, *words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        )


def command(config: Config, *words: str) -> list[str]:
    """How to start the command ``words`` of this orlop as a process of its own that sees what ``config`` says."""
    found = [sys.executable, "-P", "-m", "orlop", *words, f"--root={config.root}", f"--run={config.run}"]
    found += [f"--mounts={config.mounts}"] if config.mounts else []
    found += [f"--key-file={config.key_file}"] if config.key_file else []
    found += [f"--boot-id={config.boot}"] if config.boot else []
    return found


def default_driver(config: Config) -> str:
    """The driver where nothing is said: the one that is set, or Cloudstor's on a cloud platform.

    On a platform that Cloudstor did not know it refuses, and says what else there is: a volume on this host would not
    be what was asked for.
    """
    chosen, platform = config.default_driver or os.environ.get(DRIVER, ""), os.environ.get(azure_account.PLATFORM, "")
    if chosen or not platform:
        return chosen or DEFAULT_DRIVER
    return "shared" if platform.upper() == "AWS" else "azurefile"


def _made(driver: Callable[..., VolumeDriver], folder: Path, resolve: references.Resolve) -> VolumeDriver:
    """Most drivers have no secrets, and need not know how these are found."""
    return driver(folder, resolve=resolve) if "resolve" in signature(driver).parameters else driver(folder)


def rebuild(config: Config) -> tuple[Path | None, list[Path], list[Path]]:
    """Set a damaged state file aside and make a new one from the definitions beside the data.

    Returns where the old file went (None if it was sound), the definitions found, and those that make no sense.
    """
    try:
        service = volumes(config)
        service.state.check()
        service.state.close()
        aside = None
    except Corrupt:
        aside = _set_aside(config.state_file)
    service = volumes(config)
    found: list[Path] = []
    unreadable: list[Path] = []
    for path, row in reconcile.rebuild(service):
        (unreadable if row is None else found).append(path)
    for key in reconcile.look(service).mounted:
        # Whatever is mounted was attached: the kernel decides whether it is still in use.
        if service.state.by_key(key) is not None:
            with service.state.change() as change:
                change.attach(key, service.host.boot)
    service.state.close()
    return aside, found, unreadable


def _set_aside(state_file: Path) -> Path:
    aside = state_file.with_suffix(f".damaged-{time.time_ns()}")
    for suffix in ("-wal", "-shm"):
        journal = state_file.with_name(state_file.name + suffix)
        if journal.exists():
            journal.rename(aside.with_name(aside.name + suffix))
    state_file.rename(aside)
    return aside
