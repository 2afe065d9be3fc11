"""What workers counted becomes evidence: each request once, in windows that no failure closes."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficmgr.core import routing
from trafficmgr.core.counted import BOUNDS_S, bound_for, bound_of, slower_than
from trafficmgr.core.evidence import (
    CLIENT_BUCKETS,
    RECENT_S,
    WINDOW_S,
    Counted,
    Evidence,
    Pair,
    begun,
    observed,
)
from trafficmgr.core.gating import Compare, Gates
from trafficmgr.core.odds import Bets, favoured

GATES = Gates(compare=Compare())
NONE = Pair()


def pair(finished: int = 0, failed: int = 0, of_stable: int = 0, stable_failed: int = 0) -> Pair:
    return Pair(
        candidate=Counted(finished=finished, failed=failed),
        stable=Counted(finished=of_stable, failed=stable_failed),
    )


def looked(
    evidence: Evidence,
    heard: dict[str, Pair],
    *,
    after_s: float = 1.0,
    stage: int = 0,
    weight_pct: int = 10,
    gates: Gates = GATES,
    has_affinity: bool = False,
) -> Evidence:
    return observed(
        evidence,
        heard,
        at=evidence.at + after_s,
        stage=stage,
        weight_pct=weight_pct,
        gates=gates,
        has_affinity=has_affinity,
    )


def started(weight_pct: int = 10, /, **seen: Pair | None) -> Evidence:
    """Return the evidence of a first step that has just begun."""
    return looked(begun(0.0, 0, dict(seen)), {}, weight_pct=weight_pct)


# -- growth ---------------------------------------------------------------------------------------


def test_what_was_counted_before_the_rollout_is_not_evidence() -> None:
    evidence = looked(started(a=pair(100, 50)), {"a": pair(103, 51)})

    assert evidence.in_stage == pair(3, 1)


def test_the_first_report_of_a_worker_that_was_there_is_no_growth() -> None:
    evidence = looked(started(a=None), {"a": pair(100, 50)})
    assert evidence.in_stage == NONE

    assert looked(evidence, {"a": pair(101, 51)}).in_stage == pair(1, 1)


def test_all_that_a_later_worker_counted_is_growth() -> None:
    assert looked(started(a=NONE), {"b": pair(7, 2)}).in_stage == pair(7, 2)


def test_nothing_is_counted_twice() -> None:
    heard = {"a": pair(7, 2, 20, 1), "b": pair(3)}
    evidence = looked(started(a=NONE), heard)

    again = looked(looked(evidence, heard), heard)

    assert again.in_stage == evidence.in_stage == pair(10, 2, 20, 1)
    assert again.window == evidence.window


def test_a_dead_worker_keeps_what_it_counted_and_its_successor_begins_at_nothing() -> None:
    evidence = looked(started(a=NONE), {"a": pair(7)})
    evidence = looked(evidence, {"a": pair(7), "a2": pair(2)})
    evidence = looked(evidence, {"a2": pair(5)})

    assert evidence.in_stage == pair(12)


def test_counts_that_go_backwards_are_no_growth_and_no_crash() -> None:
    before = Pair(candidate=Counted(finished=9, failed=3, durations=(4, 5), clients={1: 9}))
    after = Pair(candidate=Counted(finished=8, failed=4, durations=(4, 4), clients={2: 1}))

    evidence = looked(started(a=before), {"a": after})

    assert evidence.in_stage.candidate == Counted(failed=1, clients={2: 1})


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 20), st.booleans()),
    max_size=40,
)


@given(STEPS, st.integers(0, 40))
def test_all_that_is_reported_is_counted_once(
    steps: list[tuple[str, int, int, bool]], restored: int
) -> None:
    """Workers report late, in bunches and twice, end and start, and the controller is restarted."""
    counts: dict[str, Pair] = {"a-0": pair(5, 5, 5, 5), "b-0": NONE, "c-0": NONE}
    evidence = looked(begun(0.0, 0, {**counts}), {})
    lives = dict.fromkeys("abc", 0)
    total = NONE
    for number, (worker, mine, others, is_restarted) in enumerate(steps):
        if is_restarted:
            lives[worker] += 1
        name = f"{worker}-{lives[worker]}"
        grown = pair(mine, mine // 2, others, others // 3)
        counts[name] = counts.get(name, NONE) + grown
        total += grown
        evidence = looked(evidence, counts if number % 3 else {name: counts[name]})
        if number == restored:
            evidence = msgspec.msgpack.decode(msgspec.msgpack.encode(evidence), type=Evidence)

    assert evidence.in_stage == total
    seen = evidence.failures.seen
    closed = pair(seen.tries, seen.hits, seen.stable_tries, seen.stable_hits)
    assert closed + evidence.window == total


# -- windows --------------------------------------------------------------------------------------


def rounds(evidence: Evidence) -> int:
    return evidence.failures.bets.rounds


def test_nobody_looks_into_an_open_window() -> None:
    evidence = looked(started(a=NONE), {"a": pair(9, 9, 90)})

    assert (rounds(evidence), evidence.failures.bets) == (0, Bets())


def test_a_window_is_closed_when_the_smaller_side_should_have_had_ten() -> None:
    evidence = looked(started(a=NONE), {"a": pair(5, 0, 94)})
    assert rounds(evidence) == 0

    evidence = looked(evidence, {"a": pair(5, 1, 95)})

    assert evidence.window == NONE
    assert evidence.failures.bets == Bets().after(hits=1, trials=1, share=0.1)


def test_a_window_is_closed_by_its_age_from_its_first_request_on() -> None:
    evidence = looked(started(a=NONE), {"a": NONE}, after_s=100.0)
    evidence = looked(evidence, {"a": pair(1)})
    assert rounds(looked(evidence, {}, after_s=WINDOW_S - 2)) == 0

    assert rounds(looked(evidence, {}, after_s=WINDOW_S - 1)) == 1


@pytest.mark.parametrize("change", [{"weight_pct": 25}, {"stage": 1}])
def test_a_window_ends_with_its_weight_and_its_stage(change: dict[str, int]) -> None:
    evidence = looked(started(a=NONE), {"a": pair(1, 0, 9)})

    evidence = looked(evidence, {"a": pair(2, 1, 18)}, **change)  # type: ignore[arg-type]

    assert evidence.window == NONE
    assert (evidence.failures.seen.tries, evidence.failures.seen.hits) == (2, 1)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 30)), min_size=1, max_size=30))
def test_failures_never_close_a_window(seconds: list[tuple[int, int]]) -> None:
    """Two histories that differ in nothing but what failed have the same windows."""
    good = bad = started(a=NONE)
    finished = of_stable = 0
    for mine, others in seconds:
        finished, of_stable = finished + mine, of_stable + others
        good = looked(good, {"a": pair(finished, 0, of_stable, 0)})
        bad = looked(bad, {"a": pair(finished, finished, of_stable, of_stable // 2)})

        assert rounds(good) == rounds(bad)


def test_another_stage_begins_with_nothing_but_the_bets_go_on() -> None:
    evidence = looked(started(a=NONE), {"a": pair(20, 3, 180, 1)})
    bets = evidence.failures.bets

    evidence = looked(evidence, {"a": pair(20, 3, 180, 1)}, stage=1, weight_pct=50)

    assert (evidence.stage, evidence.in_stage) == (1, NONE)
    assert evidence.failures.bets == evidence.planted == bets


# -- the share that a failure is held against -----------------------------------------------------


def share_held_against(evidence: Evidence, share: float) -> bool:
    """Whether the only closed window, with one failure of each side, was held against a share."""
    return evidence.failures.bets == Bets().after(hits=1, trials=2, share=share)


def test_it_is_that_of_the_requests_if_more_came_than_the_weight_says() -> None:
    """Stable spilled."""
    evidence = looked(started(a=NONE), {"a": pair(60, 1, 40, 1)})

    assert share_held_against(evidence, 0.6)


def test_it_is_the_weight_if_fewer_came() -> None:
    evidence = looked(started(a=NONE), {"a": pair(5, 1, 95, 1)})

    assert share_held_against(evidence, 0.1)


def test_it_is_the_largest_weight_of_the_last_minute() -> None:
    """What fails now may have been sent out when the candidate had half of the traffic."""
    evidence = looked(started(50, a=NONE), {}, weight_pct=10)

    late = looked(evidence, {"a": pair(10, 1, 90, 1)}, after_s=RECENT_S)
    too_late = looked(evidence, {}, after_s=RECENT_S + 1)
    too_late = looked(too_late, {"a": pair(10, 1, 90, 1)})

    assert share_held_against(late, 0.5)
    assert share_held_against(too_late, 0.1)


def test_a_weight_that_nobody_watched_was_in_force_until_now() -> None:
    """The controller was away for an hour: the table from before was served until it was back."""
    evidence = looked(started(50, a=NONE), {"a": pair(10, 1, 10, 1)}, after_s=3600.0)

    assert share_held_against(evidence, 0.5)


def test_with_all_traffic_nothing_can_be_held_against_the_candidate() -> None:
    evidence = looked(started(100, a=NONE), {"a": pair(500, 500)}, weight_pct=100)
    evidence = looked(evidence, {}, after_s=WINDOW_S, weight_pct=100)

    assert rounds(evidence) == 1
    assert evidence.failures.bets.log_e == pytest.approx(0.0)


def test_what_is_counted_while_stable_spills_and_a_minute_after_is_forgotten() -> None:
    """Whoever could not be served by stable came to the candidate, at its own peril."""
    spilled = Pair(candidate=Counted(finished=40, failed=30), stable=Counted(spilled=36))
    evidence = looked(started(a=NONE), {"a": pair(10, 1, 90, 1)})
    bets = evidence.failures.bets

    evidence = looked(evidence, {"a": pair(10, 1, 90, 1) + spilled})
    evidence = looked(evidence, {"a": pair(20, 9, 180, 1) + spilled}, after_s=RECENT_S)
    assert (evidence.in_stage, evidence.failures.bets) == (pair(10, 1, 90, 1), bets)

    evidence = looked(evidence, {"a": pair(21, 10, 181, 1) + spilled})
    assert evidence.in_stage == pair(11, 2, 91, 1)


def test_what_was_counted_before_stable_spilled_is_compared_without_what_came_then() -> None:
    evidence = looked(started(a=NONE), {"a": pair(5, 1, 45, 0)})

    evidence = looked(
        evidence, {"a": pair(9, 5, 45, 0) + Pair(stable=Counted(finished=0, spilled=4))}
    )

    assert evidence.failures.bets == Bets().after(hits=1, trials=1, share=0.1)


# -- what would have been noticed -----------------------------------------------------------------


def test_planted_failures_are_a_share_of_the_candidates_requests_in_this_stage() -> None:
    evidence = looked(started(a=NONE), {"a": pair(100, 1, 900, 4)})

    assert evidence.planted == Bets().after(hits=1 + 5.0, trials=5 + 5.0, share=0.1)


# -- clients --------------------------------------------------------------------------------------


def clients(
    mine: dict[int, int],
    failing: dict[int, int],
    others: dict[int, int],
    stable_failing: dict[int, int],
) -> Pair:
    """Return finished and failed requests by client bucket, of either side."""
    return Pair(
        candidate=Counted(
            finished=sum(mine.values()),
            failed=sum(failing.values()),
            clients=mine,
            failing=failing,
        ),
        stable=Counted(
            finished=sum(others.values()),
            failed=sum(stable_failing.values()),
            clients=others,
            failing=stable_failing,
        ),
    )


def many(first: int, last: int, requests: int = 1) -> dict[int, int]:
    return dict.fromkeys(range(first, last), requests)


def test_one_broken_client_is_one_failure_for_the_whole_rollout() -> None:
    evidence = started(a=NONE)
    for second in range(1, 10):
        heard = clients(
            {**many(1, 10, second), 0: 500 * second}, {0: 500 * second}, many(10, 100, second), {}
        )
        evidence = looked(evidence, {"a": heard}, has_affinity=True)

    assert evidence.failing == (0,)
    assert (evidence.failures.seen.hits, evidence.failures.seen.stable_hits) == (1, 0)


def test_a_client_that_brought_its_failures_along_is_stables() -> None:
    evidence = looked(
        started(a=NONE),
        {"a": clients(many(0, 10), {3: 1}, many(0, 100), {3: 1})},
        has_affinity=True,
    )

    assert (evidence.failures.seen.hits, evidence.failures.seen.stable_hits) == (0, 1)


def test_a_failing_client_is_held_against_the_buckets_that_are_left() -> None:
    """Of 1000 buckets 100 failed before; the candidate's 100 may all be among the other 900."""
    evidence = started(a=NONE).but(failing=tuple(range(900, 1000)))

    evidence = looked(
        evidence, {"a": clients(many(0, 10), {3: 1}, many(100, 190), {150: 1})}, has_affinity=True
    )

    assert share_held_against(evidence, 100 / 900)


