"""Which groups are passed over for how they behave, as this worker sees it (passively).

Probes are the controller's and decide for every worker; what is here only fills the gap until they
do, and catches what no probe asks for. The rules:

* A group that fails `Ejection.failures` times in a row is ejected for `base_s`. Failures are
  connects that failed, answers that broke off or did not come in time, and 5xx.
* When its time is up it gets requests again. A success and all is forgotten; one more failure and
  it is out for twice as long, up to `longest_s`.
* Never more than half of a share's groups are out: rather errors of some than none left.
* A group that breaks off before an answer's first byte is spared for SPARED_S at once: it may be
  about to end, and what it was sent next would be lost as well.

Ejected groups are spared (`balance`): no client goes to another revision for their sake, which
would hide from the gates how a revision fails.
"""

from trafficmgr.core.traffic import Ejection
from trafficmgr.dataplane.routes import Lane, Upstream

SPARED_S = 1.0
"""As long as a group that refused a connection is passed over (upstream.REFUSED_S)."""

_MOST_DOUBLINGS = 30


def failed(upstream: Upstream, now: float) -> None:
    """Note one more failure in a row, and eject the group if it is one too many.

    Args:
        upstream: The group that was asked.
        now: Loop time in seconds.
    """
    upstream.failures += 1
    policy, lane = upstream.http.ejection, upstream.lane
    if policy is None or upstream.failures < policy.failures or lane is None:
        return
    if upstream.ejected_until > now or upstream.is_withdrawn:
        return
    out = sum(other.ejected_until > now for other in lane.upstreams)
    if 2 * (out + 1) > len(lane.upstreams):
        return
    upstream.ejected_until = now + _away_s(policy, upstream.ejections)
    upstream.spared_until = max(upstream.spared_until, upstream.ejected_until)
    upstream.ejections += 1
    upstream.tally.ejected += 1


def succeeded(upstream: Upstream) -> None:
    """Note a success: nothing counts against the group any more."""
    upstream.failures = upstream.ejections = 0


def broke_off(upstream: Upstream, now: float) -> None:
    """Spare a group that closed a connection on which it owed an answer (loop time in seconds)."""
    upstream.spared_until = max(upstream.spared_until, now + SPARED_S)


def settle(lane: Lane) -> None:
    """Let ejected groups back in if too many of a lane's newest groups are out.

    Those that would be back first are; times that are over are the earliest, so it does not matter
    what time it is.
    """
    most = 0 if lane.http.ejection is None else len(lane.upstreams) // 2
    out = sorted(
        (upstream for upstream in lane.upstreams if upstream.ejected_until),
        key=lambda upstream: upstream.ejected_until,
    )
    for upstream in out[: max(len(out) - most, 0)]:
        upstream.ejected_until = upstream.spared_until = 0.0


def _away_s(policy: Ejection, before: int) -> float:
    return min(policy.base_s * (1 << min(before, _MOST_DOUBLINGS)), policy.longest_s)
