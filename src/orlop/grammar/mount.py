"""``--mount``: ``type=volume,source=NAME,target=PATH,...`` in any order."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import get_args

from orlop.errors import Invalid
from orlop.grammar.record import fields
from orlop.grammar.rules import absolute, check, misconfigured, target_problem
from orlop.grammar.spec import Kind, MountSpec, Recursive
from orlop.grammar.values import octal, quoted, size, switch, volume_name

_KINDS: Mapping[str, Kind] = {kind: kind for kind in get_args(Kind)}
_RECURSIVE: Mapping[str, Recursive] = {word: word for word in get_args(Recursive)}

# In the order in which Docker looks for options of another type; of images orlop knows no more than that.
_FAMILIES = ("volume", "image", "bind", "tmpfs")


def parse_mount(text: str, *, cwd: str | None = None) -> MountSpec:
    """What ``--mount text`` asks for; without ``type=`` it is a volume.

    Args:
        text: Such as ``type=bind,source=/srv/data,target=/data,readonly``.
        cwd: Where ``source=./data`` is looked up. Without it such a source is refused, as by Docker's engine.

    Raises:
        Invalid: ``invalid argument "..." for "--mount" flag: ...`` where Docker's client would refuse it, and
            ``invalid mount config for type "...": ...`` where its engine would.
    """
    try:
        kind, said = _read(text)
    except Invalid as problem:
        raise Invalid(f'invalid argument {quoted(text)} for "--mount" flag: {problem}') from None
    if kind not in _KINDS:
        raise misconfigured(kind, target_problem(said.target) or "mount type unknown")
    spec = check(replace(said, kind=_KINDS[kind], source=absolute(said.source, cwd)))
    if spec.kind == "volume" and spec.source:
        volume_name(spec.source)
    return spec


def _read(text: str) -> tuple[str, MountSpec]:
    """The type as it was written, and everything else."""
    pairs = [_pair(field) for field in fields(text)]
    kind = "volume"
    said = MountSpec(kind="volume", target="")
    for key, value, field in pairs:
        if key == "type":
            kind = value.lower()
        else:
            said = _say(said, key, value, field)
    if not kind:
        raise Invalid("type is required")
    if not said.target:
        raise Invalid("target is required")
    _refuse_mixture(kind, {key.partition("-")[0] for key, _, _ in pairs if "-" in key})
    _refuse_half_a_recursion(said)
    return kind, said


def _pair(field: str) -> tuple[str, str, str]:
    key, equals, value = field.partition("=")
    key = key.lower()
    if equals:
        return key, value, field
    if key not in _ALONE:
        raise Invalid(f"invalid field '{field}' must be a key=value pair")
    return key, "true", field


def _say(said: MountSpec, key: str, value: str, field: str) -> MountSpec:
    if key not in _KEYS:
        raise Invalid(f"unexpected key '{key}' in '{field}'")
    try:
        return _KEYS[key](said, value)
    except Invalid as problem:
        # Most values need no more explanation than their key; bind-recursive lists its words.
        hint = f" {problem}" if key == "bind-recursive" else ""
        raise Invalid(f"invalid value for {key}: {value}{hint}") from None


def _refuse_mixture(kind: str, families: set[str]) -> None:
    for family in _FAMILIES:
        if family in families and family != kind:
            raise Invalid(f"cannot mix '{family}-*' options with mount type '{kind}'")


def _refuse_half_a_recursion(said: MountSpec) -> None:
    """A bind that is read-only in a special way has to be read-only in the first place."""
    option = f"option 'bind-recursive={said.recursive}' requires"
    if said.recursive in ("writable", "readonly") and not said.read_only:
        raise Invalid(f"{option} 'readonly' to be specified in conjunction")
    # With any other propagation a mount could arrive later that is writable.
    if said.recursive == "readonly" and said.propagation != "rprivate":
        raise Invalid(f"{option} 'bind-propagation=rprivate' to be specified in conjunction")


def _recursive(said: MountSpec, value: str) -> MountSpec:
    if value not in _RECURSIVE:
        raise Invalid('(must be "enabled", "disabled", "writable", or "readonly")')
    return replace(said, recursive=_RECURSIVE[value])


def _non_recursive(said: MountSpec, value: str) -> MountSpec:
    return replace(said, recursive="disabled" if switch(value) else "enabled")


def _tmpfs_option(said: MountSpec, name: str, number: int, text: str) -> MountSpec:
    """Zero is as good as no key; the options are sorted, so that the order of the keys does not matter."""
    others = [option for option in said.options if not option.startswith(f"{name}=")]
    own = [f"{name}={text}"] if number else []
    return replace(said, options=tuple(sorted(others + own)))


def _entry(text: str) -> dict[str, str]:
    key, _, value = text.partition("=")
    return {key: value} if key else {}


_ALONE = frozenset({"readonly", "ro", "volume-nocopy", "bind-nonrecursive"})

_KEYS: Mapping[str, Callable[[MountSpec, str], MountSpec]] = {
    **dict.fromkeys(("source", "src"), lambda said, v: replace(said, source=v)),
    **dict.fromkeys(("target", "dst", "destination"), lambda said, v: replace(said, target=v)),
    **dict.fromkeys(("readonly", "ro"), lambda said, v: replace(said, read_only=switch(v))),
    "consistency": lambda said, v: replace(said, consistency=v.lower()),
    "bind-propagation": lambda said, v: replace(said, propagation=v.lower()),
    "bind-recursive": _recursive,
    "bind-nonrecursive": _non_recursive,
    "volume-driver": lambda said, v: replace(said, driver=v),
    "volume-opt": lambda said, v: replace(said, driver_options={**said.driver_options, **_entry(v)}),
    "volume-label": lambda said, v: replace(said, labels={**said.labels, **_entry(v)}),
    "volume-subpath": lambda said, v: replace(said, subpath=v),
    "volume-nocopy": lambda said, v: replace(said, no_copy=switch(v)),
    "image-subpath": lambda said, _: said,
    "tmpfs-size": lambda said, v: _tmpfs_option(said, "size", size(v), str(size(v))),
    "tmpfs-mode": lambda said, v: _tmpfs_option(said, "mode", octal(v), f"{octal(v):o}"),
}
