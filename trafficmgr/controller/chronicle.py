"""One log line per state change, written at the transition and nowhere else (STYLE.md, Logging).

It compares the state before and after and tells what changed, so that no rule of the core has to
log and a change cannot go unmentioned by being made in a new place.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from trafficmgr.core.fleet import Fleet
from trafficmgr.core.gating import HookPhase, SmokePhase, VerdictKind
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


WORRYING = {
    "gate_failed",
    "group_ended",
    "hook_failed",
    "hook_unknown",
    "operator_asked",
    "rollout_aborting",
    "serving_least_bad",
    "smoke_failed",
    "worker_overdue",
}

JUDGED = {
    VerdictKind.passed: "gate_passed",
    VerdictKind.failed: "gate_failed",
    VerdictKind.insufficient: "gate_undecided",
}

HOOKED = {
    HookPhase.running: "hook_started",
    HookPhase.succeeded: "hook_succeeded",
    HookPhase.failed: "hook_failed",
    HookPhase.unknown: "hook_unknown",
}


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
        yield from _proofs(known.get(rollout.id), rollout)  # why comes before what
        told = len(known[rollout.id].marks) if rollout.id in known else 0
        for mark in rollout.marks[told:]:
            pairs: dict[str, Any] = {"rollout": rollout.id, "revision": short(rollout.revision)}
            if mark.weight_pct:
                pairs["weight_pct"] = mark.weight_pct
            if rollout.reason and mark is rollout.marks[-1]:
                pairs["reason"] = rollout.reason
            yield f"rollout_{mark.what.replace(' ', '_')}", pairs


def _proofs(old: Rollout | None, new: Rollout) -> Iterator[Line]:
    """Yield what the revision has proven, or not: verdicts, hooks, smoke, and what it waits for."""
    if old is new:
        return
    pairs: dict[str, Any] = {"rollout": new.id}
    for verdict in new.verdicts:
        if old is None or verdict not in old.verdicts:
            yield JUDGED[verdict.kind], {**pairs, "gate": verdict.gate, "reason": verdict.why}
    # one that was done for an earlier rollout of the revision is found done, and does nothing now
    phases = {run.name: run.phase for run in (old or new).hooks}
    for run in new.hooks:
        if run.phase is not phases.get(run.name) and run.phase in HOOKED:
            note = {"reason": run.note} if run.note else {}
            yield HOOKED[run.phase], {**pairs, "hook": run.name, **note}
    yield from _smoke(old, new, pairs)
    if new.question and (old is None or old.question != new.question):
        yield "operator_asked", {**pairs, "question": new.question}


def _smoke(old: Rollout | None, new: Rollout, pairs: dict[str, Any]) -> Iterator[Line]:
    """Yield each leg that was answered, and how."""
    run, before = new.smoke, old.smoke if old else None
    if run is None or run == before:
        return
    is_next_leg = before is not None and run.leg > before.leg
    if is_next_leg:
        yield "smoke_passed", {**pairs, "leg": run.leg - 1}
    if run.phase is SmokePhase.passed:
        yield "smoke_passed", {**pairs, "leg": run.leg}
    elif run.phase is SmokePhase.failed:
        yield "smoke_failed", {**pairs, "leg": run.leg, "reason": run.note}


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
