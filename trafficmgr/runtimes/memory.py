"""A runtime whose processes are imaginary, for tests of those who use runtimes.

It passes the same conformance suite as the real ones (tests/runtimes/conformance.py), and has
hooks that make imaginary processes do what real ones do: `end`, `say`, `fail_next_start`, `lag`,
`is_away`. The groups live in a `MemoryWorld`; a second runtime on the same world is a new
controller. Containers of a group are all imaginary in the same way; `exec` runs one command, echo.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping

from trafficmgr.runtimes.contract import (
    BEHAVIOURS,
    EVERYTHING,
    NO_SECRETS,
    ContainerState,
    ContainerStats,
    ContainerStatus,
    ExecSession,
    GroupSpec,
    GroupState,
    GroupStatus,
    ImagesRemoved,
    LogQuery,
    Runtime,
    RuntimeFailure,
    RuntimeUnknownError,
    Secrets,
    ending,
)
from trafficmgr.runtimes.turns import Turns


class MemoryWorld:
    """The groups there are, and what those that are gone have written."""

    def __init__(self) -> None:
        self.specs: dict[str, GroupSpec] = {}
        self.secrets: dict[str, Secrets] = {}
        self.is_away = False
        self.statuses: dict[str, GroupStatus] = {}
        self.logs: dict[str, list[bytes]] = {}
        self.listeners: list[asyncio.Queue[GroupStatus]] = []
        self.kept_images: list[frozenset[str]] = []
        self.changed = asyncio.Condition()
        self.last_pid = 0

    def put(self, spec: GroupSpec) -> None:
        """Let a group run."""
        self.last_pid += 1
        self.specs[spec.group] = spec
        self.logs[spec.group] = []
        self.statuses[spec.group] = GroupStatus(
            group=spec.group,
            endpoint=spec.endpoint,
            state=GroupState.running,
            pid=self.last_pid,
            containers=tuple(
                ContainerStatus(name=one.name, state=ContainerState.running, pid=self.last_pid)
                for one in spec.template.containers
            ),
        )


class MemoryRuntime(Runtime):
    """The contract over a dictionary.

    `lag` is how many seconds every start and stop takes; it may be changed at any time.
    """

    def __init__(self, world: MemoryWorld | None = None, *, lag: float = 0.0) -> None:
        self.world = world or MemoryWorld()
        self.lag = lag
        self._fail_reason = ""
        self._turns = Turns("memory")
        self._ended: asyncio.Queue[GroupStatus] = asyncio.Queue()
        self.world.listeners.append(self._ended)

    # -- hooks for tests --------------------------------------------------------------------------

    async def end(self, group: str, reason: str, *, code: int = 1) -> None:
        """Let all containers of a running group end by themselves."""
        policy = self.world.specs[group].template.restart
        known = self.world.statuses[group]
        containers = tuple(
            one.but(state=ContainerState.terminated, exit_code=code, pid=None)
            for one in known.containers
        )
        status = known.but(
            state=ending(policy, containers), reason=reason, pid=None, containers=containers
        )
        self.world.statuses[group] = status
        for listener in self.world.listeners:
            listener.put_nowait(status)
        await self._tell_followers()

    async def say(self, group: str, line: str) -> None:
        """Let a group write a line."""
        self.world.logs[group].append(f"{line}\n".encode())
        await self._tell_followers()

    def fail_next_start(self, reason: str) -> None:
        """Let the next start of a group that does not run raise RuntimeFailure."""
        self._fail_reason = reason

    # -- the contract -----------------------------------------------------------------------------

    @property
    def gaps(self) -> Mapping[str, str]:
        """Return that nothing here is real."""
        return dict.fromkeys(BEHAVIOURS, "the processes are imaginary")

    async def start(self, spec: GroupSpec, secrets: Secrets = NO_SECRETS) -> str:
        """Start the group; see the contract."""
        self._fail_if_away()
        async with self._turns.start(spec.group):
            address = await self._start(spec)
            self.world.secrets[spec.group] = secrets
            return address

    async def stop(self, group: str) -> None:
        """End the group and forget it, except for its logs."""
        async with self._turns.stop(group):
            if group in self.world.statuses:
                await asyncio.sleep(self.lag)
                self.world.statuses.pop(group, None)
        await self._tell_followers()

    async def list(self) -> tuple[GroupStatus, ...]:
        """Return every group of the world."""
        self._fail_if_away()
        return tuple(self.world.statuses.values())

    async def watch(self) -> AsyncIterator[GroupStatus]:
        """Yield each group that ended by itself, once. Meant for one listener."""
        while True:
            yield await self._ended.get()

    async def logs(self, group: str, query: LogQuery = EVERYTHING) -> AsyncIterator[bytes]:
        """Yield what the group said; no line knows when."""
        tail, follow = query.tail, query.is_followed
        lines = self.world.logs.get(group)
        if lines is None:
            raise RuntimeFailure(f'memory: there is no group "{group}", and no logs of it.')
        seen = 0 if tail is None else max(0, len(lines) - tail)
        while True:
            chunk, seen = b"".join(lines[seen:]), len(lines)
            if chunk:
                yield chunk
            if not follow or not self._runs(group):
                return
            async with self.world.changed:
                if len(lines) == seen and self._runs(group):
                    await self.world.changed.wait()

    async def exec(
        self, group: str, container: str, command: tuple[str, ...], *, has_tty: bool = False
    ) -> ExecSession:
        """Run `echo WORDS` or `exit CODE`; there is no other command here."""
        if not self._runs(group):
            raise RuntimeFailure(f'memory: there is no running group "{group}" to run it in.')
        return _Echo(command, has_tty=has_tty, container=container)

    async def stats(self, group: str) -> tuple[ContainerStats, ...]:
        """Return imaginary figures."""
        status = self.world.statuses.get(group)
        if status is None:
            raise RuntimeFailure(f'memory: there is no group "{group}".')
        return tuple(
            ContainerStats(name=one.name, cpu_s=1.5, memory_bytes=2**20)
            for one in status.containers
        )

    def keep_logs(self, seconds: float) -> None:
        """Do nothing: what was said in memory is kept as long as the world."""

    async def keep_images(self, digests: frozenset[str]) -> ImagesRemoved:
        """Take note of what was to be kept."""
        self._fail_if_away()
        self.world.kept_images.append(digests)
        return ImagesRemoved()

    async def close(self) -> None:
        """Let go of the world, which goes on."""
        self.world.listeners.remove(self._ended)

    # -- helpers ----------------------------------------------------------------------------------

    async def _start(self, spec: GroupSpec) -> str:
        status = self.world.statuses.get(spec.group)
        if status is not None and status.state is GroupState.exited:
            raise RuntimeFailure(
                f"memory: group {spec.group} has ended ({status.reason}) and is never started "
                "again. Stop it, and start another one."
            )
        if status is None:
            await asyncio.sleep(self.lag)
            self._fail_if_told(spec)
            self.world.put(spec)
        return self.world.specs[spec.group].address

    def _fail_if_away(self) -> None:
        if self.world.is_away:
            raise RuntimeUnknownError("memory: the engine is away. It is asked again.")

    def _fail_if_told(self, spec: GroupSpec) -> None:
        reason, self._fail_reason = self._fail_reason, ""
        if reason:
            raise RuntimeFailure(f"memory: cannot start group {spec.group}: {reason}.")

    def _runs(self, group: str) -> bool:
        status = self.world.statuses.get(group)
        return status is not None and status.state is GroupState.running

    async def _tell_followers(self) -> None:
        async with self.world.changed:
            self.world.changed.notify_all()


class _Echo(ExecSession):
    """A command that is over before it began."""

    def __init__(self, command: tuple[str, ...], *, has_tty: bool, container: str) -> None:
        self._command = command
        self._sent = [b"tty\n"] if has_tty else []
        self._where = container

    async def send(self, data: bytes) -> None:
        """Keep what is written to it."""
        self._sent.append(data)

    async def resize(self, rows: int, columns: int) -> None:
        """Keep the size."""
        self._sent.append(f"{rows}x{columns}\n".encode())

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield its words, then all that was sent to it."""
        if self._command[0] == "echo":
            yield 1, " ".join(self._command[1:]).encode() + b"\n"
        else:
            yield 2, f"{self._where}: {self._command[0]}\n".encode()
        for data in self._sent:
            yield 1, data

    async def exit_code(self) -> int:
        """Return 0, or what `exit` was given."""
        return int(self._command[1]) if self._command[0] == "exit" else 0

    async def close(self) -> None:
        """Do nothing: it is over."""
