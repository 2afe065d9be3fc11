"""Hands carry out each command once and answer with events; unknown is not failed."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.controller_support import NAME, Clock, eventually, revision

from trafficmgr.controller.hands import Hands
from trafficmgr.controller.secrets import SecretStore
from trafficmgr.core.commands import PublishTable, RestartWorker, StartGroup, StopGroup
from trafficmgr.core.events import (
    Event,
    GroupStartDelayed,
    GroupStarted,
    GroupStartFailed,
    GroupStopped,
)
from trafficmgr.core.model import Group, Publish
from trafficmgr.core.routing import Table
from trafficmgr.core.template import FromEnv, FromSecret, GroupTemplate
from trafficmgr.runtimes.contract import (
    NO_SECRETS,
    GroupSpec,
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
        self.stop_moods: list[Exception] = []
        self.starts = 0

    async def start(self, spec: GroupSpec, secrets: Secrets = NO_SECRETS) -> str:
        self.starts += 1
        if self.moods:
            raise self.moods.pop(0)
        return await super().start(spec, secrets)

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
        self.hands = Hands(
            tasks=tasks,
            runtime=self.runtime,
            workers=self.world,
            supervisor=self.world,
            tell=self.tell,
            clock=Clock(),
            instance="test",
            secrets=self.read,
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
