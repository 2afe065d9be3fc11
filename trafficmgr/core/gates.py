"""The gates on our own traffic, and what they say of the evidence: pass, fail, insufficient data.

* `max_error_rate`, `max_p50`, `max_p95`, `max_p99` are **limits** on a share of the candidate's
  requests or answers in the present stage. One fails when two things are beyond doubt (E >= 100,
  odds.py): that the share is above the limit, and that it is above stable's. What stable shows too
  does not condemn the candidate. Once stable has no traffic, a limit is judged alone. It passes
  with `min_requests` of the candidate and a share within the limit.
* `min_requests` passes with as many requests of the candidate in the present stage.
* `compare` fails when the bets of the whole rollout say that the candidate is worse than stable:
  E >= 1 / alpha. It passes when `catch` of failures more would have made it fail by now, and what
  was seen in this stage is much less likely of a candidate that fails by so much more.

A limit on a duration is one on a share: that the 99th percentile is above 1 s says that more than
1 % of the answers took longer than that. docs/gates.md tells all of it, with what was measured.
"""

from collections.abc import Iterator
from math import log

from trafficmgr.core.counted import BOUNDS_S, Sides, bound_of, failed_requests, slow_answers
from trafficmgr.core.evidence import Evidence
from trafficmgr.core.gating import ENOUGH_REQUESTS, Compare, Gates, Verdict, VerdictKind
from trafficmgr.core.noun import Noun
from trafficmgr.core.odds import log_e_of, log_ratio, shown
from trafficmgr.core.schedule import WHOLE_PCT

BEYOND_DOUBT = 100.0
"""The E that a limit needs to fail: one innocent in a hundred gets as far, in each stage."""

MISTAKEN = 0.05
"""How many of the releases that fail by `catch` more than stable may pass a stage: one in twenty.
Without this, what a bad release fails at would make up what is missing for its pass."""

_MILLISECOND_S = 0.001


def verdicts(
    gates: Gates, evidence: Evidence, *, at: float, weight_pct: int, has_affinity: bool
) -> tuple[Verdict, ...]:
    """Return what each gate on our own traffic says; none does before there is any.

    Args:
        gates: Those of the endpoint.
        evidence: As it was just observed.
        at: Seconds on CLOCK_BOOTTIME.
        weight_pct: What the candidate is configured to carry now.
        has_affinity: Whether clients stay with their revision, and are what is compared.
    """
    if not weight_pct:
        return ()
    is_alone = weight_pct == WHOLE_PCT
    return tuple(
        Verdict(gate=name, kind=said.kind, at=at, why=said.why, numbers=said.numbers)
        for name, said in _judged(gates, evidence, is_alone=is_alone, has_affinity=has_affinity)
    )


class _Said(Noun):
    """A verdict that is not signed yet."""

    kind: VerdictKind
    why: str
    numbers: dict[str, float]


def _judged(
    gates: Gates, evidence: Evidence, *, is_alone: bool, has_affinity: bool
) -> Iterator[tuple[str, _Said]]:
    """Yield name and verdict of each gate, in the order of Gates.on_traffic."""
    needed = ENOUGH_REQUESTS if gates.min_requests is None else gates.min_requests
    if gates.max_error_rate is not None:
        limit = _failing_within(gates.max_error_rate, evidence)
        yield "max_error_rate", _of_limit(limit, needed, is_alone=is_alone)
    for name, limit_s, share in (
        ("max_p50", gates.max_p50_s, 0.5),
        ("max_p95", gates.max_p95_s, 0.05),
        ("max_p99", gates.max_p99_s, 0.01),
    ):
        if limit_s is not None:
            limit = _slow_within(share, limit_s, evidence)
            yield name, _of_limit(limit, needed, is_alone=is_alone)
    if gates.min_requests is not None:
        yield "min_requests", _of_number(evidence, gates.min_requests)
    if gates.compare is not None:
        yield (
            "compare",
            _of_compare(gates.compare, evidence, is_alone=is_alone, has_affinity=has_affinity),
        )


# -- limits ---------------------------------------------------------------------------------------


class _Limit(Noun):
    """A share of tries that may be hits, and what was seen in this stage.

    `log_e_worse` is the evidence that the candidate is worse than stable, whatever the limit is.
    """

    share: float
    seen: Sides
    log_e_worse: float
    tries: str
    hits: str
    verb: str
    bound_s: float | None = None


