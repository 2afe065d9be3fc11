"""What concerns several endpoints: who has which address, and what all of them must hear.

An address is given out in `evolve`, so that a command repeated after a crash names the same one.
It is free again when its group is gone, and a group is only gone when no resolver may hold its
address any more (promise 13); the pool is walked round and round all the same, so that an address
rests for as long as possible.
"""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network
from math import inf

from trafficmgr.core import moves, rollout
from trafficmgr.core.events import (
    ControllerStarted,
    EndpointEvent,
    Event,
    LimitsApplied,
    SettingsApplied,
    Woke,
    WorkerConnected,
    WorkerEnded,
    WorkerStarted,
)
from trafficmgr.core.model import EndpointSettings, RolloutPhase
from trafficmgr.core.noun import Noun
from trafficmgr.core.routing import Table
from trafficmgr.core.state import EndpointState


class Grave(Noun):
    """What must not start anew if an endpoint of that name comes back: numbers that only grow."""

    generation: int
    groups_made: int
    rollouts_begun: int


class Fleet(Noun):
    """All endpoints, and what they share.

    `cursor` is the last address that was given out, as its place in the pool. `started` holds the
    worker of each slot, `present` those that said hello to this controller, for endpoints that come
    later.
    """

    boot_id: str = ""
    slots: int = 0
    address_pool: str = "127.77.0.0/16"
    max_concurrent: int = 2
    cursor: int = 0
    endpoints: dict[str, EndpointState] = {}
    graves: dict[str, Grave] = {}
    started: dict[int, str] = {}
    present: dict[int, str] = {}


def evolve(fleet: Fleet, event: Event, *, quiet_until: Mapping[str, float] | None = None) -> Fleet:
    """Return the fleet after one more event; the same object if nothing changed.

    `quiet_until` is when time alone changes each endpoint, if that is known (`rollout.evolve`).
    """
    known_until = quiet_until or {}
    noted = fleet if isinstance(event, EndpointEvent) else _noted(fleet, event)
    after = fleet if noted == fleet else noted
    for name in concerned(fleet, event):
        after = _evolved(after, name, event, known_until.get(name, -inf))
    return _bury(_admit_waiting(after, event.at))


def _noted(fleet: Fleet, event: Event) -> Fleet:
    """Take note of what concerns the fleet as a whole."""
    match event:
        case ControllerStarted():
            return fleet.but(
                boot_id=event.boot_id,
                slots=event.slots,
                address_pool=event.address_pool,
                max_concurrent=event.max_concurrent,
                present={},
            )
        case LimitsApplied():
            return fleet.but(max_concurrent=event.max_concurrent)
        case WorkerStarted():
            return fleet.but(started={**fleet.started, event.slot: event.start_id})
        case WorkerConnected():
            return fleet.but(present={**fleet.present, event.slot: event.start_id})
        case WorkerEnded() if fleet.present.get(event.slot) == event.start_id:
            return fleet.but(present={k: v for k, v in fleet.present.items() if k != event.slot})
        case _:
            return fleet


def _evolved(fleet: Fleet, name: str, event: Event, quiet_until: float = -inf) -> Fleet:
    """Fold an event into one endpoint."""
    known = fleet.endpoints.get(name)
    before = known or _new(name, fleet, event)
    has_room = _has_room(fleet, name)
    if before.is_admitted is not has_room:
        before, quiet_until = before.but(is_admitted=has_room), -inf
    after = rollout.evolve(before, event, quiet_until=quiet_until)
    if after is known:
        return fleet
    fleet = fleet.but(endpoints={**fleet.endpoints, name: after})
    return fleet if known is not None and after.groups is known.groups else _with_addresses(fleet)


def _has_room(fleet: Fleet, name: str) -> bool:
    """Whether one more rollout may be under way; first deployments wait for nobody."""
    under_way = 0
    for other, state in fleet.endpoints.items():
        on = state.rollout
        if other != name and state.stable and on and on.phase is RolloutPhase.progressing:
            under_way += 1
    return under_way < fleet.max_concurrent


def _admit_waiting(fleet: Fleet, now: float) -> Fleet:
    """Let endpoints begin that waited for another's rollout to end, in the order of their names."""
    for name, state in fleet.endpoints.items():
        is_refused = not state.is_admitted and bool(state.stable)
        if is_refused and moves.wants_rollout(state) and _has_room(fleet, name):
            fleet = _evolved(fleet, name, Woke(at=now, endpoint=name))
    return fleet


