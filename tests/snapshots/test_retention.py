from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.errors import Invalid
from orlop.snapshots.retention import Moment, is_due, judge, policy, schedule

NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
TIMES = st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))


def moments(*hours: float) -> list[Moment]:
    return [Moment(str(hour), NOON - timedelta(hours=hour)) for hour in hours]


def kept(found, text: str) -> list[str]:
    return [verdict.moment.id for verdict in judge(found, policy(text)) if verdict.reasons]


@pytest.mark.feature("S4")
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2", ["0", "0.5"]),
        ("2h", ["0", "0.5"]),
        ("3d", ["0", "13", "40"]),
        ("2w", ["0", "100"]),
        ("1m", ["0"]),
        ("1y", ["0"]),
        ("1,2d", ["0", "13"]),
        ("", ["0", "0.5", "0.7", "13", "30", "40", "100"]),
    ],
)
def test_a_policy_keeps_the_newest_of_each_period(text, wanted):
    # Wednesday noon: 13 hours ago was Tuesday, 40 Monday, 100 Saturday of the week before
    found = moments(0, 0.5, 0.7, 13, 30, 40, 100)

    assert kept(found, text) == wanted


@pytest.mark.feature("S4")
def test_every_reason_is_said():
    verdicts = judge(moments(0, 24, 48), policy("1,2d,1m"))

    assert [verdict.reasons for verdict in verdicts] == [
        ("last 1 of 1", "daily 1 of 2", "monthly 1 of 1"),
        ("daily 2 of 2",),
        (),
    ]


@given(st.lists(TIMES, max_size=40), st.sampled_from(["3", "4h", "3d", "2w", "5m", "2y", "1,2h,2d"]))
def test_the_newest_is_kept_and_doing_it_again_removes_nothing_more(times, text):
    found = [Moment(str(number), time) for number, time in enumerate(times)]

    first = kept(found, text)

    assert kept([moment for moment in found if moment.id in first], text) == first
    if times:
        assert max(times) in {moment.time for moment in found if moment.id in first}


@pytest.mark.parametrize("text", ["x", "7x", "0d", "-1d", "d", "7d 4w", "1.5d"])
def test_a_policy_that_makes_no_sense_is_refused(text):
    with pytest.raises(Invalid, match="to keep snapshots by"):
        policy(text)


@pytest.mark.feature("S4")
@pytest.mark.parametrize(
    ("wish", "ago", "due"),
    [
        ("hourly", timedelta(seconds=1), True),
        ("hourly", timedelta(0), False),
        ("daily", timedelta(hours=11), False),
        ("daily", timedelta(hours=13), True),
        ("weekly", timedelta(days=2), False),
        ("weekly", timedelta(days=3), True),
        ("monthly", timedelta(days=17), False),
        ("monthly", timedelta(days=18), True),
        ("15m", timedelta(minutes=16), True),
        ("90m", timedelta(0), False),
    ],
)
def test_a_snapshot_is_due_once_in_each_period(wish, ago, due):
    assert is_due(schedule(wish), [NOON - ago], NOON) is due


def test_a_clock_that_was_a_day_ahead_neither_stops_snapshots_nor_makes_too_many():
    ahead = [NOON + timedelta(days=1)]

    assert is_due("hourly", ahead, NOON)
    assert not is_due("hourly", [*ahead, NOON], NOON + timedelta(minutes=20))


def test_time_zones_make_no_difference():
    eastern = timezone(timedelta(hours=-5))

    assert not is_due("daily", [NOON.astimezone(eastern)], NOON + timedelta(hours=1))


@pytest.mark.parametrize("wish", ["", "sometimes", "0h", "15", "15s"])
def test_a_schedule_that_makes_no_sense_is_refused(wish):
    with pytest.raises(Invalid, match="schedule"):
        schedule(wish)
