"""What a new controller does before anything else: believe the journal, then look at the world.

1. Say that a controller started: slots must say hello again, clocks count from now.
2. Ask the runtime what runs. A group that should run and does not has ended; one that runs and
   that nobody knows is a leftover, swept after a grace period.
3. Apply the settings (configuring.py), and forget what is left of endpoints that are gone.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from trafficmgr.config.settings import Settings
from trafficmgr.controller.loop import Loop
from trafficmgr.controller.ports import Clock
from trafficmgr.core.events import (
    ControllerStarted,
    EngineFound,
    EngineLost,
    GroupCompleted,
    GroupEnded,
)
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import GroupPhase
from trafficmgr.runtimes.contract import (
    GroupState,
    GroupStatus,
    Runtime,
    RuntimeFailure,
    RuntimeUnknownError,
)

TOUCH_S = 2.0
"""How often the engine is asked whether it is there; a list costs it some milliseconds."""
SWEEP_AFTER_S = 60.0
"""How long a leftover may live: longer than any start that may just be under way."""

RETRY_S = 2.0

log = structlog.get_logger()


async def begin(loop: Loop, clock: Clock, *, boot_id: str, slots: int, settings: Settings) -> None:
    """Take over from the controller before."""
    await loop.tell(
        ControllerStarted(
            at=clock(),
            boot_id=boot_id,
            slots=slots,
            address_pool=settings.address_pool,
            max_concurrent=settings.max_concurrent,
        )
    )


async def observe(loop: Loop, clock: Clock, runtime: Runtime) -> bool:
    """Compare what should run with what does; False if the engine can't be asked (promise 12)."""
    try:
        found = {status.group: status for status in await runtime.list()}
    except RuntimeUnknownError as unknown:
        await _lost(loop, clock, unknown)
        return False
    for state in loop.fleet.endpoints.values():
        for group in state.groups:
            if group.phase is not GroupPhase.started:
                continue
            status = found.get(group.id) or GroupStatus(
                group=group.id,
                endpoint=state.name,
                state=GroupState.exited,
                reason="it was gone when the controller came back",
            )
            if status.state is not GroupState.running:
                await loop.tell(_ended(status, clock()))
    return True


async def _lost(loop: Loop, clock: Clock, unknown: RuntimeUnknownError) -> None:
    """Say it once; it is told again and again, because endpoints may have come meanwhile."""
    if not any(state.is_engine_away for state in loop.fleet.endpoints.values()):
        log.warning("engine_lost", reason=str(unknown))
    await loop.tell(EngineLost(at=clock(), reason=str(unknown)))


def forget_tables(state_dir: Path, fleet: Fleet) -> None:
    """Delete the tables of endpoints that are gone, so that new workers know nothing of them."""
    for path in (state_dir / "tables").glob("*.table"):
        if path.stem not in fleet.endpoints:
            path.unlink(missing_ok=True)
            log.info("table_forgotten", endpoint=path.stem)


async def sweep(loop: Loop, runtime: Runtime, *, after_s: float = SWEEP_AFTER_S) -> None:
    """End the groups of this instance that nobody knows, after a grace period.

    One that can't be ended harms nobody, as no table has it; the next controller tries again.
    """
    await asyncio.sleep(after_s)
    for status in await _listed(runtime):
        if status.group not in known_groups(loop.fleet):
            await _swept(runtime, status)


async def _swept(runtime: Runtime, leftover: GroupStatus) -> None:
    group, endpoint = leftover.group, leftover.endpoint
    try:
        await runtime.stop(group)
    except RuntimeFailure as failure:
        log.warning("leftover_not_swept", group=group, endpoint=endpoint, reason=str(failure))
    else:
        log.warning("leftover_swept", group=group, endpoint=endpoint)


def known_groups(fleet: Fleet) -> frozenset[str]:
    """Return the ids of all groups that the state knows."""
    return frozenset(g.id for state in fleet.endpoints.values() for g in state.groups)


async def _listed(runtime: Runtime) -> tuple[GroupStatus, ...]:
    """Ask until the engine answers: unknown is not failed (promise 12)."""
    while True:
        try:
            return await runtime.list()
        except RuntimeUnknownError as unknown:
            log.warning("runtime_unknown", command="list", reason=str(unknown))
            await asyncio.sleep(RETRY_S)


async def hear_ends(loop: Loop, clock: Clock, runtime: Runtime) -> None:
    """Tell of every group that ends or completes by itself, until cancelled."""
    async for status in runtime.watch():
        await loop.tell(_ended(status, clock()))


def _ended(status: GroupStatus, now: float) -> GroupEnded | GroupCompleted:
    endpoint, group, reason = status.endpoint, status.group, status.reason
    if status.state is GroupState.exited:
        return GroupEnded(at=now, endpoint=endpoint, group=group, reason=reason)
    return GroupCompleted(
        at=now,
        endpoint=endpoint,
        group=group,
        reason=reason,
        is_success=all(one.exit_code == 0 for one in status.containers),
    )


async def keep_in_touch(
    loop: Loop,
    clock: Clock,
    runtime: Runtime,
    *,
    is_known: bool,
    found: Callable[[], None],
    every_s: float = TOUCH_S,
) -> None:
    """Ask the engine every few seconds, so that decisions know when it is away; until cancelled.

    Args:
        loop: Is told.
        clock: Seconds on CLOCK_BOOTTIME.
        runtime: The engine.
        is_known: Whether it was looked at already.
        found: Called each time when it was looked at after it was away, before that is told.
        every_s: How often.
    """
    while True:
        await asyncio.sleep(every_s)
        was_known, is_known = is_known, await _is_there(loop, clock, runtime, is_known=is_known)
        if is_known and not was_known:
            found()
            log.info("engine_found")
            await loop.tell(EngineFound(at=clock()))


async def _is_there(loop: Loop, clock: Clock, runtime: Runtime, *, is_known: bool) -> bool:
    """Ask; after an absence look at everything, because ends that nobody saw must be told."""
    if not is_known:
        return await observe(loop, clock, runtime)
    try:
        await runtime.list()
    except RuntimeUnknownError as unknown:
        await _lost(loop, clock, unknown)
        return False
    return True
