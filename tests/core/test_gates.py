"""What the gates on our own traffic say, and that they say why."""

from math import exp, isfinite, log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficmgr.core.counted import BOUNDS_S, Counted, Pair, bound_of
from trafficmgr.core.evidence import Evidence, begun, observed
from trafficmgr.core.gates import verdicts
from trafficmgr.core.gating import Compare, Gates, Verdict, VerdictKind
from trafficmgr.core.odds import log_e_of

PASS, FAIL, INSUFFICIENT = VerdictKind.passed, VerdictKind.failed, VerdictKind.insufficient
ERRORS = Gates(max_error_rate=0.01)
COMPARE = Gates(compare=Compare())
ALL = Gates(
    max_error_rate=0.01,
    max_p50_s=0.1,
    max_p95_s=0.4,
    max_p99_s=1.0,
    min_requests=50,
    compare=Compare(),
)


def pair(finished: int = 0, failed: int = 0, of_stable: int = 0, stable_failed: int = 0) -> Pair:
    return Pair(
        candidate=Counted(finished=finished, failed=failed),
        stable=Counted(finished=of_stable, failed=stable_failed),
    )


def after_one_window(*, hits: int, trials: int, share: float) -> float:
    """Return the logarithm of E when half of the capital was bet on one window."""
    return log((exp(log_e_of(hits=hits, trials=trials, share=share)) + 1) / 2)


def three_digits(log_e: float) -> float:
    return float(f"{exp(log_e):.3g}")


def seen(
    gates: Gates, *windows: Pair, weight_pct: int = 10, has_affinity: bool = False
) -> Evidence:
    """Return the evidence of a step with these windows, each of them closed by its age."""
    evidence, total = begun(0.0, 0, {"a": Pair()}), Pair()
    for number, window in enumerate((Pair(), *windows)):
        total += window
        for at in (40.0 * number, 40.0 * number + 30.0):
            evidence = observed(
                evidence,
                {"a": total},
                at=at,
                stage=0,
                weight_pct=weight_pct,
                gates=gates,
                has_affinity=has_affinity,
            )
    return evidence


def judged(
    gates: Gates, *windows: Pair, weight_pct: int = 10, has_affinity: bool = False
) -> Verdict:
    """Return the last verdict on such a step."""
    evidence = seen(gates, *windows, weight_pct=weight_pct, has_affinity=has_affinity)
    said = verdicts(
        gates, evidence, at=evidence.at, weight_pct=weight_pct, has_affinity=has_affinity
    )
    return said[-1]


def kinds_until_decided(windows: list[Pair], weight_pct: int) -> set[VerdictKind]:
    """Return what is said of a step after each window, until it is something."""
    evidence, total = begun(0.0, 0, {"a": Pair()}), Pair()
    kinds: set[VerdictKind] = set()
    for number, window in enumerate((Pair(), *windows)):
        total += window
        for at in (40.0 * number, 40.0 * number + 30.0):
            evidence = observed(
                evidence,
                {"a": total},
                at=at,
                stage=0,
                weight_pct=weight_pct,
                gates=COMPARE,
                has_affinity=False,
            )
        said = verdicts(
            COMPARE, evidence, at=evidence.at, weight_pct=weight_pct, has_affinity=False
        )
        kinds.add(said[-1].kind)
        if kinds & {PASS, FAIL}:
            break
    return kinds


# -- all of them ----------------------------------------------------------------------------------


def test_each_gate_that_is_configured_says_something_in_the_order_of_its_key() -> None:
    said = verdicts(ALL, seen(ALL), at=7.0, weight_pct=10, has_affinity=False)

    assert tuple(verdict.gate for verdict in said) == ALL.on_traffic()
    assert {verdict.kind for verdict in said} == {INSUFFICIENT}
    assert {verdict.at for verdict in said} == {7.0}


def test_before_there_is_traffic_nothing_is_said() -> None:
    assert verdicts(ALL, seen(ALL), at=0.0, weight_pct=0, has_affinity=False) == ()


@given(
    st.lists(st.integers(0, 10**9), min_size=4, max_size=4),
    st.lists(st.integers(0, 10**6), min_size=44, max_size=44),
    st.integers(1, 100),
    st.booleans(),
)
def test_whatever_was_counted_the_numbers_are_finite(
    counts: list[int], durations: list[int], weight_pct: int, has_affinity: bool
) -> None:
    mine, failed, others, stable_failed = counts
    window = Pair(
        candidate=Counted(
            finished=mine,
            failed=failed,
            durations=tuple(durations),
            clients={failed % 1000: mine},
            failing={failed % 1000: failed},
        ),
        stable=Counted(finished=others, failed=stable_failed, durations=tuple(durations[::-1])),
    )
    evidence = seen(ALL, window, window, weight_pct=weight_pct, has_affinity=has_affinity)

    for verdict in verdicts(
        ALL, evidence, at=0.0, weight_pct=weight_pct, has_affinity=has_affinity
    ):
        assert verdict.why
        assert all(map(isfinite, verdict.numbers.values()))


