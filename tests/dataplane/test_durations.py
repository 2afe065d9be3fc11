"""How long answers take is counted in the worker, from the choice of a group to the first byte."""

import asyncio
from itertools import accumulate

import pytest
from support.proxy_support import OK, Rig, read_head, with_proxy

from trafficmgr.dataplane.tallies import Tally
from trafficmgr.wire.frames import DURATION_BOUNDS_S


@pytest.mark.parametrize(
    ("after_s", "bucket"),
    [(0.0, 0), (0.001, 0), (0.0011, 1), (0.1, 20), (8.1, 40), (10.0, 40), (60.1, 43), (3600.0, 43)],
)
def test_a_bound_belongs_to_its_bucket(after_s: float, bucket: int) -> None:
    tally = Tally()

    tally.answered(after_s)

    share = tally.frozen()
    assert share.durations[bucket] == 1
    assert (sum(share.durations), share.durations_s) == (1, after_s)
    assert len(share.durations) == len(DURATION_BOUNDS_S) + 1


def test_without_answers_nothing_is_reported() -> None:
    assert Tally().frozen().durations == ()


@with_proxy
async def test_an_answer_is_counted_by_how_long_it_took(rig: Rig) -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await asyncio.sleep(0.12)  # the duration that is to be measured
        writer.write(OK)

    rig.route((100, [await rig.app("shop-1", script=slow)]))

    await (await rig.client()).get()

    (share,) = (tally.frozen() for tally in rig.tallies() if tally.requests)
    within = dict(zip(DURATION_BOUNDS_S, accumulate(share.durations), strict=False))
    assert (within[0.1], within[10.0]) == (0, 1)
    assert share.durations_s > 0.1  # the loop's sleep may end a millisecond early


@with_proxy
async def test_what_the_proxy_answers_itself_took_no_group_any_time(rig: Rig) -> None:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.close()

    rig.route((100, [await rig.app("shop-1", script=closing)]))

    answer = await (await rig.client()).get()

    assert answer.status == 502
    assert all(tally.frozen().durations == () for tally in rig.tallies())
