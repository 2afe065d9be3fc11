"""The hooks of a rollout: which is due, what became of it, and what a failure means.

They are done one after another, each once for a revision (`EndpointState.hooks_begun` remembers):

    before   before any group of the candidate starts, so that a migration comes before the code
    gate     when all else is ready for the promotion
    after    when the watch is over; what comes of it is written down and changes nothing

A command runs in a **task group**: a group with one container that is never restarted. It is
adopted like every group, so a new controller finds out how it ended. A call is told as started
before it is made; if its answer was not journaled, nobody can know whether it was made, and the
rollout asks an operator. No hook can block an abort: `needed_groups` has no task then, and the
hands drop a call that is not wanted.
"""

from collections.abc import Iterator

from trafficmgr.core import moves, progress
from trafficmgr.core.commands import CallHook
from trafficmgr.core.events import HookEnded, HookStarted
from trafficmgr.core.gating import HookPhase, HookRun, HookStage, HttpCall, TaskCommand
from trafficmgr.core.model import Group, GroupPhase, Rollout, RolloutPhase
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import GroupTemplate, RestartPolicy, Revision

REMEMBERED = 50
"""Revisions of which is remembered what was begun for them, beside the newest."""

# -- what is heard --------------------------------------------------------------------------------


def hook_started(state: EndpointState, event: HookStarted) -> EndpointState:
    """A call is about to be made; from here on it may have been."""
    run = _run(state, event)
    if run is None or run.phase is not HookPhase.wanted:
        return state
    return _with(state, _running(state, run, event.at))


def hook_ended(state: EndpointState, event: HookEnded) -> EndpointState:
    """A call was answered, or could not be made."""
    run = _run(state, event)
    if run is None or run.phase is not HookPhase.running:
        return state
    phase = HookPhase.succeeded if event.is_success else HookPhase.failed
    return _with(state, run.but(phase=phase, ended_at=event.at, note=event.reason))


def controller_started(state: EndpointState, now: float) -> EndpointState:
    """Nobody can know whether a call in flight was made; a task goes on, with its whole time."""
    for run in _runs(state):
        if run.phase is HookPhase.wanted and run.group:  # the one before may have started it
            state = _with(state, run.but(began_at=now))
        if run.phase is HookPhase.running and not run.group:
            note = "the controller was restarted while it was under way"
            state = _with(state, run.but(phase=HookPhase.unknown, until=None, note=note))
    return engine_found(state, now)


def engine_found(state: EndpointState, now: float) -> EndpointState:
    """Tasks have their whole time again: what passed while nobody knew of them does not count."""
    for run in _runs(state):
        if run.phase is HookPhase.running and run.group:
            state = _with(state, _running(state, run, now).but(began_at=run.began_at))
    return state


# -- what an operator answers ---------------------------------------------------------------------


def taken_as_done(rollout: Rollout, now: float) -> Rollout:
    """Count what nobody knows the end of as done: an operator says so."""
    note = "an operator took it as done"
    return rollout.but(
        hooks=tuple(
            run.but(phase=HookPhase.succeeded, ended_at=now, note=note)
            if run.phase is HookPhase.unknown
            else run
            for run in rollout.hooks
        )
    )


def tried_again(state: EndpointState) -> EndpointState:
    """Forget what was begun for the newest revision and did not succeed: it is done again."""
    newest = state.ignored or state.newest
    begun = state.hooks_begun.get(newest, {})
    done = {name: is_done for name, is_done in begun.items() if is_done}
    state = state.but(hooks_begun={**state.hooks_begun, newest: done}) if begun != done else state
    if not has_unknown(state):
        return state
    rollout = moves.under_way(state)
    runs = tuple(
        run.but(phase=HookPhase.waiting, group="", note="")  # that it had begun stays true
        if run.phase is HookPhase.unknown
        else run
        for run in rollout.hooks
    )
    return state.but(rollout=rollout.but(hooks=runs, is_paused=False, questions={}))


def has_unknown(state: EndpointState) -> bool:
    """Whether a hook began of which nobody knows the end."""
    return any(run.phase is HookPhase.unknown for run in _runs(state))


