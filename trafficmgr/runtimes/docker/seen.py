"""What the engine shows of our groups, and what it means.

One listing by label gives all containers with their coarse state; what it does not say (exit code,
times, pid, whether the kernel ended it for its memory) is asked once for each container and kept
until that changes. Nothing of ours is ever started a second time, so it changes twice.

A group is whole once each of its members was started. Before that it is a start that is under way
or was interrupted; only a whole group can have ended.
"""

import asyncio
import signal
from datetime import datetime
from typing import Any

import msgspec

from trafficmgr.core.noun import Noun
from trafficmgr.core.template import ContainerTemplate
from trafficmgr.runtimes.contract import (
    ContainerState,
    ContainerStatus,
    GroupSpec,
    GroupState,
    GroupStatus,
    RuntimeUnknownError,
    ending,
)
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.errors import NOT_FOUND, EngineRefusal
from trafficmgr.runtimes.docker.names import (
    CONTAINER,
    ENDPOINT,
    GROUP,
    OUR_VERSION,
    ROLE,
    SPEC,
    VERSION,
    Role,
    filters,
    spec_of,
)
from trafficmgr.runtimes.docker.shape import OWN_FOLDER

_BY_SIGNAL = 128
_NOT_STARTED = frozenset({"created", "configured", "initialized"})
_ENDED = frozenset({"exited", "dead", "stopped", "removing"})


class SeenContainer(Noun):
    """A container of ours, as the engine shows it.

    One that is wrapped has secrets in its environment, which the engine does not know of.
    """

    id: str
    name: str
    role: str
    was_started: bool
    is_running: bool
    is_wrapped: bool = False
    is_out_of_memory: bool = False
    exit_code: int | None = None
    pid: int | None = None
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def how_it_ended(self) -> str:
        """How it ended, in a few words."""
        if self.is_out_of_memory:
            return "OOMKilled: it wanted more memory than its limit"
        return exit_text(self.exit_code)


class SeenGroup(Noun):
    """All containers of one group, as the engine shows them."""

    group: str
    endpoint: str
    spec: GroupSpec | None
    pause: SeenContainer | None
    others: dict[str, SeenContainer]

    @property
    def is_whole(self) -> bool:
        """Whether its start was completed at some time."""
        if self.spec is None or self.pause is None:
            return False
        members = [self.others.get(one.name) for one in self.spec.template.containers]
        return all(one is not None and one.was_started for one in members)

    def every_container(self) -> tuple[SeenContainer, ...]:
        """Return all of its containers, the pause last."""
        return (*self.others.values(), *(() if self.pause is None else (self.pause,)))

    def status(self) -> GroupStatus:
        """Return what the contract calls its status."""
        if self.spec is None:
            return self._remains()
        template = self.spec.template
        inits = tuple(self._one(one, is_init=True) for one in template.init_containers)
        members = tuple(self._one(one) for one in template.containers)
        state = ending(template.restart, members)
        if state is GroupState.running and not self._has_network and self.is_whole:
            state = GroupState.exited
        return GroupStatus(
            group=self.group,
            endpoint=self.endpoint,
            state=state,
            reason="" if state is GroupState.running else self._reason(state),
            pid=members[0].pid if members else None,
            containers=inits + members,
        )

    @property
    def _has_network(self) -> bool:
        return self.pause is not None and self.pause.is_running

    def _remains(self) -> GroupStatus:
        """Return the status of what is left of a group without its pause container."""
        return GroupStatus(
            group=self.group,
            endpoint=self.endpoint,
            state=GroupState.exited,
            reason="its pause container is gone",
        )

    def _one(self, template: ContainerTemplate, *, is_init: bool = False) -> ContainerStatus:
        seen = self.others.get(template.name)
        if seen is None or not seen.was_started:
            reason = "PodInitializing" if self._is_initializing else "ContainerCreating"
            return ContainerStatus(
                name=template.name, state=ContainerState.waiting, is_init=is_init, reason=reason
            )
        runs = seen.is_running and self._has_network
        return ContainerStatus(
            name=template.name,
            state=ContainerState.running if runs else ContainerState.terminated,
            is_init=is_init,
            reason=_word(seen, runs=runs),
            exit_code=seen.exit_code,
            pid=seen.pid if runs else None,
            started_at=seen.started_at,
            finished_at=seen.finished_at,
        )

    @property
    def _is_initializing(self) -> bool:
        assert self.spec is not None, "asked only where there is one"  # noqa: S101  an invariant, stays on
        inits = [self.others.get(one.name) for one in self.spec.template.init_containers]
        return any(one is None or one.exit_code is None for one in inits)

    def _reason(self, state: GroupState) -> str:
        """Return how it ended: the end that came first and mattered."""
        assert self.spec is not None, "asked only where there is one"  # noqa: S101  an invariant, stays on
        names = [one.name for one in self.spec.template.containers]
        present = [self.others[name] for name in names if name in self.others]
        ended = [one for one in present if one.finished_at is not None]
        if state is GroupState.exited:
            policy = self.spec.template.restart
            ended = [one for one in ended if ending(policy, (_ended(one),)) is GroupState.exited]
        elif any(one.exit_code for one in ended):
            ended = [one for one in ended if one.exit_code]
        first = min(ended, key=lambda one: one.finished_at or 0.0, default=None)
        pause = self.pause
        if pause is not None and pause.finished_at is not None and _is_before(pause, first):
            return f"the pause container ended ({pause.how_it_ended})"
        if first is None:
            return "the pause container does not run"
        prefix = f'container "{first.name}": ' if len(names) > 1 else ""
        return prefix + first.how_it_ended


