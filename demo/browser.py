"""One keep-alive HTTP/1.1 connection of a client, precise about how it ended.

Written on asyncio's protocols and not on a client library, because the demo must know for certain
whether a connection ended before any byte of the response (the request may be sent again on a new
connection, RFC 9110 section 9.2.2) or after some (it may not).
"""

import asyncio
from dataclasses import dataclass
from typing import cast

MAX_HEAD_BYTES = 64 * 1024


class RequestFailedError(Exception):
    """The request has no whole answer; the text is the reason, the same for the same cause."""


class CutError(RequestFailedError):
    """The connection ended before any byte of the response."""


@dataclass(frozen=True)
class Answer:
    """What a response said: how it went, and who served it ("" for what is not the app's)."""

    status: int
    version: str
    group: str
    keeps_open: bool


class Connection(asyncio.Protocol):
    """A connection that carries one request at a time."""

    def __init__(self) -> None:
        self.is_open = False
        self.served = 0
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiter: asyncio.Future[Answer] | None = None
        self._gone = asyncio.Event()

    @classmethod
    async def to(cls, address: str, port: int) -> "Connection":
        """Open a connection.

        Raises:
            RequestFailedError: It could not be opened.
        """
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(cls, address, port)
        except OSError as error:
            raise RequestFailedError(f"connect: {error.strerror or error}") from error
        return connection

    async def get(self, request: bytes) -> Answer:
        """Send the request and return the answer to it.

        Raises:
            CutError: The connection ended before any byte of the response.
            RequestFailedError: It ended later, or what came is no response.
        """
        assert self._transport is not None  # noqa: S101  `to` connected it
        if not self.is_open:
            raise CutError("the connection was closed before the request")
        self._buffer.clear()
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        answer = await self._waiter
        self.served += 1
        if not answer.keeps_open:
            self.close()
        return answer

    def close(self) -> None:
        """End the connection now, whatever is under way."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Return once the socket is closed."""
        await self._gone.wait()

    # -- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the socket."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Collect the response until it is whole."""
        self._buffer += data
        if self._waiter is None or self._waiter.done():
            return
        try:
            answer = read_response(self._buffer)
        except ValueError as error:
            self._fail(RequestFailedError(f"garbage: {error}"))
            self.close()
            return
        if answer is not None:
            self._waiter.set_result(answer)

    def eof_received(self) -> bool:
        """Close our side as well."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  both ends mean the same here
        """Tell a request under way how far it came."""
        self.is_open = False
        self._gone.set()
        if self._buffer:
            self._fail(RequestFailedError("the connection ended in the middle of the response"))
        else:
            self._fail(CutError("the connection ended before any byte of the response"))

    def _fail(self, error: RequestFailedError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


def read_response(buffer: bytearray) -> Answer | None:
    """Return the answer once the buffer holds all of it; None until then.

    Raises:
        ValueError: This is no response with a Content-Length.
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > MAX_HEAD_BYTES:
            raise ValueError("a head without an end")
        return None
    start, *lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    if "content-length" not in fields:
        raise ValueError("no Content-Length")
    if len(buffer) < end + 4 + int(fields["content-length"]):
        return None
    return Answer(
        status=int(start.split(" ", 2)[1]),
        version=fields.get("x-version", ""),
        group=fields.get("x-group", ""),
        keeps_open=fields.get("connection", "").lower() != "close",
    )
