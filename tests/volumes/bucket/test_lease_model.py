"""Every order of steps of the protocol's model: no two holders, no head that goes back; and the model can tell."""

import pytest
from tests.volumes.bucket.model import Broken, Rules, explore

WHOLE = Rules()


def test_time_keeps_two_holders_apart_in_every_order() -> None:
    # Fewer would mean that steps are missing.
    assert explore(WHOLE, timed=True, epochs=2, kills=0) > 50_000


def test_epochs_alone_keep_old_heads_out_in_every_order() -> None:
    assert explore(WHOLE, timed=False, epochs=2, kills=1) > 50_000


@pytest.mark.campaign
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    ("timed", "hosts", "epochs", "kills"),
    # Three hosts in time are more states than fit; the seeded histories have up to five.
    [(True, 2, 2, 2), (True, 2, 3, 1), (False, 2, 2, 2), (False, 2, 3, 1), (False, 3, 2, 0)],
)
def test_more_hosts_epochs_and_kills_change_nothing(timed: bool, hosts: int, epochs: int, kills: int) -> None:
    assert explore(WHOLE, timed, hosts, epochs, kills) > 100_000


@pytest.mark.parametrize(
    ("timed", "rules", "words"),
    [
        (True, WHOLE._replace(conditional=False), "two holders in one epoch|two hosts believe|goes back"),
        (True, WHOLE._replace(margin=False), "two hosts believe to hold the lease"),
        (True, WHOLE._replace(counts_from_before=False), "two hosts believe to hold the lease"),
        (True, WHOLE._replace(watches_anew=False), "two hosts believe to hold the lease"),
        (False, WHOLE._replace(claims=False), "the head of an old epoch replaces"),
        (False, WHOLE._replace(conditional=False), "goes back|two holders in one epoch|the head of an old epoch"),
    ],
    ids=lambda value: (
        "-".join(name for name, kept in zip(Rules._fields, value, strict=True) if not kept)
        if isinstance(value, Rules)
        else None
    ),
)
def test_each_idea_that_is_left_out_is_missed(timed: bool, rules: Rules, words: str) -> None:
    with pytest.raises(Broken, match=words):
        explore(rules, timed, epochs=2, kills=0)
