"""What a group has written: from the engine while it is there, from our own files afterwards.

First comes what there is, of several containers in the order of its times; then, if it is wanted,
what is written from there on. A reader knows of each container how far it has read, by the time of
the last line and how many had the same one, so it can go on anywhere: at the engine, or in the
files when the group was stopped meanwhile. No line comes twice, none is lost.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from trafficmgr.runtimes.contract import GroupState, LogQuery, RuntimeFailure
from trafficmgr.runtimes.docker.conversation import converse
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.errors import CONFLICT, NOT_FOUND, EngineRefusal
from trafficmgr.runtimes.docker.kept import KeptLogs
from trafficmgr.runtimes.docker.lines import Line, Position, lines
from trafficmgr.runtimes.docker.names import is_name
from trafficmgr.runtimes.docker.seen import SeenContainer, SeenGroup

_CHUNK_BYTES = 256 * 1024
_LOOK_S = 0.3
"""How often a follower looks whether the group has ended, or a container was started."""
_ANSWER_S = 60.0
_PIECES = 64
"""How many more messages than lines are asked for: a line over 16 KiB is several of them."""
_WAITING_LINES = 1000
"""How many lines a slow reader may leave waiting, until the engine is left to wait."""


async def read_container(
    engine: Engine,
    identity: str,
    *,
    since: str = "",
    tail: int | None = None,
    is_followed: bool = False,
    is_last: bool = True,
) -> AsyncIterator[Line]:
    """Yield a container's lines from the engine; none if it is gone.

    Args:
        engine: Where it is.
        identity: The container.
        since: Only lines written at or after this many seconds since the epoch.
        tail: Only the last so many messages.
        is_followed: Whether to go on until it ends.
        is_last: Whether no more will come of a line without its end.
    """
    query = {
        "stdout": "1",
        "stderr": "1",
        "timestamps": "1",
        "follow": str(int(is_followed)),
        "tail": "all" if tail is None else str(tail),
    }
    try:
        async with converse(
            engine,
            "GET",
            f"/containers/{identity}/logs",
            query=query | ({"since": since} if since else {}),
            answers_within_s=None if is_followed else _ANSWER_S,
        ) as answer:
            async for line in lines(answer.chunks(), is_last=is_last):
                yield line
    except EngineRefusal as refusal:
        if refusal.status not in (NOT_FOUND, CONFLICT):  # gone, or about to be
            raise


async def last_lines(engine: Engine, identity: str, number: int) -> str:
    """Return a container's last lines, as one line for an error's text."""
    found = [line async for line in read_container(engine, identity, tail=number)]
    return " / ".join(line.text.decode(errors="replace").strip() for line in found)


class Reader:
    """Reads the logs of one group for one query."""

    def __init__(
        self,
        engine: Engine,
        *,
        kept: KeptLogs,
        look: Callable[[str], Awaitable[SeenGroup | None]],
        group: str,
        query: LogQuery,
    ) -> None:
        """Read what a query wants.

        Args:
            engine: Where the group runs.
            kept: What groups that are gone have written.
            look: How a group is looked at.
            group: Which one.
            query: What is wanted of it.
        """
        self._engine = engine
        self._kept = kept
        self._look = look
        self._group = group
        self._query = query
        self._positions: dict[str, Position] = {}
        self._is_alone = True

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield chunks of whole lines.

        Raises:
            RuntimeFailure: There is no such group or container.
            RuntimeUnknownError: The engine can't be asked.
        """
        seen = await self._look(self._group) if is_name(self._group) else None
        names = self._names(seen)
        self._positions = {name: Position() for name in names}
        follows = self._query.is_followed and _runs(seen)
        several = [
            (name, line)
            for name in names
            for line in await self._present(name, _container(seen, name), is_last=not follows)
        ]
        for chunk in self._chunks(self._tail(several)):
            yield chunk
        if follows:
            async for chunk in self._follow(names):
                yield chunk

    def _names(self, seen: SeenGroup | None) -> tuple[str, ...]:
        if seen is None or seen.spec is None:
            names = self._kept.containers(self._group) if is_name(self._group) else ()
        else:
            names = tuple(one.name for one in seen.spec.template.every_container())
        if not names:
            raise RuntimeFailure(
                f'docker: there is no group "{self._group}", and no logs of it are kept. '
                "`trafficmgr status` lists those that run."
            )
        wanted = self._query.container
        if wanted and wanted not in names:
            raise RuntimeFailure(
                f'docker: group {self._group} has no container "{wanted}". Its containers are '
                f"{', '.join(names)}."
            )
        self._is_alone = len(names) == 1 or bool(wanted)
        return (wanted,) if wanted else names

    # -- what there is ----------------------------------------------------------------------------

    async def _present(
        self, name: str, container: SeenContainer | None, *, is_last: bool
    ) -> list[Line]:
        """Return a container's lines so far, as far as they are wanted."""
        since = self._query.since
        if container is None:
            found = await asyncio.to_thread(self._kept.read, self._group, name)
        else:
            found = await self._last(container, is_last=is_last)
        position = self._positions[name]
        new = [line for line in found if position.passes(line)]
        return [line for line in new if since is None or line.stamp >= _stamp(since)]

    async def _last(self, container: SeenContainer, *, is_last: bool) -> list[Line]:
        """Return a container's last lines, each of them whole."""
        since = "" if self._query.since is None else f"{max(self._query.since, 0):.6f}"
        tail = None if self._query.tail is None else self._query.tail + _PIECES
        found = await self._engine_lines(container, since=since, tail=tail, is_last=is_last)
        if tail is None or self._query.tail is None or len(found) > self._query.tail:
            return found
        return await self._engine_lines(container, since=since, tail=None, is_last=is_last)

    async def _engine_lines(
        self, container: SeenContainer, *, since: str, tail: int | None, is_last: bool
    ) -> list[Line]:
        found = read_container(self._engine, container.id, since=since, tail=tail, is_last=is_last)
        return [line async for line in found]

    async def _rest(self, name: str) -> list[Line]:
        """Return what a container has written since it was last read, wherever that is now."""
        container = _container(await self._look(self._group), name)
        position = self._positions[name]
        since = position.begin()
        if container is None:
            found = await asyncio.to_thread(self._kept.read, self._group, name)
        else:
            found = await self._engine_lines(container, since=since, tail=None, is_last=True)
        return [line for line in found if position.passes(line)]

    # -- what comes -------------------------------------------------------------------------------

    async def _follow(self, names: tuple[str, ...]) -> AsyncIterator[bytes]:
        arrived: asyncio.Queue[tuple[str, Line]] = asyncio.Queue(_WAITING_LINES)
        async with _owned(self._pump(name, arrived) for name in names) as pumps:
            while True:
                for chunk in self._chunks(await _taken(arrived)):
                    yield chunk
                if arrived.empty() and not _runs(await self._look(self._group)):
                    break
                for pump in pumps:
                    if pump.done():
                        pump.result()  # the engine is away: the reader hears it
        while not arrived.empty():
            for chunk in self._chunks(await _taken(arrived)):
                yield chunk
        rest = [(name, line) for name in names for line in await self._rest(name)]
        for chunk in self._chunks(_in_order(rest)):
            yield chunk

    async def _pump(self, name: str, arrived: asyncio.Queue[tuple[str, Line]]) -> None:
        """Hand on what a container writes, from its start to its end."""
        position = self._positions[name]
        while True:
            container = _container(await self._look(self._group), name)
            if container is None or (container.was_started and not container.is_running):
                return
            if container.was_started:
                found = read_container(
                    self._engine,
                    container.id,
                    since=position.begin(),
                    is_followed=True,
                    is_last=False,
                )
                async for line in found:
                    if position.passes(line):
                        await arrived.put((name, line))
            await asyncio.sleep(_LOOK_S)

    # -- how it looks -----------------------------------------------------------------------------

    def _tail(self, several: list[tuple[str, Line]]) -> list[tuple[str, Line]]:
        ordered = _in_order(several)
        tail = self._query.tail
        return ordered if tail is None else ordered[len(ordered) - min(tail, len(ordered)) :]

    def _chunks(self, several: Iterable[tuple[str, Line]]) -> list[bytes]:
        chunks, chunk, size = [], list[bytes](), 0
        for name, line in several:
            chunk.append(self._written(name, line))
            size += len(chunk[-1])
            if size >= _CHUNK_BYTES:
                chunks.append(b"".join(chunk))
                chunk, size = [], 0
        return [*chunks, b"".join(chunk)] if chunk else chunks

    def _written(self, name: str, line: Line) -> bytes:
        stamp = line.stamp + b" " if self._query.has_timestamps else b""
        prefix = b"" if self._is_alone else f"[{name}] ".encode()
        return stamp + prefix + line.text + b"\n"


