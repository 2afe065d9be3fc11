"""The clocks of a rollout: which of them run now, and when they are over.

The hold runs while the revision can carry what it was given; the deadline runs while neither the
hold does nor there is capacity to go on, except while it can't be known whether a group can be
started. One of the three always explains why nothing happens.
"""

from trafficmgr.core.model import CandidateReplicas, Countdown, Group, Rollout, RolloutPhase
from trafficmgr.core.schedule import (
    WHOLE_PCT,
    capacity_pct,
    groups_for,
    next_weight_pct,
    step_weight_pct,
)
from trafficmgr.core.state import EndpointState


def keep(state: EndpointState, now: float) -> EndpointState:
    """Let hold and deadline run or halt, as the health of what is rolled out demands."""
    rollout = state.rollout
    if rollout is None or not rollout.is_undecided:
        return state
    live = state.live(rollout.revision)
    ready = sum(g.is_ready for g in live)
    deadline = fresh_deadline(rollout) if ready > rollout.most_ready else rollout.deadline
    available = _available(live, rollout, now)
    can_carry = capacity_pct(available, state.replicas) >= _carried_pct(rollout)
    is_proving = can_carry and not rollout.is_paused
    hold = _run_while(rollout.hold, now, is_so=is_proving)
    is_judged = is_proving and not state.is_engine_away  # unknown is not failed (promise 12)
    patience = _run_while(rollout.patience, now, is_so=is_judged)
    is_holding = can_carry and hold is not None and hold.left_at(now) > 0
    is_unknown = state.is_engine_away or any(g.is_unknown for g in live)
    is_stopped = rollout.is_paused or rollout.is_held or rollout.is_hooked or is_unknown
    has_enough = _has_enough(state, rollout, ready) and not rollout.is_smoking
    is_fine = is_stopped or is_holding or has_enough
    deadline = deadline.halt(now) if is_fine else deadline.run(now)
    most_ready = max(ready, rollout.most_ready)
    is_same = deadline is rollout.deadline and hold is rollout.hold and patience is rollout.patience
    if is_same and most_ready == rollout.most_ready:
        return state
    return state.but(
        rollout=rollout.but(most_ready=most_ready, deadline=deadline, hold=hold, patience=patience)
    )


def _run_while(countdown: Countdown | None, now: float, *, is_so: bool) -> Countdown | None:
    if countdown is None:
        return None
    return countdown.run(now) if is_so else countdown.halt(now)


def can_go_on(state: EndpointState, rollout: Rollout, now: float) -> bool:
    """Whether the candidate can carry what comes next.

    Before its first step, and whenever it was scaled up for the next one, its groups must also
    have been ready for `min_ready`.
    """
    ready = state.ready(rollout.revision)
    if not _has_enough(state, rollout, len(ready)):
        return False
    is_scaled = rollout.settings.candidate_replicas is CandidateReplicas.scaled
    if rollout.step >= 0 and not is_scaled:
        return True
    return _available(ready, rollout, now) >= _needed_groups(state, rollout)


def _carried_pct(rollout: Rollout) -> int:
    """Return the share that the revision carries in the present step; a preview takes a group."""
    is_stable = rollout.phase is RolloutPhase.promoting
    return WHOLE_PCT if is_stable else max(1, step_weight_pct(rollout))


def _has_enough(state: EndpointState, rollout: Rollout, ready: int) -> bool:
    """Whether enough groups are ready for what comes next."""
    if rollout.phase is RolloutPhase.promoting:
        return ready >= state.replicas
    if rollout.step >= 0:
        return capacity_pct(ready, state.replicas) >= next_weight_pct(rollout)
    return ready >= _needed_groups(state, rollout)


def _needed_groups(state: EndpointState, rollout: Rollout) -> int:
    """Return how many groups the candidate must have for what comes next."""
    if rollout.settings.candidate_replicas is CandidateReplicas.full:
        return state.replicas
    return groups_for(next_weight_pct(rollout), state.replicas)


def candidate_groups(state: EndpointState, now: float) -> int:
    """Return how many groups the candidate should have now.

    Scaled with its weight, the groups of the next step are wanted when the present hold is over.
    """
    rollout = state.rollout
    if rollout is None or rollout.settings.candidate_replicas is CandidateReplicas.full:
        return state.replicas
    is_holding = rollout.step >= 0 and (rollout.hold is None or rollout.hold.left_at(now) > 0)
    if is_holding:
        return groups_for(step_weight_pct(rollout), state.replicas)
    return _needed_groups(state, rollout)


def fresh_deadline(rollout: Rollout) -> Countdown:
    """Return a deadline of which nothing has been used yet."""
    return Countdown(left_s=deadline_s(rollout))


def deadline_s(rollout: Rollout) -> float:
    """Return how long the rollout may go without progress: its step may have its own answer."""
    steps = rollout.settings.steps
    own = steps[rollout.step].deadline_s if 0 <= rollout.step < len(steps) else None
    return rollout.settings.deadline_s if own is None else own


def fresh_patience(rollout: Rollout) -> Countdown | None:
    """Return how long the present step may wait for verdicts; None if it needs none."""
    step, gates = rollout.settings.steps[rollout.step], rollout.settings.gates
    if step.pause or not gates.names(step.weight_pct):
        return None
    return Countdown(left_s=max(gates.max_hold_s, step.hold_s))


def hold_s(rollout: Rollout) -> float:
    """Return how long the present step or watch lasts in full."""
    if rollout.phase is RolloutPhase.promoting:
        return rollout.settings.watch_s
    return rollout.settings.steps[rollout.step].hold_s if rollout.step >= 0 else 0.0


def _available(groups: list[Group], rollout: Rollout, now: float) -> int:
    """Return how many of the groups have been ready for `min_ready`, without a break."""
    min_ready_s = rollout.settings.min_ready_s
    since = [g.ready_since for g in groups if g.ready_since is not None]
    return sum(now >= one + min_ready_s for one in since)
