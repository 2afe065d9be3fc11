"""The running service, as the admin API and so the operator see it.

Reads the single writer's frozen state; asks for things by telling it events.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trafficmgr import __version__
from trafficmgr.admin import journaled, plans, proofs, reasons, views
from trafficmgr.admin.insides import Insides, endpoint_of
from trafficmgr.config.load import bytes_of
from trafficmgr.controller.accepted import keep_ending
from trafficmgr.controller.configuring import Configuring
from trafficmgr.controller.link import Link
from trafficmgr.controller.loop import Loop
from trafficmgr.controller.ports import Clock, Journal, Supervisor
from trafficmgr.core import operator
from trafficmgr.core.errors import NotPossibleNowError
from trafficmgr.core.events import (
    AbortAsked,
    EndpointEvent,
    EndpointRemoved,
    HoldAsked,
    PauseAsked,
    PromoteAsked,
    ReleaseAsked,
    ResumeAsked,
    RetryAsked,
    RollbackAsked,
    ScaleAsked,
)
from trafficmgr.core.gating import Verdict
from trafficmgr.core.operator import Verb
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import short
from trafficmgr.runtimes.contract import Runtime

RegistryView = Callable[[EndpointState], list[dict[str, Any]]]
"""What is known of an endpoint's images at their registries."""

VerdictView = Callable[[str], tuple[Verdict, ...]]
"""What the gates of an endpoint's rollout say now, with the numbers of now."""


def no_verdicts(_endpoint: str) -> tuple[Verdict, ...]:
    """Nobody judges here: what is journaled is shown."""
    return ()


PLAIN_ORDERS: dict[Verb, type[EndpointEvent]] = {
    Verb.promote: PromoteAsked,
    Verb.pause: PauseAsked,
    Verb.resume: ResumeAsked,
    Verb.abort: AbortAsked,
    Verb.rollback: RollbackAsked,
    Verb.retry: RetryAsked,
    Verb.hold: HoldAsked,
    Verb.release: ReleaseAsked,
}
"""Orders that say no more than that they were given, as events."""


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
        configuring: Configuring,
        clock: Clock,
        state_dir: Path,
        listen: dict[str, list[str]],
        tasks: asyncio.TaskGroup,
        verdicts: VerdictView = no_verdicts,
    ) -> None:
        self._loop = loop
        self._link = link
        self._journal = journal
        self._runtime = runtime
        self._supervisor = supervisor
        self._registry = registry
        self._verdicts = verdicts
        self._configuring = configuring
        self._clock = clock
        self._state_dir = state_dir
        self._listen = listen
        self._tasks = tasks
        self.groups = Insides(loop=loop, runtime=runtime, journal=journal, clock=clock)
        self._started_at = clock()
        self._is_stopping = False

    def status(self) -> dict[str, Any]:
        """Return the service and all endpoints as they are now."""
        now = self._clock()
        endpoints = []
        for name, state in sorted(self._loop.fleet.endpoints.items()):
            view = views.endpoint(
                self._with_newest(state),
                self._link.totals(name),
                self._link.observed(name),
                now,
                gaps=self._runtime.gaps,
            )
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
            "listen": {kind: where for kind, where in self._listen.items() if where},
            "config": str(self._configuring.settings.path),
        }

    async def events(
        self, endpoint: str | None, after: int, limit: int, *, has_checkpoints: bool = False
    ) -> list[dict[str, Any]]:
        """Return journaled events: the last ones, or those after a seq."""
        if endpoint is not None:
            self._endpoint(endpoint)
        stored = await journaled.page(
            self._journal, endpoint, after, limit, has_checkpoints=has_checkpoints
        )
        return [one.as_plain() for one in stored]

    def rollouts(self, endpoint: str | None) -> list[dict[str, Any]]:
        """Return the rollouts that are kept, oldest first."""
        names = [endpoint] if endpoint is not None else sorted(self._loop.fleet.endpoints)
        now = self._clock()
        return [view for name in names for view in views.rollouts(self._endpoint(name), now)]

    def why(self, endpoint: str) -> list[str]:
        """Return in sentences what the endpoint waits for now."""
        state = self._with_newest(self._endpoint(endpoint))
        sight = reasons.Sight(
            fleet=self._loop.fleet, registry=self._registry(state), trouble=self._loop.trouble
        )
        return list(reasons.reasons(state, sight, self._clock()))

    async def ask(self, verb: Verb, endpoint: str, *, replicas: int | None = None) -> str:
        """Do what an operator asks for, or say why that is not possible now."""
        if why_not := operator.why_not(verb, self._endpoint(endpoint)):
            raise NotPossibleNowError(why_not)
        await self._loop.tell(_asked(verb, endpoint, self._clock(), replicas))
        return views.says(self._endpoint(endpoint), self._clock())

    async def plan(self, path: Path, data: bytes) -> dict[str, Any]:
        """Return what another config would change."""
        return plans.plain(await self._configuring.plan(path, data))

    async def apply(self, path: Path, data: bytes) -> dict[str, Any]:
        """Change the config, all of it or nothing."""
        if self._is_stopping:
            raise NotPossibleNowError("The service is stopping; no config is applied any more.")
        return plans.plain(await self._configuring.apply(path, data))

    async def reload(self, file: Path) -> None:
        """Apply what a file holds now."""
        await self.apply(file, await asyncio.to_thread(bytes_of, file))

    async def stop(self, *, groups: bool) -> str:
        """Begin to end the service."""
        if self._is_stopping:
            return "The service is stopping already."
        self._is_stopping = True
        running = sum(len(state.groups) for state in self._loop.fleet.endpoints.values())
        if groups:
            await asyncio.to_thread(keep_ending, self._state_dir)
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

    def _with_newest(self, state: EndpointState) -> EndpointState:
        """Return a state for people: its verdicts have the numbers of now."""
        return proofs.with_newest(state, self._verdicts(state.name))

    def _endpoint(self, name: str) -> EndpointState:
        return endpoint_of(self._loop.fleet, name)


def _asked(verb: Verb, endpoint: str, at: float, replicas: int | None) -> EndpointEvent:
    """Return the event that tells of an order."""
    if verb is Verb.scale:
        assert replicas is not None  # noqa: S101  admin/api.py has checked it
        return ScaleAsked(at=at, endpoint=endpoint, replicas=replicas)
    if verb is Verb.promote_full:
        return PromoteAsked(at=at, endpoint=endpoint, is_full=True)
    return PLAIN_ORDERS[verb](at=at, endpoint=endpoint)


def image_views(state: EndpointState, known: dict[tuple[str, str], dict[str, Any]]) -> list[Any]:
    """Return what is known of an endpoint's images, in the order of its containers."""
    containers = state.settings.template.every_container()
    return [known[c.image, c.tag] for c in containers if (c.image, c.tag) in known]


def brief_digest(digest: str) -> str:
    """Return the first characters of a digest, as people compare them."""
    return short(digest.removeprefix("sha256:"))
