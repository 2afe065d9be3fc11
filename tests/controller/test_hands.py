"""Hands carry out each command once and answer with events; unknown is not failed."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.controller_support import NAME, Clock, eventually, revision
from support.web_support import Replies, nobody, serving

from trafficmgr.controller.calls import Calls
from trafficmgr.controller.hands import Hands
from trafficmgr.controller.secrets import SecretStore
from trafficmgr.controller.smoke import SmokeTest
from trafficmgr.core.commands import (
    AskSmoke,
    CallHook,
    PublishTable,
    RestartWorker,
    StartGroup,
    StopGroup,
)
from trafficmgr.core.events import (
    Event,
    GroupCompleted,
    GroupEnded,
    GroupStartDelayed,
    GroupStarted,
    GroupStartFailed,
    GroupStopped,
    HookEnded,
    HookStarted,
    SmokeEnded,
)
from trafficmgr.core.gating import HttpCall, Smoke
from trafficmgr.core.model import Group, Publish
from trafficmgr.core.routing import Table
from trafficmgr.core.template import FromEnv, FromSecret, GroupTemplate, RestartPolicy
from trafficmgr.runtimes.contract import (
    NO_SECRETS,
    GroupSpec,
    GroupState,
    GroupStatus,
    RuntimeFailure,
    RuntimeUnknownError,
    Secrets,
)
from trafficmgr.runtimes.memory import MemoryRuntime

CANARY = "canary-3f9a"


class World:
    """Workers and supervisor that only take notes."""

    def __init__(self) -> None:
        self.published: list[int] = []
        self.restarted: list[str] = []
        self.stopped = 0
        self.disk_errors = 0

    async def publish(self, table: Table) -> None:
        if self.disk_errors:
            self.disk_errors -= 1
            raise OSError("no space left on device")
        self.published.append(table.generation)

    def restart_worker(self, start_id: str) -> None:
        self.restarted.append(start_id)

    def stop(self) -> None:
        self.stopped += 1


class MoodyRuntime(MemoryRuntime):
    """A memory runtime that fails in ways told beforehand, one for each start."""

    def __init__(self) -> None:
        super().__init__()
        self.moods: list[Exception] = []
        self.list_moods: list[Exception] = []
        self.stop_moods: list[Exception] = []
        self.starts = 0

    async def start(self, spec: GroupSpec, secrets: Secrets = NO_SECRETS) -> str:
        self.starts += 1
        if self.moods:
            raise self.moods.pop(0)
        return await super().start(spec, secrets)

    async def list(self) -> tuple[GroupStatus, ...]:
        if self.list_moods:
            raise self.list_moods.pop(0)
        return await super().list()

    async def stop(self, group: str) -> None:
        if self.stop_moods:
            raise self.stop_moods.pop(0)
        await super().stop(group)


class Stage:
    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.world = World()
        self.runtime = MoodyRuntime()
        self.told: list[Event] = []
        self.env = {"TOKEN": CANARY}
        self.store = SecretStore({"token": FromEnv(variable="TOKEN")}, self.env)
        self.reads = 0
        self.tasks = tasks
        self.hands = self.made_hands()

    def made_hands(self, *doors: str) -> Hands:
        """Return hands whose smoke test goes through these doors."""
        return Hands(
            tasks=self.tasks,
            runtime=self.runtime,
            workers=self.world,
            supervisor=self.world,
            tell=self.tell,
            clock=Clock(),
            instance="test",
            secrets=self.read,
            calls=Calls(tell=self.tell, clock=Clock()),
            smoke=SmokeTest(tell=self.tell, clock=Clock(), doors=doors, workers=1),
        )

    async def tell(self, event: Event) -> None:
        self.told.append(event)

    async def read(self, template: GroupTemplate) -> Secrets:
        self.reads += 1
        return await self.store.read(template)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with asyncio.TaskGroup() as tasks:
        yield Stage(tasks)


def start_command(name: str = "shop-1") -> StartGroup:
    group = Group(id=name, revision="v1", created_at=0.0, address="127.77.0.1")
    return StartGroup(endpoint=NAME, group=group, revision=revision("v1"), port=8080)


def table(generation: int) -> Table:
    return Table(endpoint=NAME, generation=generation, hosts=(), publish=Publish.proxy, ttl_s=1)


async def test_a_command_given_again_is_carried_out_once(stage: Stage) -> None:
    stage.hands.act((start_command(), start_command()))
    stage.hands.act((start_command(),))

    await eventually(lambda: stage.told)

    assert stage.runtime.starts == 1
    assert isinstance(stage.told[0], GroupStarted)


async def test_a_failed_start_is_told_with_its_reason(stage: Stage) -> None:
    stage.runtime.moods = [RuntimeFailure("no such program")]

    stage.hands.act((start_command(),))
    await eventually(lambda: stage.told)

    (event,) = stage.told
    assert isinstance(event, GroupStartFailed)
    assert event.reason == "no such program"


def with_secret(command: StartGroup) -> StartGroup:
    """Return the command with a container that needs the token."""
    template = command.revision.template
    (web,) = template.containers
    web = web.but(env_from={"A": FromSecret(name="token")})
    found = command.revision.but(template=template.but(containers=(web,)))
    return command.but(revision=found)


async def test_a_group_is_started_with_the_values_of_its_secrets(stage: Stage) -> None:
    stage.hands.act((with_secret(start_command()),))
    await eventually(lambda: stage.told)

    assert isinstance(stage.told[0], GroupStarted)
    assert stage.runtime.world.secrets["shop-1"].env("web") == {"A": CANARY}
    assert CANARY not in repr(stage.runtime.world.specs["shop-1"])


async def test_a_secret_that_cannot_be_read_fails_the_start_by_its_name(stage: Stage) -> None:
    stage.env.clear()

    stage.hands.act((with_secret(start_command()),))
    await eventually(lambda: stage.told)

    (event,) = stage.told
    assert isinstance(event, GroupStartFailed)
    assert event.reason.startswith('secret "token" (variable TOKEN) is not there')
    assert stage.runtime.starts == 0


async def test_a_start_that_is_tried_again_reads_its_secrets_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trafficmgr.controller.hands.RETRY_FIRST_S", 0.001)
    stage.runtime.moods = [RuntimeUnknownError("the engine is away")]
    stage.hands.act((with_secret(start_command()),))
    await eventually(lambda: len(stage.told) == 2)

    assert (stage.reads, stage.runtime.starts) == (2, 2)


async def test_unknown_is_said_once_and_tried_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trafficmgr.controller.hands.RETRY_FIRST_S", 0.001)
    stage.runtime.moods = [RuntimeUnknownError("the engine is away")] * 3

    stage.hands.act((start_command(),))
    await eventually(lambda: stage.told)

    await eventually(lambda: len(stage.told) == 2)
    assert stage.runtime.starts == 4
    assert [type(event) for event in stage.told] == [GroupStartDelayed, GroupStarted]


async def test_a_stop_cancels_the_start_under_way(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trafficmgr.controller.hands.RETRY_FIRST_S", 600.0)
    stage.runtime.moods = [RuntimeUnknownError("the engine is away")]
    stage.hands.act((start_command(),))
    await eventually(lambda: stage.told)

    stage.hands.act((StopGroup(endpoint=NAME, group="shop-1"),))
    await eventually(lambda: isinstance(stage.told[-1], GroupStopped))

    assert GroupStarted not in [type(event) for event in stage.told]
    assert await stage.runtime.list() == ()


async def test_a_stop_that_fails_is_tried_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that outlives SIGKILL for a while must not take the controller with it."""
    monkeypatch.setattr("trafficmgr.controller.hands.RETRY_FIRST_S", 0.001)
    stage.hands.act((start_command(),))
    await eventually(lambda: stage.told)
    stage.runtime.stop_moods = [RuntimeFailure("pid 7 outlived SIGKILL")] * 2

    stage.hands.act((StopGroup(endpoint=NAME, group="shop-1"),))

    await eventually(lambda: isinstance(stage.told[-1], GroupStopped))
    assert stage.runtime.stop_moods == []


