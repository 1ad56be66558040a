"""What was made meanwhile, the collector leaves alone, and nothing else."""

import gc

import pytest

from orlop.kernel.lasting import lasting


class _Thing:
    def __init__(self) -> None:
        self.itself = self


def _things() -> int:
    return sum(isinstance(thing, _Thing) for thing in gc.get_objects())


def test_only_what_was_made_before_the_end_is_left_alone() -> None:
    gc.collect()
    try:
        with lasting():
            assert not gc.isenabled()
            _Thing()
            assert _things() == 1
        assert gc.isenabled()
        assert _things() == 0, "the collector does not know it any more"
        _Thing()
        assert _things() == 1
        gc.collect()
        assert _things() == 0
    finally:
        gc.unfreeze()
        gc.collect()


@pytest.mark.parametrize("was_on", [True, False])
def test_a_process_without_a_collector_gets_none(was_on: bool) -> None:
    before = gc.isenabled()
    (gc.enable if was_on else gc.disable)()
    try:
        with pytest.raises(ZeroDivisionError), lasting():
            raise ZeroDivisionError
        assert gc.isenabled() == was_on
    finally:
        gc.unfreeze()
        (gc.enable if before else gc.disable)()
