"""The single writer: events in, journaled, then acted upon. In this order and no other (DESIGN 5).

    1. fold the events that wait into a new state (`Mind.handle`, synchronous and pure),
    2. append events and resulting states in one transaction,
    3. only then show the state and hand the commands that follow from it to the hands,
    4. arm one timer at `wake_at`.

A crash between any two of them loses nothing: what was not journaled was not acted upon, and what
was journaled is wanted again by the next `decide`. While the journal can't be written (a full
disk), decisions wait, traffic flows on, and the trouble is shown (promise 12).
"""

import asyncio
from collections.abc import Callable, Iterator
from itertools import chain
from math import inf
from typing import NamedTuple

import msgspec
import structlog

from trafficmgr.controller import chronicle, faults
from trafficmgr.controller.ports import Clock, Journal
from trafficmgr.core import fleet, rollout
from trafficmgr.core.commands import AnyCommand
from trafficmgr.core.events import EndpointEvent, Event, Woke
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.state import EndpointState
from trafficmgr.journal.entries import Entry, JournalError

FLEET_KEY = "fleet"
RETRY_JOURNAL_S = 1.0

log = structlog.get_logger()


class Mind:
    """The state and the one body that changes it; the simulator runs this very class.

    What each endpoint wants and when time alone changes it is kept, because most events concern
    one endpoint of several, and many change nothing.
    """

    def __init__(self, state: Fleet) -> None:
        self.fleet = state
        self._wanted = {name: rollout.decide(one) for name, one in state.endpoints.items()}
        self._wakes = {name: _wake_at(one, 0.0) for name, one in state.endpoints.items()}

    def handle(self, event: Event) -> tuple[AnyCommand, ...]:
        """Fold one event in and return everything that is wanted now."""
        before, concerned = self.fleet.endpoints, fleet.concerned(self.fleet, event)
        self.fleet = fleet.evolve(self.fleet, event, quiet_until=self._wakes)
        for name, state in self.fleet.endpoints.items():
            is_changed = state is not before.get(name)
            if is_changed:
                self._wanted[name] = rollout.decide(state)
            if is_changed or (name in concerned and event.at >= self._wakes[name]):
                self._wakes[name] = _wake_at(state, event.at)
        if len(self._wakes) > len(self.fleet.endpoints):
            for name in before.keys() - self.fleet.endpoints.keys():
                del self._wanted[name], self._wakes[name]
        return self.wanted()

    def wanted(self) -> tuple[AnyCommand, ...]:
        """Return everything that is wanted, of all endpoints."""
        return tuple(chain.from_iterable(self._wanted.values()))

    def wake_at(self) -> float | None:
        """Return when the single timer is due; a time in the past means at once."""
        first = min(self._wakes.values(), default=inf)
        return None if first == inf else first

    def due(self, now: float) -> list[Woke]:
        """Return the timer's events for the endpoints whose moment has come."""
        return [Woke(at=now, endpoint=name) for name, at in self._wakes.items() if at <= now]


def _wake_at(state: EndpointState, settled_at: float) -> float:
    at = rollout.wake_at(state, settled_at)
    return inf if at is None else at


class _Told(NamedTuple):
    event: Event
    done: asyncio.Future[None]