def _failing_within(share: float, evidence: Evidence) -> _Limit:
    return _Limit(
        share=share,
        seen=failed_requests(evidence.in_stage),
        log_e_worse=evidence.failures.bets.log_e,
        tries="requests",
        hits="failed",
        verb="failed",
    )


def _slow_within(share: float, limit_s: float, evidence: Evidence) -> _Limit:
    bound = min(bound_of(limit_s), len(BOUNDS_S) - 1)
    bound_s = BOUNDS_S[bound]
    seen = slow_answers(evidence.in_stage, bound)
    candidates = max(seen.share, evidence.heaviest_pct / WHOLE_PCT)
    verb = f"took longer than {_duration(bound_s)}"
    return _Limit(
        share=share,
        seen=seen,
        log_e_worse=log_e_of(hits=seen.hits, trials=seen.all_hits, share=candidates),
        tries="answers",
        hits="slow",
        verb=verb if bound_s == limit_s else f"{verb} ({_duration(limit_s)} is no bound)",
        bound_s=bound_s,
    )


def _of_limit(limit: _Limit, needed: int, *, is_alone: bool) -> _Said:
    seen = limit.seen
    log_e = log_e_of(hits=seen.hits, trials=seen.tries, share=limit.share)
    if seen.hits > limit.share * seen.tries:
        kind, reason = _exceeded(limit, log_e, is_alone=is_alone)
    elif seen.tries >= needed:
        kind, reason = VerdictKind.passed, "that is within the limit"
    else:
        kind, reason = VerdictKind.insufficient, f"{needed} {limit.tries} are enough to pass"
    mine = f"{seen.hits} of {seen.tries} {limit.tries} of the candidate {limit.verb}"
    others = f"{seen.stable_hits} of {seen.stable_tries} of stable"
    why = f"{mine}, {others}; {_pct(limit.share)} may: {reason}"
    return _Said(kind=kind, why=why, numbers=_numbers(limit, log_e))


def _exceeded(limit: _Limit, log_e: float, *, is_alone: bool) -> tuple[VerdictKind, str]:
    """Return what is said of a share above its limit, and why."""
    verdict = f"E = {_e(log_e)}, {BEYOND_DOUBT:.0f} is enough to fail"
    if log_e < log(BEYOND_DOUBT):
        return VerdictKind.insufficient, f"that may be chance: {verdict}"
    if is_alone or limit.log_e_worse >= log(BEYOND_DOUBT):
        return VerdictKind.failed, verdict
    if limit.seen.stable_hits > limit.share * limit.seen.stable_tries:
        return VerdictKind.insufficient, "stable shows it too"
    return VerdictKind.insufficient, "whether stable does better is not beyond doubt yet"


def _numbers(limit: _Limit, log_e: float) -> dict[str, float]:
    seen = limit.seen
    numbers: dict[str, float] = {
        **_counts(seen, limit.tries, limit.hits),
        "share": _ratio(seen.hits, seen.tries),
        "stable_share": _ratio(seen.stable_hits, seen.stable_tries),
        "limit": limit.share,
        "e": shown(log_e),
        "e_worse": shown(limit.log_e_worse),
        "needed": BEYOND_DOUBT,
    }
    return numbers if limit.bound_s is None else {**numbers, "bound_s": limit.bound_s}


# -- numbers --------------------------------------------------------------------------------------


def _of_number(evidence: Evidence, needed: int) -> _Said:
    requests = evidence.in_stage.candidate.finished
    kind = VerdictKind.passed if requests >= needed else VerdictKind.insufficient
    return _Said(
        kind=kind,
        why=f"{requests} requests of the candidate in this step, {needed} are enough",
        numbers={"requests": requests, "needed": needed},
    )


# -- comparison -----------------------------------------------------------------------------------


