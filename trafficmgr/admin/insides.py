"""The way into the groups: their logs, commands inside them, what they use, what they are made of.

Names are looked up in the single writer's frozen state, what goes on in a group is asked of the
runtime. An engine that can't be asked is said, and the rest is shown.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from trafficmgr.admin import counted, details
from trafficmgr.admin.ports import UnknownNameError
from trafficmgr.admin.views import phase, says
from trafficmgr.controller.loop import Loop
from trafficmgr.controller.ports import Clock, Journal
from trafficmgr.controller.receipts import wall_clock
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import Group, GroupPhase
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import short
from trafficmgr.runtimes.contract import (
    ExecSession,
    GroupStatus,
    LogQuery,
    Runtime,
    RuntimeFailure,
    RuntimeUnknownError,
)

Plain = dict[str, Any]

EVENTS_READ = 5000
"""How many of an endpoint's last events `show` counts, which takes some milliseconds."""

HAS_CONTAINERS = frozenset({GroupPhase.started, GroupPhase.ended, GroupPhase.completed})
"""Phases in which there is something that can have used anything."""


class Insides:
    """Answers what is asked about the inside of groups."""

    def __init__(
        self,
        *,
        loop: Loop,
        runtime: Runtime,
        journal: Journal,
        clock: Clock,
        wall: Callable[[], float] = wall_clock,
    ) -> None:
        self._loop = loop
        self._runtime = runtime
        self._journal = journal
        self._clock = clock
        self._wall = wall

    def logs(
        self, group: str, query: LogQuery, *, since_s: float | None, is_previous: bool
    ) -> AsyncIterator[bytes]:
        """Yield what a group wrote; also of one that is gone, as long as its logs are kept."""
        name = _previous(self._loop.fleet, group) if is_previous else group
        since = None if since_s is None else self._wall() - since_s
        return self._runtime.logs(name, query.but(since=since))

    async def exec(
        self, group: str, container: str, command: tuple[str, ...], *, has_tty: bool
    ) -> ExecSession:
        """Run a command inside a container of a group that runs."""
        return await self._runtime.exec(group, container, command, has_tty=has_tty)

    # -- stats ------------------------------------------------------------------------------------

    async def stats(self, endpoint: str, group: str | None) -> Plain:
        """Return what containers have used; a group that can't tell says why instead."""
        state = endpoint_of(self._loop.fleet, endpoint)
        groups = [one for one in _chosen(state, group) if one.phase in HAS_CONTAINERS]
        async with asyncio.TaskGroup() as asking:
            asked = [asking.create_task(self._used(one)) for one in groups]
        return {"endpoint": endpoint, "groups": [task.result() for task in asked]}

    async def _used(self, group: Group) -> Plain:
        head = {"id": group.id, "revision": short(group.revision), "containers": [], "trouble": ""}
        try:
            used = await self._runtime.stats(group.id)
        except RuntimeFailure as failure:
            return head | {"trouble": str(failure)}
        return head | {"containers": [_all_fields(one) for one in used]}

    # -- show -------------------------------------------------------------------------------------

    async def show(self, endpoint: str, group: str | None) -> Plain:
        """Return groups with their containers, and what happened to them."""
        _chosen(endpoint_of(self._loop.fleet, endpoint), group)
        statuses, trouble = await self._statuses()
        stored = await self._journal.events(
            endpoint=endpoint, after=0, limit=EVENTS_READ, from_end=True
        )
        events = counted.by_group(stored)
        state = endpoint_of(self._loop.fleet, endpoint)  # it went on while we asked
        return {
            "endpoint": endpoint,
            "phase": phase(state),
            "says": says(state, self._clock()),
            "hosts": list(state.settings.hosts),
            "trouble": trouble,
            "groups": [
                {
                    **details.group(one, state, statuses.get(one.id), is_engine_away=bool(trouble)),
                    "previous": _end(one.replaces, events),
                    "events": events.get(one.id, []),
                }
                for one in _chosen(state, group)
            ],
        }

    async def _statuses(self) -> tuple[dict[str, GroupStatus], str]:
        """Return group -> what the runtime sees, and why it can't be asked ("": it can)."""
        try:
            return {status.group: status for status in await self._runtime.list()}, ""
        except RuntimeUnknownError as unknown:
            return {}, str(unknown)


def endpoint_of(fleet: Fleet, name: str) -> EndpointState:
    """Return an endpoint by its name.

    Raises:
        UnknownNameError: There is none; the text names those there are.
    """
    try:
        return fleet.endpoints[name]
    except KeyError:
        known = ", ".join(sorted(fleet.endpoints)) or "none at all"
        raise UnknownNameError(f"There is no endpoint {name!r}; there is {known}.") from None


def _chosen(state: EndpointState, group: str | None) -> tuple[Group, ...]:
    """Return all groups of an endpoint, or the one that is meant."""
    found = tuple(one for one in state.groups if group in {None, one.id})
    if found or group is None:
        return found
    known = ", ".join(one.id for one in state.groups) or "none at all"
    raise UnknownNameError(f"{state.name} has no group {group!r}; it has {known}.")


def _previous(fleet: Fleet, group: str) -> str:
    """Return the group whose place this one took."""
    for state in fleet.endpoints.values():
        for one in state.groups:
            if one.id != group:
                continue
            if one.replaces:
                return one.replaces
            raise UnknownNameError(
                f"Group {group} took nobody's place: there is no previous one. Ask without"
                f" --previous."
            )
    raise UnknownNameError(
        f"There is no group {group!r} now, so whose place it took is not known. `trafficmgr events`"
        f" names the groups there were."
    )


def _end(replaced: str, events: dict[str, list[Plain]]) -> Plain | None:
    """Return how the group ended that was there before; None if there was none."""
    if not replaced:
        return None
    nothing = {"what": "", "why": "", "at": None}
    return {"group": replaced, **(counted.end_of(events.get(replaced, [])) or nothing)}


def _all_fields(noun: msgspec.Struct) -> Plain:
    """Return a noun as plain data; what is not known is null and not left out."""
    return {field: getattr(noun, field) for field in noun.__struct_fields__}
