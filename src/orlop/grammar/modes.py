"""The comma-separated modes after the last colon of ``-v`` and ``--volumes-from``."""

from dataclasses import dataclass

from orlop.errors import Invalid
from orlop.grammar.rules import PROPAGATIONS
from orlop.grammar.spec import Relabel

_WORDS = {
    **dict.fromkeys(("ro", "rw"), "access"),
    **dict.fromkeys(("z", "Z"), "relabel"),
    **dict.fromkeys(("consistent", "cached", "delegated"), "consistency"),
    **dict.fromkeys(PROPAGATIONS, "propagation"),
    "nocopy": "copy",
}


@dataclass(frozen=True, slots=True)
class Modes:
    """What the modes say; what they do not mention is empty or false."""

    read_only: bool
    relabel: Relabel
    no_copy: bool
    propagation: str
    consistency: str


def is_modes(text: str) -> bool:
    """Whether ``text`` is nothing but known modes, at most one of each sort."""
    words = text.split(",")
    sorts = [_WORDS.get(word) for word in words]
    return None not in sorts and len(set(sorts)) == len(sorts)


def parse_modes(text: str) -> Modes:
    """What ``ro,z`` says.

    Raises:
        Invalid: ``invalid mode: ...`` for an unknown mode, or two of one sort such as ``ro,rw``.
    """
    if not is_modes(text):
        raise Invalid(f"invalid mode: {text}")
    said = {_WORDS[word]: word for word in text.split(",")}
    relabel: dict[str | None, Relabel] = {"z": "z", "Z": "Z"}
    return Modes(
        read_only=said.get("access") == "ro",
        relabel=relabel.get(said.get("relabel"), ""),
        no_copy="copy" in said,
        propagation=said.get("propagation", ""),
        consistency=said.get("consistency", ""),
    )