def _of_compare(
    compare: Compare, evidence: Evidence, *, is_alone: bool, has_affinity: bool
) -> _Said:
    is_timed = compare.has_latency and not has_affinity
    needed = (2 if is_timed else 1) / compare.alpha
    log_e, log_e_slow = evidence.failures.bets.log_e, evidence.slowness.bets.log_e
    log_e_planted = evidence.planted.log_e
    enough = f"{needed:.0f} is enough to fail"
    failed = f"{_failures(evidence, has_affinity=has_affinity)}: E = {_e(log_e)}, {enough}"
    would = f"had {_pct(compare.catch)} more failed, it would be {_e(log_e_planted)}"
    if log_e >= log(needed):
        kind, why = VerdictKind.failed, failed
    elif is_timed and log_e_slow >= log(needed):
        kind, why = VerdictKind.failed, f"{_slowness(evidence)}: E = {_e(log_e_slow)}, {enough}"
    elif is_alone:
        kind, why = VerdictKind.insufficient, f"{failed}; stable has no more traffic to compare"
    elif log_e_planted < log(needed):
        kind, why = VerdictKind.insufficient, f"{failed}; {would}: too little was seen to tell"
    elif _is_suspicious(compare, evidence, has_affinity=has_affinity):
        more = f"it may be {_pct(compare.catch)} more than of stable"
        kind, why = VerdictKind.insufficient, f"{failed}; {more}"
    else:
        kind, why = VerdictKind.passed, f"{failed}; {would}"
    numbers = _compared(evidence, has_affinity=has_affinity)
    numbers |= {"e": shown(log_e), "e_planted": shown(log_e_planted), "needed": needed}
    if is_timed:
        numbers |= _counts(evidence.slowness.seen, "answers", "slow")
        numbers |= {"e_slow": shown(log_e_slow)}
    return _Said(kind=kind, why=why, numbers=numbers)


def _is_suspicious(compare: Compare, evidence: Evidence, *, has_affinity: bool) -> bool:
    """Whether this stage has not told a candidate that is as good from one that is a bad one yet.

    Stable's own share is what it was in this stage, with half a failure more. Of a client that
    stays with its revision only one failure is taken, as in the comparison.
    """
    pair = evidence.in_stage
    seen = failed_requests(pair)
    if has_affinity:
        clients, others = len(pair.candidate.failing), len(pair.stable.failing)
        seen = seen.but(hits=clients, stable_hits=others)
    usual = (seen.stable_hits + 0.5) / (seen.stable_tries + 1)
    bad = min(usual + compare.catch, (1 + usual) / 2)
    ratio = log_ratio(hits=seen.hits, tries=seen.tries, share=bad, other=usual)
    return ratio > log(MISTAKEN)


def _failures(evidence: Evidence, *, has_affinity: bool) -> str:
    seen = evidence.failures.seen
    if has_affinity:
        return f"{seen.hits} clients of the candidate had a failure, {seen.stable_hits} of stable"
    mine = f"{seen.hits} of {seen.tries} requests of the candidate failed"
    return f"{mine}, {seen.stable_hits} of {seen.stable_tries} of stable"


def _slowness(evidence: Evidence) -> str:
    seen = evidence.slowness.seen
    mine = f"{seen.hits} of {seen.tries} answers of the candidate"
    others = f"{seen.stable_hits} of {seen.stable_tries} of stable"
    return f"{mine} were slower than nine in ten of stable's before, {others}"


def _compared(evidence: Evidence, *, has_affinity: bool) -> dict[str, float]:
    """Return what was compared; clients come back in each window, only failures count once."""
    seen = evidence.failures.seen
    if has_affinity:
        return {"failed": seen.hits, "stable_failed": seen.stable_hits}
    return _counts(seen, "requests", "failed")


# -- words and figures ----------------------------------------------------------------------------


def _counts(seen: Sides, tries: str, hits: str) -> dict[str, float]:
    return {
        tries: seen.tries,
        hits: seen.hits,
        f"stable_{tries}": seen.stable_tries,
        f"stable_{hits}": seen.stable_hits,
    }


def _ratio(hits: int, tries: int) -> float:
    return round(hits / tries, 6) if tries else 0.0


def _e(log_e: float) -> str:
    """Return E as people write it: 0.31, 471, 2.4e6."""
    number = shown(log_e)
    if 0.001 <= number < 1000:  # noqa: PLR2004  as long as it fits
        return f"{number:.3g}"
    mantissa, _, exponent = f"{number:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _pct(share: float) -> str:
    return f"{100 * share:.3g} %"


def _duration(seconds: float) -> str:
    return f"{seconds:.4g}s" if seconds >= 1 else f"{seconds / _MILLISECOND_S:.4g}ms"
