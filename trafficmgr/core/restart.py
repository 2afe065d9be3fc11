"""What a new controller may still believe, and what it must not (DESIGN 5).

After a restart of the controller all that was journaled holds, and nothing is known of the
workers until they say hello. After a restart of the machine no process and no clock of before
means anything: every wait starts again in full.
"""

from trafficmgr.core import clocks, hooks
from trafficmgr.core.events import ControllerStarted
from trafficmgr.core.model import Countdown, Group, GroupPhase, Rollout, Slot
from trafficmgr.core.state import EndpointState


def controller_started(state: EndpointState, event: ControllerStarted) -> EndpointState:
    """Nothing is known of the workers, and the clocks did not run while nobody was there."""
    old = {slot.number: slot for slot in state.slots}
    slots = tuple(
        old.get(n, Slot(number=n)).but(is_present=False, is_overdue=False, lagging_since=event.at)
        for n in range(event.slots)
    )
    state = state.but(slots=slots, rollout=_resumed(state.rollout, event.at), is_engine_away=False)
    state = hooks.controller_started(state, event.at)
    return state if event.boot_id == state.boot_id else _rebooted(state, event)


def _resumed(rollout: Rollout | None, now: float) -> Rollout | None:
    """Let running clocks go on from now: the time since the last event was spent not knowing."""
    if rollout is None or rollout.is_over:
        return rollout
    return rollout.but(
        deadline=_from(rollout.deadline, now),
        hold=None if rollout.hold is None else _from(rollout.hold, now),
        patience=None if rollout.patience is None else _from(rollout.patience, now),
    )


def _from(countdown: Countdown, now: float) -> Countdown:
    return countdown if countdown.since is None else countdown.but(since=now)


def _rebooted(state: EndpointState, event: ControllerStarted) -> EndpointState:
    """Every wait starts again in full, and no process of the old boot is trusted (DESIGN 5)."""
    now = event.at
    rollout = state.rollout
    if rollout is not None and not rollout.is_over:
        hold_s = clocks.hold_s(rollout)
        rollout = rollout.but(
            deadline=clocks.fresh_deadline(rollout),
            hold=None if rollout.hold is None else Countdown(left_s=hold_s),
            patience=None if rollout.patience is None else clocks.fresh_patience(rollout),
        )
    return state.but(
        boot_id=event.boot_id,
        rollout=rollout,
        backoff={},
        previous_until=now + state.settings.keep_previous_s,
        groups=tuple(_of_old_boot(g, now) for g in state.groups),
    )


def _of_old_boot(group: Group, now: float) -> Group:
    """Its processes are gone and so are its connections; resolvers may still hold its address.

    Work that is done is not done again.
    """
    is_done = group.phase is GroupPhase.completed
    return group.but(
        phase=group.phase if is_done else GroupPhase.ended,
        is_ready=group.is_ready and is_done,
        is_retiring=group.is_retiring or not is_done,
        is_unknown=bool(group.hook) and not is_done,
        note=group.note if is_done else "the machine was restarted",
        withdrawn_at=None if group.withdrawn_at is None else now,
        answered_at=None if group.max_ttl_s is None else now,
        http_slots=(),
        tunnel_slots=(),
    )
