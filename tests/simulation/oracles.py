"""The promises of DESIGN 6 as functions. Each returns what is wrong, or "" while it is kept.

They look at the truth of the world (what workers serve, what resolvers hold, which processes run)
and at the journaled state, never at how the core came to its decision. A function's name is what a
failing seed says; its docstring is the sentence that it protects.
"""

from typing import TYPE_CHECKING, NamedTuple

from trafficmgr.core import events, rollout
from trafficmgr.core.commands import StartGroup
from trafficmgr.core.gating import HookPhase
from trafficmgr.core.model import (
    CandidateReplicas,
    Group,
    GroupPhase,
    OnNewer,
    Rollout,
    RolloutPhase,
)
from trafficmgr.core.state import EndpointState

if TYPE_CHECKING:
    from simulation.brain import Brain
    from simulation.witness import Witness
    from simulation.world import World

LOSSES = (events.GroupUnready, events.GroupEnded, events.GroupStartFailed)
ROUNDING_S = 1e-3


class Stop(NamedTuple):
    """A group is told to stop: this is in the journal now."""

    world: "World"
    brain: "Brain"
    witness: "Witness"
    state: EndpointState
    group: Group


class Change(NamedTuple):
    """An endpoint's state changed by an event: this is in the journal now."""

    world: "World"
    brain: "Brain"
    witness: "Witness"
    event: events.Event
    before: EndpointState | None
    after: EndpointState


# -- a group is told to stop ----------------------------------------------------------------------


def retirement_workers(stop: Stop) -> str:
    """(1a) The worker of every slot has applied a table without it."""
    name, group = stop.state.name, stop.group.id
    tables = {w.start_id: w.tables.get(name) for w in stop.world.dataplane.workers.values()}
    tables["the file"] = stop.world.dataplane.files.get(name)
    serving = [who for who, table in tables.items() if table and group in table.groups()]
    return f"{serving} would still send clients to {group}" if serving else ""


def retirement_hello(stop: Stop) -> str:
    """(1a) Nothing retires until every slot has said hello to this controller."""
    if stop.group.hook:
        return ""  # it serves nobody, so no worker has to be asked
    missing = set(range(stop.world.dataplane.slots)) - stop.brain.hellos
    return f"slots {sorted(missing)} said no hello before {stop.group.id} stops" if missing else ""


def retirement_ttl(stop: Stop) -> str:
    """(1b) Since the last answer with its address the TTL has passed, plus `ttl_grace`."""
    held_until = stop.world.dataplane.held.get(stop.group.id)
    if held_until is None:
        return ""
    left_s = held_until + stop.state.settings.ttl_grace_s - stop.world.now
    return f"{stop.group.id}: {left_s:.3f}s of its TTL are left" if left_s > ROUNDING_S else ""


def retirement_requests(stop: Stop) -> str:
    """(1c) Its HTTP requests are done, or their own drain deadline has passed."""
    ends_at = stop.witness.withdrawn_at(stop.group.id) + stop.state.settings.drain_http_s
    until = max(
        (w.http_until.get(stop.group.id, 0.0) for w in stop.world.dataplane.workers.values()),
        default=0.0,
    )
    left_s = min(until, ends_at) - stop.world.now
    return f"{stop.group.id} has requests for {left_s:.3f}s" if left_s > ROUNDING_S else ""


def retirement_tunnels(stop: Stop) -> str:
    """(1c) Its WebSockets and other tunnels are done, or their own drain deadline has passed."""
    ends_at = stop.witness.withdrawn_at(stop.group.id) + stop.state.settings.drain_websocket_s
    until = max(
        (w.tunnel_until.get(stop.group.id, 0.0) for w in stop.world.dataplane.workers.values()),
        default=0.0,
    )
    left_s = min(until, ends_at) - stop.world.now
    return f"{stop.group.id} has tunnels for {left_s:.3f}s" if left_s > ROUNDING_S else ""