def _bury(fleet: Fleet) -> Fleet:
    """Forget removed endpoints of which nothing is left, except for the numbers they came to."""
    if not any(state.is_removed for state in fleet.endpoints.values()):
        return fleet
    gone = {name: state for name, state in fleet.endpoints.items() if _is_gone(state)}
    if not gone:
        return fleet
    graves = {
        name: Grave(
            generation=state.table.generation,
            groups_made=state.groups_made,
            rollouts_begun=state.rollouts_begun,
        )
        for name, state in gone.items()
    }
    left = {name: state for name, state in fleet.endpoints.items() if name not in gone}
    return fleet.but(endpoints=left, graves={**fleet.graves, **graves})


def _is_gone(state: EndpointState) -> bool:
    """Whether nobody runs for it, and every worker knows."""
    if not state.is_removed or state.groups or not state.slots:
        return False
    return all(s.is_present and s.applied >= state.table.generation for s in state.slots)


def concerned(fleet: Fleet, event: Event) -> tuple[str, ...]:
    """Return the endpoints whose state an event may change."""
    if isinstance(event, EndpointEvent):
        is_echo = event.endpoint not in fleet.endpoints and not isinstance(event, SettingsApplied)
        return () if is_echo else (event.endpoint,)  # an echo of an endpoint that is gone
    return () if isinstance(event, LimitsApplied) else tuple(fleet.endpoints)


def _new(name: str, fleet: Fleet, event: Event) -> EndpointState:
    """Return an endpoint that has only just been configured."""
    assert isinstance(event, SettingsApplied), event  # noqa: S101  concerned lets no other through
    grave = fleet.graves.get(name, Grave(generation=0, groups_made=0, rollouts_begun=0))
    state = EndpointState(
        name=name,
        boot_id=fleet.boot_id,
        settings=event.settings,
        table=_no_table(name, event.settings).but(generation=grave.generation),
        groups_made=grave.groups_made,
        rollouts_begun=grave.rollouts_begun,
    )
    started = ControllerStarted(
        at=event.at, boot_id=fleet.boot_id, slots=fleet.slots, address_pool=fleet.address_pool
    )
    state = rollout.evolve(state, started)
    present, known = fleet.present, {**fleet.started, **fleet.present}
    return state.but(
        slots=tuple(
            s.but(start_id=known.get(s.number, ""), is_present=s.number in present)
            for s in state.slots
        )
    )


def _no_table(name: str, settings: EndpointSettings) -> Table:
    """Return the table before the first: generation 0, never sent."""
    return Table(
        endpoint=name,
        generation=0,
        hosts=(),
        publish=settings.publish,
        ttl_s=settings.ttl_s,
    )


def _with_addresses(fleet: Fleet) -> Fleet:
    """Give an address to every group that has none, as long as there are free ones."""
    needy = [(n, g) for n, state in fleet.endpoints.items() for g in state.groups if not g.address]
    if not needy:
        return fleet
    used = {g.address for state in fleet.endpoints.values() for g in state.groups}
    pool = _network(fleet.address_pool)
    cursor, endpoints = fleet.cursor, dict(fleet.endpoints)
    for name, group in needy:
        found = _next_free(pool, cursor, used)
        if found is None:
            break  # it waits without an address, and `status` says so; config checks the size
        cursor, address = found
        used.add(address)
        endpoints[name] = endpoints[name].with_group(group.but(address=address))
    return fleet.but(cursor=cursor, endpoints=endpoints)


@lru_cache(maxsize=8)
def _network(pool: str) -> IPv4Network:
    return IPv4Network(pool)


def _next_free(pool: IPv4Network, cursor: int, used: set[str]) -> tuple[int, str] | None:
    """Return the next place and its address, passing over network and broadcast lookalikes."""
    for step in range(1, pool.num_addresses + 1):
        place = (cursor + step) % pool.num_addresses
        address = str(pool[place])
        is_gateway = place == pool.num_addresses - 2  # where a container engine has its own
        if place % 256 not in {0, 255} and not is_gateway and address not in used:
            return place, address
    return None
