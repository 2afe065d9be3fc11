"""Whose turn it is among the groups of one share.

The rules, beside the order that the policy asks for (`Balance`):

* A group that refused a connection lately is passed over, in favour of another share if need be.
* A group that broke off an answer lately, or was ejected (`ejection`), is *spared*: others of its
  share go before it, but no client goes to another revision for its sake.
* With `max_requests` a group that has so many is full, and a newcomer is behind whoever waits.

`in_turn` and `least_requests` are the hot path: a few steps over plain integers.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trafficmgr.dataplane.routes import Lane, Upstream

Order = Callable[["Lane", float], "Upstream | None"]
"""Returns the next group of a share at a loop time, or None if all are passed over or full."""


def in_turn(lane: "Lane", now: float) -> "Upstream | None":
    """Return the next upstream in turn that nothing speaks against."""
    upstreams = lane.upstreams
    for _ in upstreams:
        lane.turn = turn = (lane.turn + 1) % len(upstreams)
        upstream = upstreams[turn]
        if upstream.refused_until <= now and upstream.spared_until <= now:
            return upstream
    return None


def least_requests(lane: "Lane", now: float) -> "Upstream | None":
    """Return the upstream with the fewest requests under way; equals take turns."""
    upstreams, turn, least = lane.upstreams, lane.turn, None
    for _ in upstreams:
        turn = (turn + 1) % len(upstreams)
        upstream = upstreams[turn]
        if (
            (least is None or upstream.requests < least.requests)
            and upstream.refused_until <= now
            and upstream.spared_until <= now
        ):
            lane.turn, least = turn, upstream
    return least


def with_room(lane: "Lane", now: float) -> "Upstream | None":
    """Return the next upstream that is not full, by the lane's order; who waits goes first."""
    if lane.is_owed:
        return None
    for _ in lane.upstreams:
        upstream = lane.order(lane, now)
        if upstream is None or upstream.requests < lane.most:
            return upstream
    return None


# -- rarely ---------------------------------------------------------------------------------------


def spared(lane: "Lane", now: float) -> "Upstream | None":
    """Return the next upstream that has room and did not refuse, spared or not."""
    return _first(lane, lambda upstream: upstream.refused_until <= now)


def refused(lane: "Lane") -> "Upstream | None":
    """Return the next upstream even if it refused: better than nothing (promise 9)."""
    return _first(lane, lambda _: True) if lane.weight_pct > 0 else None


def another(lane: "Lane", left: "Upstream", now: float) -> "Upstream | None":
    """Return the upstream that is best for a request that has to leave one."""
    fitting = [
        upstream
        for upstream in lane.upstreams
        if upstream is not left and upstream.refused_until <= now and upstream.requests < lane.most
    ]
    return min(fitting, key=lambda u: (u.spared_until > now, u.requests), default=None)


def _first(lane: "Lane", fits: Callable[["Upstream"], bool]) -> "Upstream | None":
    """Return the next upstream in turn that has room and fits."""
    if lane.is_owed:
        return None
    for _ in lane.upstreams:
        lane.turn = turn = (lane.turn + 1) % len(lane.upstreams)
        upstream = lane.upstreams[turn]
        if upstream.requests < lane.most and fits(upstream):
            return upstream
    return None
