"""All mount flags of one container together, and a mount said as a flag again."""

from collections.abc import Iterable

from orlop.errors import Invalid
from orlop.grammar.mount import parse_mount
from orlop.grammar.record import as_record
from orlop.grammar.spec import MountSpec
from orlop.grammar.tmpfs import parse_tmpfs
from orlop.grammar.volume import parse_volume


def parse_flags(
    *,
    volumes: Iterable[str] = (),
    mounts: Iterable[str] = (),
    tmpfs: Iterable[str] = (),
    volume_driver: str = "",
    cwd: str | None = None,
) -> tuple[MountSpec, ...]:
    """What all ``-v``, ``--mount`` and ``--tmpfs`` flags of one container ask for, each place at most once.

    An anonymous ``-v`` gives way to anything else at its place, and saying the same ``-v`` twice, or several
    ``--tmpfs`` of one place (the last counts), is fine.

    Raises:
        Invalid: For a bad flag, and ``Duplicate mount point: ...`` where two mounts want one place.
    """
    from_volumes = [parse_volume(text, driver=volume_driver, cwd=cwd) for text in dict.fromkeys(volumes)]
    from_tmpfs = {spec.target: spec for spec in map(parse_tmpfs, tmpfs)}
    placed: dict[str, MountSpec] = {}
    for spec in (
        *(spec for spec in from_volumes if spec.source),
        *(parse_mount(text, cwd=cwd) for text in mounts),
        *from_tmpfs.values(),
    ):
        if spec.target in placed:
            raise Invalid(f"Duplicate mount point: {spec.target}")
        placed[spec.target] = spec
    for spec in from_volumes:
        placed.setdefault(spec.target, spec)
    return tuple(placed.values())


def as_flag(spec: MountSpec) -> tuple[str, str]:
    """A flag that asks for ``spec``, such as ``("--mount", "type=volume,source=data,target=/data")``.

    ``--tmpfs`` for memory; ``-v`` for what ``--mount`` cannot say (relabelling, a source that is created),
    its ``--volume-driver`` being a flag of its own; else ``--mount``.
    """
    if spec.relabel or spec.create_source:
        return "-v", _as_volume(spec)
    if spec.kind == "tmpfs" and ":" not in spec.target and not spec.consistency:
        return "--tmpfs", _as_tmpfs(spec)
    return "--mount", as_record(_as_fields(spec))


def _as_volume(spec: MountSpec) -> str:
    access = "ro" if spec.read_only else ""
    copy = "nocopy" if spec.no_copy else ""
    modes = ",".join(filter(None, (access, spec.relabel, copy, spec.propagation, spec.consistency)))
    return ":".join(filter(None, (spec.source, spec.target, modes)))


def _as_tmpfs(spec: MountSpec) -> str:
    options = ",".join(("ro", *spec.options) if spec.read_only else spec.options)
    return f"{spec.target}:{options}" if options else spec.target


def _as_fields(spec: MountSpec) -> list[str]:
    settings = {
        "type": spec.kind,
        "source": spec.source,
        "target": spec.target,
        "consistency": spec.consistency,
        "bind-propagation": spec.propagation,
        "bind-recursive": "" if spec.recursive == "enabled" else spec.recursive,
        "volume-driver": spec.driver,
        "volume-subpath": spec.subpath,
    }
    switches = {"readonly": spec.read_only, "volume-nocopy": spec.no_copy}
    return [
        *(f"{key}={value}" for key, value in settings.items() if value),
        *(key for key, said in switches.items() if said),
        *(f"volume-opt={key}={value}" for key, value in spec.driver_options.items()),
        *(f"volume-label={key}={value}" for key, value in spec.labels.items()),
        *(f"tmpfs-{option}" for option in spec.options),
    ]
