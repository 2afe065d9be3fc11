"""Whether the run went as it must: every check of the demo, on what clients and service said.

Nothing here waits or asks; it reads an `Evidence` and answers. Each check is a name, a verdict and
a sentence with the figures, so that a failed one says what was seen.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from demo.house import Mark, ReceiptSeen, RolloutSeen
from demo.ledger import DNS, PROXY, Ledger
from demo.settings import API, SHOP
from demo.versions import BROKEN, FLAWED, LAST, OVERTAKEN

LEAST_RATE = 500
"""Requests a second that the clients must have kept up."""

TRIM_S = 0.3
"""Cut from both ends of a weight's window: marks and clients are different processes."""

LEAST_SAMPLE = 500
"""Answers that a window must have before its share means anything: at 10 % of 500 one sigma is
1.3 points, so that 5 points off are no accident."""

TOLERANCE_POINTS = 5.0

KILL_WINDOW_S = 2.0
"""How long after a worker's death a client may notice it; at once, but on a busy machine."""

LATE_S = 0.5
"""How long an answer may lie in a client's socket before the client's clock sees it."""

KIND_OF = {SHOP: PROXY, API: DNS}
"""Endpoint -> the kind of client that uses it."""

EXPECTED = (
    ("", "v1", "completed"),
    ("v1", "v2", "completed"),
    ("v2", BROKEN, "aborted"),
    ("v2", FLAWED, "aborted"),
    ("v2", OVERTAKEN, "superseded"),
    ("v2", LAST, "completed"),
)
"""From, to, outcome: what must become of every endpoint, in this order."""

CAUGHT_BY = {SHOP: "compare", API: "checkout"}
"""Endpoint -> the gate of config/demo.yaml that must send v4 back."""


@dataclass(frozen=True)
class Kill:
    """A worker that was killed: when, and how many client connections it held."""

    at: float
    held: int


@dataclass(frozen=True)
class Evidence:
    """All that was seen in a run.

    `flaw` is the service's own receipt of v4's rollout, of the endpoint behind the proxy;
    `gone_since` is (address, version) -> when the service said that the group was to stop;
    `weights` are the configured steps; `left` are processes that outlived the demo.
    """

    ledger: Ledger
    rollouts: tuple[RolloutSeen, ...]
    gone_since: dict[tuple[str, str], float]
    kill: Kill | None
    flaw: ReceiptSeen | None
    left: tuple[str, ...]
    weights: tuple[int, ...]


@dataclass(frozen=True)
class Check:
    """One verdict and the figures behind it."""

    name: str
    is_ok: bool
    says: str


def judged(evidence: Evidence) -> list[Check]:
    """Return every check."""
    return [
        _no_failures(evidence),
        _outcomes_as_expected(evidence),
        _enough_requests(evidence),
        _both_kinds_of_client(evidence),
        _v3_seen_by_nobody(evidence),
        _v4_caught_by_gates(evidence),
        _v4_errors_in_receipt(evidence),
        _nobody_served_after_stop(evidence),
        _stopped_after_ttl(evidence),
        _shares_within_5_points(evidence),
        _cut_only_by_kill(evidence),
        _no_process_left(evidence),
    ]


def _no_failures(evidence: Evidence) -> Check:
    failures = evidence.ledger.failures
    reasons = sorted({f"{f.kind}: {f.reason}" for f in failures})
    return Check("no_failures", not failures, "; ".join([f"{len(failures)} failed", *reasons[:5]]))


def _outcomes_as_expected(evidence: Evidence) -> Check:
    wrong = []
    for endpoint in KIND_OF:
        seen = [
            (r.origin, r.target, r.outcome) for r in evidence.rollouts if r.endpoint == endpoint
        ]
        if seen != list(EXPECTED):
            wrong.append(f"{endpoint}: {', '.join(' '.join(one) for one in seen) or 'none'}")
    says = "; ".join(wrong) or f"{len(EXPECTED)} rollouts of each endpoint"
    return Check("outcomes_as_expected", not wrong, says)


def _enough_requests(evidence: Evidence) -> Check:
    ledger = evidence.ledger
    duration_s = ledger.duration_s
    is_ok = ledger.requests > 0 and ledger.requests >= LEAST_RATE * duration_s
    rate = ledger.requests / duration_s if duration_s else 0.0
    return Check(
        "enough_requests", is_ok, f"{ledger.requests} in {duration_s:.1f} s, {rate:.0f} a second"
    )


def _both_kinds_of_client(evidence: Evidence) -> Check:
    clients = evidence.ledger.clients()
    says = ", ".join(f"{kind} {count}" for kind, count in clients.items())
    return Check("both_kinds_of_client", all(clients.values()), says)


def _v3_seen_by_nobody(evidence: Evidence) -> Check:
    count = sum(response.version == BROKEN for response in evidence.ledger.responses)
    return Check("v3_seen_by_nobody", not count, f"{count} answers of {BROKEN}")


