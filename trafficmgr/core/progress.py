"""Whether the present stage of a rollout is over, and whether there is a way back.

A stage is over when its hold is, the candidate can carry what comes next, and every gate of it has
passed. Gates that have not seen enough hold it for up to `max_hold`, and then the user's choice
decides; one that fails sends traffic back.
"""

from trafficmgr.core import clocks, moves, publishing, smoke
from trafficmgr.core.events import EvidenceKept, GateJudged
from trafficmgr.core.gating import HookStage, OnInsufficient, SmokePhase
from trafficmgr.core.model import OnNewer, Rollout, RolloutPhase
from trafficmgr.core.state import EndpointState

# -- what is heard --------------------------------------------------------------------------------


def gate_judged(state: EndpointState, event: GateJudged) -> EndpointState:
    """Take note of a verdict on the present stage; an echo of another says nothing."""
    rollout = state.rollout
    if rollout is None or rollout.id != event.rollout or not rollout.is_undecided:
        return state
    if rollout.stage != event.stage or rollout.stage < 0:
        return state
    others = tuple(v for v in rollout.verdicts if v.gate != event.verdict.gate)
    return state.but(rollout=rollout.but(verdicts=(*others, event.verdict)))


def evidence_kept(state: EndpointState, event: EvidenceKept) -> EndpointState:
    """Keep what the verdicts are reached by, for a controller that takes over."""
    rollout = state.rollout
    if rollout is None or rollout.id != event.rollout or not rollout.is_undecided:
        return state
    return state.but(rollout=rollout.but(evidence=event.evidence))


# -- the rules ------------------------------------------------------------------------------------


def heed(state: EndpointState, now: float) -> EndpointState:
    """Go back from what a gate or the smoke test condemns."""
    rollout = state.rollout
    if rollout is None or not rollout.is_undecided or rollout.is_overruled:
        return state
    run = rollout.smoke
    if run is not None and run.phase is SmokePhase.failed and rollout.step < 0:
        return fall_back(state, now, f"smoke failed: {run.note}")
    for verdict in rollout.failed_gates:
        return fall_back(state, now, f"gate {verdict.gate} failed: {verdict.why}")
    return state


def lose_patience(state: EndpointState, now: float) -> EndpointState:
    """A gate has not seen enough for `max_hold`: do what the user wants then."""
    rollout = state.rollout
    if rollout is None or rollout.patience is None or rollout.is_paused:
        return state
    if rollout.patience.left_at(now) > 0 or not rollout.open_gates:
        return state
    names = ", ".join(rollout.open_gates)
    match rollout.settings.gates.on_insufficient:
        case OnInsufficient.promote:
            marked = moves.marked(rollout, now, f"went on without a verdict of {names}")
            return state.but(rollout=marked.but(is_waived=True))
        case OnInsufficient.abort:
            return fall_back(state, now, f"no verdict of {names} within max_hold")
        case OnInsufficient.pause:
            question = (
                f"There is no verdict of {names} within max_hold. `promote` goes on without, "
                f"`resume` waits as long again, `abort` goes back."
            )
            return moves.ask(state, now, "verdicts", question)


def fall_back(state: EndpointState, now: float, why: str) -> EndpointState:
    """Send traffic back by itself, or ask if something was done that can't be undone.

    While nobody could take the traffic it stays, and is taken back as soon as somebody can.
    """
    hook = moves.under_way(state).irreversible
    if hook:
        question = (
            f"Traffic would have gone back, because {why}. But hook {hook} can't be undone, so "
            f"nothing goes back by itself: `abort` does it all the same, `promote` or `resume` "
            f"goes on."
        )
        return moves.ask(state, now, "way back", question)
    return moves.abort(state, now, why) if can_go_back(state) else state


# -- questions ------------------------------------------------------------------------------------


def is_stage_over(state: EndpointState, rollout: Rollout, now: float) -> bool:
    """Whether the next step can be taken, or the promotion be made."""
    if rollout.phase is not RolloutPhase.progressing or rollout.is_paused:
        return False
    if rollout.step >= 0 and (rollout.hold is None or rollout.hold.left_at(now) > 0):
        return False
    if not rollout.is_done(HookStage.before) or smoke.is_due(rollout):
        return False
    if rollout.open_gates or (rollout.failed_gates and not rollout.is_overruled):
        return False
    return clocks.can_go_on(state, rollout, now)


def is_ready_to_promote(state: EndpointState, rollout: Rollout, now: float) -> bool:
    """Whether all steps are behind it."""
    is_last = rollout.step + 1 == len(rollout.settings.steps)
    return is_last and is_stage_over(state, rollout, now)


def is_watch_over(state: EndpointState, rollout: Rollout, now: float) -> bool:
    """Whether it was watched for long enough, or there is no point in it any more."""
    if rollout.phase is not RolloutPhase.promoting or rollout.hold is None or rollout.is_paused:
        return False
    return rollout.hold.left_at(now) <= 0 or is_cut_short(state, rollout) or is_lost(rollout, now)


def is_cut_short(state: EndpointState, rollout: Rollout) -> bool:
    """Whether something newer waits for the watch to end."""
    is_newer = state.newest not in {"", state.stable, *state.quarantined}
    return is_newer and rollout.settings.on_newer is OnNewer.supersede


def is_lost(rollout: Rollout, now: float) -> bool:
    """Whether its groups were not all ready for the whole deadline; it would have gone back."""
    return rollout.deadline.left_at(now) <= 0


def can_go_back(state: EndpointState) -> bool:
    """Whether traffic can go back by itself: never away from the last that serve (promise 9)."""
    rollout = moves.under_way(state)
    if rollout.phase is RolloutPhase.promoting:
        return bool(state.previous) and bool(state.ready(state.previous))
    serves = state.serves(rollout.revision) and publishing.candidate_weight_pct(state) > 0
    return bool(state.ready(state.stable)) or not serves
