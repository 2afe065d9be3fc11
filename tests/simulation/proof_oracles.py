"""The promises of gates, hooks and smoke as functions; see `oracles` for how they are asked.

What was truly told and done is in `testimony`. Where it matters whether traffic could have gone
back, that is told by the journaled state.
"""

from typing import TYPE_CHECKING

from simulation.oracles import Change, weight_of

from trafficmgr.core import events, rollout
from trafficmgr.core.commands import AskSmoke, CallHook, StartGroup
from trafficmgr.core.gating import HookPhase, HookStage, OnInsufficient, VerdictKind
from trafficmgr.core.model import GroupPhase, OnNewer, Rollout, RolloutPhase
from trafficmgr.core.state import EndpointState

if TYPE_CHECKING:
    from simulation.testimony import Testimony
    from simulation.world import World

ANSWERS = (events.PromoteAsked, events.ResumeAsked, events.RetryAsked, events.AbortAsked)
GONE_BACK = (RolloutPhase.aborting, RolloutPhase.aborted, RolloutPhase.superseded)
LATE_S = 3.0
"""How much older than what was handled before it an event may be (`Faults.slow_controller`)."""


# -- gates ----------------------------------------------------------------------------------------


def gates_hold_the_step(change: Change) -> str:
    """Nothing goes further by itself while a gate of the stage has not passed."""
    was, now_on = _same_rollout(change)
    if was is None or now_on is None or was.phase is not RolloutPhase.progressing:
        return ""
    is_on = now_on.phase is RolloutPhase.progressing
    if not is_on and now_on.phase is not RolloutPhase.promoting:
        return ""
    until = now_on.step if is_on else len(was.settings.steps)
    for stage in range(max(0, was.step), until):
        if missing := _not_passed(change.witness.testimony, was, stage):
            return f"{was.id} left stage {stage} without a pass of {missing}"
    return ""


def _not_passed(testimony: "Testimony", on: Rollout, stage: int) -> list[str]:
    """Return the gates that a stage was not allowed to be left without."""
    gates, key = on.settings.gates, (on.id, stage)
    if on.id in testimony.overruled or key in testimony.skipped:
        return []
    verdicts = testimony.verdicts.get(key, {})
    names = gates.names(on.settings.steps[stage].weight_pct)
    missing = {name: verdicts.get(name) for name in names}
    failed = [name for name, kind in missing.items() if kind is VerdictKind.failed]
    waited_s = testimony.proved_s.get(key, 0.0)
    has_waited = waited_s >= gates.max_hold_s - LATE_S
    is_left_open = gates.on_insufficient is OnInsufficient.promote and has_waited
    if failed or key in testimony.waived or is_left_open:
        return failed
    return [name for name, kind in missing.items() if kind is not VerdictKind.passed]


def failure_goes_back(change: Change) -> str:
    """What a gate, hook or smoke condemns loses its traffic at once, if somebody can take it."""
    state, on = change.after, change.after.rollout
    if on is None or not on.is_undecided or change.before is None:
        return ""
    testimony = change.witness.testimony
    if on.id in testimony.overruled or not (testimony.has_failed(on) or _failed_hooks(on)):
        return ""
    if on.irreversible:
        is_asked = "would have gone back" in on.question
        return "" if is_asked else f"{on.id} failed, can't be undone, and nobody is asked so"
    if on.id in testimony.final or not _can_go_back(state, on):
        return ""
    return f"{on.id} is {on.phase} in stage {on.stage} although it failed"


def checkpoint_is_kept(change: Change) -> str:
    """After a restart the judge goes on from the newest checkpoint, never from an older one."""
    on = change.after.rollout
    if on is None or not on.is_undecided:
        return ""
    kept = change.witness.testimony.kept.get(on.id)
    return f"{on.id} has {on.evidence}, {kept} was journaled" if on.evidence != kept else ""


# -- hooks ----------------------------------------------------------------------------------------


def before_hooks_come_first(change: Change) -> str:
    """No candidate has weight or a preview before its first hooks are done."""
    state, on = change.after, change.after.rollout
    if on is None or not on.is_undecided or state.table.is_least_bad:
        return ""
    missing = _not_done(change.witness.testimony, state, on, HookStage.before)
    if not missing:
        return ""
    share = weight_of(state, on.revision)
    preview = state.table.preview
    if share or on.step >= 0:
        return f"{on.revision} has {share}% in step {on.step} before {missing}"
    is_shown = preview is not None and preview.revision == on.revision
    return f"{on.revision} has a preview before {missing}" if is_shown else ""


