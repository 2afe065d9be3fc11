"""What an operator may ask for: when it is possible, what it does, and the sentence if it is not.

`TABLE` is the whole of it: a verb, where the endpoint stands, and what happens then. It is the
documentation (docs/operations.md is made of it) and the rule: what begins with "Refused: " is
refused with the words that follow, everywhere and by everybody.
"""

from enum import StrEnum

from trafficmgr.core import clocks, hooks, moves
from trafficmgr.core.events import (
    AbortAsked,
    HoldAsked,
    PauseAsked,
    PromoteAsked,
    ReleaseAsked,
    ResumeAsked,
    RetryAsked,
    RollbackAsked,
    ScaleAsked,
)
from trafficmgr.core.model import Countdown, Rollout, RolloutPhase
from trafficmgr.core.state import EndpointState

REFUSED = "Refused: "


class Standing(StrEnum):
    """Where an endpoint stands, as far as an operator's verbs are concerned."""

    removed = "removed"
    idle = "idle"
    starting = "starting"
    stepping = "stepping"
    paused = "paused"
    promoting = "promoting"
    aborting = "aborting"


class Verb(StrEnum):
    """What an operator can ask for."""

    promote = "promote"
    promote_full = "promote --full"
    pause = "pause"
    resume = "resume"
    abort = "abort"
    rollback = "rollback"
    retry = "retry"
    scale = "scale"
    hold = "hold"
    release = "release"


_NO_ROLLOUT = REFUSED + "no rollout is under way."
_REMOVED = REFUSED + "the endpoint is being removed."
_NOT_READY = REFUSED + "the candidate's groups are not ready yet; wait until they are."
_IS_ABORTING = REFUSED + "the rollout is being aborted already."
_USE_ABORT = REFUSED + "a rollout is under way; `abort` undoes it."
_NOTHING_PAUSED = REFUSED + "nothing is paused."
_SCALES = "The number of groups changes now; a candidate's too."
_HOLDS = "Requests wait in the proxy, for up to `http.hold.timeout`, until `release`."
_RELEASES = "Requests that wait are served, and no other has to."
_GOES_ON = (
    "The hold ends, and no gate is waited for; the next step comes as soon as its groups are ready."
)
_RESUMES = (
    "Hold and deadline go on from where they stood. A question is answered: go on; a gate gets as "
    "much time again."
)
_RETRIES = (
    "The newest revision is tried again if it is in quarantine or was ignored; a hook that nobody "
    "knows the end of is done again."
)

