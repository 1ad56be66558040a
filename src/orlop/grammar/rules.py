"""What every mount has to fulfil, whichever flag it was said with; the errors are Docker's."""

import posixpath
from dataclasses import replace

from orlop.errors import Invalid
from orlop.grammar.spec import MountSpec

PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})


def check(spec: MountSpec) -> MountSpec:
    """``spec`` with tidy paths, if it makes sense.

    Does not look at a volume's name (`orlop.grammar.values.volume_name` does) nor at the host: whether a
    bind's source exists is for the engine to see.

    Raises:
        Invalid: ``invalid mount config for type "bind": ...``.
    """
    problem = target_problem(spec.target) or _PROBLEMS[spec.kind](spec)
    if problem:
        raise misconfigured(spec.kind, problem)
    source = tidy(spec.source) if spec.kind == "bind" else spec.source
    return replace(spec, target=tidy(spec.target), source=source)


def misconfigured(kind: str, problem: str) -> Invalid:
    """The error that names the kind of mount and its ``problem``."""
    return Invalid(f'invalid mount config for type "{kind}": {problem}')


def target_problem(path: str) -> str:
    """Why nothing can be mounted at ``path`` in a container; empty if it can."""
    if posixpath.isabs(path) and tidy(path) == "/":
        return "invalid specification: destination can't be '/'"
    return _not_absolute(path)


def tidy(path: str) -> str:
    """An absolute path without ``.``, ``..``, doubled and trailing slashes; no link is followed."""
    # normpath alone keeps a double slash at the beginning, to which POSIX allows a meaning of its own.
    return "/" + posixpath.normpath(path).lstrip("/")


def absolute(source: str, cwd: str | None) -> str:
    """``source`` as seen from ``cwd`` if it begins with a dot: what Docker's client does before it asks.

    Without a ``cwd`` (a request from elsewhere, where "here" means nothing) it stays as it is.
    """
    if cwd is None or not source.startswith("."):
        return source
    return posixpath.normpath(posixpath.join(cwd, source))


def _not_absolute(path: str) -> str:
    return "" if posixpath.isabs(path) else f"invalid mount path: '{path}' mount path must be absolute"


def _bind_problem(spec: MountSpec) -> str:
    if not spec.source:
        return "field Source must not be empty"
    if spec.propagation and spec.propagation not in PROPAGATIONS:
        return f"invalid propagation mode: {spec.propagation}"
    if spec.no_copy:
        return "field VolumeOptions must not be specified"
    return _not_absolute(spec.source)


def _volume_problem(spec: MountSpec) -> str:
    if spec.propagation:
        return "field BindOptions must not be specified"
    if spec.subpath and not spec.source:
        return "must not set Subpath when using anonymous volumes"
    if spec.subpath and _leaves(spec.subpath):
        return "subpath must be a relative path within the volume"
    if spec.read_only and not spec.source:
        return "must not set ReadOnly mode when using anonymous volumes"
    return ""


def _tmpfs_problem(spec: MountSpec) -> str:
    return "field Source must not be specified" if spec.source else ""


def _leaves(subpath: str) -> bool:
    return posixpath.isabs(subpath) or posixpath.normpath(subpath).split("/")[0] == ".."


_PROBLEMS = {"bind": _bind_problem, "volume": _volume_problem, "tmpfs": _tmpfs_problem}