# -- a limit on failures --------------------------------------------------------------------------


def test_a_limit_passes_with_enough_requests_within_it() -> None:
    verdict = judged(ERRORS, pair(100, 1, 900, 9))

    assert verdict.kind is PASS
    assert verdict.why == (
        "1 of 100 requests of the candidate failed, 9 of 900 of stable; 1 % may:"
        " that is within the limit"
    )
    assert verdict.numbers == {
        "requests": 100,
        "failed": 1,
        "stable_requests": 900,
        "stable_failed": 9,
        "share": 0.01,
        "stable_share": 0.01,
        "limit": 0.01,
        "e": three_digits(log_e_of(hits=1, trials=100, share=0.01)),
        "e_worse": three_digits(after_one_window(hits=1, trials=10, share=0.1)),
        "needed": 100.0,
    }


def test_a_limit_waits_for_its_requests() -> None:
    verdict = judged(ERRORS, pair(99, 0, 900))

    assert verdict.kind is INSUFFICIENT
    assert verdict.why.endswith("100 requests are enough to pass")
    assert judged(ERRORS, pair(100, 0, 900)).kind is PASS


def test_a_limit_waits_for_as_many_requests_as_the_user_wants() -> None:
    gates = ERRORS.but(min_requests=99)
    evidence = seen(gates, pair(98, 0, 900))

    said = verdicts(gates, evidence, at=0.0, weight_pct=10, has_affinity=False)

    assert [verdict.kind for verdict in said] == [INSUFFICIENT, INSUFFICIENT]
    assert said[0].why.endswith("99 requests are enough to pass")


def test_a_limit_fails_when_it_is_beyond_doubt_that_it_is_broken_and_by_the_candidate() -> None:
    verdict = judged(ERRORS, pair(60, 12, 540, 3))

    assert verdict.kind is FAIL
    assert verdict.why.startswith(
        "12 of 60 requests of the candidate failed, 3 of 540 of stable; 1 % may: E = "
    )
    assert verdict.why.endswith(", 100 is enough to fail")
    assert verdict.numbers["e"] > 100
    assert verdict.numbers["e_worse"] > 100


def test_a_limit_that_may_be_exceeded_by_chance_is_not_broken() -> None:
    verdict = judged(ERRORS, pair(100, 2, 900))

    assert verdict.kind is INSUFFICIENT
    e = three_digits(log_e_of(hits=2, trials=100, share=0.01))
    assert verdict.why.endswith(f"that may be chance: E = {e:g}, 100 is enough to fail")


def test_a_limit_that_stable_breaks_too_condemns_nobody() -> None:
    verdict = judged(ERRORS, pair(100, 30, 900, 270))

    assert verdict.kind is INSUFFICIENT
    assert verdict.why.endswith("270 of 900 of stable; 1 % may: stable shows it too")
    assert verdict.numbers["e"] > 1e20


def test_a_candidate_that_is_far_worse_than_a_stable_beyond_the_limit_is_condemned() -> None:
    assert judged(ERRORS, pair(100, 60, 900, 18)).kind is FAIL


def test_a_stable_of_which_little_was_seen_neither_condemns_nor_absolves() -> None:
    verdict = judged(ERRORS, pair(95, 40, 5, 0), weight_pct=95)

    assert verdict.kind is INSUFFICIENT
    assert verdict.why.endswith("whether stable does better is not beyond doubt yet")


def test_a_limit_is_judged_alone_once_stable_has_no_traffic() -> None:
    verdict = judged(ERRORS, pair(100, 30), weight_pct=100)

    assert verdict.kind is FAIL
    assert judged(ERRORS, pair(100, 1), weight_pct=100).kind is PASS


def test_one_broken_client_does_not_break_a_limit_if_clients_are_told_apart() -> None:
    busy = Pair(
        candidate=Counted(
            finished=200, failed=100, clients=dict.fromkeys(range(101), 1), failing={0: 100}
        ),
        stable=Counted(finished=1800, clients=dict.fromkeys(range(101, 1000), 2)),
    )

    assert judged(ERRORS, busy).kind is FAIL
    assert judged(ERRORS, busy, has_affinity=True).kind is INSUFFICIENT


# -- limits on durations --------------------------------------------------------------------------


def timed(mine: dict[float, int], others: dict[float, int]) -> Pair:
    return Pair(
        candidate=Counted(finished=sum(mine.values()), durations=took(mine)),
        stable=Counted(finished=sum(others.values()), durations=took(others)),
    )