# -- the rules ------------------------------------------------------------------------------------


def follow(state: EndpointState, now: float) -> EndpointState:
    """Take note of what became of tasks, and end what hangs."""
    for run in _runs(state):
        if run.phase in {HookPhase.wanted, HookPhase.running}:
            state = _with(state, _followed(state, run, now))
    return state


def start(state: EndpointState, now: float) -> EndpointState:
    """Let the next hook of the stage that is due be done."""
    rollout = state.rollout
    if rollout is None or not rollout.is_undecided or rollout.is_paused:
        return state
    run = next((one for one in rollout.hooks if not rollout.is_done_with(one)), None)
    if run is None or run.phase is not HookPhase.waiting or not _is_due(state, run, now):
        return state
    wanted, action = run.but(phase=HookPhase.wanted), rollout.hook(run.name).action
    if isinstance(action, HttpCall):
        return _with(state, wanted)
    containers = state.revisions[rollout.revision].template.containers
    if all(one.name != action.container for one in containers):  # the config has moved on
        note = f"its revision has no container {action.container}"
        return _with(state, run.but(phase=HookPhase.failed, ended_at=now, note=note))
    made = state.groups_made + 1
    task = Group(
        id=f"{state.name}-{made}", revision=rollout.revision, created_at=now, hook=run.name
    )
    state = _with(state, wanted.but(group=task.id))
    return state.but(groups=(*state.groups, task), groups_made=made)


def settle(state: EndpointState, now: float) -> EndpointState:
    """Draw the conclusion: go back from what failed, ask about what can't be known."""
    for run in _runs(state):
        rollout = moves.under_way(state)
        is_after = rollout.hook(run.name).stage is HookStage.after
        state = _remembered(state, run)
        if run.phase is HookPhase.failed and not is_after and not rollout.is_overruled:
            return progress.fall_back(state, now, f"hook {run.name} failed: {run.note}")
        if run.phase is HookPhase.unknown and is_after:
            state = _with(state, run.but(phase=HookPhase.failed, ended_at=now))
        elif run.phase is HookPhase.unknown:
            state = moves.ask(state, now, f"hook {run.name}", _question(run))
    return state


# -- what is wanted -------------------------------------------------------------------------------


def wanted(state: EndpointState) -> Iterator[CallHook]:
    """Yield the call that should be made, or is under way."""
    for run in _runs(state):
        rollout = moves.under_way(state)
        call = rollout.hook(run.name)
        is_open = run.phase in {HookPhase.wanted, HookPhase.running}
        if is_open and isinstance(call.action, HttpCall):
            yield CallHook(
                endpoint=state.name,
                rollout=rollout.id,
                hook=run.name,
                call=call.action,
                revision=rollout.revision,
                timeout_s=call.timeout_s,
            )


def needed_groups(state: EndpointState) -> set[str]:
    """Return the task groups that are at work, or about to be."""
    open_phases = {HookPhase.wanted, HookPhase.running}
    return {run.group for run in _runs(state) if run.group and run.phase in open_phases}


def task_of(state: EndpointState, group: Group) -> Revision:
    """Return what a task group runs: one container of its revision, with the hook's command."""
    revision = state.revisions[group.revision]
    action = moves.under_way(state).hook(group.hook).action
    assert isinstance(action, TaskCommand), action  # noqa: S101  only commands have a task group
    container = next(c for c in revision.template.containers if c.name == action.container)
    task = container.but(
        command=action.command, ports=(), readiness=None, liveness=None, pre_stop=None
    )
    template = GroupTemplate(
        containers=(task,),
        volumes=revision.template.volumes,
        restart=RestartPolicy.never,
        resources=revision.template.resources,
        rootfs=revision.template.rootfs,
    )
    images = tuple(image for image in revision.images if image.container == task.name)
    return Revision(id=revision.id, template=template, images=images)


def ends_at(state: EndpointState) -> Iterator[float | None]:
    """Yield when hooks that are being done have hung for too long."""
    for run in _runs(state):
        yield run.until if run.phase is HookPhase.running else None


