"""When a withdrawn group may stop: promise 1, one rule for every reason to retire.

Promote, abort, supersede, scale-down, a death, the operator: whoever gives a group up marks it as
retiring, and from there on only this page decides. A group may stop when nobody can still reach
it, which is when all of these hold:

* **workers**: the worker of every slot has said hello to this controller and applied a table
  without the group. Slots, not connections, are counted: a slot whose worker is just being
  replaced has not acknowledged anything.
* **ttl**: with `publish: groups`, the largest TTL ever answered for the address has passed since
  the last answer that carried it, plus `ttl_grace` (RFC 2181 section 8; docs/decisions/0004).
* **requests** and **tunnels**: they are done, or their own drain deadline has passed.
* **direct**: with `publish: groups`, after the TTL the kernel lists no established connection to
  the address, or `drain.http` has passed since then as well.

Each condition knows when it will be met by time alone; `status` shows them with the seconds left.
"""

from collections.abc import Iterator

from trafficmgr.core.model import Group
from trafficmgr.core.noun import Noun
from trafficmgr.core.state import EndpointState


class Condition(Noun):
    """One thing that a retiring group waits for.

    `ends_at` is when time alone will meet it (None: only an event can).
    """

    name: str
    says: str
    is_met: bool
    ends_at: float | None = None


def may_stop(group: Group, state: EndpointState, now: float) -> bool:
    """Whether the group can be taken down without a client noticing."""
    return not group.in_table and all(c.is_met for c in _each(group, state, now))


def conditions(group: Group, state: EndpointState, now: float) -> tuple[Condition, ...]:
    """Return everything that a withdrawn group waits for or waited for, in the order above."""
    return tuple(_each(group, state, now))


def waits_for_kernel(group: Group, state: EndpointState, now: float) -> bool:
    """Whether it is time to ask the kernel for connections to the group's address."""
    if group.in_table or group.is_direct_clear or not _was_answered(group):
        return False
    met = {c.name: c.is_met for c in conditions(group, state, now)}
    return group.is_retiring and met["workers"] and met["ttl"]


def next_at(group: Group, state: EndpointState, now: float) -> float | None:
    """Return the first moment after now at which time alone meets a condition."""
    ends = [c.ends_at for c in conditions(group, state, now) if not c.is_met and c.ends_at]
    return min(ends, default=None)


def _each(group: Group, state: EndpointState, now: float) -> Iterator[Condition]:
    if group.hook:  # a task is in no table, so nobody can reach it
        return
    yield _workers(group, state)
    yield from _clients(group, state, now)


def _workers(group: Group, state: EndpointState) -> Condition:
    known = group.withdrawn_generation
    lagging = [str(s.number) for s in state.slots if not s.is_present or s.applied < known]
    if not lagging:
        return Condition(name="workers", says="", is_met=bool(state.slots))
    says = f"slot {', '.join(lagging)} to acknowledge table {known}"
    return Condition(name="workers", says=says, is_met=False)


def _clients(group: Group, state: EndpointState, now: float) -> Iterator[Condition]:
    settings = state.settings
    withdrawn_at = group.withdrawn_at
    if withdrawn_at is None:  # it never was in a table, nobody can know it
        return
    ttl_ends_at = withdrawn_at
    if _was_answered(group):
        ttl_ends_at = (group.answered_at or 0) + (group.max_ttl_s or 0) + settings.ttl_grace_s
        yield _timed("ttl", "the DNS TTL to pass", ttl_ends_at, now)
    http_ends_at = withdrawn_at + settings.drain_http_s
    yield _timed("requests", "requests to finish", http_ends_at, now, done=not group.http_slots)
    tunnel_ends_at = withdrawn_at + settings.drain_websocket_s
    yield _timed("tunnels", "tunnels to close", tunnel_ends_at, now, done=not group.tunnel_slots)
    if _was_answered(group):
        direct_ends_at = ttl_ends_at + settings.drain_http_s
        says = "direct connections to close"
        yield _timed("direct", says, direct_ends_at, now, done=group.is_direct_clear)


def _was_answered(group: Group) -> bool:
    return group.answered_at is not None


def _timed(name: str, says: str, ends_at: float, now: float, *, done: bool = False) -> Condition:
    return Condition(name=name, says=says, is_met=done or now >= ends_at, ends_at=ends_at)