def retirement_direct(stop: Stop) -> str:
    """(1c) No direct client is connected, or `drain.http` has passed after the TTL."""
    held_until = stop.world.dataplane.held.get(stop.group.id)
    if held_until is None:
        return ""
    settings = stop.state.settings
    ends_at = held_until + settings.ttl_grace_s + settings.drain_http_s
    left_s = min(stop.world.dataplane.direct_until(stop.group.id), ends_at) - stop.world.now
    return f"{stop.group.id} has clients for {left_s:.3f}s" if left_s > ROUNDING_S else ""


STOPS = (
    retirement_hello,
    retirement_workers,
    retirement_ttl,
    retirement_requests,
    retirement_tunnels,
    retirement_direct,
)


# -- an endpoint changed --------------------------------------------------------------------------


def abort_has_no_precondition(change: Change) -> str:
    """(2) Traffic goes back to stable at once, whatever state the candidate is in."""
    before, after = change.before, change.after
    now_on = after.rollout
    if now_on is not None and now_on.phase is RolloutPhase.aborting:
        share = weight_of(after, now_on.revision)
        return f"{now_on.revision} is aborted and has {share}%" if share else ""
    if not isinstance(change.event, events.AbortAsked) or before is None or before.is_removed:
        return ""
    was = before.rollout
    if was is None or was.phase is not RolloutPhase.progressing:
        return ""
    is_undone = now_on is None or now_on.id != was.id or now_on.is_over
    return "" if is_undone else f"{was.id} is {now_on.phase} after an abort"  # type: ignore[union-attr]


