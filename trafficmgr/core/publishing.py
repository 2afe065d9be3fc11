"""What workers serve, and what they may still have given to clients.

`publish` is the rule that makes tables; the three observations keep the books that retirement
reads: which slot has acknowledged what, when an address was last answered, which slot may still
hold requests. Every doubt counts against stopping: a worker that ended without a word counts as
having answered with all of its last table until it was reaped.
"""

from collections.abc import Callable
from functools import lru_cache
from operator import is_

from trafficmgr.core import smoke
from trafficmgr.core.events import (
    DirectClientsGone,
    TableApplied,
    WorkerConnected,
    WorkerEnded,
    WorkerStarted,
)
from trafficmgr.core.gating import HookStage
from trafficmgr.core.model import (
    Affinity,
    EndpointSettings,
    Group,
    GroupPhase,
    Publish,
    RolloutPhase,
    Slot,
    Tcp,
)
from trafficmgr.core.routing import Share, Table, Target, check
from trafficmgr.core.schedule import WHOLE_PCT, capacity_pct, step_weight_pct
from trafficmgr.core.state import EndpointState
from trafficmgr.core.traffic import HttpPolicy

HELLO_S = 10.0
"""How much longer than `fence` a worker may take to its hello: it is started by a busy machine."""

# -- the rule that makes tables -------------------------------------------------------------------


def publish(state: EndpointState, now: float) -> EndpointState:
    """Make the next table if what should be served differs from what is."""
    wanted = wanted_table(state)
    if wanted == state.table:
        return state
    table = check(wanted.but(generation=state.table.generation + 1))
    present = table.groups()
    numbers = tuple(slot.number for slot in state.slots)
    return state.but(
        table=table,
        groups=tuple(_booked(g, table, present, numbers, now) for g in state.groups),
        slots=tuple(
            slot if slot.lagging_since is not None else slot.but(lagging_since=now)
            for slot in state.slots
        ),
    )


def wanted_table(state: EndpointState) -> Table:
    """Return what should be served, under the present generation number."""
    settings = state.settings
    shares = _shares(state)
    is_least_bad = not any(share.targets for share in shares) and not _is_done(state, shares)
    if is_least_bad:
        shares = _least_bad(state)
    return Table(
        endpoint=state.name,
        generation=state.table.generation,
        hosts=settings.hosts,
        publish=settings.publish,
        ttl_s=settings.ttl_s,
        shares=shares,
        is_least_bad=is_least_bad and bool(shares),
        preview=_preview(state) if state.candidate and state.stable else None,
        affinity=_kept(state).affinity,
        salt=_salt(state),
        http=_http(
            settings.http,
            drain_websocket_s=settings.drain_websocket_s,
            affinity_name=_kept(state).http.affinity_name,
            is_held=state.is_held,
        ),
    )


@lru_cache(maxsize=1024)
def _http(
    policy: HttpPolicy, *, drain_websocket_s: float, affinity_name: str, is_held: bool
) -> HttpPolicy:
    """Return how the endpoint is served; the same each time, as tables are made for every event."""
    return policy.but(
        drain_websocket_s=drain_websocket_s, affinity_name=affinity_name, is_held=is_held
    )


def _is_done(state: EndpointState, shares: tuple[Share, ...]) -> bool:
    """Whether nobody serves because the work is done: that is not bad at all."""
    return any(state.ready(share.revision) for share in shares)


def _preview(state: EndpointState) -> Share | None:
    """Return what `preview.<host>` reaches: the candidate's ready groups, whatever its weight.

    On the way back of a rehearsal it is stable's.
    """
    rollout, revision = state.rollout, smoke.revision_of(state)
    is_early = rollout is not None and not rollout.is_done(HookStage.before)
    ready = [] if is_early else state.ready(revision)  # a warm one waits for its hooks as well
    return _share(state, revision, WHOLE_PCT, ready) if ready else None


def _kept(state: EndpointState) -> EndpointSettings:
    """Return the rollout's own settings as long as it is under way: its verdicts count by them."""
    rollout = state.rollout
    is_under_way = rollout is not None and rollout.is_undecided
    return rollout.settings if rollout and is_under_way else state.settings


def _salt(state: EndpointState) -> str:
    """Return what makes other clients the first ones in each rollout; nothing without affinity."""
    is_needed = _kept(state).affinity is not Affinity.none
    return state.rollout.id if state.rollout is not None and is_needed else ""


