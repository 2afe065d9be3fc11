"""Traffic of an endpoint during a rollout, as its workers would count it, drawn from a seed.

Requests come at random, each goes to the candidate with the probability of its weight, and fails
with that of its revision. So the four streams of requests (of either side, that fail or do not)
are independent Poisson processes, and a second of each is one draw, however many requests it has.

With affinity it is clients who are given to a side, by the real hash of their name, and each
request is one of theirs.
"""

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from math import erf, exp, inf, lgamma, log, sqrt
from random import Random

from trafficmgr.core.counted import BOUNDS_S, Counted, Pair
from trafficmgr.core.routing import bucket_of

TEN_MINUTES_S = 600
OUTAGE_S = range(180, 240)
CLIENTS = 200
MEDIAN_S = 0.04


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What traffic and its two revisions are like.

    Attributes:
        story: What happens, in words; scenes with the same words differ in the other figures.
        rps: Requests a second of both sides together.
        weights: (second, weight in per cent) of each step, the first at 0.
        errors: Share of the candidate's requests that fail, from second `bad_from_s` on.
        stable_errors: The same of stable, and of the candidate before that second.
        outage: Share of all requests that fail in addition during OUTAGE_S.
        broken_rps: Requests a second of one client, in addition; all of them fail.
        has_affinity: Clients stay with their side; there are CLIENTS of them.
        slower: By how much answers of the candidate take longer than stable's.
        spread: Of the logarithm of what answers take; 0: they are not timed.
        seconds: How long it lasts.
    """

    story: str = field(repr=False)  # the seeds are of what happens, whatever it is called
    rps: float
    weights: tuple[tuple[int, int], ...]
    errors: float = 0.005
    stable_errors: float = 0.005
    bad_from_s: int = 0
    outage: float = 0.0
    broken_rps: float = 0.0
    has_affinity: bool = False
    slower: float = 1.0
    spread: float = 0.0
    seconds: int = TEN_MINUTES_S

    def stage(self, second: int) -> int:
        """Return the index of the step that is under way."""
        return max(n for n, (since, _) in enumerate(self.weights) if since <= second)

    def weight_pct(self, second: int) -> int:
        """Return the weight of the step that is under way."""
        return self.weights[self.stage(second)][1]

    def failing(self, second: int) -> tuple[float, float]:
        """Return the shares of requests that fail, of the candidate and of stable."""
        more = self.outage if second in OUTAGE_S else 0.0
        errors = self.errors if second >= self.bad_from_s else self.stable_errors
        return (1 - (1 - errors) * (1 - more), 1 - (1 - self.stable_errors) * (1 - more))


def counted(scene: Scene, rng: Random) -> Iterator[Pair]:
    """Yield what has been counted after each second."""
    of = _of_clients if scene.has_affinity else _of_requests
    yield from of(scene, rng)


# -- requests -------------------------------------------------------------------------------------


def _of_requests(scene: Scene, rng: Random) -> Iterator[Pair]:
    sides = [_Side(scene, scene.slower), _Side(scene, 1.0)]
    for second in range(scene.seconds):
        weight = scene.weight_pct(second) / 100
        shares = (weight, 1 - weight)
        for side, share, failing in zip(sides, shares, scene.failing(second), strict=True):
            side.serve(rng, scene.rps * share, failing, scene.broken_rps * share)
        yield Pair(candidate=sides[0].counted(), stable=sides[1].counted())


class _Side:
    """The counts of one revision whose requests are all alike."""

    def __init__(self, scene: Scene, slower: float) -> None:
        self._finished = self._failed = 0
        self._parts = _parts(slower, scene.spread) if scene.spread else ()
        self._durations = [0] * (len(BOUNDS_S) + 1)

    def serve(self, rng: Random, rps: float, failing: float, broken_rps: float) -> None:
        failed = poisson(rng, rps * failing) + poisson(rng, broken_rps)
        self._failed += failed
        self._finished += failed + poisson(rng, rps * (1 - failing))
        for bucket, part in self._parts:
            self._durations[bucket] += poisson(rng, rps * part)

    def counted(self) -> Counted:
        durations = tuple(self._durations) if self._parts else ()
        return Counted(finished=self._finished, failed=self._failed, durations=durations)


def poisson(rng: Random, mean: float) -> int:
    """Return a draw from Poisson's distribution."""
    return bisect(_poisson_sums(mean), rng.random()) if mean else 0


@cache
def _poisson_sums(mean: float) -> tuple[float, ...]:
    """Return the distribution function, as far as a draw can reach."""
    most = int(mean + 12 * sqrt(mean) + 30)
    return tuple(accumulate(exp(n * log(mean) - mean - lgamma(n + 1)) for n in range(most)))


@cache
def _parts(slower: float, spread: float) -> tuple[tuple[int, float], ...]:
    """Return the share of answers in each bucket of durations: a lognormal distribution."""
    scores = (log(bound / MEDIAN_S / slower) / spread for bound in (*BOUNDS_S, inf))
    below = [0.0, *((1 + erf(score / sqrt(2))) / 2 for score in scores)]
    parts = ((n, below[n + 1] - below[n]) for n in range(len(BOUNDS_S) + 1))
    return tuple((n, part) for n, part in parts if part > 1e-9)


# -- clients --------------------------------------------------------------------------------------


def _of_clients(scene: Scene, rng: Random) -> Iterator[Pair]:
    salt = str(rng.random())
    buckets = [bucket_of(str(n).encode(), salt) for n in range(CLIENTS + 1)]
    *honest, broken = buckets
    sides = [_Told(), _Told()]
    for second in range(scene.seconds):
        edge = 10 * scene.weight_pct(second)
        failing = scene.failing(second)
        for bucket in rng.choices(honest, k=poisson(rng, scene.rps)):
            side = int(bucket >= edge)
            sides[side].serve(bucket, is_failed=rng.random() < failing[side])
        for _ in range(poisson(rng, scene.broken_rps)):
            sides[int(broken >= edge)].serve(broken, is_failed=True)
        yield Pair(candidate=sides[0].counted(), stable=sides[1].counted())


class _Told:
    """The counts of one revision, with its clients told apart."""

    def __init__(self) -> None:
        self._clients: dict[int, int] = {}
        self._failing: dict[int, int] = {}

    def serve(self, bucket: int, *, is_failed: bool) -> None:
        self._clients[bucket] = self._clients.get(bucket, 0) + 1
        if is_failed:
            self._failing[bucket] = self._failing.get(bucket, 0) + 1

    def counted(self) -> Counted:
        return Counted(
            finished=sum(self._clients.values()),
            failed=sum(self._failing.values()),
            clients=dict(self._clients),
            failing=dict(self._failing),
        )
