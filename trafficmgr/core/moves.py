"""The moves of a rollout: begin, step, promote, abort, end.

Each says what a move changes and nothing about when it is made: that is for the rules in
`rollout` and for the operator. None of them touches a group or a table; these follow by rules.
"""

from trafficmgr.core import clocks
from trafficmgr.core.gating import Gates, Hook, HookPhase, HookRun, HookStage
from trafficmgr.core.model import Countdown, EndpointSettings, Mark, Rollout, RolloutPhase
from trafficmgr.core.schedule import WHOLE_PCT
from trafficmgr.core.state import EndpointState

HISTORY_LENGTH = 20
"""Finished rollouts kept in the state; the journal keeps the events of all."""


def under_way(state: EndpointState) -> Rollout:
    """Return the rollout, which callers know to be there."""
    assert state.rollout is not None, state  # noqa: S101  callers have checked
    return state.rollout


def wants_rollout(state: EndpointState) -> bool:
    """Whether newest should become stable and no other rollout is in the way."""
    if state.is_removed or state.candidate:
        return False
    if state.newest in {"", state.stable, *state.quarantined}:
        return False
    return state.rollout is None or state.rollout.phase is not RolloutPhase.promoting


def begin(
    state: EndpointState, now: float, revision: str, *, is_rollback: bool = False
) -> EndpointState:
    """Give a revision the role of the candidate. Groups of it that are warm are its own."""
    if state.rollout is not None and state.rollout.phase is RolloutPhase.aborting:
        state = end(state, now, RolloutPhase.aborted, state.rollout.reason)
    settings = _asked_of(state, is_rollback=is_rollback)
    begun = state.rollouts_begun + 1
    rollout = Rollout(
        id=f"{state.name}-r{begun}",
        origin=state.stable,
        revision=revision,
        settings=settings,
        hooks=tuple(_hook_run(state, revision, hook) for hook in settings.hooks),
        started_at=now,
        deadline=Countdown(left_s=state.settings.deadline_s),
        is_rollback=is_rollback,
        marks=(Mark(at=now, what="rollback started" if is_rollback else "started"),),
    )
    previous = "" if state.previous == revision else state.previous
    return state.but(candidate=revision, previous=previous, rollout=rollout, rollouts_begun=begun)


def _asked_of(state: EndpointState, *, is_rollback: bool) -> EndpointSettings:
    """Return what a rollout is held to: one that nobody could be spared from has no steps."""
    settings = state.settings
    if state.stable and not is_rollback:
        return settings
    hooks = tuple(h for h in settings.hooks if h.stage is not HookStage.gate and not is_rollback)
    return settings.but(steps=(), gates=Gates(), smoke=None, hooks=hooks)


def _hook_run(state: EndpointState, revision: str, hook: Hook) -> HookRun:
    """Return a hook as a rollout finds it: done for the revision before, or begun, or neither."""
    begun = state.hooks_begun.get(revision, {})
    if hook.name not in begun:
        return HookRun(name=hook.name)
    if begun[hook.name]:
        note = "it was done for this revision before"
        return HookRun(name=hook.name, phase=HookPhase.succeeded, began_at=0.0, note=note)
    note = "an earlier rollout of this revision ended meanwhile"
    return HookRun(name=hook.name, phase=HookPhase.unknown, began_at=0.0, note=note)


def stepped(rollout: Rollout, now: float) -> Rollout:
    """Take the next step. One that pauses has no hold: only `promote` ends it."""
    taken = rollout.but(step=rollout.step + 1)
    step = taken.settings.steps[taken.step]
    hold = None if step.pause else Countdown(left_s=step.hold_s)
    what = "step" if step.weight_pct else "preview"
    taken = taken.but(
        hold=hold,
        deadline=clocks.fresh_deadline(taken),
        verdicts=(),
        patience=clocks.fresh_patience(taken),
        is_waived=False,
    )
    return marked(taken, now, what, step.weight_pct)


def promote(state: EndpointState, now: float) -> EndpointState:
    """Flip the pointer: the candidate becomes stable as it runs (promise 5).

    What was stable stays warm and can be gone back to, except after a rollback: that is never
    rolled back.
    """
    rollout = under_way(state)
    settings = rollout.settings
    is_final = rollout.is_rollback or not state.stable
    promoted = marked(rollout, now, "promoted", WHOLE_PCT).but(
        phase=RolloutPhase.promoting,
        deadline=clocks.fresh_deadline(rollout),
        hold=Countdown(left_s=0.0 if is_final else settings.watch_s),
        verdicts=(),
        patience=None,
        is_waived=False,
        is_paused=False,
        questions={},
    )
    return state.but(
        stable=state.candidate,
        candidate="",
        previous="" if is_final else state.stable,
        previous_until=now + max(settings.keep_previous_s, settings.watch_s),
        last_good="" if is_final else state.stable,
        rollout=promoted,
    )


def abort(state: EndpointState, now: float, reason: str) -> EndpointState:
    """Take the role away; it needs nothing of the revision that lost it (promise 2)."""
    rollout = under_way(state)
    notes = [g.note for g in state.live(rollout.revision) if g.note]
    lost = state.backoff.get(rollout.revision)
    note = notes[-1] if notes else lost.note if lost is not None else ""
    reason = f"{reason} ({note})" if note else reason
    aborting = marked(rollout, now, "aborting").but(
        phase=RolloutPhase.aborting,
        reason=reason,
        hold=None,
        patience=None,
        is_paused=False,
        questions={},
    )
    if rollout.phase is RolloutPhase.promoting:
        state = state.but(stable=state.previous, previous="", last_good="")
    return state.but(
        candidate="",
        rollout=aborting,
        quarantined={**state.quarantined, rollout.revision: reason},
    )


def ask(state: EndpointState, now: float, about: str, question: str) -> EndpointState:
    """Hold the rollout where it is until an operator says what shall become of it.

    What comes up while it asks already is asked as well: an answer is to all that was asked.
    """
    rollout = under_way(state)
    if about in rollout.questions:
        return state
    asked = rollout if rollout.questions else marked(rollout, now, "paused by itself")
    questions = {**rollout.questions, about: question}
    return state.but(rollout=asked.but(is_paused=True, questions=questions))


def end(state: EndpointState, now: float, phase: RolloutPhase, reason: str) -> EndpointState:
    """Close the book of a rollout."""
    ended = marked(under_way(state), now, phase.value).but(
        phase=phase,
        reason=reason,
        ended_at=now,
        hold=None,
        patience=None,
        evidence=None,
        is_paused=False,
        questions={},
    )
    return state.but(rollout=ended, history=(*state.history, ended)[-HISTORY_LENGTH:])


def marked(rollout: Rollout, now: float, what: str, weight_pct: int = 0) -> Rollout:
    """Write down what the rollout did, for the people who read its history."""
    return rollout.but(marks=(*rollout.marks, Mark(at=now, what=what, weight_pct=weight_pct)))
