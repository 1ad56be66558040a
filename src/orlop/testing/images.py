"""Container images without a registry: real programs from the distribution's packages, for ``docker load``.

    engine.load(images.build("mysql"))
    engine.docker("run", "-d", "--name", "db1", "-e", "MYSQL_ROOT_PASSWORD=secret", "mysql")

Nothing is installed on the host: packages are downloaded with apt and copied into the image, together with
the libraries they need, so the image does not depend on the host's. A built image is kept in a cache; it is
built again when the distribution, or what is said here, has changed. Works on Debian and Ubuntu.
"""

import hashlib
import platform
from pathlib import Path

from orlop.errors import NotFound
from orlop.testing import _apt, _archive, _cache, _packages
from orlop.testing._recipes import RECIPES, Recipe


def names() -> list[str]:
    """The images there are, by their first name."""
    return list(RECIPES)


def build(name: str, cache: Path | None = None) -> Path:
    """The tar file of an image, built if ``cache`` (or else `default_cache`) does not have it.

    ``docker load`` gives it all its tags: ``busybox`` is ``alpine`` too. Raises `NotFound` for another name,
    and `Unavailable` if apt does not give the packages.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        raise NotFound(f"no image {name!r}: there are {', '.join(RECIPES)}")
    cache = cache or default_cache()
    built = cache / f"{name}-{_key(name)}.tar"
    # Two that ask at the same time build it once.
    with _cache.alone(cache):
        if not built.exists():
            _build(recipe, cache, built)
    return built


def default_cache() -> Path:
    """``.cache/images`` of the project's tree; of an installed orlop, its folder in the user's cache."""
    return _cache.folder("images")


def _build(recipe: Recipe, cache: Path, built: Path) -> None:
    debs = _packages.download(_packages.with_libraries(recipe.packages), cache / "packages")
    # An interrupted build must not look like an image.
    unfinished = built.with_suffix(".new")
    _archive.write(recipe, debs, unfinished)
    unfinished.rename(built)


def _key(name: str) -> str:
    key = hashlib.sha256(f"{name} {_apt.suite()} {platform.machine()}".encode())
    for module in ("_apt.py", "_archive.py", "_packages.py", "_recipes.py"):
        key.update(Path(__file__).with_name(module).read_bytes())
    return key.hexdigest()[:12]
