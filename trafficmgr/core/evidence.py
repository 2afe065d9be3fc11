"""What was seen of the candidate and of stable, in the same windows: the state of the tests.

An `Evidence` is all that the gates on our own traffic judge by (gates.py). It is a checkpoint too:
journaled at most every 10 s, it lets another controller go on where one was killed, with nothing
counted twice and no `alpha` spent twice. The rules:

* Workers count cumulatively, by their start id; only growth is taken, so nothing is counted twice,
  and a worker that ends or starts loses nothing that it reported.
* Growth is collected in a **window**. It is closed when the smaller side should have had ten units
  of it, after 30 s, or when the weight or the stage changes or stable spills; never by what failed.
* A closed window is one round of bets (odds.py) that failures fall on the candidate more often than
  its share of the window. Nobody looks into an open one.
* That share is never less than the weight that was configured within the last minute: a failure may
  be that much older than the window that it is counted in.
* While stable can't take its own clients and the candidate serves them too, and for a minute after,
  nothing is evidence: what is counted then is forgotten.
* The **unit** is a request; with affinity a client's bucket, which counts as failing once in a
  rollout, in the window of its first failure: one broken client is one failure.
* A second set of bets, `planted`, runs on the same windows as if `catch` of the candidate's
  requests had failed in addition since the stage began. Whether that would have been noticed says
  whether enough was seen.
* Slow answers are compared in the same way, by the bound that a tenth of stable's answers exceeded
  in earlier windows, and against odds of two: twice as many slow answers are forgiven.
"""

from trafficmgr.core.counted import (
    BOUNDS_S,
    EMPTY,
    Counted,
    Pair,
    Sides,
    bound_for,
    bound_of,
    failed_requests,
    failing_clients,
    failing_of,
    slow_answers,
    slower_than,
    summed,
)
from trafficmgr.core.gating import Gates
from trafficmgr.core.noun import Noun
from trafficmgr.core.odds import Bets, favoured

__all__ = ["BOUNDS_S", "Counted", "Evidence", "Pair", "begun", "observed", "slower_than"]

WINDOW_UNITS = 10
"""Units that the smaller side should have in a window. With fewer, a failure of the candidate
raises the very share that it is held against: by (1 - q) / (q N), which is a tenth then."""

WINDOW_S = 30.0
"""What waits no longer for WINDOW_UNITS: at 2 requests a second and 10 % these are 6 of 60."""

RECENT_S = 60.0
"""How old a failure may be when it is counted: as long as a group may take to answer."""

CLIENT_BUCKETS = 1000
"""Buckets that clients fall into with affinity: routing.BUCKETS, which can't be imported here."""

USUAL_SHARE = 0.1
"""Share of stable's answers that may exceed what is usual."""

USUAL_LEAST_S = 0.01
"""What is faster than this is not slow, whatever stable does: it may be the host's load."""

USUAL_ANSWERS = 100
"""Answers of stable that it takes to say what is usual."""

FORGIVEN_ODDS = 2.0
"""A candidate may be slow twice as often as stable: its caches are cold."""


class Comparison(Noun):
    """One thing that is compared all through a rollout: what was seen, and the bets on it."""

    seen: Sides = Sides()
    bets: Bets = Bets()

    def after(self, window: Sides, share: float) -> "Comparison":
        """Return the comparison with another closed window."""
        bets = self.bets.after(hits=window.hits, trials=window.all_hits, share=share)
        return Comparison(seen=self.seen + window, bets=bets)


class Evidence(Noun):
    """Everything counted in a rollout, as far as verdicts need it.

    `seen` holds, by a worker's start id, what it had counted at the last look (None: it was there
    before the rollout and had not been heard of). `in_stage` is what grew since the stage began,
    `window` what did since `window_since`. `weights` says when each recent weight was last in
    force, `heaviest_pct` which was the largest in this stage, `spilled_at` when stable last could
    not take its clients. `failing` are the client buckets whose first failure was counted, `usual`
    is how long stable's answers took in closed windows.
    """

    at: float
    stage: int
    seen: dict[str, Pair | None] = {}
    in_stage: Pair = EMPTY
    weight_pct: int = 0
    weights: dict[int, float] = {}
    heaviest_pct: int = 0
    spilled_at: float | None = None
    window: Pair = EMPTY
    window_since: float = 0.0
    failing: tuple[int, ...] = ()
    usual: tuple[int, ...] = ()
    failures: Comparison = Comparison()
    planted: Bets = Bets()
    slowness: Comparison = Comparison()


# -- looking --------------------------------------------------------------------------------------


def begun(at: float, stage: int, seen: dict[str, Pair | None]) -> Evidence:
    """Return the evidence at the start of a rollout.

    Args:
        at: Seconds on CLOCK_BOOTTIME.
        stage: Of the rollout.
        seen: What each worker had counted, by start id. None: it is there and was not heard of, so
            its first report is no growth. Who is not in it was started later, and began at 0.
    """
    return Evidence(at=at, stage=stage, seen=seen, window_since=at)


