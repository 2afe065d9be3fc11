"""A command inside a container: what `exec` hands out.

The engine answers "upgraded" before it has tried to start the command, so whether there is such a
command is known only a little later: then it either has a process, or has ended without one, and
what would be its output is the engine's own complaint.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

from trafficmgr.runtimes.contract import ExecSession
from trafficmgr.runtimes.docker.conversation import Conversation, converse
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.errors import EngineRefusal
from trafficmgr.runtimes.docker.lines import frames
from trafficmgr.runtimes.docker.seen import SeenContainer
from trafficmgr.runtimes.docker.shape import wrapped

_END_OF_INPUT = b"\x04"
"""What ends the input of a terminal, which can't be closed by half."""
_FIRST_LOOK_S = 0.01
_LONGEST_LOOK_S = 0.5
_STDOUT = 1
_UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


class DockerExec(ExecSession):
    """A command inside a container."""

    def __init__(self, engine: Engine, identity: str, *, has_tty: bool) -> None:
        """Use `begin`."""
        self._engine = engine
        self._identity = identity
        self._has_tty = has_tty
        self._held = AsyncExitStack()
        self._answer: Conversation | None = None

    async def begin(self) -> None:
        """Start it.

        Raises:
            EngineRefusal: There is no such command.
            RuntimeUnknownError: The engine can't be asked.
        """
        self._answer = await self._held.enter_async_context(
            converse(
                self._engine,
                "POST",
                f"/exec/{self._identity}/start",
                headers=_UPGRADE,
                body={"Detach": False, "Tty": self._has_tty},
            )
        )
        state = await self._state_once(lambda found: bool(found["Pid"]) or not found["Running"])
        if not state["Pid"] and state["ExitCode"]:
            said = b"".join([data async for _, data in self.output()]).decode(errors="replace")
            raise EngineRefusal(400, said.strip().removesuffix(": unknown"))

    async def send(self, data: bytes) -> None:
        """Write to its standard input; b"" closes it."""
        answer = self._conversation()
        if data:
            await answer.send(data)
        elif self._has_tty:
            await answer.send(_END_OF_INPUT)
        else:
            answer.send_end()

    async def resize(self, rows: int, columns: int) -> None:
        """Change the size of its terminal."""
        if not self._has_tty:
            return
        try:
            await self._engine.call(
                lambda client: client.exec_resize(self._identity, height=rows, width=columns)
            )
        except EngineRefusal:
            return  # it has just ended

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (1 or 2, bytes) as it writes."""
        chunks = self._conversation().chunks()
        if self._has_tty:
            async for chunk in chunks:
                yield _STDOUT, chunk
            return
        async for stream, data in frames(chunks):
            yield stream, data

    async def exit_code(self) -> int:
        """Wait for its end and return its exit code."""
        found = await self._state_once(lambda state: not state["Running"])
        return int(found["ExitCode"])

    async def close(self) -> None:
        """Let go of it; the engine has no way to end it."""
        await self._held.aclose()

    def _conversation(self) -> Conversation:
        assert self._answer is not None, "it has begun"  # noqa: S101  an invariant, stays on
        return self._answer

    async def _state_once(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return its state as soon as that is so."""
        look_s = _FIRST_LOOK_S
        while True:
            found: dict[str, Any] = await self._engine.call(
                lambda client: client.exec_inspect(self._identity)
            )
            if holds(found):
                return found
            await asyncio.sleep(look_s)
            look_s = min(1.5 * look_s, _LONGEST_LOOK_S)


async def begin(
    engine: Engine, seen: SeenContainer, command: tuple[str, ...], *, has_tty: bool
) -> DockerExec:
    """Run a command inside a container, with all that is in the environment there.

    Raises:
        EngineRefusal: The container does not run, or has no such command.
        RuntimeUnknownError: The engine can't be asked.
    """
    words = wrapped(command) if seen.is_wrapped else list(command)
    made = await engine.call(
        lambda client: client.exec_create(seen.id, words, stdin=True, tty=has_tty)
    )
    session = DockerExec(engine, made["Id"], has_tty=has_tty)
    try:
        await session.begin()
    except BaseException:
        await session.close()
        raise
    return session