def exit_text(code: int | None) -> str:
    """Return an exit code in words."""
    if code is not None and code > _BY_SIGNAL:
        try:
            return f"killed by {signal.Signals(code - _BY_SIGNAL).name}"
        except ValueError:
            pass
    return f"exit code {code}"


def _is_before(pause: SeenContainer, first: SeenContainer | None) -> bool:
    return first is None or (pause.finished_at or 0.0) < (first.finished_at or 0.0)


def _ended(seen: SeenContainer) -> ContainerStatus:
    return ContainerStatus(
        name=seen.name, state=ContainerState.terminated, exit_code=seen.exit_code
    )


def _word(seen: SeenContainer, *, runs: bool) -> str:
    if seen.is_out_of_memory:
        return "OOMKilled"
    if runs:
        return ""
    return "Completed" if seen.exit_code == 0 else "Error"


class Eyes:
    """Looks at the groups of one instance."""

    def __init__(self, engine: Engine, instance: str) -> None:
        """Look through this engine."""
        self._engine = engine
        self._instance = instance
        self._known: dict[str, tuple[str, SeenContainer]] = {}
        self._out_of_memory: set[str] = set()

    async def groups(self, group: str = "") -> tuple[SeenGroup, ...]:
        """Return all groups, or the one if it is there.

        Raises:
            RuntimeUnknownError: The engine can't be asked.
        """
        wanted = filters(self._instance, group)
        listed = await self._engine.call(lambda client: client.containers(all=True, filters=wanted))
        ours = [one for one in listed if one["Labels"].get(VERSION) == OUR_VERSION]
        if not group:
            self._drop_all_but({one["Id"] for one in ours})
        seen = await asyncio.gather(*(self._container(one) for one in ours))
        return _grouped([(one["Labels"], found) for one, found in zip(ours, seen, strict=True)])

    async def group(self, group: str) -> SeenGroup | None:
        """Return the group, if anything of it is there."""
        found = await self.groups(group)
        return found[0] if found else None

    def forget(self, container: str = "") -> None:
        """Look anew at a container, or at all: something happened to it."""
        if container:
            self._known.pop(container, None)
        else:
            self._known.clear()

    def ran_out_of_memory(self, container: str) -> None:
        """Remember it: of a container that survives this, the engine says so only now."""
        self._out_of_memory.add(container)
        self.forget(container)

    async def _container(self, listed: dict[str, Any]) -> SeenContainer | None:
        """Return a container, or nothing if it is gone meanwhile."""
        identity, state = listed["Id"], listed["State"]
        known = self._known.get(identity)
        if known is not None and known[0] == state:
            return known[1]
        try:
            found = await self._engine.call(lambda client: client.inspect_container(identity))
        except EngineRefusal as refusal:
            if refusal.status == NOT_FOUND:
                return None
            raise RuntimeUnknownError(str(refusal)) from refusal
        seen = _seen(found, is_out_of_memory=identity in self._out_of_memory)
        self._known[identity] = (found["State"]["Status"], seen)
        return seen

    def _drop_all_but(self, present: set[str]) -> None:
        self._known = {key: one for key, one in self._known.items() if key in present}
        self._out_of_memory &= present


def _grouped(
    several: list[tuple[dict[str, str], SeenContainer | None]],
) -> tuple[SeenGroup, ...]:
    groups: dict[str, SeenGroup] = {}
    for labels, seen in several:
        name = labels.get(GROUP, "")
        if seen is None or not name:
            continue
        group = groups.get(name) or SeenGroup(
            group=name, endpoint=labels.get(ENDPOINT, ""), spec=None, pause=None, others={}
        )
        if seen.role == Role.pause:
            groups[name] = group.but(pause=seen, spec=_spec(labels.get(SPEC, "")))
        else:
            groups[name] = group.but(others=group.others | {seen.name: seen})
    return tuple(groups[name] for name in sorted(groups))


def _spec(text: str) -> GroupSpec | None:
    try:
        return spec_of(text)
    except msgspec.MsgspecError:
        return None


def _seen(found: dict[str, Any], *, is_out_of_memory: bool) -> SeenContainer:
    labels = found["Config"]["Labels"]
    state = found["State"]
    has_ended = state["Status"] in _ENDED
    was_started = state["Status"] not in _NOT_STARTED and _at(state["StartedAt"]) is not None
    return SeenContainer(
        id=found["Id"],
        name=labels.get(CONTAINER, ""),
        role=labels.get(ROLE, ""),
        was_started=was_started,
        is_running=bool(state["Running"]),
        is_wrapped=any(mount["Destination"] == OWN_FOLDER for mount in found["Mounts"]),
        is_out_of_memory=bool(state.get("OOMKilled")) or is_out_of_memory,
        exit_code=state["ExitCode"] if has_ended and was_started else None,
        pid=state["Pid"] or None,
        started_at=_at(state["StartedAt"]),
        finished_at=_at(state["FinishedAt"]) if has_ended and was_started else None,
    )


def _at(text: str) -> float | None:
    """Return a time of the engine's in seconds since the epoch; year 1 is never."""
    when = datetime.fromisoformat(text)
    return None if when.year == 1 else when.timestamp()
