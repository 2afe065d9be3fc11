"""A command inside a container, over a WebSocket.

The client's first message says what to run, as JSON text:

    {"command": ["ls", "-l"], "container": "web", "tty": false, "rows": 24, "columns": 80}

Then binary messages go both ways, the first byte of each naming a stream: 0 is the command's
standard input (nothing after the byte closes it), 1 and 2 its output and errors. JSON text from the
client is a new size of the terminal, `{"rows": 50, "columns": 120}`. The last message of the
service is `{"exit_code": 3}`, or `{"error": "a sentence"}` if there is none.

A WebSocket, because aiohttp has one and so have browsers and every language; a stream of our own
over an upgraded connection would be shorter here and unknown everywhere else. The command is in a
message and not in the address, because addresses are short and end up in logs.
"""

import asyncio
from asyncio import FIRST_COMPLETED
from contextlib import suppress
from typing import Any

import msgspec
import structlog
from aiohttp import WSMsgType, web

from trafficmgr.admin.ports import Groups
from trafficmgr.admin.streams import CLOSING, LOOK_S, closed, has_client
from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.runtimes.contract import ExecSession

FIRST_S = 10.0
"""How long a client may take to say what to run."""

CLOSE_S = 5.0
"""How long letting go of a command may take."""

MAX_ARGUMENTS_BYTES = 128 * 1024
"""As much as one argument of Linux may have; a whole script fits."""

STDIN = 0

_log = structlog.get_logger(__name__)


class Size(msgspec.Struct):
    """How large a terminal is."""

    rows: int
    columns: int


class Wanted(msgspec.Struct):
    """What to run."""

    command: list[str]
    container: str = ""
    tty: bool = False
    rows: int = 0
    columns: int = 0


async def carried(request: web.Request, groups: Groups, group: str) -> web.StreamResponse:
    """Run what the client asks for and carry its streams, until it or the client has ended."""
    socket = web.WebSocketResponse(compress=False, max_msg_size=MAX_ARGUMENTS_BYTES)
    if not socket.can_prepare(request):
        raise web.HTTPBadRequest(text="exec is a WebSocket; use `trafficmgr exec`.")
    await socket.prepare(request)
    with suppress(ConnectionResetError):  # the client went away; nobody is left to tell
        try:
            wanted = await _wanted(socket)
            session = await groups.exec(
                group, wanted.container, tuple(wanted.command), has_tty=wanted.tty
            )
        except TrafficmgrError as error:
            await socket.send_json({"error": str(error)})
        else:
            await _carry(request, socket, session, wanted)
        await socket.close()
    return socket


async def _carry(
    request: web.Request, socket: web.WebSocketResponse, session: ExecSession, wanted: Wanted
) -> None:
    """Carry the streams and send the last message; let go of the command whatever happens."""
    try:
        if wanted.rows and wanted.columns:
            await session.resize(wanted.rows, wanted.columns)
        await socket.send_json(await _streams(request, socket, session))
    except TrafficmgrError as failure:
        await socket.send_json({"error": str(failure)})
    finally:
        await _let_go(session, request.match_info["id"])


async def _wanted(socket: web.WebSocketResponse) -> Wanted:
    try:
        wanted = msgspec.json.decode(await socket.receive_str(timeout=FIRST_S), type=Wanted)
    except (msgspec.DecodeError, TypeError, TimeoutError) as error:
        raise TrafficmgrError(f"The first message must say what to run: {error}.") from error
    if not wanted.command:
        raise TrafficmgrError("There is no command to run.")
    return wanted


async def _streams(
    request: web.Request, socket: web.WebSocketResponse, session: ExecSession
) -> dict[str, Any]:
    """Carry both ways until the command or the client has ended, or the service stops."""
    async with asyncio.TaskGroup() as tasks:
        output = tasks.create_task(_output(socket, session))
        others = {
            tasks.create_task(_input(socket, session)),
            tasks.create_task(_look_for(request, socket)),
        }
        await asyncio.wait({output, *others}, return_when=FIRST_COMPLETED)
        for task in (output, *others):
            task.cancel()
    if output.cancelled():
        return {"error": "The service stops, or the connection ended; so did the command."}
    return output.result()


async def _output(socket: web.WebSocketResponse, session: ExecSession) -> dict[str, Any]:
    """Send what the command writes; return its exit code as the last message."""
    try:
        async with closed(session.output()) as output:
            async for stream, data in output:
                await socket.send_bytes(bytes([stream]) + data)
        return {"exit_code": await session.exit_code()}
    except TrafficmgrError as failure:
        return {"error": str(failure)}
    except ConnectionResetError:
        return {"error": "The client went away."}


async def _input(socket: web.WebSocketResponse, session: ExecSession) -> None:
    """Hand on what the client sends, until it goes away."""
    async for message in socket:
        with suppress(
            TrafficmgrError, OSError, msgspec.DecodeError
        ):  # it may have closed its input
            if message.type is WSMsgType.BINARY and message.data[:1] == bytes([STDIN]):
                await session.send(message.data[1:])
            elif message.type is WSMsgType.TEXT:
                size = msgspec.json.decode(message.data, type=Size)
                await session.resize(size.rows, size.columns)


async def _look_for(request: web.Request, socket: web.WebSocketResponse) -> None:
    """Return when the client is gone or the service stops.

    A command that does not read its input keeps us from reading the client, and so from seeing it
    leave; only writing to it tells then.
    """
    closing = request.app[CLOSING]
    while has_client(request) and not closing.is_set():
        with suppress(ConnectionResetError):
            await socket.ping()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await closing.wait()


async def _let_go(session: ExecSession, group: str) -> None:
    try:
        async with asyncio.timeout(CLOSE_S):
            await session.close()
    except (TrafficmgrError, TimeoutError) as error:
        _log.warning("exec_not_ended", group=group, reason=str(error))
