"""Answers of the admin API that go on until somebody leaves: followed events and logs.

A stream has three ends: what it shows has ended, the service stops, the client went away. The last
is looked for every half second, because a quiet stream may have nothing to write for hours.
"""

import asyncio
import contextlib
import json
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar

import structlog
from aiohttp import web

from trafficmgr.admin.ports import House

T = TypeVar("T")

LOOK_S = 0.5
"""How often a stream looks whether its client is still there."""

FOLLOW_S = 0.25
"""How often followed events are read: soon for a person, seldom for the journal."""

CLOSING: web.AppKey[asyncio.Event] = web.AppKey("closing")
"""Set when the service stops: streams end in order instead of being cut."""

_log = structlog.get_logger(__name__)


async def event_lines(
    house: House, endpoint: str | None, after: int, limit: int, *, has_checkpoints: bool
) -> AsyncIterator[bytes]:
    """Yield the events that are there and then those that come, a JSON document a line."""
    while True:
        events = await house.events(endpoint, after, limit, has_checkpoints=has_checkpoints)
        if events:
            after = events[-1]["seq"]
            yield b"".join(map(_line, events))
        else:
            await asyncio.sleep(FOLLOW_S)


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"


async def streamed(
    request: web.Request, chunks: AsyncIterator[bytes], content_type: str
) -> web.StreamResponse:
    """Send chunks as they come; the status waits for the first one, so an error can be told.

    Raises:
        Exception: What `chunks` raised before its first chunk. If it raises later the connection
            breaks off, which is how the client learns that it has not got everything.
    """
    response = web.StreamResponse(headers={"Content-Type": f"{content_type}; charset=utf-8"})
    async with asyncio.TaskGroup() as tasks:
        pump = tasks.create_task(_pump(request, response, chunks))
        closing = tasks.create_task(request.app[CLOSING].wait())
        while not pump.done() and not closing.done() and has_client(request):
            await asyncio.wait({pump, closing}, timeout=LOOK_S, return_when=FIRST_COMPLETED)
        pump.cancel()
        closing.cancel()
    failure = None if pump.cancelled() else pump.result()
    if failure is None:
        return response
    if not response.prepared:
        raise failure
    _log.warning("admin_stream_broke_off", path=request.path, error=str(failure))
    if request.transport is not None:
        request.transport.abort()
    return response


async def _pump(
    request: web.Request, response: web.StreamResponse, chunks: AsyncIterator[bytes]
) -> Exception | None:
    """Copy chunks to the response; return what went wrong instead of failing the task group."""
    try:
        async with closed(chunks):
            async for chunk in chunks:
                if not response.prepared:
                    await response.prepare(request)
                await response.write(chunk)
    except ConnectionResetError:
        return None  # the client went away; nobody is left to tell
    except Exception as error:  # noqa: BLE001  the caller raises it
        return error
    return None


@contextlib.asynccontextmanager
async def closed(chunks: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Let the source of a stream end with whoever reads it, and not some time later."""
    try:
        yield chunks
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


def has_client(request: web.Request) -> bool:
    """Return whether somebody is still there to be answered."""
    return request.transport is not None and not request.transport.is_closing()