async def test_tables_are_published_in_order_and_never_an_overtaken_one(stage: Stage) -> None:
    for generation in (1, 2, 3):
        stage.hands.act((PublishTable(table=table(generation)),))
    await eventually(lambda: 3 in stage.world.published)

    stage.hands.act((PublishTable(table=table(2)),))
    stage.hands.act((PublishTable(table=table(4)),))
    await eventually(lambda: 4 in stage.world.published)

    assert stage.world.published == [1, 2, 3, 4]


async def test_a_table_that_cannot_be_written_is_tried_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trafficmgr.controller.hands.RETRY_FIRST_S", 0.001)
    stage.world.disk_errors = 2

    stage.hands.act((PublishTable(table=table(1)),))

    await eventually(lambda: stage.world.published == [1])


async def test_a_worker_is_restarted_once_by_its_name(stage: Stage) -> None:
    command = RestartWorker(slot=1, start_id="1-a")

    stage.hands.act((command,))
    stage.hands.act((command,))

    assert stage.world.restarted == ["1-a"]


# -- tasks of hooks -------------------------------------------------------------------------------


def task_command(*, restart: RestartPolicy = RestartPolicy.never) -> StartGroup:
    """Return the start of a task group, as the core wants it for a hook."""
    command = start_command()
    template = command.revision.template.but(restart=restart)
    revised = command.revision.but(template=template)
    return command.but(group=command.group.but(hook="migrate"), revision=revised)


