"""Learning that a group ended by itself: the engine's events, and a look when they begin.

Events are hints. Whatever happens to a container of ours, its group is looked at, and what it looks
like is what is told. The stream breaks when the engine goes away, and its memory is short; so each
time that it begins, all groups are looked at, and no end is missed. An end is told once, and only
of groups that were seen running; that a group was ended already is what `list` says.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from trafficmgr.runtimes.contract import GroupState, GroupStatus, RuntimeFailure
from trafficmgr.runtimes.docker.conversation import converse
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.names import GROUP, as_json, filters
from trafficmgr.runtimes.docker.seen import Eyes, SeenGroup

_FIRST_RETRY_S = 0.1
_LONGEST_RETRY_S = 2.0
_EVERYTHING = ""


class Watch:
    """The groups whose end is of interest, and those that something happened to."""

    def __init__(
        self, engine: Engine, *, instance: str, eyes: Eyes, is_settled: Callable[[str], bool]
    ) -> None:
        """Watch the groups of this instance.

        Args:
            engine: Where they run.
            instance: Whose they are.
            eyes: How they are looked at.
            is_settled: Whether no start or stop of a group is under way.
        """
        self._engine = engine
        self._instance = instance
        self._eyes = eyes
        self._is_settled = is_settled
        self._running: set[str] = set()
        self._whole: set[str] = set()
        self._touched: asyncio.Queue[str] = asyncio.Queue()
        self._listener: asyncio.Task[None] | None = None
        self._retry_s = _FIRST_RETRY_S

    def add(self, group: str) -> None:
        """Watch a group that was seen running and whole, and look at it once more."""
        self._whole.add(group)
        if group not in self._running:
            self._running.add(group)
            self._touched.put_nowait(group)

    def forget(self, group: str) -> None:
        """Watch it no longer, and tell nobody what it does."""
        self._running.discard(group)
        self._whole.discard(group)

    def judged(self, seen: SeenGroup) -> GroupStatus:
        """Return a group's status, in the light of what it was before.

        One of which a container is missing is being started, unless it was whole already.
        """
        status = seen.status()
        if seen.group not in self._whole or seen.is_whole or not self._is_settled(seen.group):
            return status
        return status.but(
            state=GroupState.exited, reason="somebody has removed a container of it", pid=None
        )

    async def ends(self) -> AsyncIterator[GroupStatus]:
        """Yield each group that ended by itself, once."""
        self._listen()
        retry_s = _FIRST_RETRY_S
        while True:
            group = await self._touched.get()
            if group and group not in self._running:
                continue
            try:
                seen = await self._eyes.groups(group)
            except RuntimeFailure:
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LONGEST_RETRY_S)
                self._touched.put_nowait(group)
                continue
            retry_s = _FIRST_RETRY_S
            for status in self._ended(group, seen):
                yield status

    async def close(self) -> None:
        """Listen no longer."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.cancel()
            with suppress(asyncio.CancelledError):
                await listener

    def _ended(self, group: str, seen: tuple[SeenGroup, ...]) -> list[GroupStatus]:
        """Return what is to be told of what was seen; a group that is gone was removed by hand."""
        statuses = {one.group: self.judged(one) for one in seen}
        of_interest = {group} & self._running if group else set(self._running)
        told = []
        for name in sorted(of_interest):
            if not self._is_settled(name):
                continue  # `add` comes after a start, and a stop is no end by itself
            status = statuses.get(name) or _gone(name)
            if status.state is not GroupState.running:
                self._running.discard(name)
                told.append(status)
        return told

    # -- the engine's events ----------------------------------------------------------------------

    def _listen(self) -> None:
        """Begin to listen, if nobody does. The task is ours, and `close` awaits its end."""
        if self._listener is None:
            self._listener = asyncio.get_running_loop().create_task(self._hear(), name="docker")

    async def _hear(self) -> None:
        while True:
            try:
                async for event in self._events():
                    self._note(event)
            except (RuntimeFailure, ValueError):
                pass  # the engine is away, or broke off in mid-word; whoever asks it hears so
            await asyncio.sleep(self._retry_s)
            self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)

    async def _events(self) -> AsyncIterator[dict[str, Any]]:
        wanted = filters(self._instance) | {
            "type": ["container"],
            "event": ["die", "oom", "destroy", "start"],
        }
        async with converse(
            self._engine,
            "GET",
            "/events",
            query={"filters": as_json(wanted)},
            answers_within_s=None,  # Docker answers at once, others with the first event
        ) as answer:
            self._retry_s = _FIRST_RETRY_S
            self._eyes.forget()
            self._touched.put_nowait(_EVERYTHING)
            async for event in answer.documents():
                yield event

    def _note(self, event: dict[str, Any]) -> None:
        actor = event.get("Actor") or {}
        identity = actor.get("ID", "")
        if event.get("Action") == "oom":
            self._eyes.ran_out_of_memory(identity)
        else:
            self._eyes.forget(identity)
        self._touched.put_nowait((actor.get("Attributes") or {}).get(GROUP, _EVERYTHING))


def _gone(group: str) -> GroupStatus:
    return GroupStatus(
        group=group, endpoint="", state=GroupState.exited, reason="its containers were removed"
    )
