"""The single writer keeps its order: journaled, then shown, then acted upon."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.controller_support import (
    NAME,
    Clock,
    eventually,
    first_events,
    revision,
    running,
    settings,
)

from trafficmgr.controller.loop import Loop, Mind, restored
from trafficmgr.core import events, fleet
from trafficmgr.core.commands import AnyCommand, StartGroup
from trafficmgr.core.fleet import Fleet
from trafficmgr.journal.entries import Entry, JournalError, Kept, Stored
from trafficmgr.journal.sqlite import Journal


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(tmp_path / "journal.db")
    yield opened
    await opened.close()


class StubbornJournal:
    """A journal whose disk is full for the first few appends."""

    def __init__(self, inner: Journal, failures: int) -> None:
        self.inner = inner
        self.failures = failures
        self.order: list[str] = []
        self.on_append: Callable[[], None] = lambda: None

    async def append(self, entries: Sequence[Entry], states: Mapping[str, bytes | None]) -> int:
        if self.failures:
            self.failures -= 1
            raise JournalError("the disk is full")
        seq = await self.inner.append(entries, states)
        self.on_append()
        self.order += [f"journaled {entry.kind}" for entry in entries]
        return seq

    async def load(self) -> Kept:
        return await self.inner.load()

    async def events(self, **given: Any) -> list[Stored]:
        return await self.inner.events(**given)


def made(journal: Any, clock: Clock, acted: list[AnyCommand]) -> Loop:
    return Loop(
        mind=Mind(Fleet()),
        journal=journal,
        clock=clock,
        act=acted.extend,
        look=lambda _fleet: None,
    )


async def test_nothing_is_wanted_before_it_is_journaled(journal: Journal) -> None:
    clock, order = Clock(), list[str]()
    stubborn = StubbornJournal(journal, failures=0)
    stubborn.order = order

    def act(commands: tuple[AnyCommand, ...]) -> None:
        order.extend(f"wanted {c.key}" for c in commands if isinstance(c, StartGroup))

    loop = Loop(
        mind=Mind(Fleet()), journal=stubborn, clock=clock, act=act, look=lambda _fleet: None
    )
    async with running(loop):
        for event in first_events(clock()):
            await loop.tell(event)
        await loop.tell(events.RevisionSeen(at=clock(), endpoint=NAME, revision=revision("v1")))

    assert order.index("journaled RevisionSeen") < order.index("wanted start shop-1")


async def test_full_disk_delays_decisions_and_says_so(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trafficmgr.controller.loop.RETRY_JOURNAL_S", 0.01)
    clock, acted = Clock(), list[AnyCommand]()
    stubborn = StubbornJournal(journal, failures=0)
    loop = made(stubborn, clock, acted)
    async with running(loop):
        for event in first_events(clock()):
            await loop.tell(event)
        acted.clear()
        stubborn.failures = 1_000_000

        async with asyncio.TaskGroup() as asking:
            asking.create_task(
                loop.tell(events.RevisionSeen(at=clock(), endpoint=NAME, revision=revision("v1")))
            )
            await eventually(lambda: loop.trouble)
            assert not acted
            assert not loop.fleet.endpoints[NAME].newest
            stubborn.failures = 0

        assert not loop.trouble
        assert any(isinstance(command, StartGroup) for command in acted)


async def test_events_that_change_nothing_leave_no_trace(journal: Journal) -> None:
    clock = Clock()
    loop = made(journal, clock, [])
    async with running(loop):
        for event in first_events(clock()):
            await loop.tell(event)
        before = (await journal.load()).last_seq

        await loop.tell(events.GroupReady(at=clock(), endpoint=NAME, group="shop-99"))
        await loop.tell(
            events.SettingsApplied(at=clock(), endpoint=NAME, settings=settings(ttl="2s"))
        )

        assert (await journal.load()).last_seq == before


async def test_timer_wakes_the_loop(journal: Journal) -> None:
    """A back-off passes without any event, and the next group is wanted."""
    clock, acted = Clock(), list[AnyCommand]()
    loop = made(journal, clock, acted)
    async with running(loop):
        for event in first_events(clock()):
            await loop.tell(event)
        await loop.tell(events.RevisionSeen(at=clock(), endpoint=NAME, revision=revision("v1")))
        await loop.tell(
            events.GroupStartFailed(at=clock(), endpoint=NAME, group="shop-1", reason="no")
        )
        assert not any(isinstance(c, StartGroup) and c.group.id == "shop-2" for c in acted)

        clock.now += 1.0
        await eventually(lambda: wanted(acted, "shop-2"))


def wanted(acted: list[AnyCommand], group: str) -> bool:
    return any(isinstance(c, StartGroup) and c.group.id == group for c in acted)


async def test_a_moment_that_passes_while_the_disk_is_slow_is_not_missed(journal: Journal) -> None:
    """Time goes on between an event and the arming of the timer; also for other endpoints."""
    clock = Clock()
    stubborn = StubbornJournal(journal, failures=0)
    loop = made(stubborn, clock, [])
    async with running(loop):
        for event in first_events(clock()):
            await loop.tell(event)
        patient = settings(ttl="2s", min_ready="2s")
        await loop.tell(events.SettingsApplied(at=clock(), endpoint=NAME, settings=patient))
        await loop.tell(events.RevisionSeen(at=clock(), endpoint=NAME, revision=revision("v1")))
        await loop.tell(events.GroupStarted(at=clock(), endpoint=NAME, group="shop-1"))
        stubborn.on_append = lambda: clock.advance(10.0)

        await loop.tell(events.GroupReady(at=clock(), endpoint=NAME, group="shop-1"))

        await eventually(lambda: loop.fleet.endpoints[NAME].stable == "v1")


async def test_all_events_fold_to_the_stored_state(journal: Journal) -> None:
    """What a start loads is what a replay of everything would give."""
    clock = Clock()
    loop = made(journal, clock, [])
    async with running(loop):
        for event in first_events(clock(), slots=2):
            await loop.tell(event)
        await loop.tell(events.RevisionSeen(at=clock(), endpoint=NAME, revision=revision("v1")))
        for event_type in (events.GroupStarted, events.GroupReady):
            clock.now += 1
            await loop.tell(event_type(at=clock(), endpoint=NAME, group="shop-1"))
        await loop.tell(events.RevisionSeen(at=clock(), endpoint=NAME, revision=revision("v2")))
        await loop.tell(events.AbortAsked(at=clock(), endpoint=NAME))

    folded = Fleet()
    async for stored in journal.replay():
        folded = fleet.evolve(folded, msgspec.json.decode(stored.entry.event, type=events.AnyEvent))

    kept = restored((await journal.load()).states)
    assert kept == folded == loop.fleet
    assert kept.endpoints[NAME].quarantined
