"""How an endpoint moves from one revision to another. This is the page to read first.

Theory of operation
===================

An endpoint has at most three revisions with a role. **stable** carries it, **candidate** is being
rolled out, **previous** is kept warm and whole after a promotion. The registry shows a **newest**
one. All that happens follows from one wish: that stable becomes newest, if newest proves itself.

A rollout goes through these phases; the right column is what ends each:

    progressing   step -1: its first hooks are done             all of them succeeded
                           the candidate starts, no traffic     all its groups available
                           smoke: requests to its preview       all answered as they should be
                  step 0..n: its weight rises step by step      hold over, capacity for more, and
                                                                every gate of the step passed
                           its last hooks are done              all of them succeeded
    promoting     it is stable now; old stable is kept warm     `watch` over, hooks after it done
    completed     (end)
    aborting      traffic is back on stable, candidate retires  its last group stopped
    aborted       (end; the revision is in quarantine)
    superseded    (end; a newer revision came, or stable's tag came back)

A step with `pause` and an operator's `pause` both hold a rollout where it is, clocks halted, until
`promote` or `resume`; health is heeded all the while. A step of weight 0 is a preview: blue-green
is nothing but a preview and then everything. A rollback is a rollout without steps to the revision
before; if that is still warm it is over at once, and it is never rolled back itself.

Three clocks, each a `Countdown`, decide what time alone decides:

* The **hold** of a step runs while the candidate can carry the step's weight with groups that have
  been ready for `min_ready`, and halts while it can't. Losing health therefore never advances a
  rollout (promise 3), and flapping does not add up.
* The **deadline** runs whenever the hold does not, unless it can't be known whether a group can
  start (promise 12). It starts anew with each new maximum of ready groups and each new step; a
  crash loop reaches no new maximum, so it can't hide (promise 7).
* The **watch** after promotion reuses the hold. While it runs, stable losing all its health, or
  part of it for longer than the deadline, sends traffic back to the warm previous.

What a revision must prove besides its health is in `gating`: a gate, hook or smoke that fails sends
traffic back, unless a hook was begun that can't be undone: then the rollout asks an operator, as it
does when it can't know how a hook ended, or when a gate has not seen enough within `max_hold`.

Nothing that happens by itself takes away the last groups that serve: neither deadline nor newer
revision, as long as stable has nobody ready (promise 9, docs/decisions/0009).

Abort and supersede only take the role away (promise 2). Everything else follows from rules that
hold at all times: groups without a role retire (`replicas`), the table holds what has a role, a
weight and health (`publishing`), and a withdrawn group stops when nobody can reach it any more
(`retirement`). Promotion moves the name `stable` and nothing else (promise 5).

How it is written down
======================

`evolve` is a fold: the event table says what an event changes by itself, then the rules of
decision run, in order, until none of them changes anything, and their consequences are drawn.
`decide` names everything that is still wanted, each time anew. `wake_at` is the first moment at
which time alone will change something. None of them knows a clock: `event.at` and `now` come in.
`tests/scenarios/*.txt` show whole histories.
"""

from collections.abc import Callable
from math import inf
from typing import Any

from trafficmgr.core import (
    clocks,
    events,
    hooks,
    moves,
    operator,
    progress,
    publishing,
    replicas,
    restart,
    smoke,
    wishes,
)
from trafficmgr.core.commands import AnyCommand
from trafficmgr.core.gating import HookPhase, HookStage
from trafficmgr.core.model import OnNewer, RolloutPhase
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import short

Rules = tuple[Callable[[EndpointState, float], EndpointState], ...]

# -- the three questions --------------------------------------------------------------------------


def evolve(
    state: EndpointState, event: events.Event, *, quiet_until: float = -inf
) -> EndpointState:
    """Return the state after one more event; the same object if nothing changed.

    `quiet_until` is what `wake_at` said of this state, if the caller remembers it. Before it time
    changes nothing, so an event that changes nothing by itself needs no rule, and one that only
    keeps the books of retirement needs the rules that read them. It makes this faster and never
    different: the simulator compares.
    """
    noted = EVENT_TABLE[type(event)](state, event)
    if event.at < quiet_until and (noted is state or type(event) in KEEPS_BOOKS):
        settled = _round(noted, event.at, BOOK_RULES)
    else:
        settled = _settled(noted, event.at)
    return state if settled == state else settled


def decide(state: EndpointState) -> tuple[AnyCommand, ...]:
    """Return everything that is still wanted. Saying it again does no harm."""
    return tuple(wishes.wanted(state))


def wake_at(state: EndpointState, settled_at: float) -> float | None:
    """Return the first moment after `settled_at` at which time alone changes something.

    `settled_at` is the time of the last event that was folded in, not the time that it is now:
    a moment that passed in between has still to be acted upon. It may therefore lie in the past.
    """
    moments = [at for at in wishes.moments(state, settled_at) if at is not None and at > settled_at]
    return min(moments, default=None)


