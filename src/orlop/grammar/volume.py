"""``-v`` and ``--volume``: ``[SOURCE:]TARGET[:MODES]``."""

from orlop.errors import Invalid
from orlop.grammar.modes import Modes, is_modes, parse_modes
from orlop.grammar.rules import absolute, check
from orlop.grammar.spec import MountSpec
from orlop.grammar.values import volume_name

_SILENT = Modes(read_only=False, relabel="", no_copy=False, propagation="", consistency="")


def parse_volume(text: str, *, driver: str = "", cwd: str | None = None) -> MountSpec:
    """What ``-v text`` asks for.

    A source that begins with ``/`` is a path of the host, any other is a volume's name, and without one the
    volume is anonymous.

    Args:
        text: Such as ``data:/var/lib/data:ro``.
        driver: What ``--volume-driver`` says; it is for volumes only.
        cwd: Where ``./data`` is looked up. Without it such a source is refused, as by Docker's engine.

    Raises:
        Invalid: In the words of Docker's client or engine, whichever would see it first.
    """
    source, target, modes_text = _sections(text)
    source = absolute(source, cwd)
    text = ":".join(filter(None, (source, target, modes_text)))
    modes = parse_modes(modes_text) if modes_text else _SILENT
    try:
        spec = check(_spec(source, target, modes, driver))
    except Invalid as problem:
        raise Invalid(f"{_refused(text)}: {problem}") from None
    if spec.kind == "volume" and spec.source:
        volume_name(spec.source)
    return spec


def _sections(text: str) -> tuple[str, str, str]:
    """Source, target and modes, the first and the last possibly empty."""
    if not text:
        raise Invalid("invalid empty volume spec")
    sections = text.split(":")
    for number, section in enumerate(sections):
        if not section:
            raise Invalid(f"invalid spec: {text}: empty section between colons")
        if number == 2 and len(sections) > 3:
            raise Invalid(f"invalid spec: {text}: too many colons")
    if len(sections) == 1:
        return "", text, ""
    # "/data:ro" is more likely a forgotten source than a folder called "ro".
    if len(sections) == 2 and is_modes(sections[1]):
        raise Invalid(_refused(text))
    return sections[0], sections[1], "".join(sections[2:])


def _refused(text: str) -> str:
    return f"invalid volume specification: '{text}'"


def _spec(source: str, target: str, modes: Modes, driver: str) -> MountSpec:
    is_bind = source.startswith("/")
    return MountSpec(
        kind="bind" if is_bind else "volume",
        source=source,
        target=target,
        read_only=modes.read_only,
        driver="" if is_bind else driver,
        no_copy=modes.no_copy,
        propagation=modes.propagation,
        create_source=is_bind,
        relabel=modes.relabel,
        consistency=modes.consistency,
    )
