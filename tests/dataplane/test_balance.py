"""Whose turn it is among the groups of a share, and who is passed over for how it behaves."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from trafficmgr.core.model import Publish, Tcp
from trafficmgr.core.routing import Share, Table, Target
from trafficmgr.core.traffic import Balance, Ejection, HttpPolicy
from trafficmgr.dataplane import balance, ejection
from trafficmgr.dataplane.book import Book
from trafficmgr.dataplane.budget import LEAST, SECONDS, Budget
from trafficmgr.dataplane.routes import Lane, Route, Upstream

QUICK = Ejection(failures=3, base_s=10.0, longest_s=60.0)


def book_of(groups: int, *, other: int = 0, generation: int = 1, **http: Any) -> Book:
    book = Book("0-a")
    book.apply(table(groups, other=other, generation=generation, **http))
    return book


def table(groups: int, *, other: int = 0, generation: int = 1, **http: Any) -> Table:
    """Return a table of so many groups of v1, and of v2, which has 1 % then."""
    weights = {"v2": 1, "v1": 99} if other else {"v1": 100}
    counts = {"v1": groups, "v2": other}
    return Table(
        endpoint="shop",
        generation=generation,
        hosts=("shop.test",),
        publish=Publish.proxy,
        ttl_s=1,
        shares=tuple(
            Share(revision=revision, weight_pct=pct, targets=targets(revision, counts[revision]))
            for revision, pct in weights.items()
        ),
        http=HttpPolicy(**http),
    )


def targets(revision: str, count: int) -> tuple[Target, ...]:
    return tuple(
        Target(group=f"{revision}-{n}", dial=Tcp(address=f"127.{revision[1:]}.0.{n}", port=80))
        for n in range(count)
    )


def route(book: Book) -> Route:
    return book.by_host["shop.test"]


def lane(book: Book) -> Lane:
    """Return the lane of v1."""
    return route(book).lanes[-1]


def names(book: Book, count: int, now: float = 0.0) -> list[str | None]:
    """Return the groups that so many requests of v1 are sent to, each done at once."""
    found = [route(book).choose(0.999, now) for _ in range(count)]
    return [None if upstream is None else upstream.group for upstream in found]


# -- order ----------------------------------------------------------------------------------------


def test_the_one_with_the_fewest_requests_is_next_and_equals_take_turns() -> None:
    book = book_of(3, balance=Balance.least_requests)
    a, b, c = lane(book).upstreams
    a.requests, b.requests, c.requests = 2, 0, 0

    assert set(names(book, 4)) == {b.group, c.group}
    b.requests = c.requests = 3
    assert names(book, 2) == [a.group] * 2


@given(st.lists(st.sampled_from(["start", "end"]), max_size=80), st.integers(1, 5))
def test_requests_that_end_in_any_order_never_leave_one_far_ahead(
    acts: list[str], count: int
) -> None:
    book = book_of(count, balance=Balance.least_requests)
    upstreams = lane(book).upstreams
    for act in acts:
        if act == "start":
            least = min(upstream.requests for upstream in upstreams)
            chosen = route(book).choose(0.999, 0.0)
            assert chosen is not None
            assert chosen.requests == least
            chosen.requests += 1
        else:
            busy = max(upstreams, key=lambda upstream: upstream.requests)
            busy.requests = max(busy.requests - 1, 0)


def test_who_is_passed_over_is_so_whatever_the_order() -> None:
    book = book_of(3, balance=Balance.least_requests)
    a, b, c = lane(book).upstreams
    a.refused_until, b.spared_until, c.requests = 10.0, 10.0, 7

    assert names(book, 3, now=5.0) == [c.group] * 3
    assert set(names(book, 6, now=10.0)) == {a.group, b.group}


def test_a_full_group_gets_nothing_until_there_is_room() -> None:
    book = book_of(2, max_requests=2)
    a, b = lane(book).upstreams
    a.requests = 2

    assert names(book, 3) == [b.group] * 3
    b.requests = 2
    assert names(book, 1) == [None]
    a.requests = 1
    assert names(book, 1) == [a.group]


def test_a_full_share_does_not_spill() -> None:
    """Else a limit would change the weights, and with affinity show clients both revisions."""
    book = book_of(1, other=1, max_requests=1)
    lane(book).upstreams[0].requests = 1

    assert names(book, 1) == [None]
    assert route(book).line_for(0.999, 0.0, None) is lane(book).line
    assert lane(book).tally.spilled == 0


# -- spared groups --------------------------------------------------------------------------------


def test_a_share_whose_groups_are_all_spared_is_served_by_them_all_the_same() -> None:
    book = book_of(2, other=1)
    for upstream in lane(book).upstreams:
        ejection.broke_off(upstream, 0.0)

    assert set(names(book, 4, now=0.5)) == {"v1-0", "v1-1"}
    assert lane(book).tally.spilled == 0


def test_a_spared_group_goes_before_another_revision_when_the_rest_refuse() -> None:
    book = book_of(2, other=1)
    a, b = lane(book).upstreams
    a.refused_until, b.spared_until = 10.0, 10.0

    assert names(book, 2, now=5.0) == [b.group] * 2


def test_another_group_is_never_the_same_and_best_one_that_is_not_spared() -> None:
    book = book_of(3)
    a, b, c = lane(book).upstreams
    b.spared_until = 10.0

    assert balance.another(lane(book), a, 5.0) is c
    c.refused_until = 10.0
    assert balance.another(lane(book), a, 5.0) is b
    b.refused_until = 10.0
    assert balance.another(lane(book), a, 5.0) is None


# -- ejection -------------------------------------------------------------------------------------


def fail(upstream: Upstream, times: int, now: float) -> None:
    for _ in range(times):
        ejection.failed(upstream, now)


def test_a_group_that_fails_too_often_in_a_row_is_ejected_for_a_while() -> None:
    book = book_of(3, ejection=QUICK)
    a = lane(book).upstreams[0]
    fail(a, 2, 0.0)
    ejection.succeeded(a)
    fail(a, 2, 0.0)
    assert a.group in names(book, 3)

    fail(a, 1, 0.0)

    assert a.group not in names(book, 6, now=9.9)
    assert a.group in names(book, 3, now=10.0)
    assert book.counts(0.0).endpoints["shop"]["v1"].ejected == 1


def test_it_is_out_for_twice_as_long_each_time_until_it_succeeds() -> None:
    book = book_of(3, ejection=QUICK)
    a, now, away = lane(book).upstreams[0], 0.0, []
    fail(a, 2, now)
    for _ in range(5):
        fail(a, 1, now)
        away.append(a.ejected_until - now)
        now = a.ejected_until

    assert away == [10.0, 20.0, 40.0, 60.0, 60.0]
    ejection.succeeded(a)
    fail(a, 3, now)
    assert a.ejected_until - now == 10.0


def test_failures_while_it_is_out_make_it_no_longer() -> None:
    """Requests that were under way when it was ejected."""
    book = book_of(3, ejection=QUICK)
    a = lane(book).upstreams[0]

    fail(a, 50, 0.0)

    assert (a.ejected_until, a.ejections) == (10.0, 1)


def test_never_more_than_half_are_out() -> None:
    for groups, most in ((1, 0), (2, 1), (3, 1), (4, 2), (5, 2)):
        book = book_of(groups, ejection=QUICK)
        for upstream in lane(book).upstreams:
            fail(upstream, 3, 0.0)

        assert sum(u.ejected_until > 0 for u in lane(book).upstreams) == most


def test_who_is_left_when_groups_are_withdrawn_is_not_out_by_more_than_half() -> None:
    """The one that would be back first comes back."""
    book = book_of(4, ejection=QUICK)
    a, b, *_ = lane(book).upstreams
    fail(a, 3, 0.0)
    fail(b, 3, 1.0)

    book.apply(table(2, generation=2, ejection=QUICK))

    assert [u.ejected_until for u in (a, b)] == [0.0, 11.0]
    assert set(names(book, 4, now=5.0)) == {a.group}


def test_switched_off_it_lets_everybody_back_in() -> None:
    book = book_of(2, ejection=QUICK)
    fail(lane(book).upstreams[0], 3, 0.0)

    book.apply(table(2, generation=2, ejection=None))
    fail(lane(book).upstreams[0], 50, 0.0)

    assert set(names(book, 4, now=5.0)) == {"v1-0", "v1-1"}


ACTS = st.lists(
    st.tuples(st.sampled_from(["fail", "succeed", "table", "wait"]), st.integers(0, 5)),
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(ACTS)
def test_whatever_happens_at_least_half_are_in_and_somebody_is_chosen(
    acts: list[tuple[str, int]],
) -> None:
    book, now, generation = book_of(6, ejection=QUICK), 100.0, 1
    for act, number in acts:
        upstreams = lane(book).upstreams
        upstream = upstreams[number % len(upstreams)]
        match act:
            case "fail":
                fail(upstream, 3, now)
            case "succeed":
                ejection.succeeded(upstream)
            case "wait":
                now += 7.0
            case _:
                generation += 1
                book.apply(table(number + 1, generation=generation, ejection=QUICK))
        out = sum(u.ejected_until > now for u in lane(book).upstreams)
        assert 2 * out <= len(lane(book).upstreams)
        assert route(book).choose(0.999, now) is not None


# -- budget ---------------------------------------------------------------------------------------


def test_few_requests_have_a_few_repetitions_all_the_same() -> None:
    budget = Budget(5000)

    assert [budget.take(5001, 20) for _ in range(LEAST + 1)] == [True] * LEAST + [False]


def test_a_budget_of_nothing_is_nothing() -> None:
    assert not Budget().take(1000, 0)


def test_what_was_repeated_is_forgotten_after_a_while() -> None:
    budget = Budget()
    while budget.take(0, 20):
        pass
    for _ in range(SECONDS - 1):
        budget.rotate(0)
    assert not budget.take(0, 20)

    budget.rotate(0)

    assert budget.take(0, 20)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 100)), min_size=1, max_size=40),
    st.integers(1, 100),
)
def test_no_ten_seconds_see_more_repetitions_than_their_part_of_the_requests(
    seconds: list[tuple[int, int]], pct: int
) -> None:
    """Each second has so many requests, and so many that would like to be repeated.

    It holds whenever one is granted: later there may be fewer requests, but nothing can be undone.
    """
    budget, asked, granted = Budget(), 0, list[int]()
    for count, wishes in seconds:
        asked += count
        granted.append(sum(budget.take(asked, pct) for _ in range(wishes)))
        recent = sum(count for count, _ in seconds[max(len(granted) - SECONDS, 0) : len(granted)])
        if granted[-1]:
            assert sum(granted[-SECONDS:]) <= max(LEAST, recent * pct // 100)
        budget.rotate(asked)
