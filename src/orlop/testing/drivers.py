"""The contract of every `VolumeDriver`, as tests: subclass it, give it a driver, and run pytest.

    class TestMyDriver(VolumeDriverContract):
        options = {"server": "nas", "share": "a"}
        changes_with_options = "share"

        @pytest.fixture
        def driver(self, tmp_path):
            return MyDriver(tmp_path)

It mounts nothing. Data that outlives detaching is the business of the driver's own tests, on its real backend.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ClassVar

import pytest

from orlop.errors import Invalid, OrlopError
from orlop.mount import Mount
from orlop.volumes.driver import Listed, Secretive, Volume, VolumeDriver


class VolumeDriverContract:
    """What `orlop.volumes.service` relies on."""

    options: ClassVar[Mapping[str, str]] = {}
    """Options that ``create`` accepts."""
    refused: ClassVar[Mapping[str, str]] = {}
    """Options with names that the driver knows and values that it must refuse; none to test if empty."""

    @pytest.fixture
    def volume(self) -> Volume:
        """The volume that the tests use; its key differs from its name, as after a removal."""
        return Volume("data", "under-test", dict(self.options), {}, "data~2")

    def test_it_says_where_its_volumes_are(self, driver: VolumeDriver) -> None:
        """The scope is one of two words."""
        assert driver.scope in ("local", "global")

    def test_every_option_it_is_tested_with_has_a_line_of_help(self, driver: VolumeDriver) -> None:
        """Users read these lines in ``orlop driver inspect``."""
        helps = driver.options()

        assert all(text and "\n" not in text for text in helps.values())
        assert set(self.options) <= set(helps) or "*" in helps

    def test_what_it_says_is_a_secret_is_one_of_its_options(self, driver: VolumeDriver) -> None:
        """What people type there is kept in the vault."""
        assert not isinstance(driver, Secretive) or set(driver.secrets()) <= set(driver.options())

    def test_creating_again_is_fine(self, driver: VolumeDriver, volume: Volume) -> None:
        """After a crash the service calls ``create`` once more."""
        driver.create(volume)
        driver.create(volume)

        assert _attached(driver, volume)

    def test_eight_at_once_create_one_volume(self, driver: VolumeDriver, volume: Volume) -> None:
        """Hosts of a swarm race; on one host the service never does this to a local driver."""
        if driver.scope == "local":
            driver.create(volume)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(driver.create, [volume] * 8))

        assert _attached(driver, volume)

    def test_attaching_again_says_the_same(self, driver: VolumeDriver, volume: Volume) -> None:
        """A daemon that was killed after ``attach`` asks again."""
        driver.create(volume)

        assert list(driver.attach(volume)) == list(driver.attach(volume))

    def test_detaching_is_fine_at_any_time(self, driver: VolumeDriver, volume: Volume) -> None:
        """Also when nothing was attached, and twice."""
        driver.create(volume)
        driver.detach(volume)
        driver.attach(volume)
        driver.detach(volume)
        driver.detach(volume)

        assert _attached(driver, volume)

    def test_removing_is_fine_at_any_time(self, driver: VolumeDriver, volume: Volume) -> None:
        """Nothing there, half there, twice."""
        driver.remove(volume)
        driver.create(volume)
        driver.remove(volume)
        driver.remove(volume)
        driver.create(volume)

        assert _attached(driver, volume)

    def test_removing_one_leaves_the_other(self, driver: VolumeDriver, volume: Volume) -> None:
        """Volumes share nothing, however alike their names are."""
        other = replace(volume, name="data2", key="data")
        driver.create(volume)
        driver.create(other)
        before = list(driver.attach(other))
        driver.remove(volume)

        assert list(driver.attach(other)) == before

    def test_bad_values_are_refused_before_anything_is_made(self, driver: VolumeDriver, volume: Volume) -> None:
        """And the message names the option."""
        for option, value in self.refused.items():
            with pytest.raises(Invalid, match=option):
                driver.create(replace(volume, options={**self.options, option: value}))

    def test_what_it_keeps_it_keeps_in_itself_alone(self, driver: VolumeDriver, volume: Volume) -> None:
        """A driver that needs a list of its volumes would lose them with its process: verbs take any volume."""
        driver.create(volume)
        twin = replace(volume, labels={"seen": "later"})

        assert list(driver.attach(twin)) == list(driver.attach(volume))


class ListedDriverContract(VolumeDriverContract):
    """The same, for a driver that is `orlop.volumes.driver.Listed`."""

    def test_what_it_lists_is_what_was_created(self, driver: VolumeDriver, volume: Volume) -> None:
        """With the definition as it was given; a removed one is listed no more."""
        assert isinstance(driver, Listed)
        volume = replace(volume, labels={"team": "Größe ☃\n"}, created="2026-01-02T03:04:05Z")
        driver.create(volume)
        (found,) = [each for each in driver.found() if each.name == volume.name]
        driver.remove(volume)

        assert (found.options, found.labels, found.created) == (volume.options, volume.labels, volume.created)
        assert volume.name not in [each.name for each in driver.found()]


def _attached(driver: VolumeDriver, volume: Volume) -> bool:
    """Whether attaching yields mounts."""
    try:
        mounts = driver.attach(volume)
    except OrlopError as error:
        pytest.fail(f"attach: {error}")
    return bool(mounts) and all(isinstance(mount, Mount) and mount.type for mount in mounts)