# -- events: what each changes by itself ----------------------------------------------------------


def _settings_applied(state: EndpointState, event: events.SettingsApplied) -> EndpointState:
    """Another number of replicas in the config takes back what an operator had said."""
    is_same = event.settings.replicas == state.settings.replicas
    scaled_to = state.scaled_to if is_same else None
    return state.but(settings=event.settings, is_removed=False, scaled_to=scaled_to)


def _endpoint_removed(state: EndpointState, _event: events.EndpointRemoved) -> EndpointState:
    return state.but(is_removed=True)


def _revision_seen(state: EndpointState, event: events.RevisionSeen) -> EndpointState:
    """Take note of what the registry shows; with `on_newer: ignore` a rollout is deaf to it."""
    seen = event.revision.id
    known = {seen: event.revision, **state.revisions}
    rollout = state.rollout
    is_deaf = (
        rollout is not None
        and rollout.is_undecided
        and rollout.settings.on_newer is OnNewer.ignore
        and seen != rollout.revision
    )
    if is_deaf or seen == state.ignored:
        return state.but(ignored=seen, revisions=known)
    return state.but(newest=seen, ignored="", revisions=known)


def _woke(state: EndpointState, _event: events.Woke) -> EndpointState:
    return state


EVENT_TABLE: dict[type[events.Event], Callable[[EndpointState, Any], EndpointState]] = {
    events.ControllerStarted: restart.controller_started,
    events.SettingsApplied: _settings_applied,
    events.EndpointRemoved: _endpoint_removed,
    events.RevisionSeen: _revision_seen,
    events.EngineLost: replicas.engine_lost,
    events.EngineFound: replicas.engine_found,
    events.WorkerStarted: publishing.worker_started,
    events.WorkerConnected: publishing.worker_connected,
    events.WorkerEnded: publishing.worker_ended,
    events.TableApplied: publishing.table_applied,
    events.GroupStarted: replicas.group_started,
    events.GroupStartDelayed: replicas.group_start_delayed,
    events.GroupStartFailed: replicas.group_lost,
    events.GroupReady: replicas.group_ready,
    events.GroupUnready: replicas.group_unready,
    events.GroupEnded: replicas.group_lost,
    events.GroupCompleted: replicas.group_completed,
    events.GroupStopped: replicas.group_stopped,
    events.DirectClientsGone: publishing.direct_clients_gone,
    events.GateJudged: progress.gate_judged,
    events.EvidenceKept: progress.evidence_kept,
    events.HookStarted: hooks.hook_started,
    events.HookEnded: hooks.hook_ended,
    events.SmokeEnded: smoke.smoke_ended,
    events.PromoteAsked: operator.promote_asked,
    events.PauseAsked: operator.pause_asked,
    events.ResumeAsked: operator.resume_asked,
    events.AbortAsked: operator.abort_asked,
    events.RollbackAsked: operator.rollback_asked,
    events.RetryAsked: operator.retry_asked,
    events.ScaleAsked: operator.scale_asked,
    events.HoldAsked: operator.hold_asked,
    events.ReleaseAsked: operator.release_asked,
    events.Woke: _woke,
}

KEEPS_BOOKS = frozenset(
    {
        events.WorkerStarted,
        events.WorkerConnected,
        events.WorkerEnded,
        events.TableApplied,
        events.DirectClientsGone,
        events.EvidenceKept,
    }
)
"""Events that say who may still reach a group or what was counted, and nothing of what follows."""


# -- rules: what follows at all times -------------------------------------------------------------


def _settled(state: EndpointState, now: float) -> EndpointState:
    """Decide until a whole round of rules changes nothing more, then draw the consequences once."""
    for _ in range(100):  # a long schedule needs a few rounds
        before, state = state, _round(state, now, DECISIONS)
        if state is before:
            return _round(state, now, CONSEQUENCES)
    raise AssertionError(f"the rules do not settle: {state}")


def _round(state: EndpointState, now: float, rules: Rules) -> EndpointState:
    for rule in rules:
        state = rule(state, now)
    return state


def _leave(state: EndpointState, now: float) -> EndpointState:
    """A removed endpoint gives up everything."""
    if not state.is_removed or not (state.stable or state.candidate or state.previous):
        return state
    rollout = state.rollout
    if rollout is not None and not rollout.is_over:
        state = moves.end(state, now, RolloutPhase.superseded, "the endpoint was removed")
    return state.but(stable="", candidate="", previous="", last_good="")


