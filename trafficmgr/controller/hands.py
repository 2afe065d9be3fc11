"""Hands: they carry out what is wanted, once each, and answer with events.

`decide` names everything that is still wanted, every time. A command whose key is under way is
left alone; when it is done its event is told, and only after that event was journaled is the key
free again. A hand that can't know (the engine is away) tries again for ever and says nothing:
unknown is not failed (promise 12).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, assert_never

import structlog

from trafficmgr.controller import faults
from trafficmgr.controller.ports import Clock, Supervisor, Tell, Workers
from trafficmgr.controller.secrets import ReadSecrets
from trafficmgr.core.commands import (
    AnyCommand,
    PublishTable,
    RestartWorker,
    StartGroup,
    StopGroup,
)
from trafficmgr.core.events import GroupStartDelayed, GroupStarted, GroupStartFailed, GroupStopped
from trafficmgr.core.routing import Table
from trafficmgr.runtimes.contract import GroupSpec, Runtime, RuntimeFailure, RuntimeUnknownError

RETRY_FIRST_S = 0.5
RETRY_LONGEST_S = 30.0

log = structlog.get_logger()


class Hands:
    """Carries out commands with a runtime, the workers and the supervisor."""

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
    ) -> None:
        self._tasks = tasks
        self._runtime = runtime
        self._workers = workers
        self._supervisor = supervisor
        self._tell = tell
        self._clock = clock
        self._instance = instance
        self._secrets = secrets
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._published: dict[str, int] = {}
        self._restarted: set[str] = set()
        self._publishing = asyncio.Lock()

    def act(self, commands: tuple[AnyCommand, ...]) -> None:
        """Begin everything that is wanted and not under way."""
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
                case _:
                    assert_never(command)

    def _begin(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        if key in self._under_way:
            work.close()
            return
        task = self._tasks.create_task(work, name=key)
        self._under_way[key] = task
        task.add_done_callback(lambda _: self._under_way.pop(key, None))

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
            await self._tell(
                GroupStartFailed(
                    at=self._clock(), endpoint=endpoint, group=group, reason=str(failure)
                )
            )
        else:
            faults.passed("after start")
            await self._tell(GroupStarted(at=self._clock(), endpoint=endpoint, group=group))

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