def groups_wait_for_before_hooks(world: "World", command: StartGroup) -> str:
    """No group of a candidate is started before its first hooks are done."""
    state = world.durable.endpoints.get(command.endpoint)
    on = None if state is None else state.rollout
    if state is None or on is None or on.phase is not RolloutPhase.progressing:
        return ""
    group = command.group
    if group.hook or group.revision != on.revision or group.created_at < on.started_at:
        return ""
    missing = _not_done(world.witness.testimony, state, on, HookStage.before)
    return f"{group.id} of {on.revision} starts before {missing}" if missing else ""


def gate_hooks_come_first(change: Change) -> str:
    """Nothing is promoted before its last hooks are done."""
    was, now_on = _same_rollout(change)
    if was is None or now_on is None or was.phase is not RolloutPhase.progressing:
        return ""
    if now_on.phase is not RolloutPhase.promoting:
        return ""
    missing = _not_done(change.witness.testimony, change.after, was, HookStage.gate)
    return f"{was.id} is promoted before {missing}" if missing else ""


def hook_begins_once(testimony: "Testimony", endpoint: str) -> str:
    """A hook is begun once for a revision, unless an operator wanted it tried again."""
    for deed, times in testimony.begun.items():
        if deed[0] == endpoint and times > 1 + testimony.retried[deed[:2]]:
            return f"{deed[2]} was begun {times} times for {deed[1]}"
    return ""


def abort_ends_hooks(change: Change) -> str:
    """An abort takes effect at once, whatever hook or smoke is under way."""
    state, on = change.after, change.after.rollout
    was = change.before.rollout if change.before is not None else None
    if was is None or not was.is_undecided or on is None or not _has_gone_back(change, was):
        return ""
    own = {run.group for run in was.hooks if run.group}
    at_work = {g.id for g in state.groups if g.phase in {GroupPhase.wanted, GroupPhase.started}}
    if left := sorted(own & at_work):
        return f"{left} are not told to stop, and {was.id} is over"
    for command in rollout.decide(state):
        if isinstance(command, CallHook | AskSmoke) and command.rollout == was.id:
            return f"{command.key} is wanted although {was.id} is over"
    return ""


def irreversible_stays(change: Change) -> str:
    """After a hook that can't be undone has begun, nothing goes back by itself."""
    was = change.before.rollout if change.before is not None else None
    if was is None or not was.is_undecided or change.after.is_removed:
        return ""
    hook = change.witness.testimony.final.get(was.id)
    if hook is None or isinstance(change.event, events.AbortAsked):
        return ""
    if not _has_gone_back(change, was):
        return ""
    return f"{was.id} went back by itself after {hook}, by {type(change.event).__name__}"


def task_is_no_replica(change: Change) -> str:
    """The group of a task serves nobody and counts for nothing."""
    state = change.after
    tasks = {g.id for g in state.groups if g.hook}
    if not tasks:
        return ""
    shares = (*state.table.shares, *(filter(None, (state.table.preview,))))
    if serving := tasks & {target.group for share in shares for target in share.targets}:
        return f"{sorted(serving)} are in table {state.table.generation}"
    counted = {g.id for r in {g.revision for g in state.groups} for g in state.live(r)}
    return f"{sorted(tasks & counted)} count as replicas" if tasks & counted else ""


# -- smoke ----------------------------------------------------------------------------------------


def smoke_comes_first(change: Change) -> str:
    """No step is taken before every leg of the smoke test was answered well."""
    was, now_on = _same_rollout(change)
    if was is None or now_on is None or now_on.settings.smoke is None:
        return ""
    is_begun = now_on.step >= 0 or now_on.phase is RolloutPhase.promoting
    if was.step >= 0 or was.phase is not RolloutPhase.progressing or not is_begun:
        return ""
    testimony = change.witness.testimony
    wanted = {0, 1, 2} if now_on.settings.smoke.is_rehearsed else {0}
    missing = wanted - testimony.met.get(now_on.id, set())
    if not missing or now_on.id in testimony.overruled:
        return ""
    return f"{now_on.id} takes its first step without legs {sorted(missing)}"


def smoke_meets_the_preview(world: "World", command: AskSmoke) -> str:
    """The requests of a leg meet the revision that is meant at every worker."""
    state = world.durable.endpoints.get(command.endpoint)
    on = None if state is None else state.rollout
    if state is None or on is None or on.id != command.rollout or not on.is_undecided:
        return f"{command.key} is asked, and there is nothing to ask"
    meant = state.stable if command.leg == 1 else on.revision
    if command.revision != meant:
        return f"{command.key} asks for {command.revision!r}, not {meant}"
    for worker in world.dataplane.workers.values():
        table = worker.tables.get(command.endpoint)
        preview = None if table is None else table.preview
        if preview is None or preview.revision != meant:
            return f"{command.key}: {worker.start_id} shows {preview}"
    return ""