def candidate_weight_pct(state: EndpointState) -> int:
    """Return the candidate's share: its step, capped by what it has proved it can carry."""
    rollout = state.rollout
    if not state.candidate or rollout is None or rollout.phase is not RolloutPhase.progressing:
        return 0
    if not state.stable:
        return WHOLE_PCT
    ready = len(state.ready(state.candidate))
    return min(step_weight_pct(rollout), capacity_pct(ready, state.replicas))


def _shares(state: EndpointState) -> tuple[Share, ...]:
    weight_pct = candidate_weight_pct(state)
    weighted = ((state.candidate, weight_pct), (state.stable, WHOLE_PCT - weight_pct))
    return tuple(
        [
            _share(state, revision, pct, state.ready(revision))
            for revision, pct in weighted
            if revision and pct > 0
        ]
    )


def _least_bad(state: EndpointState) -> tuple[Share, ...]:
    """Promise 9: nobody is ready. Return the first of these that still run (docs/decisions/0009).

    The groups of stable that did serve; then those that serve now, though they were given up, but
    not what is in quarantine; then those of the warm previous.
    """
    serving = {target.group for share in state.table.shares for target in share.targets}
    own = [
        g
        for g in state.live(state.stable or state.candidate)
        if g.in_table or g.withdrawn_generation
    ]
    given_up = [g for g in state.groups if g.id in serving and g.revision not in state.quarantined]
    warm = state.ready(state.previous) if state.previous else []
    for groups in () if state.is_removed else (own, given_up, warm):
        running = [g for g in groups if g.phase is GroupPhase.started]
        if running:
            revision = running[0].revision
            of_it = [g for g in running if g.revision == revision]
            return (_share(state, revision, WHOLE_PCT, of_it),)
    return ()


def _share(state: EndpointState, revision: str, pct: int, groups: list[Group]) -> Share:
    """Return a revision's share; all the groups are of this revision, and those that run serve."""
    port = state.port_of(revision)
    started = GroupPhase.started
    targets = [_target(g.id, g.address, port) for g in groups if g.phase is started]
    return Share(revision=revision, weight_pct=pct, targets=tuple(targets))


@lru_cache(maxsize=4096)
def _target(group: str, address: str, port: int) -> Target:
    """Return the same target for the same group each time: tables are made for every event."""
    return Target(group=group, dial=Tcp(address=address, port=port))


def _booked(
    group: Group, table: Table, present: frozenset[str], numbers: tuple[int, ...], now: float
) -> Group:
    """Return the group with its books brought forward to this table."""
    if group.id in present:
        is_direct = table.publish is Publish.groups
        return group.but(
            in_table=True,
            withdrawn_generation=0,
            withdrawn_at=None,
            max_ttl_s=max(group.max_ttl_s or 0, table.ttl_s) if is_direct else group.max_ttl_s,
            is_direct_clear=False,
        )
    if not group.in_table:
        return group
    return group.but(
        in_table=False,
        withdrawn_generation=table.generation,
        withdrawn_at=now,
        http_slots=numbers,
        tunnel_slots=numbers,
    )


def fence(state: EndpointState, now: float) -> EndpointState:
    """A worker that does not acknowledge in time is restarted, so that it can't block others."""
    for slot in state.slots:
        at = overdue_at(slot, state)
        if at is not None and now >= at:
            state = _with_slot(state, slot.but(is_overdue=True))
    return state


def overdue_at(slot: Slot, state: EndpointState) -> float | None:
    """Return when a slot that lags is overdue; None if it does not lag, or is so already."""
    if slot.lagging_since is None or slot.is_overdue:
        return None
    patience_s = 0.0 if slot.is_present else HELLO_S
    return slot.lagging_since + state.settings.fence_s + patience_s


# -- what is heard from workers -------------------------------------------------------------------


def worker_started(state: EndpointState, event: WorkerStarted) -> EndpointState:
    """Take note of who must say hello, so that one that hangs before that can be restarted."""
    slot = _slot(state, event.slot)
    if slot is None or slot.start_id == event.start_id:
        return state
    if slot.start_id:  # its end was not told, or is told later
        state = _presume_answered(state, slot, event.at)
    started = Slot(number=slot.number, start_id=event.start_id, lagging_since=event.at)
    return _with_slot(state, started)


def worker_connected(state: EndpointState, event: WorkerConnected) -> EndpointState:
    """Take note of the worker that holds a slot now, and of the table it came with.

    A hello is no acknowledgement: when it last answered with what it withdrew, and what it still
    holds, is said in the `TableApplied` that follows.
    """
    slot = _slot(state, event.slot)
    if slot is None:
        return state
    if slot.start_id not in {"", event.start_id}:
        state = _presume_answered(state, slot, event.at)
    served = event.generations.get(state.name, 0)
    state = _rebooked(state, lambda g: _may_hold(g, slot.number, served))
    here = Slot(
        number=slot.number, start_id=event.start_id, is_present=True, lagging_since=event.at
    )
    return _with_slot(state, here)


