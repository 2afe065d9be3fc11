"""Keeping as many groups as are wanted, and giving up those that are not.

A group is never changed and never restarted: one that ended is replaced by another with an id of
its own, after a back-off of 1 s that doubles to 5 min and starts anew after 10 min of health
(Kubernetes: 10 s to 5 min, reset after 10 min). Giving up only marks a group as retiring; when it
may stop is `retirement`'s to say.
"""

from trafficmgr.core import clocks, hooks, retirement
from trafficmgr.core.events import (
    EngineFound,
    EngineLost,
    GroupCompleted,
    GroupEnded,
    GroupReady,
    GroupStartDelayed,
    GroupStarted,
    GroupStartFailed,
    GroupStopped,
    GroupUnready,
)
from trafficmgr.core.gating import HookStage
from trafficmgr.core.model import Backoff, Group, GroupPhase
from trafficmgr.core.state import EndpointState

BACKOFF_FIRST_S = 1.0
BACKOFF_LONGEST_S = 300.0
HEALTHY_AGAIN_S = 600.0
NOTHING_TO_LOSE = (GroupPhase.ended, GroupPhase.completed, GroupPhase.stopping)

# -- what is heard of groups ----------------------------------------------------------------------


def group_started(state: EndpointState, event: GroupStarted) -> EndpointState:
    """The processes exist; probes begin."""
    group = _group(state, event.group)
    if group is None or group.phase is not GroupPhase.wanted:
        return state
    return state.with_group(group.but(phase=GroupPhase.started, is_unknown=False, note=""))


def group_start_delayed(state: EndpointState, event: GroupStartDelayed) -> EndpointState:
    """Nothing is known against it: it is tried again, and no deadline runs meanwhile."""
    group = _group(state, event.group)
    if group is None or group.phase is not GroupPhase.wanted:
        return state
    return state.with_group(group.but(is_unknown=True, note=event.reason))


def group_ready(state: EndpointState, event: GroupReady) -> EndpointState:
    """It passed its probes."""
    group = _group(state, event.group)
    if group is None or group.phase is not GroupPhase.started or group.is_ready:
        return state
    return state.with_group(group.but(is_ready=True, ready_since=event.at, note=""))


def group_unready(state: EndpointState, event: GroupUnready) -> EndpointState:
    """It fails its probes, or fails them for another reason; its processes may be fine."""
    group = _group(state, event.group)
    if group is None or not (group.is_ready or event.reason != group.note):
        return state
    if group.phase is GroupPhase.completed:
        return state
    return state.with_group(group.but(is_ready=False, ready_since=None, note=event.reason))


def group_lost(state: EndpointState, event: GroupEnded | GroupStartFailed) -> EndpointState:
    """It has no processes any more, or never had: another takes its place after a back-off."""
    group = _group(state, event.group)
    if group is None or group.phase in NOTHING_TO_LOSE:
        return state
    if group.hook:  # nobody takes its place; what was begun and vanished tells nobody its end
        is_unknown = isinstance(event, GroupEnded)
        ended = group.but(phase=GroupPhase.ended, is_unknown=is_unknown, note=event.reason)
        return state.with_group(ended)
    lost = group.but(
        phase=GroupPhase.ended,
        is_unknown=False,
        is_ready=False,
        is_retiring=True,
        note=event.reason,
    )
    backoff = _after_failure(state.backoff.get(group.revision, Backoff()), group, event)
    return state.with_group(lost).but(backoff={**state.backoff, group.revision: backoff})


def group_completed(state: EndpointState, event: GroupCompleted) -> EndpointState:
    """It did its work and stays as it is: nobody takes its place, and it serves nobody."""
    group = _group(state, event.group)
    if group is None or group.phase is not GroupPhase.started:
        return state
    done = group.but(
        phase=GroupPhase.completed,
        is_ready=event.is_success,
        ready_since=event.at if event.is_success else None,
        note=event.reason,
    )
    return state.with_group(done)


def engine_lost(state: EndpointState, _event: EngineLost) -> EndpointState:
    """No deadline runs, and nothing is given up, until it is known again what runs."""
    return state.but(is_engine_away=True)


def engine_found(state: EndpointState, event: EngineFound) -> EndpointState:
    """What ended meanwhile is told in events of its own."""
    return hooks.engine_found(state.but(is_engine_away=False), event.at)


def group_stopped(state: EndpointState, event: GroupStopped) -> EndpointState:
    """It is gone with everything it held, and so is all memory of it.

    One that we did not stop (somebody removed it by hand) first goes the way of every lost group:
    clients may still hold its address.
    """
    group = _group(state, event.group)
    if group is None:
        return state
    if group.phase is not GroupPhase.stopping:
        return group_lost(
            state,
            GroupEnded(
                at=event.at, endpoint=event.endpoint, group=event.group, reason="it disappeared"
            ),
        )
    return state.but(groups=tuple(g for g in state.groups if g.id != group.id))