TABLE: dict[Verb, dict[Standing, str]] = {
    Verb.promote: {
        Standing.removed: _REMOVED,
        Standing.idle: _NO_ROLLOUT,
        Standing.starting: _NOT_READY,
        Standing.stepping: _GOES_ON,
        Standing.paused: "The pause ends, and the hold with it. A question is answered: go on.",
        Standing.promoting: "The watch ends; the rollout is complete.",
        Standing.aborting: _IS_ABORTING,
    },
    Verb.promote_full: {
        Standing.removed: _REMOVED,
        Standing.idle: _NO_ROLLOUT,
        Standing.starting: _NOT_READY,
        Standing.stepping: "All steps that are left are skipped; all groups must be ready.",
        Standing.paused: "The pause ends, and all steps that are left are skipped.",
        Standing.promoting: "The watch ends; the rollout is complete.",
        Standing.aborting: _IS_ABORTING,
    },
    Verb.pause: {
        Standing.removed: _REMOVED,
        Standing.idle: _NO_ROLLOUT,
        Standing.starting: "Groups go on starting; no step is taken and no deadline runs.",
        Standing.stepping: "The weight stays; hold and deadline stand still.",
        Standing.paused: REFUSED + "the rollout is paused already.",
        Standing.promoting: REFUSED + "the revision is stable already and only watched.",
        Standing.aborting: _IS_ABORTING,
    },
    Verb.resume: {
        Standing.removed: _REMOVED,
        Standing.idle: _NO_ROLLOUT,
        Standing.starting: _NOTHING_PAUSED,
        Standing.stepping: _NOTHING_PAUSED,
        Standing.paused: _RESUMES,
        Standing.promoting: _NOTHING_PAUSED,
        Standing.aborting: _IS_ABORTING,
    },
    Verb.abort: {
        Standing.removed: _REMOVED,
        Standing.idle: REFUSED + "no rollout is under way; `rollback` undoes the last one.",
        Standing.starting: "The candidate is given up and goes into quarantine.",
        Standing.stepping: "Traffic goes back to stable at once; the candidate is quarantined.",
        Standing.paused: "Traffic goes back to stable at once; the candidate is quarantined.",
        Standing.promoting: "Traffic goes back to the revision before as soon as it is ready.",
        Standing.aborting: _IS_ABORTING,
    },
    Verb.rollback: {
        Standing.removed: _REMOVED,
        Standing.idle: "The revision before becomes stable: at once if it is warm, else started.",
        Standing.starting: _USE_ABORT,
        Standing.stepping: _USE_ABORT,
        Standing.paused: _USE_ABORT,
        Standing.promoting: _USE_ABORT,
        Standing.aborting: _IS_ABORTING,
    },
    Verb.retry: {
        Standing.removed: _REMOVED,
        Standing.idle: _RETRIES,
        Standing.starting: _RETRIES,
        Standing.stepping: _RETRIES,
        Standing.paused: _RETRIES,
        Standing.promoting: _RETRIES,
        Standing.aborting: _RETRIES,
    },
    Verb.scale: {
        Standing.removed: _REMOVED,
        Standing.idle: _SCALES,
        Standing.starting: _SCALES,
        Standing.stepping: _SCALES,
        Standing.paused: _SCALES,
        Standing.promoting: _SCALES,
        Standing.aborting: _SCALES,
    },
    Verb.hold: {
        Standing.removed: _REMOVED,
        **dict.fromkeys([one for one in Standing if one is not Standing.removed], _HOLDS),
    },
    Verb.release: {
        Standing.removed: _REMOVED,
        **dict.fromkeys([one for one in Standing if one is not Standing.removed], _RELEASES),
    },
}


def standing(state: EndpointState) -> Standing:
    """Return where an endpoint stands."""
    rollout = state.rollout
    if state.is_removed:
        return Standing.removed
    if rollout is None or rollout.is_over:
        return Standing.idle
    if rollout.phase is RolloutPhase.aborting:
        return Standing.aborting
    if rollout.is_paused or rollout.is_held:
        return Standing.paused
    if rollout.phase is RolloutPhase.promoting:
        return Standing.promoting
    return Standing.starting if rollout.step < 0 else Standing.stepping


def why_not(verb: Verb, state: EndpointState) -> str:
    """Return why a verb is not possible now, as a sentence; "" if it is."""
    says = TABLE[verb][standing(state)]
    if not says.startswith(REFUSED):
        says = REFUSED + _misses(verb, state)
    why = says.removeprefix(REFUSED)
    return f"{state.name}: {why}" if why else ""


def _misses(verb: Verb, state: EndpointState) -> str:
    """Return what the standing does not tell and yet is missing for a verb; "" if nothing is."""
    rollout = state.rollout
    is_promoted = rollout is not None and rollout.phase is RolloutPhase.promoting
    is_to_undo = verb is Verb.rollback or is_promoted
    goes_back_to = state.last_good if verb is Verb.rollback else state.previous
    why = ""
    match verb:
        case Verb.rollback | Verb.abort if is_to_undo and goes_back_to in {"", state.stable}:
            why = "there is no revision before this one to go back to."
        case Verb.retry if not _can_retry(state):
            why = "nothing is in quarantine or ignored that could be tried again."
        case Verb.hold if state.is_held:
            why = "its requests are held already."
        case Verb.release if not state.is_held:
            why = "its requests are not held."
        case Verb.resume if rollout is not None and not rollout.is_paused:
            why = "this step waits for `promote`."
        case Verb.promote | Verb.promote_full if rollout is not None and rollout.step < 0:
            is_progressing = rollout.phase is RolloutPhase.progressing
            why = _NOT_READY.removeprefix(REFUSED) if is_progressing else ""
    return why


def _can_retry(state: EndpointState) -> bool:
    is_shut_out = state.newest in state.quarantined or bool(state.ignored)
    return is_shut_out or hooks.has_unknown(state)


# -- what each does -------------------------------------------------------------------------------


