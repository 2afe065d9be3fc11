"""What a new controller finds: leftovers are ended, and one that can't be costs nobody anything."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.controller_support import NAME, Clock, first_events, revision, running

from trafficmgr.controller import recovery
from trafficmgr.controller.loop import Loop, Mind
from trafficmgr.core.events import GroupStarted, RevisionSeen
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import GroupPhase
from trafficmgr.core.template import RestartPolicy
from trafficmgr.journal.sqlite import Journal
from trafficmgr.runtimes.contract import GroupSpec, RuntimeFailure, RuntimeUnknownError
from trafficmgr.runtimes.memory import MemoryRuntime


class StubbornRuntime(MemoryRuntime):
    """A memory runtime in which some groups can't be stopped."""

    def __init__(self, **failures: RuntimeFailure) -> None:
        super().__init__()
        self.failures = failures

    async def stop(self, group: str) -> None:
        if group in self.failures:
            raise self.failures[group]
        await super().stop(group)

    async def groups(self) -> list[str]:
        return [status.group for status in await self.list()]


async def start(runtime: MemoryRuntime, *groups: str) -> None:
    for group in groups:
        await runtime.start(
            GroupSpec(
                group=group,
                instance="test",
                endpoint=NAME,
                revision="v1",
                address="127.77.0.1",
                port=8080,
                template=revision("v1").template,
                images=revision("v1").images,
            )
        )


@pytest.fixture
async def loop(tmp_path: Path) -> AsyncIterator[Loop]:
    journal = await Journal.open(tmp_path / "journal.db")
    yield Loop(
        mind=Mind(Fleet()),
        journal=journal,
        clock=Clock(),
        act=lambda _commands: None,
        look=lambda _fleet: None,
    )
    await journal.close()


async def test_leftovers_are_swept_and_known_groups_are_not(loop: Loop) -> None:
    runtime, now = StubbornRuntime(), Clock()()
    async with running(loop):
        for event in first_events(now):
            await loop.tell(event)
        await loop.tell(RevisionSeen(at=now, endpoint=NAME, revision=revision("v1")))
    known = sorted(recovery.known_groups(loop.fleet))
    await start(runtime, "left-over", *known)

    with capture_logs() as logs:
        await recovery.sweep(loop, runtime, after_s=0)

    assert known
    assert sorted(await runtime.groups()) == known
    assert [(line["event"], line["group"]) for line in logs] == [("leftover_swept", "left-over")]


@pytest.mark.parametrize("kind", [RuntimeFailure, RuntimeUnknownError])
async def test_a_leftover_that_cannot_be_stopped_is_said_and_the_rest_is_swept(
    loop: Loop, kind: type[RuntimeFailure]
) -> None:
    """It must not take the controller with it: the sweep is a task among all the others."""
    runtime = StubbornRuntime(b=kind("pid 7 outlived SIGKILL"))
    await start(runtime, "a", "b", "c")

    with capture_logs() as logs:
        await recovery.sweep(loop, runtime, after_s=0)

    assert await runtime.groups() == ["b"]
    assert [(line["event"], line["group"]) for line in logs] == [
        ("leftover_swept", "a"),
        ("leftover_not_swept", "b"),
        ("leftover_swept", "c"),
    ]
    assert logs[1]["log_level"] == "warning"
    assert logs[1]["reason"] == "pid 7 outlived SIGKILL"


# -- an engine that is away -----------------------------------------------------------------------


async def started_group(loop: Loop, runtime: MemoryRuntime) -> str:
    """Let the endpoint have a group that runs; return its id."""
    now = Clock()()
    for event in first_events(now):
        await loop.tell(event)
    await loop.tell(RevisionSeen(at=now, endpoint=NAME, revision=revision("v1")))
    group = min(recovery.known_groups(loop.fleet))
    await start(runtime, group)
    await loop.tell(GroupStarted(at=now, endpoint=NAME, group=group))
    return group


def phase_of(loop: Loop, group: str) -> GroupPhase:
    (found,) = [g for g in loop.fleet.endpoints[NAME].groups if g.id == group]
    return found.phase


async def test_an_engine_that_is_away_at_the_start_is_no_reason_to_wait(loop: Loop) -> None:
    """Docker may come up after us; what it runs is looked at when it answers."""
    runtime = MemoryRuntime()
    async with running(loop):
        group = await started_group(loop, runtime)
        runtime.world.is_away = True

        is_known = await recovery.observe(loop, Clock(), runtime)

        assert not is_known
        assert loop.fleet.endpoints[NAME].is_engine_away
        assert phase_of(loop, group) is GroupPhase.started


async def test_what_ended_while_the_engine_was_away_is_told_when_it_is_back(loop: Loop) -> None:
    runtime, found = MemoryRuntime(), asyncio.Event()
    async with running(loop), asyncio.TaskGroup() as tasks:
        group = await started_group(loop, runtime)
        runtime.world.is_away = True
        touch = tasks.create_task(
            recovery.keep_in_touch(
                loop, Clock(), runtime, is_known=True, found=found.set, every_s=0.01
            )
        )
        await loop.until(lambda fleet: fleet.endpoints[NAME].is_engine_away)
        await runtime.end(group, "exit code 137", code=137)
        runtime.world.is_away = False

        await loop.until(lambda fleet: not fleet.endpoints[NAME].is_engine_away)

        assert found.is_set()
        assert group not in {
            g.id for g in loop.fleet.endpoints[NAME].groups if g.phase is GroupPhase.started
        }
        touch.cancel()


async def test_a_group_whose_work_is_done_is_told_as_completed(loop: Loop) -> None:
    runtime = MemoryRuntime()
    async with running(loop):
        group = await started_group(loop, runtime)
        spec = runtime.world.specs[group]
        runtime.world.specs[group] = spec.but(
            template=spec.template.but(restart=RestartPolicy.never)
        )
        await runtime.end(group, "exit code 0", code=0)

        await recovery.observe(loop, Clock(), runtime)

        assert phase_of(loop, group) is GroupPhase.completed