def observed(
    evidence: Evidence,
    heard: dict[str, Pair],
    *,
    at: float,
    stage: int,
    weight_pct: int,
    gates: Gates,
    has_affinity: bool,
) -> Evidence:
    """Return the evidence after one more look at what the workers have counted.

    What grew while the stage or the weight changed belongs to the window before: it began there.

    Args:
        evidence: As it was after the last look.
        heard: What each worker has counted, by start id; who is missing did not grow.
        at: Seconds on CLOCK_BOOTTIME.
        stage: Of the rollout.
        weight_pct: What the candidate is configured to carry now.
        gates: Those of the endpoint.
        has_affinity: Whether clients are told apart, and stay with their revision.
    """
    seen, grown = _growth(evidence.seen, heard)
    weights = _recent(evidence, at, weight_pct)
    spilled_at = at if grown.stable.spilled else evidence.spilled_at
    is_spilling = _is_recent(spilled_at, at)
    if is_spilling:
        grown = EMPTY
    noted = evidence.but(
        at=at,
        seen=seen,
        weight_pct=weight_pct,
        weights=weights,
        heaviest_pct=max(evidence.heaviest_pct, *weights),
        spilled_at=spilled_at,
        in_stage=evidence.in_stage + grown,
        window=evidence.window + grown,
        window_since=evidence.at if evidence.window == EMPTY else evidence.window_since,
    )
    is_other = (stage, weight_pct) != (evidence.stage, evidence.weight_pct) or is_spilling
    if noted.window != EMPTY and (is_other or _is_full(noted, has_affinity=has_affinity)):
        noted = _closed(noted, gates, has_affinity=has_affinity)
    return noted if stage == evidence.stage else _entered(noted, stage)


def _growth(
    seen: dict[str, Pair | None], heard: dict[str, Pair]
) -> tuple[dict[str, Pair | None], Pair]:
    """Return what has been seen now, and by how much all workers grew together."""
    grown = EMPTY
    for start_id, pair in heard.items():
        before = seen.get(start_id, EMPTY)
        if before is not None and before != pair:
            grown += pair.since(before)
    return {**seen, **heard}, grown


def _recent(evidence: Evidence, at: float, weight_pct: int) -> dict[int, float]:
    """Return when each recent weight was last in force; that of the last look was until now."""
    known = {**evidence.weights, evidence.weight_pct: at, weight_pct: at}
    return {weight: last_at for weight, last_at in known.items() if _is_recent(last_at, at)}


def _is_recent(then: float | None, now: float) -> bool:
    """Whether requests of then may end now."""
    return then is not None and 0 <= now - then <= RECENT_S


def _entered(evidence: Evidence, stage: int) -> Evidence:
    """Return the evidence in another stage: limits, and faults that are planted, begin anew."""
    return evidence.but(
        stage=stage,
        in_stage=EMPTY,
        heaviest_pct=max(evidence.weights),
        planted=evidence.failures.bets,
    )


# -- windows --------------------------------------------------------------------------------------


def _is_full(evidence: Evidence, *, has_affinity: bool) -> bool:
    """Whether a window is to be closed for its age, or for what it holds of both sides."""
    if evidence.at - evidence.window_since >= WINDOW_S:
        return True
    smaller = min(evidence.weight_pct, 100 - evidence.weight_pct) / 100
    units = _units(evidence, has_affinity=has_affinity)
    return units.all_tries * smaller >= WINDOW_UNITS


def _closed(evidence: Evidence, gates: Gates, *, has_affinity: bool) -> Evidence:
    """Return the evidence with its window closed: one more round of all bets."""
    units = _units(evidence, has_affinity=has_affinity)
    share = max(units.share, _weight(evidence, has_affinity=has_affinity))
    more = _planted(evidence, units, gates, has_affinity=has_affinity)
    closed = evidence.but(
        window=EMPTY,
        failing=tuple(sorted({*evidence.failing, *failing_of(evidence.window)})),
        failures=evidence.failures.after(units, share),
        planted=evidence.planted.after(
            hits=units.hits + more, trials=units.all_hits + more, share=share
        ),
    )
    is_timed = gates.compare is not None and gates.compare.has_latency and not has_affinity
    return _timed(closed, evidence.window) if is_timed else closed


def _timed(evidence: Evidence, window: Pair) -> Evidence:
    """Return the evidence with the answers of a closed window compared by how long they took."""
    usual = summed(evidence.usual, window.stable.durations)
    if sum(evidence.usual) < USUAL_ANSWERS:
        return evidence.but(usual=usual)
    bound = max(bound_for(evidence.usual, USUAL_SHARE), bound_of(USUAL_LEAST_S))
    slow = slow_answers(window, bound)
    share = max(slow.share, _weight(evidence, has_affinity=False))
    slowness = evidence.slowness.after(slow, favoured(share, FORGIVEN_ODDS))
    return evidence.but(usual=usual, slowness=slowness)


def _weight(evidence: Evidence, *, has_affinity: bool) -> float:
    """Return the largest probability by which a unit that fails now was given to the candidate.

    With affinity, buckets that failed before can't fail again, and among those that are left there
    may be all of the candidate's.
    """
    weight = max(evidence.weights) / 100
    if not has_affinity:
        return weight
    left = max(1, CLIENT_BUCKETS - len(evidence.failing))
    return min(1.0, weight * CLIENT_BUCKETS / left)


def _units(evidence: Evidence, *, has_affinity: bool) -> Sides:
    """Return the failures in the window among what is compared: requests, or clients at risk."""
    if has_affinity:
        return failing_clients(evidence.window, frozenset(evidence.failing))
    return failed_requests(evidence.window)


def _planted(evidence: Evidence, units: Sides, gates: Gates, *, has_affinity: bool) -> float:
    """Return how many units would have failed if `catch` of the candidate's requests had.

    Of clients it is who sent r requests in this stage that would have failed by now with a
    probability of 1 - (1 - catch) ** r; the growth of that is the window's.
    """
    if gates.compare is None:
        return 0.0
    if not has_affinity:
        return gates.compare.catch * units.tries
    spared = 1 - gates.compare.catch
    known = {*evidence.failing, *failing_of(evidence.window)}
    in_stage = evidence.in_stage.candidate.clients
    return sum(
        spared ** (in_stage[bucket] - requests) * (1 - spared**requests)
        for bucket, requests in evidence.window.candidate.clients.items()
        if bucket not in known
    )
