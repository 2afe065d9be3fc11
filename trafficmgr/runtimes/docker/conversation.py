"""Talking to the engine for as long as it takes: what waits, what streams, what goes both ways.

Stops, waits, pulls, logs, events and execs last for seconds or for ever. Each is a connection of
its own in the event loop, and closing the connection ends it. The `docker` package would hold a
thread for each that can't be told to end, and loses what an exec wrote along with the answer's
headers (docs/decisions/0012).

Only what the engine speaks on its socket is spoken here: HTTP/1.1, one request for each connection,
an answer that is chunked, has a length, or goes on until the end.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

from trafficmgr.runtimes.contract import RuntimeUnknownError
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.errors import (
    SERVER_ERROR,
    EngineRefusal,
    away,
    innermost,
    refused,
)

_ANSWER_S = 60.0
"""How long the beginning of an answer may take, unless the request itself waits."""
_LONGEST_HEAD = 64 * 1024
_READ_BYTES = 64 * 1024
_LONGEST_COMPLAINT = 16 * 1024
_NO_CONTENT = 204
_FIRST_ERROR = 400


class Conversation:
    """One request and its answer."""

    def __init__(
        self,
        *,
        engine: Engine,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        headers: Mapping[str, str],
    ) -> None:
        """Begin after the answer's head."""
        self._engine = engine
        self._reader = reader
        self._writer = writer
        self.headers = headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the answer's body as it comes.

        Raises:
            RuntimeUnknownError: The engine broke off.
        """
        try:
            async for chunk in self._body():
                yield chunk
        except (OSError, EOFError, ValueError) as error:
            raise away(self._engine.base_url, innermost(error)) from error

    async def documents(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the JSON documents of the answer's body, one a line."""
        partial = b""
        async for chunk in self.chunks():
            *lines, partial = (partial + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    yield json.loads(line)
        if partial.strip():
            yield json.loads(partial)

    async def body(self) -> bytes:
        """Return the answer's whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def send(self, data: bytes) -> None:
        """Say more, on a connection that was upgraded; nobody may be listening any more."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            return

    def send_end(self) -> None:
        """Say that nothing more comes from us."""
        if self._writer.can_write_eof() and not self._writer.is_closing():
            self._writer.write_eof()

    async def _body(self) -> AsyncIterator[bytes]:
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
                yield await self._reader.readexactly(size)
                await self._reader.readexactly(2)
        elif "content-length" in self.headers:
            yield await self._reader.readexactly(int(self.headers["content-length"]))
        else:
            while chunk := await self._reader.read(_READ_BYTES):
                yield chunk


@asynccontextmanager
async def converse(
    engine: Engine,
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: object = None,
    answers_within_s: float | None = _ANSWER_S,
) -> AsyncIterator[Conversation]:
    """Ask the engine for something and have the answer's body still to come.

    Args:
        engine: Whom.
        method: GET, POST or HEAD.
        path: Without the version: "/events".
        query: What comes after the question mark.
        headers: Further ones.
        body: What is sent along, as JSON.
        answers_within_s: How long the head of the answer may take; None is for ever.

    Raises:
        EngineRefusal: The engine has answered: no.
        RuntimeUnknownError: The engine can't be asked, or broke off.
    """
    version = (await engine.known()).api_version
    target = f"/v{version}{quote(path)}" + (f"?{urlencode(query)}" if query else "")
    writer: asyncio.StreamWriter | None = None
    try:
        try:
            async with asyncio.timeout(answers_within_s):
                reader, writer = await asyncio.open_unix_connection(
                    engine.path, limit=_LONGEST_HEAD
                )
                writer.write(_request(method, target, dict(headers or {}), body))
                status, found = _head(await reader.readuntil(b"\r\n\r\n"))
                if method == "HEAD" or status == _NO_CONTENT:
                    found["content-length"] = "0"
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise away(engine.base_url, innermost(error)) from error
        answer = Conversation(engine=engine, reader=reader, writer=writer, headers=found)
        if status >= _FIRST_ERROR:
            failure = refused(engine.base_url, status, await _complaint(answer))
            if status >= SERVER_ERROR and isinstance(failure, EngineRefusal):
                await engine.second_look()
            raise failure
        yield answer
    finally:
        if writer is not None:
            writer.transport.abort()


async def ask(
    engine: Engine,
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    body: object = None,
    answers_within_s: float | None = _ANSWER_S,
) -> bytes:
    """Ask the engine for something that may take its time, and return the answer's body."""
    async with converse(
        engine, method, path, query=query, body=body, answers_within_s=answers_within_s
    ) as answer:
        return await answer.body()


def _request(method: str, target: str, headers: dict[str, str], body: object) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: docker",
        *(f"{name}: {value}" for name, value in ({"Connection": "close"} | headers).items()),
        *(() if body is None else ("Content-Type: application/json",)),
        f"Content-Length: {len(content)}",
    ]
    return "\r\n".join([*lines, "\r\n"]).encode() + content


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *rest = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in rest if line)
    return int(first.split(" ", 2)[1]), {
        name.strip().lower(): value.strip() for name, _, value in pairs
    }


async def _complaint(answer: Conversation) -> str:
    """Return the engine's own words for an error."""
    if answer.headers.get("content-length") == "0":
        return "without a word"
    try:
        async with asyncio.timeout(_ANSWER_S):
            said = b""
            async for chunk in answer.chunks():
                said += chunk
                if len(said) > _LONGEST_COMPLAINT:
                    break
    except (TimeoutError, RuntimeUnknownError):
        return "without a word"
    try:
        return str(json.loads(said)["message"]).strip().rstrip(".")
    except (ValueError, KeyError, TypeError):
        return said.decode(errors="replace").strip()