def test_a_window_of_clients_is_full_with_clients_not_with_requests() -> None:
    few = clients(many(0, 9, 50), {}, many(100, 190, 50), {})

    evidence = looked(started(a=NONE), {"a": few}, has_affinity=True)

    assert rounds(evidence) == 0


def test_planted_failures_of_clients_are_those_that_would_have_met_one_by_now() -> None:
    """Ten clients with 2 requests each in a window, and 3 more each in the next."""
    evidence = looked(
        started(a=NONE), {"a": clients(many(0, 10, 2), {}, many(100, 190), {})}, has_affinity=True
    )
    evidence = looked(
        evidence, {"a": clients(many(0, 10, 5), {}, many(100, 190, 2), {})}, has_affinity=True
    )

    first, second = 10 * (1 - 0.95**2), 10 * (0.95**2 - 0.95**5)
    expected = Bets().after(hits=first, trials=first, share=0.1)
    expected = expected.after(hits=second, trials=second, share=0.1)
    assert evidence.planted.logs == pytest.approx(expected.logs)


def test_there_are_as_many_buckets_as_workers_tell_apart() -> None:
    assert CLIENT_BUCKETS == routing.BUCKETS


# -- durations ------------------------------------------------------------------------------------


def took(counts: dict[float, int]) -> tuple[int, ...]:
    """Return a histogram from how many answers took just so long."""
    durations = [0] * (len(BOUNDS_S) + 1)
    for seconds, count in counts.items():
        durations[bound_of(seconds)] += count
    return tuple(durations)


