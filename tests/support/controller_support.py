"""A controller's parts for tests: settings, revisions, a clock that is moved by hand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from support.story import NAME, revision, settings
from trafficmgr.controller.loop import Loop
from trafficmgr.core import events
from trafficmgr.core.events import Event

DEADLINE_S = 20.0

__all__ = ["DEADLINE_S", "NAME", "Clock", "eventually", "revision", "running", "settings"]


class Clock:
    """Seconds since boot, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, by_s: float) -> None:
        """Let time pass."""
        self.now += by_s


async def eventually(is_so: Callable[[], object]) -> None:
    """Wait until something is so; fails after a generous deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not is_so():  # noqa: ASYNC110  waits for the outside world, not for an object of ours
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(loop: Loop) -> AsyncIterator[Loop]:
    """Run a loop for as long as the context lasts."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(loop.run())
        try:
            yield loop
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def first_events(now: float, slots: int = 1) -> list[Event]:
    """Return what every controller hears first, up to a connected worker in each slot."""
    started = events.ControllerStarted(
        at=now, boot_id="boot-1", slots=slots, address_pool="127.77.0.0/16"
    )
    configured = events.SettingsApplied(at=now, endpoint=NAME, settings=settings(ttl="2s"))
    workers = [
        events.WorkerConnected(at=now, slot=slot, start_id=f"{slot}-a") for slot in range(slots)
    ]
    return [started, configured, *workers]
