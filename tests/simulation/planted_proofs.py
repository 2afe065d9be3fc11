"""Bugs that somebody could write into gates, hooks and smoke; see `planted`."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from simulation import oracles, proof_oracles
from simulation.planted import Planted

from trafficmgr.core import events, hooks, moves, progress, publishing, rollout, smoke
from trafficmgr.core.commands import AskSmoke
from trafficmgr.core.gating import HookPhase, HookRun, HookStage
from trafficmgr.core.model import Group, Rollout
from trafficmgr.core.routing import Share
from trafficmgr.core.state import EndpointState

# -- gates ----------------------------------------------------------------------------------------


def any_verdict_counts() -> AbstractContextManager[Any]:
    """A verdict on an earlier stage is taken for one on the present."""
    right = rollout.EVENT_TABLE[events.GateJudged]

    def wrong(state: EndpointState, event: events.GateJudged) -> EndpointState:
        on = state.rollout
        if on is None:
            return state
        return right(
            state,
            events.GateJudged(
                at=event.at,
                endpoint=event.endpoint,
                rollout=event.rollout,
                stage=on.stage,
                verdict=event.verdict,
            ),
        )

    return patch.dict(rollout.EVENT_TABLE, {events.GateJudged: wrong})


def waived_for_good() -> AbstractContextManager[Any]:
    """A stage that an operator ended opens all that follow."""
    right = moves.stepped

    def wrong(on: Rollout, now: float) -> Rollout:
        return right(on, now).but(is_waived=on.is_waived)

    return patch.object(moves, "stepped", wrong)


def failure_waits_for_the_hold() -> AbstractContextManager[Any]:
    """What a gate condemns is looked at when its step is over."""

    def wrong(state: EndpointState, now: float) -> EndpointState:
        on = state.rollout
        is_holding = on is not None and on.hold is not None and on.hold.left_at(now) > 0
        return state if is_holding else progress.heed(state, now)

    rules = tuple(wrong if rule is progress.heed else rule for rule in rollout.DECISIONS)
    return patch.object(rollout, "DECISIONS", rules)


def checkpoint_lost_on_restart() -> AbstractContextManager[Any]:
    """A new controller begins to count anew, and alpha is spent twice."""
    right = rollout.EVENT_TABLE[events.ControllerStarted]

    def wrong(state: EndpointState, event: events.ControllerStarted) -> EndpointState:
        started = right(state, event)
        on = started.rollout
        return started if on is None else started.but(rollout=on.but(evidence=None))

    return patch.dict(rollout.EVENT_TABLE, {events.ControllerStarted: wrong})


# -- hooks ----------------------------------------------------------------------------------------


def hook_is_forgotten() -> AbstractContextManager[Any]:
    """What was begun is known to its rollout only; after a supersede it is done again."""

    def wrong(state: EndpointState, _run: HookRun) -> EndpointState:
        return state

    return patch.object(hooks, "_remembered", wrong)


def call_is_made_again() -> AbstractContextManager[Any]:
    """A call of which the controller before did not hear the answer is made by the next one."""
    right = hooks.controller_started

    def wrong(state: EndpointState, now: float) -> EndpointState:
        on = state.rollout
        if on is not None:
            wanted = [
                run.but(phase=HookPhase.wanted)
                if run.phase is HookPhase.running and not run.group
                else run
                for run in on.hooks
            ]
            state = state.but(rollout=on.but(hooks=tuple(wanted)))
        return right(state, now)

    return patch.object(hooks, "controller_started", wrong)


def warm_groups_skip_before_hooks() -> AbstractContextManager[Any]:
    """A candidate that is warm has its groups already, so nothing comes before them."""
    right = progress.is_stage_over

    def wrong(state: EndpointState, on: Rollout, now: float) -> bool:
        is_warm = bool(state.ready(on.revision))
        return right(state, on.but(hooks=()) if is_warm else on, now)

    return patch.object(progress, "is_stage_over", wrong)


def preview_comes_first() -> AbstractContextManager[Any]:
    """Whatever is ready of the candidate is shown at once."""

    def wrong(state: EndpointState) -> Share | None:
        revision = smoke.revision_of(state)
        ready = state.ready(revision)
        return publishing._share(state, revision, 100, ready) if ready else None

    return patch.object(publishing, "_preview", wrong)


def failed_hook_is_over() -> AbstractContextManager[Any]:
    """A hook that failed is one that nobody waits for any more."""

    def wrong(_on: Rollout, run: HookRun) -> bool:
        return run.is_over

    return patch.object(Rollout, "is_done_with", wrong)


def promotion_waits_for_no_hook() -> AbstractContextManager[Any]:
    """When the last step is over it is promoted, whatever its last hooks say."""
    right = Rollout.is_done

    def wrong(on: Rollout, stage: HookStage) -> bool:
        return stage is HookStage.gate or right(on, stage)

    return patch.object(Rollout, "is_done", wrong)


def irreversible_goes_back() -> AbstractContextManager[Any]:
    """Nobody looks at what can't be undone."""
    return patch.object(Rollout, "irreversible", "")