# -- leaves ---------------------------------------------------------------------------------------


def _runs(state: EndpointState) -> tuple[HookRun, ...]:
    rollout = state.rollout
    return rollout.hooks if rollout is not None and rollout.is_undecided else ()


def _run(state: EndpointState, event: HookStarted | HookEnded) -> HookRun | None:
    rollout = state.rollout
    if rollout is None or rollout.id != event.rollout:
        return None
    return next((run for run in _runs(state) if run.name == event.hook), None)


def _with(state: EndpointState, run: HookRun) -> EndpointState:
    rollout = moves.under_way(state)
    runs = tuple(run if one.name == run.name else one for one in rollout.hooks)
    return state if runs == rollout.hooks else state.but(rollout=rollout.but(hooks=runs))


def _running(state: EndpointState, run: HookRun, now: float) -> HookRun:
    timeout_s = moves.under_way(state).hook(run.name).timeout_s
    return run.but(phase=HookPhase.running, began_at=now, until=now + timeout_s)


def _followed(state: EndpointState, run: HookRun, now: float) -> HookRun:
    """Return what became of a hook that is being done."""
    if run.group:
        run = _task_seen(state, run, now)
    is_known = not (run.group and state.is_engine_away)
    is_late = run.until is not None and now >= run.until
    if run.phase is HookPhase.running and is_late and is_known:
        timeout_s = moves.under_way(state).hook(run.name).timeout_s
        note = f"it did not end within {timeout_s:g}s"
        return run.but(phase=HookPhase.failed, ended_at=now, until=None, note=note)
    return run


def _task_seen(state: EndpointState, run: HookRun, now: float) -> HookRun:
    """Return what its group says: a group that vanished after its start tells nobody its end."""
    task = next((g for g in state.groups if g.id == run.group), None)
    if task is None:
        return run.but(phase=HookPhase.unknown, until=None, note="its group is gone")
    match task.phase:
        case GroupPhase.started if run.phase is HookPhase.wanted:
            return _running(state, run, now)
        case GroupPhase.completed:
            phase = HookPhase.succeeded if task.is_ready else HookPhase.failed
            began_at = run.began_at or now
            return run.but(phase=phase, began_at=began_at, ended_at=now, note=task.note)
        case GroupPhase.ended if task.is_unknown:
            began_at = run.began_at or now
            return run.but(phase=HookPhase.unknown, began_at=began_at, until=None, note=task.note)
        case GroupPhase.ended:
            return run.but(phase=HookPhase.failed, ended_at=now, note=task.note)
        case _:
            return run


def _is_due(state: EndpointState, run: HookRun, now: float) -> bool:
    rollout = moves.under_way(state)
    is_progressing = rollout.phase is RolloutPhase.progressing
    match rollout.hook(run.name).stage:
        case HookStage.before:
            return is_progressing and rollout.step < 0
        case HookStage.gate:
            return is_progressing and progress.is_ready_to_promote(state, rollout, now)
        case HookStage.after:
            return not is_progressing and progress.is_watch_over(state, rollout, now)


def _remembered(state: EndpointState, run: HookRun) -> EndpointState:
    """Note what was begun for the revision, so that it is not begun again by another rollout.

    A task counts as begun when it is wanted: nobody may hear of its start.
    """
    known = state.hooks_begun
    revision = moves.under_way(state).revision
    begun = dict(known.get(revision, {}))
    if run.phase is HookPhase.waiting or (run.phase is HookPhase.wanted and not run.group):
        return state
    if run.phase is HookPhase.failed and not run.has_begun:
        begun.pop(run.name, None)
    else:
        begun[run.name] = run.phase is HookPhase.succeeded
    if begun == known.get(revision, {}):
        return state
    others = {one: names for one, names in known.items() if one != revision}
    newest = list(others.items())[-REMEMBERED:]
    return state.but(hooks_begun={**dict(newest), revision: begun})


def _question(run: HookRun) -> str:
    return (
        f"Hook {run.name} has begun, and nobody knows how it ended: {run.note}. `resume` takes it "
        f"as done, `retry` does it again, `abort` goes back."
    )
