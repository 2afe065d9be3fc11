"""What the controller needs from the world, as Protocols. `service` plugs in the concrete things.

Nothing in this room opens a database, an engine or a registry by itself, so that all of it runs
against memory in tests.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from trafficmgr.core.events import Event
from trafficmgr.core.routing import Table
from trafficmgr.journal.entries import Entry, Kept, Stored

Clock = Callable[[], float]
"""Seconds on CLOCK_BOOTTIME: one clock for all processes, kept across their restarts."""

Tell = Callable[[Event], Awaitable[None]]
"""Hand an event to the single writer; returns once it is journaled and acted upon."""


def boottime() -> float:
    """Return seconds since boot, suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Journal(Protocol):
    """The durable log: events and resulting states in one transaction."""

    async def append(self, entries: Sequence[Entry], states: Mapping[str, bytes | None]) -> int:
        """Return once everything is on disk; raises JournalError with nothing written."""
        ...

    async def load(self) -> Kept:
        """Return the newest states."""
        ...

    async def events(
        self,
        *,
        endpoint: str | None = ...,
        after: int = ...,
        limit: int = ...,
        from_end: bool = ...,
    ) -> list[Stored]:
        """Return journaled events in order."""
        ...


class Workers(Protocol):
    """The way to every worker."""

    async def publish(self, table: Table) -> None:
        """Write the table's file, then send it to every connected worker."""
        ...


class Supervisor(Protocol):
    """The way to the supervisor."""

    def restart_worker(self, start_id: str) -> None:
        """Let it kill and replace this worker, if it still is the one of its slot."""
        ...

    def stop(self) -> None:
        """Let it end the service in order; groups are not its business."""
        ...