def took(counts: dict[float, int]) -> tuple[int, ...]:
    durations = [0] * (len(BOUNDS_S) + 1)
    for seconds, count in counts.items():
        durations[bound_of(seconds)] += count
    return tuple(durations)


@pytest.mark.parametrize(
    ("gates", "share"),
    [
        (Gates(max_p50_s=0.1), 0.5),
        (Gates(max_p95_s=0.1), 0.05),
        (Gates(max_p99_s=0.1), 0.01),
    ],
)
def test_a_limit_on_a_percentile_is_one_on_the_share_that_may_be_slower(
    gates: Gates, share: float
) -> None:
    slow = round(1000 * share)
    others = {0.1: 9000}

    within = judged(gates, timed({0.1: 1000 - slow, 0.11: slow}, others))
    above = judged(gates, timed({0.1: 999 - slow, 0.11: slow + 1}, others))
    broken = judged(gates, timed({0.11: 1000}, others))

    assert (within.kind, above.kind, broken.kind) == (PASS, INSUFFICIENT, FAIL)
    assert within.numbers["limit"] == share
    assert within.numbers["slow"] == slow


def test_slow_answers_that_stable_has_too_condemn_nobody() -> None:
    verdict = judged(Gates(max_p95_s=0.1), timed({0.2: 1000}, {0.2: 9000}))

    assert verdict.kind is INSUFFICIENT
    assert verdict.why.endswith("stable shows it too")


def test_a_limit_between_two_bounds_is_judged_by_the_next_and_says_so() -> None:
    verdict = judged(Gates(max_p99_s=1.1), timed({1.15: 100}, {0.1: 900}))

    assert verdict.kind is PASS
    assert verdict.numbers["bound_s"] == 1.2
    assert "took longer than 1.2s (1.1s is no bound), 0 of 900 of stable" in verdict.why


def test_a_limit_beyond_all_bounds_is_judged_by_the_last() -> None:
    verdict = judged(Gates(max_p99_s=90.0), timed({70.0: 100}, {0.1: 900}))

    assert verdict.kind is FAIL
    assert "took longer than 60s (90s is no bound)" in verdict.why


# -- a number of requests -------------------------------------------------------------------------


@pytest.mark.parametrize(("requests", "kind"), [(49, INSUFFICIENT), (50, PASS)])
def test_a_number_of_requests_is_all_that_is_asked(requests: int, kind: VerdictKind) -> None:
    verdict = judged(Gates(min_requests=50), pair(requests, requests, 900))

    assert verdict.kind is kind
    assert verdict.why == f"{requests} requests of the candidate in this step, 50 are enough"


# -- comparison -----------------------------------------------------------------------------------


def test_a_candidate_that_is_worse_beyond_doubt_fails() -> None:
    verdict = judged(COMPARE, pair(92, 18, 830, 1))

    assert verdict.kind is FAIL
    assert verdict.why == (
        "18 of 92 requests of the candidate failed, 1 of 830 of stable:"
        " E = 1.9e14, 200 is enough to fail"
    )
    e = three_digits(after_one_window(hits=18, trials=19, share=0.1))
    assert verdict.numbers == {
        "requests": 92,
        "failed": 18,
        "stable_requests": 830,
        "stable_failed": 1,
        "answers": 0,
        "slow": 0,
        "stable_answers": 0,
        "stable_slow": 0,
        "e": e,
        "e_planted": verdict.numbers["e_planted"],
        "e_slow": 1.0,
        "needed": 200,
    }


def test_evidence_that_is_just_not_enough_does_not_fail() -> None:
    """Looks for the first number of failures that is enough: E is on either side of the line."""
    by_failures = [judged(COMPARE, pair(100, failed, 900)) for failed in range(10)]

    kinds = [verdict.kind for verdict in by_failures]
    first = kinds.index(FAIL)
    assert by_failures[first].numbers["e"] >= 200 > by_failures[first - 1].numbers["e"]
    assert FAIL not in kinds[:first]


def test_failures_are_added_up_all_through_the_rollout() -> None:
    window = pair(100, 2, 900, 2)

    kinds = [judged(COMPARE, *[window] * n).kind for n in range(1, 12)]

    assert kinds[0] is not FAIL
    assert kinds[-1] is FAIL


def test_a_good_candidate_passes_when_a_bad_one_would_have_been_noticed() -> None:
    early, late = judged(COMPARE, pair(40, 0, 360, 2)), judged(COMPARE, pair(400, 2, 3600, 18))

    assert (early.kind, late.kind) == (INSUFFICIENT, PASS)
    assert early.numbers["e_planted"] < 200 <= late.numbers["e_planted"]
    assert "had 5 % more failed, it would be" in early.why
    assert early.why.endswith(": too little was seen to tell")


