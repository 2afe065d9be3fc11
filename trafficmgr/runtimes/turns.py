"""Starts and stops of the same group take turns, and a stop ends a start that is under way.

Every runtime keeps this order in the same way; what a start and a stop are is its own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from trafficmgr.runtimes.contract import RuntimeFailure


class Turns:
    """The turns of all groups of one runtime."""

    def __init__(self, engine: str) -> None:
        """Make it; `engine` is what errors begin with."""
        self._engine = engine
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._starting: dict[str, asyncio.Timeout] = {}

    @asynccontextmanager
    async def start(self, group: str) -> AsyncIterator[None]:
        """Be the one that starts the group, until done or told to stop.

        Raises:
            RuntimeFailure: It was told to stop meanwhile; what is in the block was cancelled.
        """
        async with self._lock(group):
            try:
                async with asyncio.timeout(None) as scope:
                    self._starting[group] = scope
                    yield
            except TimeoutError:
                if not scope.expired():
                    raise
                raise RuntimeFailure(
                    f"{self._engine}: group {group} was told to stop while it was starting. "
                    "Nothing of it is left."
                ) from None
            finally:
                del self._starting[group]

    @asynccontextmanager
    async def stop(self, group: str) -> AsyncIterator[None]:
        """Be the one that stops the group; a start that is under way is cancelled first."""
        if (scope := self._starting.get(group)) is not None and not scope.expired():
            scope.reschedule(0)
        async with self._lock(group):
            yield

    def starting(self) -> frozenset[str]:
        """Return the groups of which a start is under way."""
        return frozenset(self._starting)

    def is_settled(self, group: str) -> bool:
        """Whether no start or stop is under way, whose doings must not be taken for an end."""
        lock = self._locks.get(group)
        return lock is None or not lock.locked()

    def _lock(self, group: str) -> asyncio.Lock:
        """Return the group's lock, which exists as long as someone holds or awaits it."""
        lock = self._locks.get(group)
        if lock is None:
            self._locks[group] = lock = asyncio.Lock()
        return lock