def weight_within_capacity(change: Change) -> str:
    """(3) Candidate share = min(step, 100 x ready candidate groups / replicas)."""
    state = change.after
    on = state.rollout
    if not state.candidate or not state.stable or state.table.is_least_bad or on is None:
        return ""
    weight = weight_of(state, state.candidate)
    own = [g for g in state.groups if g.revision == state.candidate and not g.hook]
    ready = [g.id for g in own if g.is_ready]
    most = min(_step_weight(on), 100 * len(ready) // max(1, state.replicas))
    return f"{state.candidate} has {weight}%, {most}% at most" if weight > most else ""


def health_never_advances(change: Change) -> str:
    """(3) Health never advances a rollout by its loss."""
    before, after = change.before, change.after
    if before is None or not isinstance(change.event, LOSSES):
        return ""
    if any(g.hook for g in before.groups if g.id == change.event.group):
        return ""  # that a task failed is no loss of health
    if not _is_further(before, after):
        return ""
    by_time = rollout.evolve(before, events.Woke(at=change.event.at, endpoint=before.name))
    if _is_further(before, by_time):
        return ""  # its moment had come, and the timer was not asked yet
    return f"{type(change.event).__name__} took {before.name} further"


def superseded_gets_no_traffic(change: Change) -> str:
    """(4) A newer revision mid-rollout: traffic back to stable."""
    before, after = change.before, change.after
    for share in () if after.table.is_least_bad else after.table.shares:
        if share.revision not in (after.stable, after.candidate):
            return f"{share.revision} has {share.weight_pct}% and no role"
    was = before.rollout if before is not None else None
    if was is None or was.phase is not RolloutPhase.progressing or was.is_rollback:
        return ""
    is_newer = after.newest not in {"", was.revision} and not after.is_removed
    if is_newer and was.settings.on_newer is OnNewer.supersede and not _is_kept_on(was):
        is_on = after.rollout is not None and after.rollout.id == was.id
        if is_on and after.candidate == was.revision:
            return f"{was.revision} goes on although {after.newest} came"
    return ""


def max_revisions(change: Change) -> str:
    """(4) `max_revisions` counts everything not stopped; the newest waits if all others drain."""
    begun = _begun(change)
    if begun is None or begun.is_rollback:
        return ""
    running = {g.revision for g in change.after.groups} | {begun.revision}
    most = change.after.settings.max_revisions
    return f"{sorted(running)} run, {most} may" if len(running) > most else ""


def promote_is_a_flip(change: Change) -> str:
    """(5) Promote is a pointer flip, never a second copy; the candidate goes on as it runs."""
    before, after = change.before, change.after
    on = after.rollout
    if on is not None and on.phase is RolloutPhase.promoting and on.is_paused and not on.question:
        return f"{on.id} is promoted and paused, and nobody may pause a watch"
    if before is None or after.stable in {"", before.stable} or after.stable != before.candidate:
        return ""
    known = {g.id for g in before.groups}
    copies = [
        g.id
        for g in after.groups
        if g.revision == after.stable and g.id not in known and not g.hook
    ]
    staying = _live_ids(after)
    given_up = [g.id for g in before.ready(after.stable) if g.id not in staying]
    if copies or (given_up and len(after.live(after.stable)) < after.replicas):
        return f"the promotion of {after.stable} made {copies} and gave up {given_up}"
    return ""


def quarantine_is_heeded(change: Change) -> str:
    """(6) A failed revision is quarantined: not tried again until an operator says so."""
    begun = _begun(change)
    if begun is None or (change.after.name, begun.revision) not in change.witness.failed:
        return ""
    return f"{begun.id} tries {begun.revision} again, which failed"


def rollback_is_final(change: Change) -> str:
    """(6) A rollback is never rolled back."""
    was = change.before.rollout if change.before is not None else None
    now_on = change.after.rollout
    if was is None or now_on is None or was.id != now_on.id or not was.is_rollback:
        return ""
    is_undone = was.phase is RolloutPhase.promoting and now_on.phase is RolloutPhase.aborting
    return f"the rollback {was.id} was rolled back" if is_undone else ""


def progress_has_a_deadline(change: Change) -> str:
    """(7) The longest time without progress, past which the rollout aborts."""
    stalled_s, limit_s = change.witness.stalled(change)
    if stalled_s <= limit_s + 1.0:
        return ""
    return f"no progress for {stalled_s:.1f}s, and {limit_s:.1f}s are allowed"


def least_bad_serves(change: Change) -> str:
    """(9) Never an empty answer: when no target is ready, serve the least bad."""
    before, state = change.before, change.after
    if before is None or any(share.targets for share in state.table.shares):
        return ""
    carried = {t.group for share in before.table.shares for t in share.targets}
    staying = {g.id for g in state.live(state.stable or state.candidate)}
    running = [
        g.id
        for g in state.groups
        if g.phase is GroupPhase.started and g.id in carried and (g.id in staying or g.is_ready)
    ]
    is_asked_for = isinstance(change.event, events.AbortAsked) and bool(before.candidate)
    is_task = state.name in change.world.tasks
    if state.is_removed or is_asked_for or is_task or not running:
        return ""
    return f"nobody is served, although {running} still run"


def weights_sum_to_100(change: Change) -> str:
    """(9) 0 % is exactly none, 100 % exactly all; weights sum to 100."""
    shares = change.after.table.shares
    if change.before is not None and change.before.table is change.after.table:
        return ""
    total = sum(share.weight_pct for share in shares)
    return f"the weights sum to {total}" if shares and total != 100 else ""


def unknown_is_not_failed(change: Change) -> str:
    """(12) Unknown is not failed: it never stops traffic or triggers a rollback."""
    before, after = change.before, change.after
    if before is not None and before.is_engine_away:
        is_asked_for = isinstance(change.event, events.AbortAsked | events.EngineFound)
        is_aborted = _phase(after) != _phase(before) and _phase(after)[1] == RolloutPhase.aborting
        is_known = isinstance(change.event, events.ControllerStarted)
        was = before.rollout  # what users, callers and the preview told is known all the same
        is_condemned = was is not None and change.witness.testimony.has_failed(was)
        is_condemned = is_condemned or _has_failed_call(after.rollout)
        if is_aborted and not (is_asked_for or is_known or is_condemned):
            return f"{_phase(after)[0]} is aborted although the engine can't be asked"
    if before is None or not isinstance(change.event, events.GroupStartDelayed | events.EngineLost):
        return ""
    by_time = rollout.evolve(before, events.Woke(at=change.event.at, endpoint=before.name))
    is_as_ever = after.table in (before.table, by_time.table)
    if is_as_ever and _phase(after) in (_phase(before), _phase(by_time)):
        return ""
    return f"{type(change.event).__name__} changed the rollout"


CHANGES = (
    abort_has_no_precondition,
    weight_within_capacity,
    health_never_advances,
    superseded_gets_no_traffic,
    max_revisions,
    promote_is_a_flip,
    quarantine_is_heeded,
    rollback_is_final,
    progress_has_a_deadline,
    least_bad_serves,
    weights_sum_to_100,
    unknown_is_not_failed,
)


# -- a command is carried out ---------------------------------------------------------------------


def address_is_free(world: "World", command: StartGroup, owners: dict[str, str]) -> str:
    """(13) A group address is not reused while any resolver may still hold it."""
    address, group = command.group.address, command.group.id
    owner = owners.get(address, group)
    if owner == group:
        return ""
    if owner in world.engine.processes:
        return f"{group} gets {address}, where {owner} runs"
    left_s = world.dataplane.held.get(owner, 0.0) - world.now
    if left_s > ROUNDING_S:
        return f"{group} gets {address}, which leads to {owner} for {left_s:.1f}s"
    return ""


# -- leaves ---------------------------------------------------------------------------------------


def weight_of(state: EndpointState, revision: str) -> int:
    """Return the share of a revision in the table, in per cent."""
    return sum(s.weight_pct for s in state.table.shares if s.revision == revision)


def _step_weight(on: Rollout) -> int:
    return on.settings.steps[on.step].weight_pct if on.step >= 0 else 0


def _is_kept_on(on: Rollout) -> bool:
    """Whether nothing newer breaks it off: a hook is being done, or can't be undone."""
    return bool(on.irreversible) or any(run.phase is HookPhase.running for run in on.hooks)


def _has_failed_call(on: Rollout | None) -> bool:
    runs = on.hooks if on is not None else ()
    return any(run.phase is HookPhase.failed and not run.group for run in runs)


def _phase(state: EndpointState) -> tuple[str, str]:
    return (state.rollout.id, state.rollout.phase) if state.rollout is not None else ("", "")


def _live_ids(state: EndpointState) -> set[str]:
    return {g.id for g in state.groups if not g.is_retiring}


def _is_further(before: EndpointState, after: EndpointState) -> bool:
    """Whether the same rollout took a step, got more weight, or was promoted."""
    was, now_on = before.rollout, after.rollout
    if was is None or now_on is None or was.id != now_on.id:
        return False
    if was.phase is RolloutPhase.progressing and now_on.phase is RolloutPhase.promoting:
        return True
    if was.phase is not RolloutPhase.progressing or now_on.phase is not was.phase:
        return False
    has_more = weight_of(after, now_on.revision) > weight_of(before, was.revision)
    return now_on.step > was.step or (has_more and not after.table.is_least_bad)


def _begun(change: Change) -> Rollout | None:
    """Return the rollout that began with this change, if one did."""
    now_on = change.after.rollout
    was = change.before.rollout if change.before is not None else None
    if now_on is None or (was is not None and was.id == now_on.id):
        return None
    return now_on


def is_excused(state: EndpointState, on: Rollout, now: float) -> bool:
    """Whether time that passes in this state does not count as time without progress (7)."""
    own = [g for g in state.groups if g.revision == on.revision and not g.hook]
    live = [g for g in own if not g.is_retiring]
    is_waiting = on.is_paused or on.is_held or on.is_hooked
    if is_waiting or state.is_engine_away or any(g.is_unknown for g in live):
        return True
    ready = sum(g.is_ready for g in live)
    carries = 100 * ready // max(1, state.replicas)
    can_carry = on.step >= 0 and carries >= max(1, _step_weight(on))
    if can_carry and on.hold is not None and on.hold.left_at(now) > 0:
        return True
    following = on.step + 1
    steps = on.settings.steps
    goal = steps[following].weight_pct if following < len(steps) else 100
    if on.step >= 0:
        return carries >= goal
    is_full = on.settings.candidate_replicas is CandidateReplicas.full
    needed = state.replicas if is_full else max(1, -(-state.replicas * goal // 100))
    return ready >= needed and not on.is_smoking
