"""What workers count of a revision: requests, failures, how long answers took, clients.

Counts are cumulative, or of a window: what grew between two looks. Both sides of a comparison are
always of the same window, so they come in pairs.
"""

from bisect import bisect_left
from itertools import accumulate, zip_longest

from trafficmgr.core.noun import Noun

BOUNDS_S = (
    0.001, 0.0012, 0.0015, 0.002, 0.0025, 0.003, 0.004, 0.005, 0.006, 0.008,
    0.01, 0.012, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08,
    0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8,
    1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds of the buckets that answers are counted in, by how long they took; one more bucket
takes what is above. Ten in a decade: up to 10 s, two neighbours are a third apart at most."""


class Counted(Noun):
    """Counts of one revision, cumulative or of a window.

    `finished` are requests whose outcome is known, `failed` those of them that ended badly for the
    client, `spilled` are clients that were drawn for it and served by another. `durations` holds
    how many answers began within each of BOUNDS_S, and above. With affinity, `clients` and
    `failing` hold finished and failed requests by client bucket.
    """

    finished: int = 0
    failed: int = 0
    spilled: int = 0
    durations: tuple[int, ...] = ()
    clients: dict[int, int] = {}
    failing: dict[int, int] = {}

    def __add__(self, more: "Counted") -> "Counted":
        """Return the sum."""
        return Counted(
            finished=self.finished + more.finished,
            failed=self.failed + more.failed,
            spilled=self.spilled + more.spilled,
            durations=summed(self.durations, more.durations),
            clients=_summed_by_bucket(self.clients, more.clients),
            failing=_summed_by_bucket(self.failing, more.failing),
        )

    def since(self, before: "Counted") -> "Counted":
        """Return by how much it grew; what went backwards, as nothing should, did not grow."""
        return Counted(
            finished=max(0, self.finished - before.finished),
            failed=max(0, self.failed - before.failed),
            spilled=max(0, self.spilled - before.spilled),
            durations=_grown(self.durations, before.durations),
            clients=_grown_by_bucket(self.clients, before.clients),
            failing=_grown_by_bucket(self.failing, before.failing),
        )


class Pair(Noun):
    """The same window of both sides."""

    candidate: Counted = Counted()
    stable: Counted = Counted()

    def __add__(self, more: "Pair") -> "Pair":
        """Return the sum of either side."""
        return Pair(candidate=self.candidate + more.candidate, stable=self.stable + more.stable)

    def since(self, before: "Pair") -> "Pair":
        """Return by how much either side grew."""
        return Pair(
            candidate=self.candidate.since(before.candidate),
            stable=self.stable.since(before.stable),
        )


EMPTY = Pair()


class Sides(Noun):
    """Hits among the tries of either side: failures among requests, slow ones among answers."""

    hits: int = 0
    tries: int = 0
    stable_hits: int = 0
    stable_tries: int = 0

    def __add__(self, more: "Sides") -> "Sides":
        """Return the sum."""
        return Sides(
            hits=self.hits + more.hits,
            tries=self.tries + more.tries,
            stable_hits=self.stable_hits + more.stable_hits,
            stable_tries=self.stable_tries + more.stable_tries,
        )

    @property
    def all_hits(self) -> int:
        """Return the hits of both."""
        return self.hits + self.stable_hits

    @property
    def all_tries(self) -> int:
        """Return the tries of both."""
        return self.tries + self.stable_tries

    @property
    def share(self) -> float:
        """Return the candidate's share of the tries."""
        return self.tries / self.all_tries if self.all_tries else 0.0


# -- requests and clients -------------------------------------------------------------------------


def failed_requests(pair: Pair) -> Sides:
    """Return the failures among the requests of either side."""
    candidate, stable = pair.candidate, pair.stable
    return Sides(
        hits=candidate.failed,
        tries=max(candidate.finished, candidate.failed),
        stable_hits=stable.failed,
        stable_tries=max(stable.finished, stable.failed),
    )


def failing_clients(pair: Pair, known: frozenset[int]) -> Sides:
    """Return the clients that failed among those at risk: whoever is `known` failed before.

    Who failed on both sides moved from stable to the candidate meanwhile, and brought it along.
    """
    stable_hits = pair.stable.failing.keys() - known
    hits = pair.candidate.failing.keys() - known - stable_hits
    tries = (pair.candidate.clients.keys() | hits) - known - stable_hits
    stable_tries = (pair.stable.clients.keys() | stable_hits) - known - tries
    return Sides(
        hits=len(hits),
        tries=len(tries),
        stable_hits=len(stable_hits),
        stable_tries=len(stable_tries),
    )


def failing_of(pair: Pair) -> frozenset[int]:
    """Return the buckets of the clients that failed on either side."""
    return frozenset(pair.candidate.failing | pair.stable.failing)


def _summed_by_bucket(one: dict[int, int], other: dict[int, int]) -> dict[int, int]:
    if not one or not other:
        return one or other
    return one | {bucket: one.get(bucket, 0) + count for bucket, count in other.items()}


def _grown_by_bucket(now: dict[int, int], before: dict[int, int]) -> dict[int, int]:
    if not before:
        return now
    grown = {bucket: count - before.get(bucket, 0) for bucket, count in now.items()}
    return {bucket: count for bucket, count in grown.items() if count > 0}


# -- durations ------------------------------------------------------------------------------------


def slower_than(durations: tuple[int, ...], bound: int) -> int:
    """Return how many answers took longer than BOUNDS_S[bound]; beyond the last, none is known."""
    return sum(durations[bound + 1 :])


def slow_answers(pair: Pair, bound: int) -> Sides:
    """Return the answers of either side that took longer than BOUNDS_S[bound]."""
    candidate, stable = pair.candidate.durations, pair.stable.durations
    return Sides(
        hits=slower_than(candidate, bound),
        tries=sum(candidate),
        stable_hits=slower_than(stable, bound),
        stable_tries=sum(stable),
    )


def bound_of(limit_s: float) -> int:
    """Return the index of the first of BOUNDS_S at or above a limit."""
    return bisect_left(BOUNDS_S, limit_s)


def bound_for(durations: tuple[int, ...], share: float) -> int:
    """Return the index of the first of BOUNDS_S that at most this share of answers exceeded."""
    return bisect_left(list(accumulate(durations)), (1 - share) * sum(durations))


def summed(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """Return the sum of two histograms; () is none."""
    if not one or not other:
        return one or other
    return tuple(a + b for a, b in zip_longest(one, other, fillvalue=0))


def _grown(now: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    if not before:
        return now
    grown = tuple(max(0, a - b) for a, b in zip_longest(now, before, fillvalue=0))
    return grown if any(grown) else ()
