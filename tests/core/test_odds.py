"""The bets gain nothing on average where they should not win: exactly, by enumeration."""

from itertools import product
from math import comb, exp, inf, isfinite, isnan, log, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficmgr.core.odds import (
    ODDS,
    Bets,
    favoured,
    log_e_of,
    log_factors,
    log_ratio,
    shown,
)

ROUNDING = 1e-9
MARGINS = [
    (tries, ours, hits)
    for tries in range(1, 15)
    for ours in range(tries + 1)
    for hits in range(tries + 1)
]


def factors(hits: int, trials: int, share: float) -> list[float]:
    return [exp(log) for log in log_factors(hits=hits, trials=trials, share=share)]


def urn(tries: int, ours: int, hits: int, odds: float = 1.0) -> dict[int, float]:
    """Return the probabilities of how many of the hits are ours, given both margins.

    Each try is a hit with the same odds, or ours with `odds` times those: Fisher's noncentral
    hypergeometric distribution.
    """
    possible = range(max(0, hits - (tries - ours)), min(hits, ours) + 1)
    weights = {n: comb(ours, n) * comb(tries - ours, hits - n) * odds**n for n in possible}
    return {n: weight / sum(weights.values()) for n, weight in weights.items()}


def expected(chances: dict[int, float], trials: int, share: float) -> list[float]:
    """Return what each bet is multiplied by on average."""
    parts = [[chance * f for f in factors(n, trials, share)] for n, chance in chances.items()]
    return [sum(column) for column in zip(*parts, strict=True)]


# -- one window -----------------------------------------------------------------------------------


def test_no_bet_gains_on_a_window_whose_margins_are_known() -> None:
    """Whatever assigned the requests: their share in the window is enough to know."""
    for tries, ours, hits in MARGINS:
        gains = expected(urn(tries, ours, hits), hits, ours / tries)

        assert max(gains) <= 1 + ROUNDING, (tries, ours, hits)


@pytest.mark.parametrize("odds", [0.5, 1.0, 1.5, 2.0])
def test_no_bet_gains_if_slow_answers_are_as_frequent_as_is_forgiven(odds: float) -> None:
    for tries, ours, hits in MARGINS:
        gains = expected(urn(tries, ours, hits, odds), hits, favoured(ours / tries, 2.0))

        assert max(gains) <= 1 + ROUNDING, (tries, ours, hits)


def test_a_share_that_is_too_small_is_noticed() -> None:
    """Plants a bug: a tenth less than the share lets bets gain that should not."""
    gains = [
        max(expected(urn(tries, ours, hits), hits, 0.9 * ours / tries))
        for tries, ours, hits in MARGINS
    ]

    assert max(gains) > 1.1


def test_more_than_is_forgiven_is_noticed() -> None:
    """Plants a bug: odds of three where two are forgiven."""
    gains = [
        max(expected(urn(tries, ours, hits, 3.0), hits, favoured(ours / tries, 2.0)))
        for tries, ours, hits in MARGINS
    ]

    assert max(gains) > 1.1


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99, 1.0])
def test_a_bet_is_fair_if_each_hit_is_ours_with_that_share(share: float) -> None:
    """Requests that are assigned at random; a larger share than the true one only loses."""
    chances = {n: comb(6, n) * share**n * (1 - share) ** (6 - n) for n in range(7)}

    assert expected(chances, 6, share) == pytest.approx([1.0] * len(ODDS))
    assert max(expected(chances, 6, min(1.0, share * 1.3))) <= 1 + ROUNDING


# -- many windows ---------------------------------------------------------------------------------


def test_e_is_one_on_average_after_any_number_of_rounds() -> None:
    """All ways that four rounds of different shares and numbers of hits can come out."""
    rounds = [(2, 0.1), (1, 0.5), (3, 0.25), (2, 0.5)]
    total = 0.0
    for outcome in product(*(range(trials + 1) for trials, _ in rounds)):
        bets, chances = Bets(), []
        for hits, (trials, share) in zip(outcome, rounds, strict=True):
            bets = bets.after(hits=hits, trials=trials, share=share)
            chances.append(comb(trials, hits) * share**hits * (1 - share) ** (trials - hits))
        total += prod(chances) * exp(bets.log_e)

    assert total == pytest.approx(1.0)


def test_before_the_first_round_there_is_no_evidence() -> None:
    assert exp(Bets().log_e) == 1.0


def test_a_round_without_hits_says_nothing() -> None:
    bets = Bets()
    for _ in range(50):
        bets = bets.after(hits=0, trials=0, share=0.3)

    assert exp(bets.log_e) == pytest.approx(1.0)


def test_a_long_good_past_is_no_excuse() -> None:
    """After a day of windows in which only stable failed, a dozen failures are enough again."""
    bets = Bets()
    for _ in range(2880):
        bets = bets.after(hits=0, trials=3, share=0.1)
    for _ in range(12):
        bets = bets.after(hits=2, trials=2, share=0.1)

    assert bets.log_e > log(200)


def test_all_bets_are_equal_at_first() -> None:
    bets = Bets().after(hits=0, trials=0, share=0.5)

    assert [exp(one) for one in bets.logs] == pytest.approx([1 / 12] * 6)


# -- two shares -----------------------------------------------------------------------------------


def chance_to_fall(truth: float, *, share: float, other: float) -> float:
    """Return how probable it is that the ratio falls to 1/20 within 300 tries, looked at each."""
    fallen, alive = 0.0, {0: 1.0}
    for n in range(1, 301):
        grown: dict[int, float] = {}
        for hits, chance in alive.items():
            grown[hits] = grown.get(hits, 0.0) + chance * (1 - truth)
            grown[hits + 1] = grown.get(hits + 1, 0.0) + chance * truth
        low = {
            hits
            for hits in grown
            if log_ratio(hits=hits, tries=n, share=share, other=other) <= log(1 / 20)
        }
        fallen += sum(grown.pop(hits) for hits in low)
        alive = grown
    return fallen


@pytest.mark.parametrize(("share", "other"), [(0.055, 0.005), (0.2, 0.1), (0.6, 0.01)])
def test_a_ratio_falls_only_while_the_other_share_is_the_true_one(
    share: float, other: float
) -> None:
    """Exactly: all that can come out is enumerated."""
    assert 0 < chance_to_fall(share, share=share, other=other) <= 1 / 20
    assert chance_to_fall(other, share=share, other=other) > 0.95


# -- figures --------------------------------------------------------------------------------------


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.floats(0, 1))
def test_nothing_overflows(hits: int, others: int, share: float) -> None:
    log_e = log_e_of(hits=hits, trials=hits + others, share=share)
    bets = Bets().after(hits=hits, trials=hits + others, share=share)

    assert isfinite(log_e)
    assert isfinite(bets.log_e)
    assert isfinite(shown(log_e))
    assert shown(log_e) >= 0


def test_e_is_shown_within_reason() -> None:
    assert shown(log(123.456)) == 123.0
    assert 0 < shown(-inf) < 1e-80
    assert 1e80 < shown(inf) < inf
    assert not isnan(shown(inf))


def test_a_side_with_twice_the_odds_has_its_share_of_hits() -> None:
    assert favoured(0.5, 2.0) == pytest.approx(2 / 3)
    assert favoured(0.1, 1.0) == pytest.approx(0.1)
    assert (favoured(0.0, 2.0), favoured(1.0, 2.0)) == (0.0, 1.0)