def _may_hold(group: Group, slot: int, served: int) -> Group:
    """A worker whose table is from before the withdrawal may hold requests to the group."""
    if group.in_table or served >= group.withdrawn_generation:
        return group
    return group.but(
        http_slots=tuple(sorted({*group.http_slots, slot})),
        tunnel_slots=tuple(sorted({*group.tunnel_slots, slot})),
    )


def table_applied(state: EndpointState, event: TableApplied) -> EndpointState:
    """Take note of what a worker has acknowledged, answered and still holds."""
    slot = _slot(state, event.slot)
    if slot is None or slot.start_id != event.start_id or not slot.is_present:
        return state
    applied = max(slot.applied, event.generation)
    if applied >= state.table.generation:
        slot = slot.but(applied=applied, lagging_since=None, is_overdue=False)
    else:
        slot = slot.but(applied=applied)
    state = _with_slot(state, slot)
    return _rebooked(state, lambda g: _acknowledged(g, event))


def worker_ended(state: EndpointState, event: WorkerEnded) -> EndpointState:
    """Close the books of a worker that is gone; its connections are gone with it."""
    slot = _slot(state, event.slot)
    if slot is None:
        return state
    is_current = slot.start_id == event.start_id
    if event.is_clean:
        answered = event.answered.get(state.name, {})
        state = _rebooked(state, lambda g: _answered(g, answered.get(g.id)))
    else:
        known = slot if is_current else slot.but(applied=0)
        state = _presume_answered(state, known, event.reaped_at)
    if not is_current:
        return state
    gone = Slot(number=slot.number, lagging_since=event.at)
    return _with_slot(_rebooked(state, lambda g: _let_go(g, slot.number)), gone)


def direct_clients_gone(state: EndpointState, event: DirectClientsGone) -> EndpointState:
    """Nobody is connected to the group any more, and after the TTL nobody new comes."""
    return _rebooked(
        state,
        lambda g: g.but(is_direct_clear=True) if g.id == event.group and not g.in_table else g,
    )


def _presume_answered(state: EndpointState, slot: Slot, until: float) -> EndpointState:
    """Count a worker as having answered with every address that it did not acknowledge as gone."""
    return _rebooked(
        state,
        lambda g: _answered(g, until) if g.in_table or slot.applied < g.withdrawn_generation else g,
    )


def _rebooked(state: EndpointState, change: Callable[[Group], Group]) -> EndpointState:
    """Return the state with the books of each group brought forward; the same if none changed."""
    groups = [change(group) for group in state.groups]
    is_same = all(map(is_, groups, state.groups))
    return state if is_same else state.but(groups=tuple(groups))


def _acknowledged(group: Group, event: TableApplied) -> Group:
    group = _answered(group, event.answered.get(group.id))
    if group.in_table or event.generation < group.withdrawn_generation:
        return group
    http_slots = _noted(group.http_slots, event.slot, is_busy=group.id in event.http_busy)
    tunnel_slots = _noted(group.tunnel_slots, event.slot, is_busy=group.id in event.tunnel_busy)
    if http_slots == group.http_slots and tunnel_slots == group.tunnel_slots:
        return group
    return group.but(http_slots=http_slots, tunnel_slots=tunnel_slots)


def _answered(group: Group, at: float | None) -> Group:
    """Return the group with its last answer at least this late; it only moves forward."""
    if at is None or group.max_ttl_s is None:
        return group
    if group.answered_at is not None and group.answered_at >= at:
        return group
    return group.but(answered_at=at)


def _let_go(group: Group, slot: int) -> Group:
    return group.but(
        http_slots=_noted(group.http_slots, slot, is_busy=False),
        tunnel_slots=_noted(group.tunnel_slots, slot, is_busy=False),
    )


def _noted(slots: tuple[int, ...], slot: int, *, is_busy: bool) -> tuple[int, ...]:
    """Return the slots with this one in or out; only a hello brings one back that let go."""
    return slots if is_busy or slot not in slots else tuple(s for s in slots if s != slot)


def _slot(state: EndpointState, number: int) -> Slot | None:
    """Return a slot: they are stored in the order of their numbers, from 0 on."""
    return state.slots[number] if number < len(state.slots) else None


def _with_slot(state: EndpointState, slot: Slot) -> EndpointState:
    slots, n = state.slots, slot.number
    if slots[n] == slot:
        return state
    return state.but(slots=(*slots[:n], slot, *slots[n + 1 :]))
