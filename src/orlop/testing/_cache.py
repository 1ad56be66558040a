"""Where what takes long to make is kept, and made once also if two ask at the same time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def folder(kind: str) -> Path:
    """``.cache/KIND`` of the project's tree; of an installed orlop, its folder in the user's cache."""
    project = Path(__file__).parents[3]
    if (project / "pyproject.toml").exists():
        return project / ".cache" / kind
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "orlop" / kind


@contextmanager
def alone(cache: Path) -> Iterator[None]:
    """Nobody else makes something in the folder ``cache``, which is made if it is missing."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