def timed(mine: dict[float, int], others: dict[float, int]) -> Pair:
    return Pair(
        candidate=Counted(finished=sum(mine.values()), durations=took(mine)),
        stable=Counted(finished=sum(others.values()), durations=took(others)),
    )


def test_bounds_rise_by_a_third_at_most_up_to_ten_seconds() -> None:
    ratios = [b / a for a, b in pairwise(BOUNDS_S[:-2])]

    assert min(ratios) > 1
    assert max(ratios) == pytest.approx(4 / 3)
    assert (BOUNDS_S[0], BOUNDS_S[-4], BOUNDS_S[-3:]) == (0.001, 8.0, (10.0, 30.0, 60.0))


def test_an_answer_at_a_bound_is_not_slower() -> None:
    durations = took({0.1: 2, 0.11: 3, 99.0: 1})

    assert slower_than(durations, bound_of(0.1)) == 4
    assert slower_than(durations, bound_of(60.0)) == 1
    assert slower_than(durations, bound_of(99.0)) == 0
    assert slower_than((), 3) == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=44).filter(any))
def test_the_usual_bound_is_the_first_that_a_tenth_exceeded_at_most(counts: list[int]) -> None:
    durations = tuple(counts)
    bound = bound_for(durations, 0.1)

    assert slower_than(durations, bound) <= 0.1 * sum(durations) + 1e-9
    assert not bound or slower_than(durations, bound - 1) > 0.1 * sum(durations) - 1e-9