def _v4_caught_by_gates(evidence: Evidence) -> Check:
    reasons = {
        rollout.endpoint: rollout.reason
        for rollout in evidence.rollouts
        if (rollout.target, rollout.outcome) == (FLAWED, "aborted")
    }
    if evidence.flaw is not None:
        reasons[SHOP] = evidence.flaw.reason
    # the reason begins with what condemned it, and goes on with figures
    said = {name: reasons.get(name, "never aborted").partition(":")[0] for name in KIND_OF}
    is_ok = said == {name: f"gate {gate} failed" for name, gate in CAUGHT_BY.items()}
    says = ", ".join(f"{name}: {what}" for name, what in said.items())
    return Check("v4_caught_by_gates", is_ok, says)


def _v4_errors_in_receipt(evidence: Evidence) -> Check:
    """What the service wrote down of v4 must be what its users saw, to the last request.

    Exactly: no process is killed before this receipt is final, so no worker's counts are lost.
    """
    met, flaw = evidence.ledger.met(FLAWED, kind=PROXY), evidence.flaw
    if flaw is None:
        return Check("v4_errors_in_receipt", is_ok=False, says="there is no receipt")
    is_ok = (flaw.requests, flaw.errors) == (met.requests, met.errors) and met.errors > 0
    says = f"{flaw.errors} of {flaw.requests} requests; users saw {met.errors} of {met.requests}"
    return Check("v4_errors_in_receipt", is_ok, says)


def _nobody_served_after_stop(evidence: Evidence) -> Check:
    last_served = evidence.ledger.last_served()
    late = [
        f"{version} at {address}, {last_served[address, version] - since:.1f} s later"
        for (address, version), since in evidence.gone_since.items()
        if last_served.get((address, version), since) > since + LATE_S
    ]
    count = len(evidence.gone_since)
    is_ok = not late and count > 0
    return Check("nobody_served_after_stop", is_ok, "; ".join(late) or f"{count} groups stopped")


def _stopped_after_ttl(evidence: Evidence) -> Check:
    """No group may stop while anyone may still go by an answer that named it.

    The service adds `ttl_grace` to that, which is here the margin between its clock and the
    clients'.
    """
    names, early = evidence.ledger.names, []
    for (address, version), since in evidence.gone_since.items():
        valid = [n for n in names if n.address == address and n.at <= since < n.at + n.ttl_s]
        if valid:
            early.append(f"{version} at {address}, {since - valid[-1].at:.1f} s after an answer")
    is_ok = not early and bool(names)
    says = "; ".join(early) or f"{len(names)} DNS answers, each good for its whole TTL"
    return Check("stopped_after_ttl", is_ok, says)


def _cut_only_by_kill(evidence: Evidence) -> Check:
    cuts, kill = evidence.ledger.cuts, evidence.kill
    if kill is None:
        return Check("cut_only_by_kill", is_ok=False, says="no worker was killed")
    outside = [c for c in cuts if not kill.at <= c.at <= kill.at + KILL_WINDOW_S]
    is_ok = not outside and len(cuts) <= kill.held
    says = f"{len(cuts)} cut of {kill.held} connections held, {len(outside)} at other times"
    return Check("cut_only_by_kill", is_ok, says)


def _no_process_left(evidence: Evidence) -> Check:
    says = "; ".join(evidence.left) or "none"
    return Check("no_process_left", not evidence.left, says)


# -- shares ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """A time in which the candidate was to have a weight."""

    version: str
    weight_pct: int
    since: float
    until: float


@dataclass(frozen=True)
class Observed:
    """The share that clients saw of a window's version."""

    window: Window
    answers: int
    share_pct: float

    @property
    def is_off(self) -> bool:
        """Whether it is further from the weight than chance would have it."""
        return abs(self.share_pct - self.window.weight_pct) > TOLERANCE_POINTS


def _shares_within_5_points(evidence: Evidence) -> Check:
    """Each weight of each rollout that kept its steps must have been seen, and be right."""
    shares = observed_shares(evidence)
    wanted = {
        (r.target, weight)
        for r in evidence.rollouts
        if (r.endpoint, r.outcome) == (SHOP, "completed") and r.origin
        for weight in evidence.weights
    }
    missing = wanted - {(s.window.version, s.window.weight_pct) for s in shares}
    says = [f"{s.window.version} {s.share_pct:.1f} of {s.window.weight_pct} %" for s in shares]
    says += [f"{version} {weight} % was never held" for version, weight in sorted(missing)]
    is_ok = bool(wanted) and not missing and not any(share.is_off for share in shares)
    return Check("shares_within_5_points", is_ok, ", ".join(says) or "no weight was held")


def observed_shares(evidence: Evidence) -> list[Observed]:
    """Return what the proxy's clients saw in each window that is long enough to tell."""
    shares = []
    for rollout in evidence.rollouts:
        for window in held(rollout) if rollout.endpoint == SHOP else ():
            versions = evidence.ledger.versions(kind=PROXY, since=window.since, until=window.until)
            answers = versions.total()
            if answers >= LEAST_SAMPLE:
                share_pct = 100 * versions[window.version] / answers
                shares.append(Observed(window, answers, share_pct))
    return shares


def held(rollout: RolloutSeen) -> Iterator[Window]:
    """Yield the windows in which a rollout's steps had their weight, without their edges."""
    end = Mark(rollout.ended_at, "end", 0)
    for mark, following in itertools.pairwise((*rollout.marks, end)):
        since, until = mark.at + TRIM_S, following.at - TRIM_S
        if mark.what == "step" and until > since:
            yield Window(rollout.target, mark.weight_pct, since, until)
