"""Weights hold at every moment, not only on average, and for every kind of request."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.proxy_support import Rig, with_proxy

from trafficmgr.core.model import Publish, Tcp
from trafficmgr.core.routing import STRIDE, TURNS, Share, Table, Target, pick, point_at
from trafficmgr.dataplane.book import Book

SLACK = 5
"""Requests by which a share may be ahead or behind; routing.STRIDE says so."""

WEIGHTS = st.lists(st.integers(0, 100), min_size=1, max_size=4).map(
    lambda cuts: tuple(b - a for a, b in pairwise((0, *sorted(cuts), 100)))
)


def shares(*weights: int) -> tuple[Share, ...]:
    return tuple(
        Share(revision=f"v{number}", weight_pct=weight, targets=())
        for number, weight in enumerate(weights)
    )


def chosen(weights: tuple[int, ...], first: int, count: int) -> list[int]:
    """Return the shares of so many turns."""
    of = shares(*weights)
    return [pick(of, point_at(turn)) for turn in range(first, first + count)]


@settings(max_examples=15, deadline=None)
@given(WEIGHTS, st.integers(0, 10**9))
def test_a_cycle_gives_each_share_exactly_its_weight(weights: tuple[int, ...], first: int) -> None:
    counts = Counter(chosen(weights, first, TURNS))

    assert [counts[number] for number in range(len(weights))] == [
        weight * TURNS // 100 for weight in weights
    ]


@settings(max_examples=200, deadline=None)
@given(WEIGHTS, st.integers(0, TURNS), st.integers(1, 600))
def test_no_share_is_ever_far_from_its_weight(
    weights: tuple[int, ...], first: int, count: int
) -> None:
    counts = Counter(chosen(weights, first, count))

    for number, weight in enumerate(weights):
        assert abs(counts[number] - count * weight / 100) <= SLACK


@pytest.mark.parametrize("weight", [1, 2, 5, 10, 25, 33, 50, 75, 99])
def test_no_share_waits_for_more_than_twice_its_mean_gap(weight: int) -> None:
    turns = [
        n for n, share in enumerate(chosen((weight, 100 - weight), 0, 2 * TURNS)) if share == 0
    ]

    assert max(b - a for a, b in pairwise(turns)) <= 2 * 100 / weight


@pytest.mark.parametrize("period", [2, 3, 4, 5, 10, 20])
@pytest.mark.parametrize("weight", [5, 10, 25, 50])
def test_a_weight_holds_for_each_kind_of_request_in_a_rhythm(period: int, weight: int) -> None:
    """Strict alternation would send every second request, all the images, to one revision."""
    turns = chosen((weight, 100 - weight), 0, 100 * period)

    for kind in range(period):
        of_kind = turns[kind::period]
        assert abs(of_kind.count(0) - weight) <= SLACK


@given(st.integers(0, 10**12))
def test_nothing_is_exactly_nothing_and_all_is_exactly_all(turn: int) -> None:
    point = point_at(turn)

    assert pick(shares(0, 100), point) == 1
    assert pick(shares(100, 0), point) == 0
    assert pick(shares(0, 100, 0), point) == 1


def test_the_stride_has_nothing_in_common_with_the_turns() -> None:
    assert len({turn * STRIDE % TURNS for turn in range(TURNS)}) == TURNS


@given(st.integers(0, TURNS), st.integers(1, 99))
def test_a_turn_crosses_to_the_candidate_once_as_its_weight_rises(turn: int, weight: int) -> None:
    point = point_at(turn)
    if pick(shares(weight, 100 - weight), point) == 0:
        assert pick(shares(weight + 1, 99 - weight), point) == 0


# -- the worker -----------------------------------------------------------------------------------


def table(generation: int, groups: int) -> Table:
    return Table(
        endpoint="shop",
        generation=generation,
        hosts=("shop.test",),
        publish=Publish.proxy,
        ttl_s=1,
        shares=tuple(
            Share(
                revision=revision,
                weight_pct=weight,
                targets=tuple(
                    Target(group=f"{revision}-{n}", dial=Tcp(address=f"127.{weight}.0.{n}", port=1))
                    for n in range(1, groups + 1)
                ),
            )
            for revision, weight in (("v2", 20), ("v1", 80))
        ),
    )


def test_workers_do_not_begin_in_step() -> None:
    books = [Book(f"{slot}-{number}") for slot in range(4) for number in range(4)]
    for book in books:
        book.apply(table(1, 1))

    assert len({book.by_endpoint["shop"].seat.turn for book in books}) == len(books)


def test_a_preview_takes_nobodys_turn() -> None:
    book = Book("0-a")
    book.apply(table(1, 1).but(preview=table(1, 1).shares[0]))

    assert book.preview_hosts["preview.shop.test"].seat is not book.by_host["shop.test"].seat


@with_proxy
async def test_tables_that_come_and_go_change_nothing_of_the_weights(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green")
    other = await rig.app("other")
    client = await rig.client()

    for number in range(200):
        rig.route((20, [green]), (80, [blue, other] if number % 2 else [blue]))
        assert (await client.get()).status == 200

    assert abs(len(green.requests) - 40) <= SLACK


@with_proxy
async def test_a_few_requests_are_split_as_the_weights_say(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green")
    rig.route((10, [green]), (90, [blue]))
    client = await rig.client()

    for _ in range(100):
        await client.get()

    assert abs(len(green.requests) - 10) <= SLACK
    assert len(green.requests) + len(blue.requests) == 100