def _after_failure(backoff: Backoff, group: Group, event: GroupEnded | GroupStartFailed) -> Backoff:
    at = event.at
    was_healthy = group.ready_since is not None and at - group.ready_since >= HEALTHY_AGAIN_S
    failures = 1 if was_healthy else backoff.failures + 1
    delay_s = min(BACKOFF_LONGEST_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 20))
    return Backoff(failures=failures, next_at=at + delay_s, note=event.reason)


def _group(state: EndpointState, group_id: str) -> Group | None:
    return next((g for g in state.groups if g.id == group_id), None)


# -- the rules ------------------------------------------------------------------------------------


def retire_unwanted(state: EndpointState, now: float) -> EndpointState:
    """Give up every group of a revision that has no role, and those beyond the wanted number."""
    live = [g for g in state.groups if not g.is_retiring]
    staying = hooks.needed_groups(state)
    for revision in filter(None, (state.stable, state.candidate, state.previous)):
        of_it = [g for g in live if g.revision == revision and not g.hook]
        wanted = wanted_groups(state, revision, now)
        if len(of_it) > wanted:
            of_it = sorted(of_it, key=lambda g: (not g.is_ready, g.created_at))[:wanted]
        staying.update(g.id for g in of_it)
    if len(staying) == len(live):
        return state
    return state.but(
        groups=tuple(
            g if g.is_retiring or g.id in staying else g.but(is_retiring=True) for g in state.groups
        )
    )


def wanted_groups(state: EndpointState, revision: str, now: float) -> int:
    """Return how many groups a revision with a role should have."""
    return clocks.candidate_groups(state, now) if revision == state.candidate else state.replicas


def fill(state: EndpointState, now: float) -> EndpointState:
    """Want as many groups of each revision with a role as there should be.

    The previous one is kept whole as well: what is half dead is no way back. A candidate has none
    before its first hooks are done.
    """
    rollout = state.rollout
    is_early = rollout is not None and not rollout.is_done(HookStage.before)
    candidate = "" if is_early else state.candidate
    for revision in filter(None, (state.stable, candidate, state.previous)):
        missing = wanted_groups(state, revision, now) - len(state.live(revision))
        if missing > 0:
            state = _with_new_groups(state, revision, missing, now)
    return state


def _with_new_groups(
    state: EndpointState, revision: str, missing: int, now: float
) -> EndpointState:
    start_at = max(now, state.backoff.get(revision, Backoff()).next_at)
    made = state.groups_made
    lost = _places_to_take(state, revision)
    new = tuple(
        Group(
            id=f"{state.name}-{made + n}",
            revision=revision,
            created_at=now,
            phase=GroupPhase.waiting,
            start_at=start_at,
            replaces=lost[n - 1].id if n <= len(lost) else "",
            restarts=lost[n - 1].restarts + 1 if n <= len(lost) else 0,
        )
        for n in range(1, missing + 1)
    )
    return state.but(groups=state.groups + new, groups_made=made + missing)


def _places_to_take(state: EndpointState, revision: str) -> list[Group]:
    """Return the groups of a revision that were lost and have nobody in their place yet."""
    taken = {g.replaces for g in state.groups}
    return [
        g
        for g in state.groups
        if g.phase is GroupPhase.ended
        and g.revision == revision
        and g.id not in taken
        and not g.hook
    ]


def end_waits(state: EndpointState, now: float) -> EndpointState:
    """Let groups start whose back-off is over."""
    waiting = GroupPhase.waiting
    for group in state.groups:
        if group.phase is waiting and group.start_at <= now:
            state = state.with_group(group.but(phase=GroupPhase.wanted))
    return state


def stop_retired(state: EndpointState, now: float) -> EndpointState:
    """Tell those to stop that nobody can reach any more."""
    for group in [g for g in state.groups if g.is_retiring]:
        is_due = group.phase is not GroupPhase.stopping
        if is_due and retirement.may_stop(group, state, now):
            state = state.with_group(group.but(phase=GroupPhase.stopping, is_ready=False))
    return state


def forget(state: EndpointState, _now: float) -> EndpointState:
    """Drop what nothing refers to any more."""
    needed = {state.newest, state.stable, state.candidate, state.previous}
    needed |= {state.last_good, state.ignored}
    needed |= {g.revision for g in state.groups}
    if state.revisions.keys() <= needed and state.backoff.keys() <= needed:
        return state
    return state.but(
        revisions={k: v for k, v in state.revisions.items() if k in needed},
        backoff={k: v for k, v in state.backoff.items() if k in needed},
    )
