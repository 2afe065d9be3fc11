"""Ending a group: its containers in reverse order, its logs kept, everything of it removed.

Each container has its pre_stop, then its stop signal, then its grace, then SIGKILL; the engine
counts the grace. Everything is found by label, never from memory, so an end that was broken off
anywhere is completed by the next one.
"""

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from docker import APIClient

from trafficmgr.core.template import ContainerTemplate
from trafficmgr.runtimes.contract import RuntimeUnknownError
from trafficmgr.runtimes.docker.cgroups import GroupLimits
from trafficmgr.runtimes.docker.conversation import ask
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.errors import CONFLICT, NOT_FOUND, EngineRefusal
from trafficmgr.runtimes.docker.kept import KeptLogs
from trafficmgr.runtimes.docker.lines import Line
from trafficmgr.runtimes.docker.logs import read_container
from trafficmgr.runtimes.docker.names import filters
from trafficmgr.runtimes.docker.prestop import pre_stop
from trafficmgr.runtimes.docker.seen import SeenContainer, SeenGroup

_KILL_S = 60.0
"""How much longer than its grace the end of a container may take."""
_REMOVAL_S = 60.0
_LOOK_S = 0.1


class Ender:
    """Ends groups on one engine."""

    def __init__(
        self, engine: Engine, *, instance: str, kept: KeptLogs, limits: GroupLimits
    ) -> None:
        """End groups of this instance."""
        self._engine = engine
        self._instance = instance
        self._kept = kept
        self._limits = limits
        self._complaints: dict[str, str] = {}

    async def end(self, group: SeenGroup) -> None:
        """End what runs of the group, in order."""
        templates = {} if group.spec is None else _by_name(group)
        order = list(templates) or list(group.others)
        for name in reversed(order):
            seen = group.others.get(name)
            if seen is not None and seen.is_running:
                await self._stop(group, seen, templates.get(name))

    async def remove(self, group: SeenGroup) -> None:
        """Remove the group, killing what still runs, but keep its logs."""
        await asyncio.gather(*(self._keep(group.group, one) for one in group.others.values()))
        await asyncio.to_thread(self._kept.tidy, group.group)
        for several in (tuple(group.others.values()), (group.pause,)):
            gone = (self._remove_container(one.id) for one in several if one is not None)
            await asyncio.gather(*gone)

    async def sweep(self, group: str) -> None:
        """Remove what a group has left behind besides containers."""
        try:
            await self._engine.call(lambda client: self._remove_volumes(client, group))
        except EngineRefusal as refusal:
            raise RuntimeUnknownError(
                f"docker: the volumes of group {group} can't be removed now: {refusal.said}. It "
                "gets no traffic, and nothing of it runs. It is tried again."
            ) from refusal
        await asyncio.to_thread(self._limits.remove, group)

    async def _stop(
        self, group: SeenGroup, seen: SeenContainer, template: ContainerTemplate | None
    ) -> None:
        grace_s = 0.0 if template is None else template.stop_grace_s
        if template is not None and template.pre_stop is not None and group.spec is not None:
            grace_s, complaint = await pre_stop(self._engine, group.spec, template, seen)
            if complaint:
                self._complaints[seen.id] = complaint
        try:
            await ask(
                self._engine,
                "POST",
                f"/containers/{seen.id}/stop",
                query={"t": str(math.ceil(grace_s))},
                answers_within_s=grace_s + _KILL_S,
            )
        except EngineRefusal:
            return  # it is removed by force next, and that says what is wrong

    async def _keep(self, group: str, container: SeenContainer) -> None:
        lines = [line async for line in read_container(self._engine, container.id)]
        complaint = self._complaints.pop(container.id, "")
        if complaint:
            stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"
            lines.append(Line(stamp.encode(), f"trafficmgr: pre_stop {complaint}".encode()))
        with suppress(OSError):  # no room for its logs is no reason to let it run
            await asyncio.to_thread(self._kept.write, group, container.name, lines)

    async def _remove_container(self, identity: str) -> None:
        try:
            await self._engine.call(
                lambda client: client.remove_container(identity, v=True, force=True)
            )
        except EngineRefusal as refusal:
            if refusal.status == CONFLICT:
                await self._until_gone(identity)
            elif refusal.status != NOT_FOUND:
                raise RuntimeUnknownError(
                    f"docker: a container can't be removed now: {refusal.said}. It gets no "
                    "traffic. It is tried again."
                ) from refusal

    async def _until_gone(self, identity: str) -> None:
        """Wait for a removal that somebody else has begun."""
        try:
            async with asyncio.timeout(_REMOVAL_S):
                while True:
                    await self._engine.call(lambda client: client.inspect_container(identity))
                    await asyncio.sleep(_LOOK_S)
        except EngineRefusal as refusal:
            if refusal.status != NOT_FOUND:
                raise
        except TimeoutError:
            raise RuntimeUnknownError(
                f"docker: the removal of container {identity[:12]} does not come to an end. It "
                "gets no traffic. It is tried again; look at the engine's log."
            ) from None

    def _remove_volumes(self, client: APIClient, group: str) -> None:
        found: Mapping[str, Any] = client.volumes(filters=filters(self._instance, group))
        for volume in found.get("Volumes") or ():
            client.remove_volume(volume["Name"])


def _by_name(group: SeenGroup) -> dict[str, ContainerTemplate]:
    assert group.spec is not None, "asked only where there is one"  # noqa: S101  an invariant, stays on
    return {one.name: one for one in group.spec.template.every_container()}