def _supersede(state: EndpointState, now: float) -> EndpointState:
    """A newer revision came: traffic back to stable at once, the half-way candidate retires.

    The very first revision has no stable to go back to: if it serves anybody, it is stable now.
    """
    rollout = state.rollout
    if rollout is None or rollout.phase is not RolloutPhase.progressing:
        return state
    if rollout.settings.on_newer is not OnNewer.supersede or state.newest == rollout.revision:
        return state
    if rollout.is_rollback and state.newest in {state.stable, *state.quarantined}:
        return state  # that is what it goes back from
    if not state.stable and state.serves(state.candidate):
        return state if rollout.questions else moves.promote(state, now)
    if rollout.irreversible or any(run.phase is HookPhase.running for run in rollout.hooks):
        return state  # it can't go back by itself; and a hook is not broken off for this
    why = f"{short(state.newest)} came"
    return moves.end(state.but(candidate=""), now, RolloutPhase.superseded, why)


def _begin(state: EndpointState, now: float) -> EndpointState:
    """Start a rollout if newest should become stable, and there is room for it."""
    newest = state.newest
    if not moves.wants_rollout(state):
        return state
    running = {g.revision for g in state.groups} | {newest}
    if len(running) > state.settings.max_revisions:
        # a warm previous is given up first; after that newest waits for others to drain
        return state.but(previous="") if state.previous else state
    if state.stable and not state.is_admitted:
        return state
    return moves.begin(state, now, newest)


def _advance(state: EndpointState, now: float) -> EndpointState:
    """Take the next step when the present one is over, or promote when its hooks are done."""
    rollout = state.rollout
    if rollout is None or not progress.is_stage_over(state, rollout, now):
        return state
    if not progress.is_ready_to_promote(state, rollout, now):
        return state.but(rollout=moves.stepped(rollout, now))
    return moves.promote(state, now) if rollout.is_done(HookStage.gate) else state


def _complete(state: EndpointState, now: float) -> EndpointState:
    """The watch is over, or cut short by a newer revision, or pointless: there is no way back."""
    rollout = state.rollout
    if rollout is None or not progress.is_watch_over(state, rollout, now):
        return state
    if not rollout.is_done(HookStage.after):
        return state
    is_lost = progress.is_lost(rollout, now)
    why = "its groups are not all ready, and there is nothing to go back to" if is_lost else ""
    return moves.end(state, now, RolloutPhase.completed, why)


def _give_up(state: EndpointState, now: float) -> EndpointState:
    """Abort what makes no progress, and what lost its health after it was promoted."""
    rollout = state.rollout
    if rollout is None or not rollout.is_undecided or state.is_engine_away:
        return state
    is_overdue = rollout.deadline.left_at(now) <= 0
    if rollout.phase is RolloutPhase.progressing and not is_overdue:
        return state
    ready = len(state.ready(rollout.revision))
    if rollout.phase is RolloutPhase.promoting and ready == 0 and progress.can_go_back(state):
        return progress.fall_back(state, now, "no group of it is ready any more")
    if not is_overdue or not progress.can_go_back(state):
        return state
    wanted = clocks.candidate_groups(state, now)
    said = "smoke had no answer" if rollout.is_smoking else f"{ready} of {wanted} groups ready"
    deadline_s = clocks.deadline_s(rollout)
    return progress.fall_back(state, now, f"{said}, and no progress for {deadline_s:g}s")


def _finish_abort(state: EndpointState, now: float) -> EndpointState:
    rollout = state.rollout
    if rollout is None or rollout.phase is not RolloutPhase.aborting:
        return state
    if any(g.revision == rollout.revision for g in state.groups):
        return state
    return moves.end(state, now, RolloutPhase.aborted, rollout.reason)


def _release_previous(state: EndpointState, now: float) -> EndpointState:
    """Give up the warm previous when its time is over, but never during the watch."""
    is_watched = state.rollout is not None and state.rollout.phase is RolloutPhase.promoting
    if not state.previous or is_watched or now < state.previous_until:
        return state
    return state.but(previous="")


DECISIONS: Rules = (
    _leave,
    hooks.follow,
    hooks.settle,
    _supersede,
    clocks.keep,
    progress.heed,
    progress.lose_patience,
    _give_up,
    smoke.begin,
    hooks.start,
    _advance,
    _complete,
    _finish_abort,
    _release_previous,
    _begin,
    replicas.retire_unwanted,
    replicas.fill,
    replicas.end_waits,
)
"""What each revision is and how many groups it has; any of them may wake any other."""

CONSEQUENCES: Rules = (
    publishing.publish,
    replicas.stop_retired,
    publishing.fence,
    replicas.forget,
)
"""What follows from that. None of them changes what a decision or one before it looks at."""

BOOK_RULES: Rules = (replicas.stop_retired, publishing.fence)
"""The consequences that read the books of retirement."""
