import os

import pytest

from orlop.kernel import loop

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(1 << 20))
    return path


def test_a_file_has_one_device_whatever_path_leads_to_it(image, tmp_path):
    # As in another mount namespace, where the same file is at another place.
    other = tmp_path / "elsewhere"
    os.link(image, other)

    with loop.attached(image) as first, loop.attached(other) as second:
        image.rename(tmp_path / "renamed")
        with loop.attached(other) as third:
            assert first == second == third


def test_files_of_the_same_name_have_devices_of_their_own(image, tmp_path):
    (tmp_path / "other").mkdir()
    namesake = tmp_path / "other" / "image"
    namesake.write_bytes(image.read_bytes())

    with loop.attached(image) as first, loop.attached(namesake) as second:
        assert first != second


def test_the_device_learns_of_a_file_that_grew_and_goes_with_its_last_user(image):
    with loop.attached(image) as device, open(device, "rb") as opened:
        os.truncate(image, 2 << 20)

        assert loop.refresh(image) == device
        assert opened.seek(0, os.SEEK_END) == 2 << 20

    assert loop.refresh(image) is None
