"""Hands: they carry out what is wanted, once each, and answer with events.

`decide` names everything that is still wanted, every time. A command whose key is under way is
left alone; when it is done its event is told, and only after that event was journaled is the key
free again. A hand that can't know (the engine is away) tries again for ever and says nothing:
unknown is not failed (promise 12).

What is under way goes on until it is done, though it be wanted no more: half a start is put right
by a stop. Calls and smoke are different. They can hang for as long as somebody else likes, so they
are cancelled as soon as they are not wanted, and no abort waits for them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, assert_never

import structlog

from trafficmgr.controller import faults
from trafficmgr.controller.calls import Calls
from trafficmgr.controller.ports import Clock, Supervisor, Tell, Workers
from trafficmgr.controller.secrets import ReadSecrets
from trafficmgr.controller.smoke import SmokeTest
from trafficmgr.core.commands import (
    AnyCommand,
    AskSmoke,
    CallHook,
    PublishTable,
    RestartWorker,
    StartGroup,
    StopGroup,
)
from trafficmgr.core.events import (
    GroupCompleted,
    GroupEnded,
    GroupStartDelayed,
    GroupStarted,
    GroupStartFailed,
    GroupStopped,
)
from trafficmgr.core.routing import Table
from trafficmgr.core.template import RestartPolicy
from trafficmgr.runtimes.contract import (
    GroupSpec,
    GroupState,
    GroupStatus,
    Runtime,
    RuntimeFailure,
    RuntimeUnknownError,
)

RETRY_FIRST_S = 0.5
RETRY_LONGEST_S = 30.0

log = structlog.get_logger()


class Hands:
    """Carries out commands with a runtime, the workers, the supervisor, and over HTTP."""

    def __init__(
        self,
        *,
        tasks: asyncio.TaskGroup,
        runtime: Runtime,
        workers: Workers,
        supervisor: Supervisor,
        tell: Tell,
        clock: Clock,
        instance: str,
        secrets: ReadSecrets,
        calls: Calls,
        smoke: SmokeTest,
    ) -> None:
        self._tasks = tasks
        self._runtime = runtime
        self._workers = workers
        self._supervisor = supervisor
        self._tell = tell
        self._clock = clock
        self._instance = instance
        self._secrets = secrets
        self._calls = calls
        self._smoke = smoke
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._droppable: set[str] = set()
        self._published: dict[str, int] = {}
        self._restarted: set[str] = set()
        self._publishing = asyncio.Lock()

    def act(self, commands: tuple[AnyCommand, ...]) -> None:
        """Begin everything that is wanted and not under way; drop what must not go on."""
        self._drop_unwanted(commands)
        for command in commands:
            match command:
                case StartGroup():
                    self._begin(command.key, self._start(command))
                case StopGroup():
                    self._begin(command.key, self._stop(command))
                case PublishTable():
                    self._publish(command)
                case RestartWorker():
                    self._restart_worker(command)
                case CallHook():
                    self._begin(command.key, self._calls.make(command))
                    self._droppable.add(command.key)
                case AskSmoke():
                    self._begin(command.key, self._smoke.make(command))
                    self._droppable.add(command.key)
                case _:
                    assert_never(command)

    def _drop_unwanted(self, commands: tuple[AnyCommand, ...]) -> None:
        """Cancel the calls and the smoke that nobody wants any more.

        One that is just telling its end is cancelled as well, which does no harm: it was told.
        """
        if not self._droppable:
            return
        for key in self._droppable - {command.key for command in commands}:
            self._droppable.discard(key)
            task = self._under_way.pop(key, None)
            if task is not None:
                task.cancel()

    def _begin(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        if key in self._under_way:
            work.close()
            return
        task = self._tasks.create_task(work, name=key)
        self._under_way[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))

    def _ended(self, key: str, task: asyncio.Task[None]) -> None:
        if self._under_way.get(key) is task:  # and not another that came after a drop
            del self._under_way[key]

    # -- groups -------------------------------------------------------------------------------

    async def _start(self, command: StartGroup) -> None:
        endpoint, group = command.endpoint, command.group.id
        faults.passed("before start")
        try:
            await _retried(
                lambda: self._start_once(command),
                RuntimeUnknownError,
                lambda unknown: self._delayed(command, unknown),
            )
        except RuntimeFailure as failure:
            # a task that is there had been started, by a controller that could not say so
            if not command.group.hook or await self._seen(command) is None:
                reason = str(failure)
                now = self._clock()
                await self._tell(
                    GroupStartFailed(at=now, endpoint=endpoint, group=group, reason=reason)
                )
                return
        faults.passed("after start")
        await self._tell(GroupStarted(at=self._clock(), endpoint=endpoint, group=group))
        await self._tell_early_end(command)

    async def _tell_early_end(self, command: StartGroup) -> None:
        """Tell the end of a group that came before anybody could hear of it.

        One that may complete can have done so while no controller was there: then this start has
        found it completed, and the runtime, which tells each end once, says nothing.
        """
        if command.revision.template.restart is RestartPolicy.always:
            return
        status = await self._seen(command)
        if status is not None and status.state is not GroupState.running:
            await self._tell(_end(command, status, self._clock()))

    async def _seen(self, command: StartGroup) -> GroupStatus | None:
        """Return what the runtime sees of the group; None if it is not there."""
        found: list[GroupStatus] = []

        async def look() -> None:
            found.extend(one for one in await self._runtime.list() if one.group == command.group.id)

        await _retried(look, RuntimeUnknownError, lambda why: _log_trouble(command.key, why))
        return next(iter(found), None)

    async def _start_once(self, command: StartGroup) -> None:
        """Start it with the values that its secrets have now; nobody else gets to see them."""
        secrets = await self._secrets(command.revision.template)
        await self._runtime.start(self._spec(command), secrets)

    async def _stop(self, command: StopGroup) -> None:
        starting = self._under_way.get(f"start {command.group}")
        if starting is not None:
            starting.cancel()
            await asyncio.wait([starting])
        faults.passed("before stop")
        await _retried(
            lambda: self._runtime.stop(command.group),
            RuntimeFailure,  # whatever it is: nobody is served by it, and it has to end
            lambda failure: _log_trouble(command.key, failure),
        )
        faults.passed("after stop")
        await self._tell(
            GroupStopped(at=self._clock(), endpoint=command.endpoint, group=command.group)
        )

    def _spec(self, command: StartGroup) -> GroupSpec:
        return GroupSpec(
            group=command.group.id,
            instance=self._instance,
            endpoint=command.endpoint,
            revision=command.revision.id,
            address=command.group.address,
            port=command.port,
            template=command.revision.template,
            images=command.revision.images,
        )

    async def _delayed(self, command: StartGroup, unknown: Exception) -> None:
        await _log_trouble(command.key, unknown)
        await self._tell(
            GroupStartDelayed(
                at=self._clock(),
                endpoint=command.endpoint,
                group=command.group.id,
                reason=str(unknown),
            )
        )

    # -- tables and workers -------------------------------------------------------------------

    def _publish(self, command: PublishTable) -> None:
        table = command.table
        if table.generation > self._published.get(table.endpoint, 0):
            self._begin(command.key, self._publish_in_order(table))

    async def _publish_in_order(self, table: Table) -> None:
        """Publish one table after another, and none that a newer one has overtaken."""
        delay_s = RETRY_FIRST_S
        while True:
            async with self._publishing:
                if table.generation <= self._published.get(table.endpoint, 0):
                    return
                faults.passed("before publish")
                try:
                    await self._workers.publish(table)
                except OSError as error:
                    log.error(  # noqa: TRY400  the reason is the story; a traceback adds nothing
                        "table_not_written", endpoint=table.endpoint, reason=str(error)
                    )
                else:
                    faults.passed("after publish")
                    self._published[table.endpoint] = table.generation
                    return
            await asyncio.sleep(delay_s)
            delay_s = min(RETRY_LONGEST_S, delay_s * 2)

    def _restart_worker(self, command: RestartWorker) -> None:
        if command.start_id not in self._restarted:
            self._restarted.add(command.start_id)
            faults.passed("before restart")
            self._supervisor.restart_worker(command.start_id)
            faults.passed("after restart")


def _end(command: StartGroup, status: GroupStatus, now: float) -> GroupEnded | GroupCompleted:
    endpoint, group = command.endpoint, command.group.id
    if status.state is GroupState.exited:
        return GroupEnded(at=now, endpoint=endpoint, group=group, reason=status.reason)
    return GroupCompleted(
        at=now,
        endpoint=endpoint,
        group=group,
        reason=status.reason,
        is_success=all(one.exit_code == 0 for one in status.containers),
    )


async def _retried(
    attempt: Callable[[], Awaitable[object]],
    trouble: type[RuntimeFailure],
    on_trouble: Callable[[Exception], Awaitable[None]],
) -> None:
    """Try again for as long as this trouble comes, each time after a longer wait.

    Args:
        attempt: What to do.
        trouble: The failure after which to try again; any other is raised.
        on_trouble: Told of the first one.
    """
    delay_s = RETRY_FIRST_S
    while True:
        try:
            await attempt()
        except trouble as failure:
            if delay_s == RETRY_FIRST_S:
                await on_trouble(failure)
            await asyncio.sleep(delay_s)
            delay_s = min(RETRY_LONGEST_S, delay_s * 2)
        else:
            return


async def _log_trouble(command: str, failure: Exception) -> None:
    log.warning("runtime_trouble", command=command, reason=str(failure))
