"""One log line per state change, written at the transition and nowhere else (STYLE.md, Logging).

It compares the state before and after and tells what changed, so that no rule of the core has to
log and a change cannot go unmentioned by being made in a new place.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import Group, GroupPhase, Rollout
from trafficmgr.core.routing import Table
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import short

Line = tuple[str, dict[str, Any]]


class Log(Protocol):
    """The part of a structlog logger that is used here."""

    def info(self, event: str, **pairs: object) -> object:
        """Write a line that tells the story."""

    def warning(self, event: str, **pairs: object) -> object:
        """Write a line that asks for attention."""


WORRYING = {"group_ended", "rollout_aborting", "serving_least_bad", "worker_overdue"}


def write(log: Log, before: Fleet, after: Fleet) -> None:
    """Log everything that changed between two states."""
    for name, new in after.endpoints.items():
        old = before.endpoints.get(name)
        if old is not new:
            for event, pairs in changes(old, new):
                tell = log.warning if event in WORRYING else log.info
                tell(event, endpoint=name, **pairs)


def changes(old: EndpointState | None, new: EndpointState) -> Iterator[Line]:
    """Yield what changed about an endpoint."""
    if (old is None or old.newest != new.newest) and new.newest:
        yield "revision_seen", {"revision": short(new.newest)}
    yield from _rollouts(old, new)
    yield from _groups(old, new)
    if new.table.generation != (old.table.generation if old else 0):
        yield "table_made", {"generation": new.table.generation, "weights": weights(new.table)}
        if new.table.is_least_bad:
            yield "serving_least_bad", {"generation": new.table.generation}
    for slot in new.slots:
        was_overdue = old is not None and any(
            s.number == slot.number and s.is_overdue for s in old.slots
        )
        if slot.is_overdue and not was_overdue and slot.start_id:
            yield "worker_overdue", {"slot": slot.number, "applied": slot.applied}


def weights(table: Table) -> str:
    """Return the weights of a table in one word: "9f2c01ab:10,6a1d77e0:90"."""
    return ",".join(f"{short(s.revision)}:{s.weight_pct}" for s in table.shares) or "nothing"


def _known_rollouts(state: EndpointState | None) -> dict[str, Rollout]:
    if state is None:
        return {}
    last = () if state.rollout is None else (state.rollout,)
    return {rollout.id: rollout for rollout in (*state.history, *last)}


def _rollouts(old: EndpointState | None, new: EndpointState) -> Iterator[Line]:
    known = _known_rollouts(old)
    for rollout in _known_rollouts(new).values():
        told = len(known[rollout.id].marks) if rollout.id in known else 0
        for mark in rollout.marks[told:]:
            pairs: dict[str, Any] = {"rollout": rollout.id, "revision": short(rollout.revision)}
            if mark.weight_pct:
                pairs["weight_pct"] = mark.weight_pct
            if rollout.reason and mark is rollout.marks[-1]:
                pairs["reason"] = rollout.reason
            yield f"rollout_{mark.what.replace(' ', '_')}", pairs


def _groups(old: EndpointState | None, new: EndpointState) -> Iterator[Line]:
    known = {group.id: group for group in old.groups} if old else {}
    for group in new.groups:
        yield from _group(known.pop(group.id, None), group)
    for gone in known.values():
        yield "group_gone", {"group": gone.id, "revision": short(gone.revision)}


def _group(old: Group | None, new: Group) -> Iterator[Line]:
    pairs: dict[str, Any] = {"group": new.id, "revision": short(new.revision)}
    if old is None:
        yield "group_wanted", {**pairs, "address": new.address}
        return
    if new.phase is not old.phase and new.phase not in {GroupPhase.waiting, GroupPhase.wanted}:
        note = {"reason": new.note} if new.note and new.phase is GroupPhase.ended else {}
        yield f"group_{new.phase}", {**pairs, **note}
    if new.is_ready and not old.is_ready:
        after_s = round((new.ready_since or 0) - new.created_at, 1)
        yield "group_ready", {**pairs, "after_s": after_s}
    if old.is_ready and not new.is_ready and new.phase is GroupPhase.started:
        yield "group_unready", {**pairs, "reason": new.note}
    if old.in_table and not new.in_table:
        yield "group_withdrawn", {**pairs, "generation": new.withdrawn_generation}
