"""Everything that an endpoint still wants now, and when time alone will change something.

Both are read off the state anew each time and remember nothing (see `rollout`).
"""

from collections.abc import Iterator

from trafficmgr.core import hooks, publishing, retirement, smoke
from trafficmgr.core.commands import (
    AnyCommand,
    PublishTable,
    RestartWorker,
    StartGroup,
    StopGroup,
)
from trafficmgr.core.model import Group, GroupPhase
from trafficmgr.core.state import EndpointState


def wanted(state: EndpointState) -> Iterator[AnyCommand]:
    """Yield everything that is still wanted; saying it again does no harm."""
    if any(slot.applied < state.table.generation for slot in state.slots):
        yield PublishTable(table=state.table)
    to_start, stopping = GroupPhase.wanted, GroupPhase.stopping
    for group in state.groups:
        if group.phase is to_start and not group.is_retiring and group.address:
            yield _start(state, group)
        elif group.phase is stopping:
            yield StopGroup(endpoint=state.name, group=group.id)
    for slot in state.slots:
        if slot.is_overdue and slot.start_id:
            yield RestartWorker(slot=slot.number, start_id=slot.start_id)
    yield from hooks.wanted(state)
    yield from smoke.wanted(state)


def _start(state: EndpointState, group: Group) -> StartGroup:
    revision = hooks.task_of(state, group) if group.hook else state.revisions[group.revision]
    port = state.port_of(group.revision)
    return StartGroup(endpoint=state.name, group=group, revision=revision, port=port)


def moments(state: EndpointState, now: float) -> Iterator[float | None]:
    """Yield each moment at which time alone may change something; None is never."""
    rollout = state.rollout
    if rollout is not None and not rollout.is_over:
        yield rollout.deadline.ends_at
        yield rollout.hold.ends_at if rollout.hold else None
        yield rollout.patience.ends_at if rollout.patience else None
        yield from hooks.ends_at(state)
        for group in state.ready(rollout.revision):
            yield (group.ready_since or now) + rollout.settings.min_ready_s
    yield state.previous_until if state.previous else None
    waiting, stopping = GroupPhase.waiting, GroupPhase.stopping
    for group in state.groups:
        if group.phase is waiting:
            yield group.start_at
        elif group.is_retiring and group.phase is not stopping:
            yield retirement.next_at(group, state, now)
    for slot in state.slots:
        yield publishing.overdue_at(slot, state)
