"""A volume like another at once, whatever its size, where a driver can let the two share what they store."""

from collections.abc import Iterator
from contextlib import contextmanager

from orlop.errors import Conflict, Unavailable
from orlop.state import Row
from orlop.volumes.driver import Cloning
from orlop.volumes.host import noted, volume
from orlop.volumes.service import VolumeService
from orlop.volumes.timeline import Hooks, NoHooks


def at_once(service: VolumeService, name: str, plan: Row, hooks: Hooks | None = None) -> Row | None:
    """Make what ``plan`` says with the files that the volume ``name`` has at one moment, in use or not.

    None where that would take a copy: then nothing has changed. Raises `Conflict` if there is such a volume already.
    """
    if _driver(service, service.get(name), plan) is None:
        return None
    # Nobody makes a snapshot meanwhile: whoever holds the users still lets them go as well.
    with service.lock(f"{name}@"), _told(hooks or NoHooks()) as more, service.lock_both(name, plan.name):
        row = service.get(name)
        driver = _driver(service, row, plan)
        if driver is None:
            raise Conflict(f"volume {name!r} has changed meanwhile; try again")
        service.make_way(plan.name)
        try:
            made, how = service.life.clone(row, plan, driver)
        except OSError as error:
            raise Unavailable(f"volume {name!r} cannot be cloned: {error.strerror}") from error
    note(service, made, name, how + more)
    return made


def note(service: VolumeService, made: Row, name: str, how: str) -> None:
    """Write down that ``made`` is a clone of ``name``, and ``how`` its files came."""
    with noted(service.state, service.host, "clone", made, {"from": name, "how": how}, durable=False):
        pass


def _driver(service: VolumeService, row: Row, plan: Row) -> Cloning | None:
    """The driver of both, if it can."""
    driver = service.driver(row.driver)
    if plan.driver != row.driver or not isinstance(driver, Cloning):
        return None
    return driver if driver.can_clone(volume(row), volume(plan)) else None


@contextmanager
def _told(hooks: Hooks) -> Iterator[str]:
    """The users are told before and after; what to add to the word for how it was done."""
    try:
        yield "+hooks" if hooks.before() else ""
    finally:
        hooks.after()