def test_what_a_bad_release_fails_at_does_not_help_it_to_pass() -> None:
    """With its own failures and the planted ones E is enough long before it is by the former."""
    verdict = judged(COMPARE, pair(100, 4, 900, 4))

    assert verdict.numbers["e_planted"] >= 200 > verdict.numbers["e"]
    assert verdict.kind is INSUFFICIENT
    assert verdict.why.endswith("; it may be 5 % more than of stable")


@pytest.mark.parametrize("share", [0.05, 0.2])
@pytest.mark.parametrize("weight_pct", [10, 50])
def test_a_bad_release_passes_at_most_as_often_as_it_may(share: float, weight_pct: int) -> None:
    """It is looked at in 30 windows of 50 requests; what fails 5 % more may pass in 5 %."""
    random, passed, runs = Random(7), 0, 400  # noqa: S311  failures, not secrets
    mine, others = 50 * weight_pct // 100, 50 - 50 * weight_pct // 100
    for _ in range(runs):
        windows: list[Pair] = []
        for _ in range(30):
            failed = sum(random.random() < share + 0.005 for _ in range(mine))
            stable_failed = sum(random.random() < 0.005 for _ in range(others))
            windows.append(pair(mine, failed, others, stable_failed))
        passed += PASS in kinds_until_decided(windows, weight_pct)

    # by the binomial distribution 400 runs at 5 % pass more often than 34 times once in 1000
    assert passed <= 34


def test_what_is_to_be_caught_says_how_much_must_be_seen() -> None:
    window = pair(100, 0, 900, 4)

    assert judged(Gates(compare=Compare(catch=0.2)), window).kind is PASS
    assert judged(Gates(compare=Compare(catch=0.02)), window).kind is INSUFFICIENT


def test_without_the_latency_the_whole_of_alpha_is_for_failures() -> None:
    alone = judged(Gates(compare=Compare(has_latency=False)), pair(100))
    clients = judged(COMPARE, pair(100), has_affinity=True)

    assert alone.numbers["needed"] == clients.numbers["needed"] == 100
    assert "answers" not in alone.numbers
    assert judged(Gates(compare=Compare(alpha=0.05)), pair(100)).numbers["needed"] == 40


def test_a_shared_outage_condemns_nobody() -> None:
    assert judged(COMPARE, pair(1000, 400, 9000, 3600)).kind is not FAIL


def test_once_stable_is_silent_nothing_new_can_be_compared() -> None:
    verdict = judged(COMPARE, pair(1000, 500), weight_pct=100)

    assert verdict.kind is INSUFFICIENT
    assert verdict.why.endswith("stable has no more traffic to compare")
    assert verdict.numbers["e"] == 1.0


def test_what_was_beyond_doubt_before_stable_fell_silent_is_still() -> None:
    evidence = seen(COMPARE, pair(92, 18, 830, 1))

    (verdict,) = verdicts(COMPARE, evidence, at=0.0, weight_pct=100, has_affinity=False)

    assert verdict.kind is FAIL


def test_a_client_that_fails_all_the_time_condemns_nobody_but_many_clients_do() -> None:
    def failing(clients: int) -> Pair:
        return Pair(
            candidate=Counted(
                finished=1000,
                failed=500,
                clients=dict.fromkeys(range(100), 10),
                failing=dict.fromkeys(range(clients), 500 // clients),
            ),
            stable=Counted(finished=9000, clients=dict.fromkeys(range(100, 1000), 10)),
        )

    one = judged(COMPARE, failing(1), has_affinity=True)
    many = judged(COMPARE, failing(10), has_affinity=True)

    assert (one.kind, many.kind) == (PASS, FAIL)
    assert many.why.startswith("10 clients of the candidate had a failure, 0 of stable: E = ")


def test_a_candidate_that_is_slow_beyond_doubt_fails() -> None:
    usual = timed({0.05: 100}, {0.05: 900})
    slower = timed({0.05: 40, 0.4: 60}, {0.05: 880, 0.4: 20})

    verdict = judged(COMPARE, usual, slower)

    assert verdict.kind is FAIL
    assert verdict.why.startswith(
        "60 of 100 answers of the candidate were slower than nine in ten of stable's before,"
        " 20 of 900 of stable: E = "
    )
    assert verdict.numbers["e_slow"] > 200 > verdict.numbers["e"]


def test_twice_as_many_slow_answers_are_forgiven() -> None:
    usual = timed({0.05: 100}, {0.05: 900})
    slower = timed({0.05: 9000, 0.4: 1000}, {0.05: 85500, 0.4: 4500})

    verdict = judged(COMPARE, usual, slower)

    assert verdict.kind is PASS
    assert verdict.numbers["slow"] / verdict.numbers["answers"] == 0.1
    assert log_e_of(hits=1000, trials=5500, share=0.1) > log(1e50)  # had it not been forgiven
