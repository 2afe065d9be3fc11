"""How strong is the evidence that hits fall on one side more often than they should?

A **hit** is something bad: a failure, a slow answer. Of `trials` hits, `hits` fell on the side that
is watched, where each should have fallen with a probability of `share` at most. We bet against
that: for every odds t in ODDS, a stake is multiplied by

    t ** hits / (1 - share + share * t) ** trials

The divisor is what the dividend is expected to be when each trial hits with that probability, so a
bet that should not win gains nothing on average; and it gains most when the odds of a hit are t
times what they should be. What all stakes have become, with what was not staked yet, is E: the
evidence. It begins as 1, and E >= 100 happens to one innocent in a hundred at most, however often
one looks (Ville 1939). docs/gates.md has the proofs and the sources.

Everything is kept as a logarithm: E outgrows any float within seconds of a real outage.
"""

from itertools import repeat
from math import exp, inf, log, log1p

from trafficmgr.core.noun import Noun

ODDS = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""What is bet on. A bet on t earns most when t is true, and about as much between its neighbours;
below odds of 1.2 none of them earns anything, and that is as alike as two revisions need to be."""

_LOG_ODDS = tuple(map(log, ODDS))
_LEAST, _MOST = -200.0, 200.0
"""Logarithms of E are shown within this: what lies beyond is no more certain, and no float."""


class Bets(Noun):
    """The state of a test that goes on round by round.

    One who bets everything in the first round has lost nearly all of it after a long good time, and
    must win it back before anything that goes bad late is noticed. So each round n stakes another
    1 / (n * (n + 1)) of the capital, spread over ODDS; what is left for later is 1 / (n + 1). It is
    a mixture over the moment at which something went bad, at the price of 2 log n.

    `logs` is what the bets on each odds have become (empty: there was no round yet).
    """

    logs: tuple[float, ...] = ()
    rounds: int = 0

    def after(self, *, hits: float, trials: float, share: float) -> "Bets":
        """Return the bets after one more round; its share must be known without its hits."""
        rounds = self.rounds + 1
        stake = -log(rounds * (rounds + 1) * len(ODDS))
        factors = log_factors(hits=hits, trials=trials, share=share)
        held = self.logs or repeat(-inf, len(ODDS))
        logs = tuple(log_sum((one, stake)) + by for one, by in zip(held, factors, strict=True))
        return Bets(logs=logs, rounds=rounds)

    @property
    def log_e(self) -> float:
        """Return the logarithm of E."""
        return log_sum((*self.logs, -log1p(self.rounds)))


def log_factors(*, hits: float, trials: float, share: float) -> tuple[float, ...]:
    """Return the logarithm of what a bet on each of ODDS is multiplied by."""
    return tuple(
        hits * log_odds - trials * log1p(share * (odds - 1))
        for odds, log_odds in zip(ODDS, _LOG_ODDS, strict=True)
    )


def log_e_of(*, hits: float, trials: float, share: float) -> float:
    """Return the logarithm of E for one round that everything was bet on."""
    return log_sum(log_factors(hits=hits, trials=trials, share=share)) - log(len(ODDS))


def log_ratio(*, hits: int, tries: int, share: float, other: float) -> float:
    """Return the logarithm of how much likelier the hits are by one share than by another.

    Wald (1945): if `share` is the true one, the ratio falls to b with a probability of b at most,
    however often one looks.
    """
    misses = tries - hits
    return hits * log(share / other) + misses * (log1p(-share) - log1p(-other))


def favoured(share: float, by: float) -> float:
    """Return the share of hits of a side whose odds of each are `by` times the other's."""
    return by * share / (1 + (by - 1) * share)


def log_sum(logs: tuple[float, ...]) -> float:
    """Return the logarithm of the sum of what these are the logarithms of."""
    most = max(logs)
    return most + log(sum([exp(one - most) for one in logs]))


def shown(log_e: float) -> float:
    """Return E as a number that can be shown and stored: three digits, and within reason."""
    return float(f"{exp(min(max(log_e, _LEAST), _MOST)):.3g}")
