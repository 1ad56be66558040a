"""``--tmpfs``: ``TARGET[:OPTIONS]``, and which options a tmpfs of a container takes."""

from collections.abc import Sequence

from orlop.errors import Invalid
from orlop.grammar.rules import target_problem, tidy
from orlop.grammar.spec import MountSpec
from orlop.grammar.values import quoted

# Memory that a container writes is data, not programs or devices, unless somebody says so.
_DEFAULTS = ("noexec", "nosuid", "nodev")

_PROPAGATION = "propagation"
_FLAGS = {
    **dict.fromkeys(("ro", "rw"), "ro"),
    **dict.fromkeys(("suid", "nosuid"), "suid"),
    **dict.fromkeys(("dev", "nodev"), "dev"),
    **dict.fromkeys(("exec", "noexec"), "exec"),
    **dict.fromkeys(("sync", "async"), "sync"),
    **dict.fromkeys(("mand", "nomand"), "mand"),
    **dict.fromkeys(("atime", "noatime"), "atime"),
    **dict.fromkeys(("diratime", "nodiratime"), "diratime"),
    **dict.fromkeys(("relatime", "norelatime"), "relatime"),
    **dict.fromkeys(("strictatime", "nostrictatime"), "strictatime"),
    **dict.fromkeys(("private", "shared", "slave", "unbindable"), _PROPAGATION),
    **dict.fromkeys(("rprivate", "rshared", "rslave", "runbindable"), _PROPAGATION),
    **{word: word for word in ("dirsync", "remount", "bind", "rbind")},
}
_SETTINGS = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"})


def parse_tmpfs(text: str) -> MountSpec:
    """What ``--tmpfs text`` asks for; of options that contradict each other the last one counts.

    The values of ``size=``, ``mode=`` and so on are the kernel's to understand (``size=50%`` is fine).

    Raises:
        Invalid: For a path that is not absolute, and for an option that Docker's engine does not pass on.
    """
    target, _, options_text = text.partition(":")
    problem = target_problem(target)
    if problem:
        raise Invalid(problem)
    options = _merged(options_text.split(",")) if options_text else ()
    return MountSpec(
        kind="tmpfs",
        target=tidy(target),
        read_only="ro" in options,
        options=tuple(option for option in options if option not in ("ro", "rw")),
    )


def tmpfs_options(spec: MountSpec) -> tuple[str, ...]:
    """All options with which the tmpfs of ``spec`` is to be mounted, Docker's defaults among them."""
    access = ("ro",) if spec.read_only else ()
    return _merged((*_DEFAULTS, *access, *spec.options))


def _merged(options: Sequence[str]) -> tuple[str, ...]:
    """``options`` in order, without those that a later one of the same sort replaces."""
    said = [option for option in options if option != "defaults"]
    last = {_sort(option): number for number, option in enumerate(said)}
    return tuple(said[number] for number in sorted(last.values()))


def _sort(option: str) -> str:
    if option in _FLAGS:
        return _FLAGS[option]
    name, equals, _ = option.partition("=")
    if not equals or name not in _SETTINGS:
        raise Invalid(f"invalid tmpfs option {quoted(name)}")
    return f"{name}="