def spec_of(command: StartGroup) -> GroupSpec:
    return GroupSpec(
        group=command.group.id,
        instance="test",
        endpoint=NAME,
        revision="v1",
        address=command.group.address,
        port=8080,
        template=command.revision.template,
        images=(),
    )


async def test_a_task_that_ended_before_anybody_listened_is_told_as_completed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller before was killed right after it started it; a runtime tells an end once."""
    monkeypatch.setattr("trafficmgr.controller.hands.RETRY_FIRST_S", 0.001)
    stage.runtime.world.put(spec_of(task_command()))
    await stage.runtime.end("shop-1", "exit code 0", code=0)
    stage.runtime.list_moods = [RuntimeUnknownError("the engine is away")]

    stage.hands.act((task_command(),))
    await eventually(lambda: len(stage.told) == 2)

    started, completed = stage.told
    assert isinstance(started, GroupStarted)
    assert isinstance(completed, GroupCompleted)
    assert (completed.group, completed.is_success) == ("shop-1", True)
    assert completed.reason == "exit code 0"


async def test_a_task_that_ended_with_failure_says_so(stage: Stage) -> None:
    stage.runtime.world.put(spec_of(task_command()))
    await stage.runtime.end("shop-1", "exit code 4", code=4)

    stage.hands.act((task_command(),))
    await eventually(lambda: len(stage.told) == 2)

    completed = stage.told[1]
    assert isinstance(completed, GroupCompleted)
    assert not completed.is_success


async def test_a_task_whose_end_nobody_knows_is_not_told_as_never_started(stage: Stage) -> None:
    """It may have done its work: to do it again would be doing it twice."""
    stage.runtime.world.put(spec_of(task_command()))
    lost = stage.runtime.world.statuses["shop-1"]
    stage.runtime.world.statuses["shop-1"] = lost.but(state=GroupState.exited, reason="shim lost")

    stage.hands.act((task_command(),))
    await eventually(lambda: len(stage.told) == 2)

    started, ended = stage.told
    assert isinstance(started, GroupStarted)
    assert isinstance(ended, GroupEnded)
    assert ended.reason == "shim lost"


async def test_a_task_that_can_not_be_started_was_never_begun(stage: Stage) -> None:
    stage.runtime.moods = [RuntimeFailure("no such program")]

    stage.hands.act((task_command(),))
    await eventually(lambda: stage.told)

    assert [type(event) for event in stage.told] == [GroupStartFailed]


async def test_of_a_task_that_runs_nothing_more_is_told(stage: Stage) -> None:
    stage.hands.act((task_command(),))
    await eventually(lambda: not stage.hands._under_way)

    assert [type(event) for event in stage.told] == [GroupStarted]


async def test_nobody_looks_twice_at_a_group_that_is_always_replaced(stage: Stage) -> None:
    stage.runtime.list_moods = [AssertionError("asked for")]

    stage.hands.act((start_command(),))
    await eventually(lambda: not stage.hands._under_way)

    assert [type(event) for event in stage.told] == [GroupStarted]


# -- calls and smoke ------------------------------------------------------------------------------


def call_command(port: int) -> CallHook:
    return CallHook(
        endpoint=NAME,
        rollout="shop-r2",
        hook="announce",
        call=HttpCall(url=f"http://127.0.0.1:{port}/"),
        revision="v2",
        timeout_s=600.0,
    )


def smoke_command(leg: int = 0) -> AskSmoke:
    return AskSmoke(
        endpoint=NAME,
        rollout="shop-r2",
        leg=leg,
        host="preview.shop.test",
        revision="v2",
        smoke=Smoke(timeout_s=600.0),
    )


async def test_a_call_that_is_wanted_again_and_again_is_made_once(stage: Stage) -> None:
    replies = Replies()
    async with serving(replies) as port:
        stage.hands.act((call_command(port), call_command(port)))
        stage.hands.act((call_command(port),))
        await eventually(lambda: len(stage.told) == 2)

    assert [type(event) for event in stage.told] == [HookStarted, HookEnded]
    assert len(replies.asked) == 1


async def test_a_call_that_hangs_is_dropped_as_soon_as_it_is_not_wanted(stage: Stage) -> None:
    """No hook can block an abort."""
    replies = Replies()
    replies.hangs = True
    async with serving(replies) as port:
        stage.hands.act((call_command(port), start_command()))
        await eventually(lambda: replies.asked and GroupStarted in map(type, stage.told))

        stage.hands.act((StopGroup(endpoint=NAME, group="shop-1"),))
        await eventually(lambda: not stage.hands._under_way)

    assert HookEnded not in [type(event) for event in stage.told]
    assert isinstance(stage.told[-1], GroupStopped)


async def test_a_call_that_was_dropped_before_it_was_journaled_is_never_made(stage: Stage) -> None:
    replies, journaled, waiting = Replies(), asyncio.Event(), list[Event]()

    async def slow_journal(event: Event) -> None:
        waiting.append(event)
        await journaled.wait()

    stage.hands._calls._tell = slow_journal
    async with serving(replies) as port:
        stage.hands.act((call_command(port),))
        (task,) = stage.hands._under_way.values()
        await eventually(lambda: waiting)
        stage.hands.act(())
        journaled.set()
        await eventually(task.done)

    assert task.cancelled()
    assert [type(event) for event in waiting] == [HookStarted]
    assert replies.asked == []


async def test_what_was_dropped_and_is_wanted_again_is_begun_again_once(stage: Stage) -> None:
    """At once, though the one that was dropped is still on its way out."""
    replies = Replies()
    replies.hangs = True
    async with serving(replies) as port:
        stage.hands.act((call_command(port),))
        (dropped,) = stage.hands._under_way.values()
        await eventually(lambda: len(replies.asked) == 1)

        stage.hands.act(())
        stage.hands.act((call_command(port),))
        (again,) = stage.hands._under_way.values()
        await eventually(lambda: dropped.done() and len(replies.asked) == 2)
        stage.hands.act((call_command(port),))
        assert [*stage.hands._under_way.values()] == [again]
        stage.hands.act(())
        await eventually(again.done)

    assert len(replies.asked) == 2
    assert [type(event) for event in stage.told] == [HookStarted, HookStarted]


async def test_other_work_goes_on_although_it_is_not_wanted_any_more(stage: Stage) -> None:
    """Half a start is put right by a stop and by nothing else."""
    stage.runtime.lag = 0.05
    stage.hands.act((start_command(),))
    stage.hands.act(())

    await eventually(lambda: stage.told)

    assert isinstance(stage.told[0], GroupStarted)


async def test_smoke_is_asked_through_the_doors_and_told(stage: Stage) -> None:
    replies = Replies(headers={"X-Trafficmgr-Revision": "v2"})
    async with serving(replies) as port:
        hands = stage.made_hands(f"127.0.0.1:{port}")
        hands.act((smoke_command(), smoke_command()))
        hands.act((smoke_command(leg=1),))
        await eventually(lambda: stage.told)

    (event,) = stage.told
    assert isinstance(event, SmokeEnded)
    assert (event.leg, event.is_success) == (1, True)
    assert set(replies.hosts) == {"preview.shop.test"}


async def test_smoke_that_waits_for_a_worker_is_dropped(stage: Stage) -> None:
    with nobody() as port:
        hands = stage.made_hands(f"127.0.0.1:{port}")
        hands.act((smoke_command(),))
        (task,) = hands._under_way.values()

        hands.act(())
        await eventually(task.done)

    assert task.cancelled()
    assert stage.told == []
