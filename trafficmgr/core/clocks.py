"""The clocks of a rollout: which of them run now, and when they are over.

The hold runs while the revision can carry what it was given; the deadline runs while neither the
hold does nor there is capacity to go on, except while it can't be known whether a group can be
started. One of the three always explains why nothing happens.
"""

from trafficmgr.core.model import Countdown, Group, Rollout, RolloutPhase
from trafficmgr.core.schedule import WHOLE_PCT, capacity_pct, next_weight_pct, step_weight_pct
from trafficmgr.core.state import EndpointState


def keep(state: EndpointState, now: float) -> EndpointState:
    """Let hold and deadline run or halt, as the health of what is rolled out demands."""
    rollout = state.rollout
    if rollout is None or rollout.phase not in {RolloutPhase.progressing, RolloutPhase.promoting}:
        return state
    ready = len(state.ready(rollout.revision))
    deadline, hold = rollout.deadline, rollout.hold
    if ready > rollout.most_ready:
        deadline = Countdown(left_s=rollout.settings.deadline_s)
    capacity = capacity_pct(ready, state.settings.replicas)
    can_carry, needs = capacity >= _carried_pct(rollout), _needed_pct(rollout)
    if hold is not None:
        hold = hold.run(now) if can_carry else hold.halt(now)
    is_holding = can_carry and hold is not None and hold.left_at(now) > 0
    is_moving = is_holding or capacity >= needs
    is_unknown = any(g.is_unknown for g in state.live(rollout.revision))
    deadline = deadline.halt(now) if is_moving or is_unknown else deadline.run(now)
    kept = rollout.but(most_ready=max(ready, rollout.most_ready), deadline=deadline, hold=hold)
    return state if kept == rollout else state.but(rollout=kept)


def _carried_pct(rollout: Rollout) -> int:
    """Return the share that the revision carries in the present step."""
    is_stable = rollout.phase is RolloutPhase.promoting
    return WHOLE_PCT if is_stable else step_weight_pct(rollout)


def _needed_pct(rollout: Rollout) -> int:
    """Return the capacity without which there is no going on: all of it, before the first step."""
    if rollout.phase is RolloutPhase.promoting or rollout.step < 0:
        return WHOLE_PCT
    return next_weight_pct(rollout)


def fresh_deadline(rollout: Rollout) -> Countdown:
    """Return a deadline of which nothing has been used yet."""
    return Countdown(left_s=rollout.settings.deadline_s)


def hold_s(rollout: Rollout) -> float:
    """Return how long the present step or watch lasts in full."""
    if rollout.phase is RolloutPhase.promoting:
        return rollout.settings.watch_s
    return rollout.settings.steps[rollout.step].hold_s if rollout.step >= 0 else 0.0


def is_available(group: Group, rollout: Rollout, now: float) -> bool:
    """Whether the group has been ready for `min_ready`."""
    since = group.ready_since
    return since is not None and now >= since + rollout.settings.min_ready_s
