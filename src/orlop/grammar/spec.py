"""What a user asked to see inside a container: `MountSpec`, whichever flag it was said with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["volume", "bind", "tmpfs"]
Recursive = Literal["enabled", "disabled", "writable", "readonly"]
Relabel = Literal["", "z", "Z"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSpec:
    """One mount of a container, as asked for; an engine decides what it takes to make it.

    Attributes:
        kind: A named or anonymous volume, a path of the host, or memory.
        target: Where the container sees it: absolute, without ``.``, ``..`` and doubled slashes; never ``/``.
        source: The volume's name (empty: anonymous), the path on the host, or empty for a tmpfs.
        read_only: Whether the container may not write; by default it may.
        driver: Who keeps the volume if it has to be created; empty is the engine's default.
        driver_options: The options with which the volume is created.
        labels: The labels with which the volume is created.
        subpath: The folder in the volume that is shown instead of the whole.
        no_copy: Whether a new volume stays empty instead of taking what the image has at ``target``.
        propagation: As mount(8) names it, such as ``rslave``; empty is the engine's default, ``rprivate``.
        recursive: What happens to mounts below a bind's source: ``enabled`` shows them (read-only with it,
            where the kernel can), ``disabled`` does not, ``writable`` shows and leaves them writable,
            ``readonly`` fails where it cannot make them read-only.
        create_source: Whether a bind's missing source is created as a folder; otherwise it is an error.
        relabel: SELinux: ``z`` shares the content among containers, ``Z`` keeps it for this one.
        consistency: A hint for engines on other systems than Linux, which has no use for it.
        options: How a tmpfs is made, in mount(8)'s words, such as ``size=64m``.
    """

    kind: Kind
    target: str
    source: str = ""
    read_only: bool = False
    driver: str = ""
    driver_options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    subpath: str = ""
    no_copy: bool = False
    propagation: str = ""
    recursive: Recursive = "enabled"
    create_source: bool = False
    relabel: Relabel = ""
    consistency: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VolumesFrom:
    """All mounts of another container: writable where they are there, unless ``read_only``."""

    container: str
    read_only: bool = False
    relabel: Relabel = ""
