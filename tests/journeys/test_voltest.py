"""orlop before its own judge: every check of voltest, on a real engine."""

import os

import pytest

from orlop.testing.voltest import suite
from orlop.testing.voltest.bench import Bench
from orlop.testing.voltest.subject import ORLOP

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.feature("P12"),
]


@pytest.fixture(scope="module")
def bench():
    with Bench(ORLOP) as bench:
        yield bench


@pytest.mark.parametrize("check", [one for one in suite.all_checks() if one.id != "S12"], ids=lambda one: one.id)
def test_orlop_keeps_the_promise(bench, check):
    result = suite.run(check, bench)

    assert (result.outcome, result.seen) == ("pass", "")


@pytest.fixture(scope="module")
def newer_bench(newer_programs):
    with Bench(ORLOP, programs=newer_programs) as bench:
        yield bench


@pytest.mark.parametrize("check", [one for one in suite.all_checks() if one.needs == "engine"], ids=lambda one: one.id)
def test_orlop_keeps_the_promise_to_a_newer_engine(newer_bench, check):
    result = suite.run(check, newer_bench)

    assert (result.outcome, result.seen) == ("pass", "")


def test_a_lease_over_two_nodes_is_not_asked_of_a_local_driver(bench):
    [lease] = suite.select(["S12"])

    result = suite.run(lease, bench)

    assert result.outcome == "n/a"
    assert "scope is local" in result.seen
