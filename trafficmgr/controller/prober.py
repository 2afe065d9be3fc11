"""An ear: probes every group that is meant to stay, and tells when its readiness or life ends.

One task per group, and within it one for each probe at its own pace. A group is ready when the
readiness probes of all its containers have passed; while it is not, each new reason for it is told
as well. A group without such a probe is ready when its fronted port takes a connection. A liveness
probe that failed `fall` times in a row ends the group: the core puts another in its place
(docs/decisions/0010). What can't be known counts neither for nor against.

A group that runs a hook's task serves nobody: its end is its answer, and it is not probed.

Before its first probe a new group has its `initial_delay`. One that was ready already has none: a
controller that comes back looks at once.
"""

import asyncio
from collections.abc import Callable

import aiohttp

from trafficmgr.controller.ports import Clock, Tell
from trafficmgr.controller.probes import Execs, Looks, Seen, liveness_of, readiness_of
from trafficmgr.core.events import GroupEnded, GroupReady, GroupUnready
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.health import Health
from trafficmgr.core.model import Group, GroupPhase
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import Probe


class Prober:
    """Keeps one probing task for each group that is started and not given up."""

    def __init__(
        self,
        *,
        tasks: asyncio.TaskGroup,
        tell: Tell,
        clock: Clock,
        runtime: Execs,
    ) -> None:
        self._tasks = tasks
        self._tell = tell
        self._clock = clock
        self._runtime = runtime
        self._probing: dict[str, asyncio.Task[None]] = {}
        self._engine_away: frozenset[str] = frozenset()

    def look(self, fleet: Fleet) -> None:
        """Begin and end probing as the state demands."""
        self._engine_away = frozenset(
            name for name, state in fleet.endpoints.items() if state.is_engine_away
        )
        wanted = {
            group.id: (state, group)
            for state in fleet.endpoints.values()
            for group in state.groups
            if group.phase is GroupPhase.started and not group.is_retiring and not group.hook
        }
        for gone in self._probing.keys() - wanted.keys():
            self._probing.pop(gone).cancel()
        for fresh in wanted.keys() - self._probing.keys():
            state, group = wanted[fresh]
            self._probing[fresh] = self._tasks.create_task(
                self._watch(state, group), name=f"probe {fresh}"
            )

    async def _watch(self, state: EndpointState, group: Group) -> None:
        """Probe one group until cancelled."""
        revision = state.revisions[group.revision]
        readiness = readiness_of(revision, state.port_of(group.revision))
        watch = Watch(state.name, group, readiness, tell=self._tell, clock=self._clock)
        connector = aiohttp.TCPConnector(force_close=True)
        timeout = aiohttp.ClientTimeout(total=None)  # controller/probes.py keeps the time
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
            asyncio.TaskGroup() as probing,
        ):
            looks = Looks(
                http=http,
                runtime=self._runtime,
                clock=self._clock,
                group=group.id,
                address=group.address,
            )
            for container, probe in readiness.items():
                probing.create_task(watch.readiness(looks, container, probe))
            for container, probe in liveness_of(revision).items():
                probing.create_task(
                    watch.liveness(looks, container, probe, lambda: state.name in self._engine_away)
                )


class Watch:
    """What is known of one group's probes, and the telling of it."""

    def __init__(
        self,
        endpoint: str,
        group: Group,
        readiness: dict[str, Probe],
        *,
        tell: Tell,
        clock: Clock,
    ) -> None:
        self._endpoint = endpoint
        self._group = group
        self._probes = readiness
        self._tell = tell
        self._clock = clock
        self._healths = {one: Health(is_ready=group.is_ready) for one in readiness}
        self._troubles = dict.fromkeys(readiness, "")
        self._told_ready = group.is_ready
        self._told_trouble = ""

    async def readiness(self, looks: Looks, container: str, probe: Probe) -> None:
        """Look again and again, and tell the edges, until cancelled."""
        await self._wait_first(probe)
        while True:
            begun = self._clock()
            seen = await looks.at(container, probe)
            if edge := self.noted(container, seen):
                await self._tell(edge)
            await self._wait_next(probe, begun)

    async def liveness(
        self, looks: Looks, container: str, probe: Probe, is_engine_away: Callable[[], bool]
    ) -> None:
        """Look until it failed too often; then tell that the group has ended.

        While the engine is away nobody can say what a failure means, and no group could be put in
        the place of this one.
        """
        await self._wait_first(probe)
        failures = 0
        while failures < probe.fall:
            begun = self._clock()
            seen = await looks.at(container, probe)
            if seen is not None and not (seen and is_engine_away()):
                failures = failures + 1 if seen else 0
            if failures < probe.fall:
                await self._wait_next(probe, begun)
        reason = f'liveness of container "{container}" failed: {seen}'
        await self._tell(
            GroupEnded(
                at=self._clock(), endpoint=self._endpoint, group=self._group.id, reason=reason
            )
        )

    def noted(self, container: str, seen: Seen) -> GroupReady | GroupUnready | None:
        """Take note of one look at a container; return what there is to tell."""
        if seen is None:
            return None
        health = self._healths[container]
        after = health.after(passed=not seen, probe=self._probes[container])
        self._healths[container], self._troubles[container] = after, seen
        is_ready = all(health.is_ready for health in self._healths.values())
        trouble = "" if is_ready else self._trouble()
        if is_ready == self._told_ready and trouble in {"", self._told_trouble}:
            return None
        return self._edge(trouble, is_ready=is_ready)

    def _trouble(self) -> str:
        """Return why containers are not ready; one that passed lately has no reason."""
        found = {
            one: trouble
            for one, trouble in self._troubles.items()
            if trouble and not self._healths[one].is_ready
        }
        if len(self._probes) == 1:
            return "".join(found.values())
        return "; ".join(f'container "{one}": {trouble}' for one, trouble in found.items())

    def _edge(self, trouble: str, *, is_ready: bool) -> GroupReady | GroupUnready:
        now, self._told_ready = self._clock(), is_ready
        if is_ready:
            return GroupReady(at=now, endpoint=self._endpoint, group=self._group.id)
        self._told_trouble = trouble
        return GroupUnready(at=now, endpoint=self._endpoint, group=self._group.id, reason=trouble)

    async def _wait_first(self, probe: Probe) -> None:
        if not self._group.is_ready:
            await asyncio.sleep(probe.initial_delay_s)

    async def _wait_next(self, probe: Probe, begun: float) -> None:
        await asyncio.sleep(max(0.0, probe.every_s - (self._clock() - begun)))
