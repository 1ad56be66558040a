"""What ``-v``, ``--mount``, ``--tmpfs`` and ``--volumes-from`` mean, with Docker's own errors.

Text goes in, values (`MountSpec`, `VolumesFrom`) come out; nothing here looks at the host. The grammar is
that of Docker's client 28 together with what its engine checks afterwards. Where orlop differs on purpose,
``tests/kernel/test_grammar_like_docker.py`` lists it with the reason.
"""

from orlop.grammar.flags import as_flag, parse_flags
from orlop.grammar.mount import parse_mount
from orlop.grammar.spec import Kind, MountSpec, Recursive, Relabel, VolumesFrom
from orlop.grammar.tmpfs import parse_tmpfs, tmpfs_options
from orlop.grammar.values import size, volume_name
from orlop.grammar.volume import parse_volume
from orlop.grammar.volumes_from import parse_volumes_from

__all__ = [
    "Kind",
    "MountSpec",
    "Recursive",
    "Relabel",
    "VolumesFrom",
    "as_flag",
    "parse_flags",
    "parse_mount",
    "parse_tmpfs",
    "parse_volume",
    "parse_volumes_from",
    "size",
    "tmpfs_options",
    "volume_name",
]
