"""Hooks with the single writer, a real journal and hands: no abort waits, no call is repeated."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.controller_support import NAME, Clock, eventually, first_events, revision, settings
from support.web_support import Replies, serving

from trafficmgr.controller.calls import Calls
from trafficmgr.controller.hands import Hands
from trafficmgr.controller.loop import Loop, Mind, restored
from trafficmgr.controller.smoke import SmokeTest
from trafficmgr.core import events
from trafficmgr.core.commands import AnyCommand
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.gating import Hook, HookPhase, HookStage, HttpCall
from trafficmgr.core.model import GroupPhase, Rollout, RolloutPhase
from trafficmgr.core.routing import Table
from trafficmgr.core.template import GroupTemplate
from trafficmgr.journal.sqlite import Journal
from trafficmgr.runtimes.contract import NO_SECRETS, Secrets
from trafficmgr.runtimes.memory import MemoryRuntime, MemoryWorld


class Others:
    """Workers and a supervisor that nobody asks for anything here."""

    async def publish(self, _table: Table) -> None: ...

    def restart_worker(self, start_id: str) -> None:
        raise AssertionError(start_id)

    def stop(self) -> None: ...


class Life:
    """A controller from its start to its death."""

    def __init__(self, tasks: asyncio.TaskGroup, journal: Journal, known: Fleet) -> None:
        self.clock = Clock()
        self.loop = Loop(
            mind=Mind(known),
            journal=journal,
            clock=self.clock,
            act=self.act,
            look=lambda _fleet: None,
        )
        tell = self.loop.tell
        self.hands = Hands(
            tasks=tasks,
            runtime=MemoryRuntime(MemoryWorld()),
            workers=Others(),
            supervisor=Others(),
            tell=tell,
            clock=self.clock,
            instance="test",
            secrets=_no_secrets,
            calls=Calls(tell=tell, clock=self.clock),
            smoke=SmokeTest(tell=tell, clock=self.clock, doors=(), workers=1),
        )

    def act(self, commands: tuple[AnyCommand, ...]) -> None:
        self.hands.act(commands)

    @property
    def rollout(self) -> Rollout:
        found = self.loop.fleet.endpoints[NAME].rollout
        assert found is not None
        return found

    @property
    def hook(self) -> HookPhase:
        """How far the one hook has come."""
        (run,) = self.rollout.hooks
        return run.phase


async def _no_secrets(_template: GroupTemplate) -> Secrets:
    return NO_SECRETS


@asynccontextmanager
async def alive(journal: Journal) -> AsyncIterator[Life]:
    """Run a controller on what the journal holds; afterwards it is dead, wherever it was."""
    known = restored((await journal.load()).states)
    async with asyncio.TaskGroup() as tasks, asyncio.TaskGroup() as work:
        life = Life(work, journal, known)
        running = tasks.create_task(life.loop.run())
        try:
            yield life
        finally:
            running.cancel()
            for task in life.hands._under_way.values():
                task.cancel()


async def see_revision(life: Life, port: int) -> None:
    """Configure an endpoint with a hook, and let its first image be seen."""
    call = HttpCall(url=f"http://127.0.0.1:{port}/migrate")
    hook = Hook(name="migrate", stage=HookStage.before, action=call, timeout_s=600.0)
    for event in first_events(life.clock()):
        is_settings = isinstance(event, events.SettingsApplied)
        given = settings(ttl="2s").but(hooks=(hook,))
        await life.loop.tell(
            events.SettingsApplied(at=event.at, endpoint=NAME, settings=given)
            if is_settings
            else event
        )
    seen = events.RevisionSeen(at=life.clock(), endpoint=NAME, revision=revision("v1"))
    await life.loop.tell(seen)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(tmp_path / "journal.db")
    yield opened
    await opened.close()


async def test_groups_start_when_the_hook_has_succeeded(journal: Journal) -> None:
    replies = Replies()
    async with serving(replies) as port, alive(journal) as life:
        await see_revision(life, port)
        await eventually(lambda: life.hook is HookPhase.succeeded)
        await eventually(lambda: life.loop.fleet.endpoints[NAME].groups)

    assert len(replies.asked) == 1


async def test_no_hook_blocks_an_abort(journal: Journal) -> None:
    replies = Replies()
    replies.hangs = True
    async with serving(replies) as port, alive(journal) as life:
        await see_revision(life, port)
        await eventually(lambda: replies.asked)
        assert life.hook is HookPhase.running

        await life.loop.tell(events.AbortAsked(at=life.clock(), endpoint=NAME))

        assert life.rollout.phase in {RolloutPhase.aborting, RolloutPhase.aborted}
        await eventually(lambda: not life.hands._under_way)

    assert len(replies.asked) == 1


async def test_a_call_in_flight_when_the_controller_died_is_asked_about_and_not_repeated(
    journal: Journal,
) -> None:
    replies = Replies()
    replies.hangs = True
    async with serving(replies) as port:
        async with alive(journal) as life:
            await see_revision(life, port)
            await eventually(lambda: replies.asked)

        async with alive(journal) as life:
            await life.loop.tell(first_events(life.clock())[0])
            assert life.hook is HookPhase.unknown
            assert "migrate" in life.rollout.question
            assert not [key for key in life.hands._under_way if key.startswith("hook ")]

            await life.loop.tell(events.ResumeAsked(at=life.clock(), endpoint=NAME))
            await eventually(lambda: phases(life) == [GroupPhase.started])

    assert len(replies.asked) == 1


async def test_an_operator_can_have_it_called_again(journal: Journal) -> None:
    replies = Replies()
    replies.hangs = True
    async with serving(replies) as port:
        async with alive(journal) as life:
            await see_revision(life, port)
            await eventually(lambda: replies.asked)
        replies.hangs = False

        async with alive(journal) as life:
            await life.loop.tell(first_events(life.clock())[0])
            await life.loop.tell(events.RetryAsked(at=life.clock(), endpoint=NAME))
            await eventually(lambda: life.hook is HookPhase.succeeded)

    assert len(replies.asked) == 2


def phases(life: Life) -> list[GroupPhase]:
    return [group.phase for group in life.loop.fleet.endpoints[NAME].groups]