def _container(seen: SeenGroup | None, name: str) -> SeenContainer | None:
    return None if seen is None else seen.others.get(name)


def _runs(seen: SeenGroup | None) -> bool:
    return seen is not None and seen.status().state is GroupState.running


def _in_order(several: list[tuple[str, Line]]) -> list[tuple[str, Line]]:
    """Return lines of several containers by time, each container's own in its order."""
    by_name: dict[str, list[tuple[str, Line]]] = {}
    for name, line in several:
        by_name.setdefault(name, []).append((name, line))
    return list(heapq.merge(*by_name.values(), key=lambda one: one[1].stamp))


def _stamp(since: float) -> bytes:
    when = datetime.fromtimestamp(since, UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond * 1000:09d}Z".encode()


async def _taken(arrived: asyncio.Queue[tuple[str, Line]]) -> list[tuple[str, Line]]:
    """Return the lines that wait, after waiting a little for the first."""
    taken = []
    try:
        async with asyncio.timeout(_LOOK_S):
            taken.append(await arrived.get())
    except TimeoutError:
        return []
    while not arrived.empty():
        taken.append(arrived.get_nowait())
    return taken


@asynccontextmanager
async def _owned(
    pumps: Iterable[Coroutine[None, None, None]],
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run them beside the block, and end them with it.

    Not a TaskGroup: the block is a generator's, which may be closed from another task.
    """
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(pump) for pump in pumps]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
