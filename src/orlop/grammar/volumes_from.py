"""``--volumes-from``: ``CONTAINER[:MODES]``."""

from orlop.errors import Invalid
from orlop.grammar.modes import parse_modes
from orlop.grammar.spec import VolumesFrom


def parse_volumes_from(text: str) -> VolumesFrom:
    """What ``--volumes-from text`` asks for; whether there is such a container is the engine's to see.

    Raises:
        Invalid: For no container at all, an unknown mode, or one that belongs to the mounts themselves
            (``nocopy`` and the propagations): those stay what they are in the other container.
    """
    if not text:
        raise Invalid("volumes-from specification cannot be an empty string")
    container, _, modes_text = text.partition(":")
    if not modes_text:
        return VolumesFrom(_named(container))
    modes = parse_modes(modes_text)
    if modes.no_copy or modes.propagation:
        raise Invalid(f"invalid mode: {modes_text}")
    return VolumesFrom(_named(container), modes.read_only, modes.relabel)


def _named(container: str) -> str:
    if not container:
        raise Invalid('invalid name or ID supplied: ""')
    return container