def hook_blocks_an_abort() -> AbstractContextManager[Any]:
    """An abort waits until the hook that is being done has ended."""
    right = rollout.EVENT_TABLE[events.AbortAsked]

    def wrong(state: EndpointState, event: events.AbortAsked) -> EndpointState:
        is_hooked = state.rollout is not None and state.rollout.is_hooked
        return state if is_hooked else right(state, event)

    return patch.dict(rollout.EVENT_TABLE, {events.AbortAsked: wrong})


def task_outlives_an_abort() -> AbstractContextManager[Any]:
    """A task that was begun is left to come to its end."""
    right = hooks.needed_groups

    def wrong(state: EndpointState) -> set[str]:
        return right(state) | {g.id for g in state.groups if g.hook and not g.is_retiring}

    return patch.object(hooks, "needed_groups", wrong)


def hook_hangs_for_ever() -> AbstractContextManager[Any]:
    """Nobody looks at the clock while a hook is being done."""
    right = hooks._running

    def wrong(state: EndpointState, run: HookRun, now: float) -> HookRun:
        return right(state, run, now).but(until=None)

    return patch.object(hooks, "_running", wrong)


def absence_counts_as_hanging() -> AbstractContextManager[Any]:
    """A task of which nobody hears, because the engine is away, runs out of time."""
    right = hooks._followed

    def wrong(state: EndpointState, run: HookRun, now: float) -> HookRun:
        return right(state.but(is_engine_away=False), run, now)

    return patch.object(hooks, "_followed", wrong)


def task_is_a_replica() -> AbstractContextManager[Any]:
    """The group of a task counts as any other of its revision."""

    def live(state: EndpointState, revision: str) -> list[Group]:
        return [g for g in state.groups if g.revision == revision and not g.is_retiring]

    def ready(state: EndpointState, revision: str) -> list[Group]:
        return [g for g in live(state, revision) if g.is_ready]

    return patch.multiple(EndpointState, live=live, ready=ready)


# -- smoke, questions, clients --------------------------------------------------------------------


def rehearsal_is_cut_short() -> AbstractContextManager[Any]:
    """The way forth was seen, so the way back must be fine."""

    def wrong(_on: Rollout) -> int:
        return 1

    return patch.object(smoke, "legs", wrong)


def smoke_meets_old_tables() -> AbstractContextManager[Any]:
    """The requests are sent before every worker serves the preview."""
    right = smoke.wanted

    def wrong(state: EndpointState) -> Iterator[AskSmoke]:
        new = state.table.generation
        slots = tuple(slot.but(is_present=True, applied=new) for slot in state.slots)
        return right(state.but(slots=slots))

    return patch.object(smoke, "wanted", wrong)


def late_pass_answers() -> AbstractContextManager[Any]:
    """Gates that have seen enough at last let a rollout go on that asks an operator."""
    right = rollout.EVENT_TABLE[events.GateJudged]

    def wrong(state: EndpointState, event: events.GateJudged) -> EndpointState:
        judged = right(state, event)
        on = judged.rollout
        if on is None or not on.question or on.open_gates:
            return judged
        return judged.but(rollout=on.but(questions={}, is_paused=False))

    return patch.dict(rollout.EVENT_TABLE, {events.GateJudged: wrong})


def clients_dealt_anew_with_each_step() -> AbstractContextManager[Any]:
    """The step goes into the bucket of a client."""
    right = publishing._salt

    def wrong(state: EndpointState) -> str:
        salt = right(state)
        return f"{salt}-{state.rollout.step}" if salt and state.rollout is not None else salt

    return patch.object(publishing, "_salt", wrong)


BUGS = (
    Planted(any_verdict_counts, proof_oracles.gates_hold_the_step.__name__),
    Planted(waived_for_good, proof_oracles.gates_hold_the_step.__name__),
    Planted(failure_waits_for_the_hold, proof_oracles.failure_goes_back.__name__),
    Planted(checkpoint_lost_on_restart, proof_oracles.checkpoint_is_kept.__name__),
    Planted(hook_is_forgotten, proof_oracles.hook_begins_once.__name__),
    Planted(call_is_made_again, proof_oracles.hook_begins_once.__name__),
    Planted(warm_groups_skip_before_hooks, proof_oracles.before_hooks_come_first.__name__),
    Planted(preview_comes_first, proof_oracles.before_hooks_come_first.__name__),
    Planted(failed_hook_is_over, proof_oracles.groups_wait_for_before_hooks.__name__),
    Planted(promotion_waits_for_no_hook, proof_oracles.gate_hooks_come_first.__name__),
    Planted(irreversible_goes_back, proof_oracles.irreversible_stays.__name__),
    Planted(hook_blocks_an_abort, oracles.abort_has_no_precondition.__name__),
    Planted(task_outlives_an_abort, proof_oracles.abort_ends_hooks.__name__),
    Planted(hook_hangs_for_ever, "it_settles"),
    Planted(absence_counts_as_hanging, oracles.unknown_is_not_failed.__name__),
    Planted(task_is_a_replica, proof_oracles.task_is_no_replica.__name__),
    Planted(rehearsal_is_cut_short, proof_oracles.smoke_comes_first.__name__),
    Planted(smoke_meets_old_tables, proof_oracles.smoke_meets_the_preview.__name__),
    Planted(late_pass_answers, proof_oracles.question_waits_for_an_answer.__name__),
    Planted(clients_dealt_anew_with_each_step, proof_oracles.client_moves_once.__name__),
)