def test_slow_answers_are_held_against_what_was_usual_before() -> None:
    """The window that teaches what is usual judges nobody."""
    first = timed({0.5: 100}, {0.02: 850, 0.05: 50})
    evidence = looked(started(a=NONE), {"a": first})
    assert evidence.slowness.bets == Bets()

    evidence = looked(evidence, {"a": first + timed({0.02: 6, 0.05: 4}, {0.02: 81, 0.05: 9})})

    expected = Bets().after(hits=4, trials=13, share=favoured(0.1, 2.0))
    assert evidence.slowness.bets == expected


def test_nothing_under_ten_milliseconds_is_slow() -> None:
    first = timed({0.001: 100}, {0.001: 900})
    evidence = looked(started(a=NONE), {"a": first})

    evidence = looked(evidence, {"a": first + timed({0.01: 10}, {0.001: 90})})

    assert evidence.slowness.seen.hits == 0
    assert evidence.slowness.bets.rounds == 1


@pytest.mark.parametrize(
    ("gates", "has_affinity"),
    [
        (Gates(compare=Compare(has_latency=False)), False),
        (Gates(max_error_rate=0.01), False),
        (GATES, True),
    ],
)
def test_durations_are_compared_only_if_they_are_asked_for(
    gates: Gates, *, has_affinity: bool
) -> None:
    evidence, total = started(a=NONE), NONE
    for _ in range(3):
        total += timed({0.5: 100}, {0.02: 900})
        evidence = looked(
            evidence, {"a": total}, gates=gates, has_affinity=has_affinity, after_s=WINDOW_S
        )

    assert evidence.slowness.bets == Bets()


# -- checkpoints ----------------------------------------------------------------------------------


def test_another_controller_goes_on_where_this_one_was() -> None:
    heard = clients(many(0, 12), {3: 1}, many(100, 190), {150: 1})
    evidence = looked(started(a=None, b=NONE), {"b": heard}, has_affinity=True)
    evidence = looked(evidence, {"b": heard + heard, "c": timed({0.5: 1}, {0.1: 2})})

    for codec in (msgspec.msgpack, msgspec.json):
        kept = codec.decode(codec.encode(evidence), type=Evidence)

        assert kept == evidence
        assert looked(kept, {"a": pair(1), "b": NONE}) == looked(
            evidence, {"a": pair(1), "b": NONE}
        )