def promote_asked(state: EndpointState, event: PromoteAsked) -> EndpointState:
    """End the present hold or watch. What the next step needs, it still needs."""
    verb = Verb.promote_full if event.is_full else Verb.promote
    if why_not(verb, state):
        return state
    rollout = moves.marked(moves.under_way(state), event.at, f"{verb} asked")
    rollout = _answered(rollout, event.at)
    last = len(rollout.settings.steps) - 1
    step = max(rollout.step, last) if event.is_full else rollout.step
    verdicts = rollout.verdicts if step == rollout.step else ()
    return state.but(
        rollout=rollout.but(
            step=step,
            hold=Countdown(left_s=0.0),
            patience=None,
            is_paused=False,
            is_waived=True,
            is_overruled=rollout.is_overruled or rollout.has_failed,
            verdicts=verdicts,
        )
    )


def pause_asked(state: EndpointState, event: PauseAsked) -> EndpointState:
    """Hold the rollout where it is."""
    if why_not(Verb.pause, state):
        return state
    rollout = moves.marked(moves.under_way(state), event.at, "pause asked")
    return state.but(rollout=rollout.but(is_paused=True))


def resume_asked(state: EndpointState, event: ResumeAsked) -> EndpointState:
    """Let a paused rollout go on."""
    if why_not(Verb.resume, state):
        return state
    rollout = moves.marked(moves.under_way(state), event.at, "resume asked")
    return state.but(rollout=_answered(rollout, event.at).but(is_paused=False))


def _answered(rollout: Rollout, now: float) -> Rollout:
    """Go on after a question: what failed is gone over, what is unknown was done."""
    if not rollout.questions:
        return rollout
    is_new = rollout.patience is not None and rollout.step >= 0
    rollout = hooks.taken_as_done(rollout, now)
    return rollout.but(
        questions={},
        is_overruled=rollout.is_overruled or rollout.has_failed,
        deadline=clocks.fresh_deadline(rollout),
        patience=clocks.fresh_patience(rollout) if is_new else rollout.patience,
    )


def abort_asked(state: EndpointState, event: AbortAsked) -> EndpointState:
    """Send traffic back, whatever state the candidate is in.

    If nothing of the previous revision is ready, what was promoted serves until something is.
    """
    if why_not(Verb.abort, state):
        return state
    why = "an operator asked for it"
    if state.candidate or state.ready(state.previous):
        return moves.abort(state, event.at, why)
    quarantined = {**state.quarantined, state.stable: why}
    ended = moves.end(state, event.at, RolloutPhase.aborted, why)
    return moves.begin(
        ended.but(quarantined=quarantined), event.at, state.previous, is_rollback=True
    )


def rollback_asked(state: EndpointState, event: RollbackAsked) -> EndpointState:
    """Go back to the revision that was stable before, and keep this one from coming back."""
    if why_not(Verb.rollback, state):
        return state
    quarantined = {**state.quarantined, state.stable: "an operator rolled it back"}
    quarantined.pop(state.last_good, None)
    return moves.begin(
        state.but(quarantined=quarantined), event.at, state.last_good, is_rollback=True
    )


def retry_asked(state: EndpointState, _event: RetryAsked) -> EndpointState:
    """Lift the quarantine of the newest revision, or take up the one that was ignored."""
    if why_not(Verb.retry, state):
        return state
    state = hooks.tried_again(state)
    newest = state.ignored or state.newest
    quarantined = {k: v for k, v in state.quarantined.items() if k != newest}
    return state.but(newest=newest, ignored="", quarantined=quarantined)


def scale_asked(state: EndpointState, event: ScaleAsked) -> EndpointState:
    """Want another number of groups until the config says another."""
    if why_not(Verb.scale, state) or event.replicas < 1:
        return state
    return state.but(scaled_to=event.replicas)


def hold_asked(state: EndpointState, _event: HoldAsked) -> EndpointState:
    """Let requests wait: somebody works on what they would meet."""
    return state if why_not(Verb.hold, state) else state.but(is_held=True)


def release_asked(state: EndpointState, _event: ReleaseAsked) -> EndpointState:
    """Serve those that wait."""
    return state if why_not(Verb.release, state) else state.but(is_held=False)
