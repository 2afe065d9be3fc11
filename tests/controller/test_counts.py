"""Counts add up and subtract in every field, also in those that are added later."""

import pytest

from trafficmgr.controller.counts import NOTHING, Ledger, added, grown, less
from trafficmgr.wire.frames import Counts, ShareCounts

FEW = ShareCounts(
    requests=1,
    errors_5xx=1,
    dns=1,
    spilled=1,
    preview=1,
    failures={"connect": 1},
    durations=(1, 0),
    durations_s=0.5,
)


def test_every_field_is_added_and_taken_away() -> None:
    assert all(getattr(FEW, f) for f in ShareCounts.__struct_fields__ if f != "in_flight")

    twice = added(FEW, FEW)

    assert all(
        getattr(twice, f) != getattr(FEW, f) for f in FEW.__struct_fields__ if f != "in_flight"
    )
    assert less(twice, FEW) == FEW
    assert less(FEW, FEW) == NOTHING


def test_a_worker_that_knows_fewer_things_is_added_all_the_same() -> None:
    assert added(FEW, NOTHING) == added(NOTHING, FEW) == FEW
    assert less(FEW, NOTHING) == FEW


def test_what_did_not_grow_is_left_out() -> None:
    assert grown({"v1": FEW, "v2": FEW}, {"v1": FEW}) == {"v2": FEW}


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