# -- questions and clients ------------------------------------------------------------------------


def question_waits_for_an_answer(change: Change) -> str:
    """A rollout that asks is paused, and goes on only when an operator says so."""
    was, now_on = _same_rollout(change)
    if now_on is not None and now_on.is_undecided:
        if now_on.question and not now_on.is_paused:
            return f"{now_on.id} asks and is not paused"
        if left_out := [h for h in _unknown_hooks(now_on) if f" {h} " not in now_on.question]:
            return f"nobody is asked about {left_out}, only: {now_on.question}"
    if was is None or now_on is None or not was.question or isinstance(change.event, ANSWERS):
        return ""
    if change.after.is_removed or _may_end(change, was, now_on):
        return ""
    is_as_it_was = (was.phase, was.step) == (now_on.phase, now_on.step)
    if is_as_it_was and now_on.question and now_on.is_paused:
        return ""
    return f"{type(change.event).__name__} answered the question of {was.id}"


def _may_end(change: Change, was: Rollout, now_on: Rollout) -> bool:
    """Whether a rollout that asks may end by itself: condemned meanwhile, or a newer one came."""
    is_condemned = change.witness.testimony.has_failed(was) or bool(_failed_hooks(now_on))
    is_superseding = was.settings.on_newer is OnNewer.supersede
    is_newer = is_superseding and change.after.newest != was.revision
    back, newer = RolloutPhase.aborting, RolloutPhase.superseded
    is_back = now_on.phase in {back, RolloutPhase.aborted}
    return (is_condemned and is_back) or (is_newer and now_on.phase is newer)


def client_moves_once(change: Change) -> str:
    """(10) A client keeps its place in a rollout: what its bucket is made of stays."""
    was, now_on = _same_rollout(change)
    if change.before is None or was is None or now_on is None or not now_on.is_undecided:
        return ""
    before, table = change.before.table, change.after.table
    if before is table or (before.affinity, before.salt) == (table.affinity, table.salt):
        return ""
    return f"the clients of {now_on.id} were dealt by {before.salt!r} and are by {table.salt!r}"


CHANGES = (
    gates_hold_the_step,
    failure_goes_back,
    checkpoint_is_kept,
    before_hooks_come_first,
    gate_hooks_come_first,
    abort_ends_hooks,
    irreversible_stays,
    task_is_no_replica,
    smoke_comes_first,
    question_waits_for_an_answer,
    client_moves_once,
)


# -- leaves ---------------------------------------------------------------------------------------


def _same_rollout(change: Change) -> tuple[Rollout | None, Rollout | None]:
    """Return the rollout before and after, if it is the same."""
    was = change.before.rollout if change.before is not None else None
    now_on = change.after.rollout
    if was is None or now_on is None or was.id != now_on.id:
        return None, now_on
    return was, now_on


def _has_gone_back(change: Change, was: Rollout) -> bool:
    """Whether a rollout that was under way was undone, or given up for another."""
    on = change.after.rollout
    if on is not None and on.id == was.id:
        return on.phase in GONE_BACK
    return any(one.id == was.id and one.phase in GONE_BACK for one in change.after.history)


def _not_done(
    testimony: "Testimony", state: EndpointState, on: Rollout, stage: HookStage
) -> list[str]:
    if on.id in testimony.overruled:
        return []
    names = [hook.name for hook in on.settings.hooks if hook.stage is stage]
    return [name for name in names if (state.name, on.revision, name) not in testimony.done]


def _failed_hooks(on: Rollout) -> list[str]:
    """Return the hooks that failed and count, timeouts among them."""
    failed = [run.name for run in on.hooks if run.phase is HookPhase.failed]
    return [name for name in failed if on.hook(name).stage is not HookStage.after]


def _unknown_hooks(on: Rollout) -> list[str]:
    """Return the hooks of which nobody knows the end; of those that come last nobody is asked."""
    unknown = [run.name for run in on.hooks if run.phase is HookPhase.unknown]
    return [name for name in unknown if on.hook(name).stage is not HookStage.after]


def _can_go_back(state: EndpointState, on: Rollout) -> bool:
    """Whether somebody else can take the traffic, or there is none (promise 9)."""
    if on.phase is RolloutPhase.promoting:
        return bool(state.previous) and bool(state.ready(state.previous))
    serving = [g for g in state.ready(on.revision) if g.phase is GroupPhase.started]
    return bool(state.ready(state.stable)) or not (serving and weight_of(state, on.revision))
