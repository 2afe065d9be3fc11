"""Counts add up and subtract in every field, also in those that are added later."""

import pytest

from trafficmgr.controller.counts import (
    NOTHING,
    Ledger,
    added,
    failed,
    finished,
    finished_since,
    grown,
    less,
    total,
    without_clients,
)
from trafficmgr.wire.frames import Counts, ShareCounts

FEW = ShareCounts(
    requests=1,
    errors_5xx=1,
    dns=1,
    spilled=1,
    moved=1,
    ejected=1,
    repeated=1,
    preview=1,
    failures={"connect": 1},
    durations=(1, 0),
    durations_s=0.5,
)

NOT_SUMMED = {"in_flight", "waiting", "clients", "failing"}
SUMMED = [f for f in FEW.__struct_fields__ if f not in NOT_SUMMED]


def test_every_field_is_added_and_taken_away() -> None:
    assert all(getattr(FEW, f) for f in SUMMED)

    twice = added(FEW, FEW)

    assert all(getattr(twice, f) != getattr(FEW, f) for f in SUMMED)
    assert less(twice, FEW) == FEW
    assert less(FEW, FEW) == NOTHING


def test_endpoints_that_a_worker_says_nothing_of_are_as_before() -> None:
    ledger = Ledger()
    ledger.hear(Counts(start_id="w", at=1.0, endpoints={"a": {"r": FEW}, "b": {"r": FEW}}))

    ledger.hear(Counts(start_id="w", at=2.0, endpoints={"a": {"r": added(FEW, FEW)}}))

    heard = ledger.of("w")
    assert heard is not None
    assert (heard.at, heard.endpoints) == (2.0, {"a": {"r": added(FEW, FEW)}, "b": {"r": FEW}})


def test_a_worker_that_knows_fewer_things_is_added_all_the_same() -> None:
    assert added(FEW, NOTHING) == added(NOTHING, FEW) == FEW
    assert less(FEW, NOTHING) == FEW


def test_what_did_not_grow_is_left_out() -> None:
    assert grown({"v1": FEW, "v2": FEW}, {"v1": FEW}) == {"v2": FEW}


def test_what_is_finished_is_neither_under_way_nor_gone_on_to_another() -> None:
    share = ShareCounts(requests=10, in_flight=2, moved=1, errors_5xx=3, failures={"connect": 2})

    assert (finished(share), failed(share)) == (7, 5)


def test_what_finished_since_may_have_begun_before() -> None:
    """Requests that took long: none began since, and three ended."""
    before = ShareCounts(requests=10, in_flight=4)
    now = before.but(in_flight=1, failures={"timeout": 3})

    assert finished_since(now, before) == failed(less(now, before)) == 3
    assert less(now, before).requests == 0


def test_client_buckets_are_in_no_sum_and_kept_by_nobody_for_long() -> None:
    """A receipt has up to 200 windows, and each would have a thousand of them."""
    told_apart = FEW.but(clients={7: 3, 8: 1}, failing={8: 1})

    assert added(told_apart, told_apart) == added(FEW, FEW)
    assert less(told_apart, NOTHING) == FEW
    assert grown({"v1": told_apart}, {"v1": FEW}) == {}
    assert total([{"v1": told_apart}]) == without_clients({"v1": told_apart}) == {"v1": FEW}


def test_a_worker_is_summed_by_its_newest_counts() -> None:
    ledger = Ledger()
    for requests in (1, 5):
        share = ShareCounts(requests=requests)
        ledger.hear(Counts(start_id="w-1", at=1.0, endpoints={"shop": {"v1": share}}))

    assert ledger.totals("shop")["v1"].requests == 5
    assert ledger.totals("blog") == {}


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_worker_of_before_brings_no_old_clients_into_the_observed_share(
    is_restarted: bool,
) -> None:
    """After a restart of the controller its counts are large, and what it served is long ago."""
    ledger = Ledger()
    ledger.cut("shop", 3)
    before = ShareCounts(requests=0 if is_restarted else 10_000)
    ledger.hear(Counts(start_id="w-1", at=1.0, endpoints={"shop": {"v1": before}}))
    ledger.applied("shop", "w-1", 3)

    grew = before.but(requests=before.requests + 7)
    ledger.hear(Counts(start_id="w-1", at=2.0, endpoints={"shop": {"v1": grew}}))

    assert ledger.observed("shop") == {"v1": 7}