class Loop:
    """Runs a `Mind` on a journal, a clock and hands."""

    def __init__(
        self,
        *,
        mind: Mind,
        journal: Journal,
        clock: Clock,
        act: Callable[[tuple[AnyCommand, ...]], None],
        look: Callable[[Fleet], None],
    ) -> None:
        """Make it.

        Args:
            mind: Holds the state to start from.
            journal: Where events and states go before anything is done.
            clock: Seconds on CLOCK_BOOTTIME.
            act: The hands: takes everything that is wanted, must not wait.
            look: The ears: told the state after each change, so that they know whom to watch.
        """
        self.fleet = mind.fleet
        self.trouble = ""
        self._mind = mind
        self._journal = journal
        self._clock = clock
        self._act = act
        self._look = look
        self._inbox: asyncio.Queue[_Told] = asyncio.Queue()
        self._changed = asyncio.Event()

    async def tell(self, event: Event) -> None:
        """Hand over an event; returns once it is journaled and acted upon."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait(_Told(event, done))
        await done

    async def until(self, is_so: Callable[[Fleet], bool]) -> None:
        """Wait until the state is as asked; it is looked at after every change."""
        while not is_so(self.fleet):
            self._changed.clear()
            await self._changed.wait()

    async def run(self) -> None:
        """Handle events until cancelled."""
        while True:
            batch = await self._next_batch()
            await self._handle([told.event for told in batch])
            for told in batch:
                if not told.done.done():
                    told.done.set_result(None)

    async def _next_batch(self) -> list[_Told]:
        """Wait for events or the timer; return all that is there."""
        batch: list[_Told] = []
        wake_at = self._mind.wake_at()
        wait_s = None if wake_at is None else max(0.0, wake_at - self._clock())
        try:
            async with asyncio.timeout(wait_s):
                batch.append(await self._inbox.get())
        except TimeoutError:
            pass  # the timer: what is due is asked for after this
        while not self._inbox.empty():
            batch.append(self._inbox.get_nowait())
        return batch

    def _due(self) -> Iterator[Event]:
        """Yield the timer's events; a generator, so that it asks only after what was observed."""
        yield from self._mind.due(self._clock())

    async def _handle(self, events: list[Event]) -> None:
        before = self.fleet
        entries, commands = [], self._mind.wanted()
        for event in chain(events, self._due()):
            known = self._mind.fleet
            commands = self._mind.handle(event)
            if self._mind.fleet is not known:
                entries.append(_entry(event, self._mind.fleet.boot_id))
        after = self._mind.fleet
        if entries:
            await self._keep(entries, _states(before, after))
        self.fleet = after
        self._changed.set()
        chronicle.write(log, before, after)
        self._look(after)
        self._act(commands)

    async def _keep(self, entries: list[Entry], states: dict[str, bytes | None]) -> None:
        """Append until it is on disk: nothing may be done before."""
        kinds = [entry.kind for entry in entries]
        faults.passed("before append", kinds)
        while True:
            try:
                await self._journal.append(entries, states)
            except JournalError as error:
                if not self.trouble:
                    log.error("journal_not_writable", reason=str(error))  # noqa: TRY400  a sentence
                self.trouble = str(error)
                await asyncio.sleep(RETRY_JOURNAL_S)
            else:
                if self.trouble:
                    log.info("journal_writable_again")
                self.trouble = ""
                break
        faults.passed("after append", kinds)


def _entry(event: Event, boot_id: str) -> Entry:
    return Entry(
        at=event.at,
        boot_id=boot_id,
        endpoint=event.endpoint if isinstance(event, EndpointEvent) else "",
        kind=type(event).__name__,
        event=msgspec.json.encode(event),
    )


def _states(before: Fleet, after: Fleet) -> dict[str, bytes | None]:
    """Return what must be stored: each endpoint that changed, and what all of them share."""
    changed: dict[str, bytes | None] = {
        f"endpoint/{name}": msgspec.json.encode(state)
        for name, state in after.endpoints.items()
        if state is not before.endpoints.get(name)
    }
    changed |= {f"endpoint/{name}": None for name in before.endpoints.keys() - after.endpoints}
    changed[FLEET_KEY] = msgspec.json.encode(after.but(endpoints={}))
    return changed


def restored(states: dict[str, bytes]) -> Fleet:
    """Return the fleet that `_states` has stored; an empty one if there is nothing.

    Raises:
        msgspec.DecodeError: The states are not what this version writes.
    """
    if FLEET_KEY not in states:
        return Fleet()
    shared = msgspec.json.decode(states[FLEET_KEY], type=Fleet)
    endpoints = (
        msgspec.json.decode(data, type=EndpointState)
        for key, data in sorted(states.items())
        if key.startswith("endpoint/")
    )
    return shared.but(endpoints={state.name: state for state in endpoints})
