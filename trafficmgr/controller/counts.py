"""What workers counted: the newest counts of each, summed so that no sum ever goes down.

Counts are cumulative since a worker started and come about once a second, right after its hello,
and just before it acknowledges a new table. A worker that ends keeps its last counts here; another
one starts at 0. The sums begin with what the living workers say when this controller starts, and
only grow as long as it lives. They are shown, never decided by: a verdict goes by what each worker
says, not by a sum.

Client buckets are in no sum and no difference: they would make each a thousand times as large, and
who reads them reads a worker's own counts.
"""

from collections.abc import Callable, Iterable
from itertools import zip_longest
from operator import add, sub
from typing import Any

from trafficmgr.wire.frames import Counts, ShareCounts

ByRevision = dict[str, ShareCounts]
"""Revision -> counts of one endpoint; revision "" is what found no target."""

MOST_WORKERS = 100
"""Workers whose counts are told apart. A living one is heard each second, so those beyond are dead;
their counts stay in the sums."""

NOTHING = ShareCounts()

_BY_CLIENT = frozenset({"clients", "failing"})


class Ledger:
    """The newest counts of every worker that this controller heard of, the latest last."""

    def __init__(self) -> None:
        self._newest: dict[str, Counts] = {}
        self._cut_at: dict[str, int] = {}
        self._since: dict[str, dict[str, ByRevision]] = {}
        self._past: dict[str, ByRevision] = {}
        self._forgotten: set[str] = set()
        self._ended_well: set[str] = set()

    def hear(self, counts: Counts) -> None:
        """Take a worker's newest counts; of endpoints that are absent it has said all before."""
        if counts.start_id in self._forgotten:
            return
        before = self._newest.pop(counts.start_id, None)
        if before is not None:
            counts = counts.but(endpoints={**before.endpoints, **counts.endpoints})
        self._newest[counts.start_id] = counts
        if len(self._newest) > MOST_WORKERS:
            self._forget(next(iter(self._newest)))

    def end_well(self, start_id: str) -> None:
        """Note that a worker said bye: its last counts are all that it ever counted."""
        self._ended_well.add(start_id)

    def has_ended_well(self, start_id: str) -> bool:
        """Whether nothing is missing in the last counts of a worker that is gone."""
        return start_id in self._ended_well

    def of(self, start_id: str) -> Counts | None:
        """Return the newest counts of a worker; None if it was not heard of."""
        return self._newest.get(start_id)

    def totals(self, endpoint: str) -> ByRevision:
        """Return the counts of an endpoint, summed over all workers, dead or alive."""
        known = (counts.endpoints.get(endpoint, {}) for counts in self._newest.values())
        return total((self._past.get(endpoint, {}), *known))

    def cut(self, endpoint: str, generation: int) -> None:
        """Let `observed` begin anew with this generation: it has other weights."""
        self._cut_at[endpoint] = generation
        self._since[endpoint] = {}

    def applied(self, endpoint: str, start_id: str, generation: int) -> None:
        """Note that a worker serves this generation; it has reported just before."""
        if generation >= self._cut_at.get(endpoint, 0) and start_id in self._newest:
            shares = self._newest[start_id].endpoints.get(endpoint, {})
            self._since.setdefault(endpoint, {}).setdefault(start_id, shares)

    def observed(self, endpoint: str) -> dict[str, int]:
        """Return the clients served by each revision under the present weights."""
        grew = [
            grown(self._newest[start_id].endpoints.get(endpoint, {}), before)
            for start_id, before in self._since.get(endpoint, {}).items()
            if start_id in self._newest
        ]
        known = {revision: 0 for revision in self.totals(endpoint) if revision}
        served = {revision: _served(share) for revision, share in total(grew).items() if revision}
        return {**known, **served}

    def _forget(self, start_id: str) -> None:
        counts = self._newest.pop(start_id)
        self._forgotten.add(start_id)
        for endpoint, shares in counts.endpoints.items():
            self._past[endpoint] = total((self._past.get(endpoint, {}), shares))


# -- arithmetic -----------------------------------------------------------------------------------


def total(parts: Iterable[ByRevision]) -> ByRevision:
    """Return the sum by revision."""
    sums: ByRevision = {}
    for part in parts:
        for revision, share in part.items():
            sums[revision] = added(sums.get(revision, NOTHING), share)
    return sums


def grown(now: ByRevision, before: ByRevision) -> ByRevision:
    """Return by how much a worker's counts grew; what did not is left out."""
    grew = {revision: less(share, before.get(revision, NOTHING)) for revision, share in now.items()}
    return {revision: share for revision, share in grew.items() if share != NOTHING}


def added(one: ShareCounts, other: ShareCounts) -> ShareCounts:
    """Return the sum of two counts."""
    return _combined(one, other, add)


def less(now: ShareCounts, before: ShareCounts) -> ShareCounts:
    """Return what was counted since; what is under way is no matter of since.

    So its `requests` have begun since; those that ended are `finished_since`.
    """
    grew = _combined(now, before, sub)
    return grew.but(
        failures={reason: count for reason, count in grew.failures.items() if count},
        durations=grew.durations if any(grew.durations) else (),
        durations_s=round(grew.durations_s, 6),
        in_flight=0,
        waiting=0,
    )


def _combined(
    one: ShareCounts, other: ShareCounts, by: Callable[[float, float], float]
) -> ShareCounts:
    """Return the counts of which each number comes of the two, whatever is counted."""
    combined: dict[str, Any] = {}
    for name in ShareCounts.__struct_fields__:
        if name in _BY_CLIENT:
            continue
        a, b = getattr(one, name), getattr(other, name)
        match a:
            case dict():
                combined[name] = {k: by(a.get(k, 0), b.get(k, 0)) for k in sorted(a | b)}
            case tuple():
                pairs = zip_longest(a, b, fillvalue=0)
                combined[name] = tuple(by(x, y) for x, y in pairs)
            case _:
                combined[name] = by(a, b)
    return ShareCounts(**combined)


def without_clients(shares: ByRevision) -> ByRevision:
    """Return the counts without client buckets, for whoever keeps them for long."""
    return {revision: share.but(clients={}, failing={}) for revision, share in shares.items()}


def finished(share: ShareCounts) -> int:
    """Return the requests of which it is counted how they ended; `failed` is a part of them.

    Args:
        share: Cumulative counts of a worker, or a sum of such; not the result of `less`.
    """
    return share.requests - share.in_flight - share.moved


def finished_since(now: ShareCounts, before: ShareCounts) -> int:
    """Return the requests that ended between two cumulative counts, whenever they began."""
    return finished(now) - finished(before)


def failed(share: ShareCounts) -> int:
    """Return the requests that ended badly for the client, whoever's fault it was.

    Each counts once, by what went wrong first, in the step in which it finished.
    """
    return share.errors_5xx + sum(share.failures.values())


def _served(share: ShareCounts) -> int:
    return share.requests + share.dns
