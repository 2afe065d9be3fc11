"""The running service, as the admin API and so the operator see it.

Reads the single writer's frozen state; asks for things by telling it events.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from trafficmgr import __version__
from trafficmgr.admin import views
from trafficmgr.admin.ports import UnknownNameError
from trafficmgr.controller.link import Link
from trafficmgr.controller.loop import Loop
from trafficmgr.controller.ports import Clock, Journal, Supervisor
from trafficmgr.core import operator
from trafficmgr.core.errors import NotPossibleNowError
from trafficmgr.core.events import AbortAsked, EndpointRemoved, PromoteAsked
from trafficmgr.core.model import short
from trafficmgr.core.state import EndpointState
from trafficmgr.runtimes.contract import Runtime

RegistryView = Callable[[EndpointState], list[dict[str, Any]]]
"""What is known of an endpoint's images at their registries."""


class LiveHouse:
    """Answers the admin API from the running controller."""

    def __init__(
        self,
        *,
        loop: Loop,
        link: Link,
        journal: Journal,
        runtime: Runtime,
        supervisor: Supervisor,
        registry: RegistryView,
        clock: Clock,
        state_dir: Path,
        listen: dict[str, list[str]],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._loop = loop
        self._link = link
        self._journal = journal
        self._runtime = runtime
        self._supervisor = supervisor
        self._registry = registry
        self._clock = clock
        self._state_dir = state_dir
        self._listen = listen
        self._tasks = tasks
        self._started_at = clock()
        self._is_stopping = False

    def status(self) -> dict[str, Any]:
        """Return the service and all endpoints as they are now."""
        now = self._clock()
        endpoints = []
        for name, state in sorted(self._loop.fleet.endpoints.items()):
            view = views.endpoint(state, self._link.totals(name), self._link.observed(name), now)
            endpoints.append({**view, "registry": self._registry(state)})
        return {"service": self._service(now), "endpoints": endpoints}

    def _service(self, now: float) -> dict[str, Any]:
        states = list(self._loop.fleet.endpoints.values())
        return {
            "version": __version__,
            "pid": os.getpid(),
            "since_s": round(now - self._started_at, 1),
            "state_dir": str(self._state_dir),
            "is_stopping": self._is_stopping,
            "trouble": self._loop.trouble,
            "slots": [
                {"slot": s.number, "start_id": s.start_id, "is_present": s.is_present}
                for s in (states[0].slots if states else ())
            ],
            "listen": self._listen,
        }

    async def events(self, endpoint: str | None, after: int, limit: int) -> list[dict[str, Any]]:
        """Return journaled events: the last ones, or those after a seq."""
        if endpoint is not None:
            self._endpoint(endpoint)
        stored = await self._journal.events(
            endpoint=endpoint, after=after, limit=limit, from_end=after == 0
        )
        return [one.as_plain() for one in stored]

    def rollouts(self, endpoint: str | None) -> list[dict[str, Any]]:
        """Return the rollouts that are kept, oldest first."""
        names = [endpoint] if endpoint is not None else sorted(self._loop.fleet.endpoints)
        now = self._clock()
        return [view for name in names for view in views.rollouts(self._endpoint(name), now)]

    async def promote(self, endpoint: str) -> str:
        """End the present hold of the endpoint's rollout."""
        state = self._endpoint(endpoint)
        if why_not := operator.why_not(operator.Verb.promote, state):
            raise NotPossibleNowError(why_not)
        await self._loop.tell(PromoteAsked(at=self._clock(), endpoint=endpoint))
        return views.says(self._endpoint(endpoint), self._clock())

    async def abort(self, endpoint: str) -> str:
        """Send traffic back to stable and give the candidate up."""
        state = self._endpoint(endpoint)
        if why_not := operator.why_not(operator.Verb.abort, state):
            raise NotPossibleNowError(why_not)
        await self._loop.tell(AbortAsked(at=self._clock(), endpoint=endpoint))
        return views.says(self._endpoint(endpoint), self._clock())

    def logs(self, group: str, *, tail: int | None, follow: bool) -> AsyncIterator[bytes]:
        """Yield what a group wrote; also of one that is gone, as long as its logs are kept."""
        return self._runtime.logs(group, tail=tail, follow=follow)

    async def stop(self, *, groups: bool) -> str:
        """Begin to end the service."""
        if self._is_stopping:
            return "The service is stopping already."
        self._is_stopping = True
        running = sum(len(state.groups) for state in self._loop.fleet.endpoints.values())
        self._tasks.create_task(self._stop(groups=groups))
        if groups:
            return f"Draining {running} groups, then the service ends."
        return f"The service ends. {running} groups keep running; the next `run` adopts them."

    async def _stop(self, *, groups: bool) -> None:
        if groups:
            for name in self._loop.fleet.endpoints:
                await self._loop.tell(EndpointRemoved(at=self._clock(), endpoint=name))
            await self._loop.until(
                lambda fleet: not any(state.groups for state in fleet.endpoints.values())
            )
        self._supervisor.stop()

    def _endpoint(self, name: str) -> EndpointState:
        try:
            return self._loop.fleet.endpoints[name]
        except KeyError:
            known = ", ".join(sorted(self._loop.fleet.endpoints)) or "none at all"
            raise UnknownNameError(f"There is no endpoint {name!r}; there is {known}.") from None


def image_views(state: EndpointState, known: dict[tuple[str, str], dict[str, Any]]) -> list[Any]:
    """Return what is known of an endpoint's images, in the order of its containers."""
    containers = state.settings.template.containers
    return [known[c.image, c.tag] for c in containers if (c.image, c.tag) in known]


def brief_digest(digest: str) -> str:
    """Return the first characters of a digest, as people compare them."""
    return short(digest.removeprefix("sha256:"))
