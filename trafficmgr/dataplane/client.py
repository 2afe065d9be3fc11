"""A client's connection: reads requests, serves them one after the other, closes in order.

Deadlines are plain numbers that the server's sweep compares with the clock; nothing here sets a
timer. A connection that is closed with input unread would be reset by the kernel, and the reset
can destroy the answer on its way: such a connection lingers, reading and dropping, until the client
has closed its side.
"""

import asyncio
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from trafficmgr.core.routing import bucket_of, client_of
from trafficmgr.dataplane.exchange import Exchange
from trafficmgr.wire.http import Refusal, own_response
from trafficmgr.wire.http_request import Request, RequestReader

if TYPE_CHECKING:
    from trafficmgr.dataplane.proxy import HttpServer

HEAD_S = 10.0
"""For a request head, from its first byte. Envoy 5 s or more, HAProxy 10 s, nginx 60 s."""

IDLE_S = 75.0
"""Between requests. nginx 75 s."""

ANSWER_S = 60.0
"""For the head of an answer, and between pieces of an upload. nginx 60 s."""

HELD_LIMIT_BYTES = 64 * 1024
"""What a client may send ahead of the answer to its wish to upgrade."""

LINGER_S = 2.0
LINGER_BYTES = 1024 * 1024
"""How long and how much is read and dropped after the last answer. nginx 5 s."""


class ClientConnection(asyncio.Protocol):
    """One connection of a client.

    Once the last answer is written `_is_over` is set: whatever else arrives is dropped.

    Attributes:
        forwarded: The field lines that tell groups who the client is.
        deadline: Loop time after which the sweep calls `expire`.
        is_congested: The write buffer is full; answers are not read any further.
    """

    __slots__ = (
        "_address",
        "_bucket",
        "_dropped_bytes",
        "_exchange",
        "_is_advancing",
        "_is_eof",
        "_is_over",
        "_is_paused",
        "_salt",
        "deadline",
        "forwarded",
        "is_congested",
        "reader",
        "server",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, server: "HttpServer") -> None:
        self.server = server
        self.reader = RequestReader()
        self.forwarded = b""
        self.deadline = server.now() + IDLE_S
        self.is_congested = False
        self._exchange: Exchange | None = None
        self._address = "unknown"
        self._salt: str | None = None
        self._bucket = 0
        self._dropped_bytes = 0
        self._is_advancing = False
        self._is_eof = False
        self._is_over = False
        self._is_paused = False

    # -- callbacks of the transport ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who the client is."""
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        if peer:
            self._address = peer[0]
        self.forwarded = f"X-Forwarded-For: {self._address}\r\nX-Forwarded-Proto: http\r\n".encode()
        self.server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Read requests; pass on the body of the one under way, start what can start."""
        if self._is_over:
            self._drop(len(data))
            return
        self.reader.feed(data)
        if self._exchange is not None:
            self._continue(self._exchange)
        self._advance()

    def eof_received(self) -> bool:
        """Keep the connection only for an answer that is under way (30).

        Half a request is not worth an answer: then the client gave up.
        """
        self._is_eof = True
        exchange = self._exchange
        if exchange is None or self._is_over:
            return False
        if not exchange.request.is_complete or self.reader.is_held:
            exchange.abort()
            return False
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the reason is theirs
        """Break off what is under way: nobody is there to take the answer."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abort()
        self._forget()

    def pause_writing(self) -> None:
        """Stop the group: the client does not keep up."""
        self.is_congested = True
        if self._exchange is not None:
            self._exchange.pause_response()

    def resume_writing(self) -> None:
        """Let the group go on."""
        self.is_congested = False
        if self._exchange is not None:
            self._exchange.resume_response()

    # -- what the exchange calls ------------------------------------------------------------------

    def may_live_on(self, request: Request) -> bool:
        """Whether another request may follow this one."""
        reader = self.reader
        is_read_out = self._is_eof and len(reader.queue) == 1 and reader.refusal is None
        return request.keeps_alive and not is_read_out and not self.server.is_closing

    def bucket(self, salt: str) -> int:
        """Return the client's bucket; it is worked out anew only for another salt."""
        if salt != self._salt:
            self._salt = salt
            self._bucket = bucket_of(client_of(self._address), salt)
        return self._bucket

    def on_reply(self) -> None:
        """Note that the answer has begun: it may take as long as it likes."""
        self.deadline = math.inf

    def on_done(self, *, is_last: bool) -> None:
        """Go on to the next request, or close."""
        request = self.reader.queue.popleft()
        self._exchange = None
        if is_last:
            self._close(is_read_out=request.is_complete)
            return
        self.deadline = self.server.now() + IDLE_S
        if self.reader.is_held:
            self.reader.resume()
        if not self._is_advancing:
            self._advance()

    def on_congestion(self) -> None:
        """Read from the client only if somebody can take it."""
        reader, exchange = self.reader, self._exchange
        is_full = not self._is_over and (
            len(reader.rest) > HELD_LIMIT_BYTES
            or len(reader.queue) > 1
            or (exchange is not None and exchange.is_congested)
        )
        if is_full == self._is_paused or self.transport.is_closing():
            return
        self._is_paused = is_full
        if is_full:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def answer(self, request: Request, status: int, text: str) -> None:
        """Answer the oldest request in the group's stead."""
        is_last = not (request.is_complete and self.may_live_on(request))
        self.transport.write(own_response(status, text, is_head=request.is_head, is_last=is_last))
        self.on_done(is_last=is_last)

    def break_off(self) -> None:
        """Cut the connection in a way that no client takes for the end of an answer."""
        self._exchange = None
        self._is_over = True
        self.transport.abort()

    def release(self) -> asyncio.Transport:
        """Give the transport away to a tunnel, with reading on."""
        self._exchange = None
        self._forget()
        if self._is_paused:
            self.transport.resume_reading()
        return self.transport

    # -- what the server calls --------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way or has begun."""
        return self._exchange is None and not self.reader.is_in_head

    def expire(self, now: float) -> None:
        """Act on a deadline that has passed."""
        if now < self.deadline:
            return
        if self._is_over:
            self.transport.abort()
        elif self._exchange is not None:
            self._exchange.expire()
        elif self.reader.is_in_head:
            self._refuse(Refusal(408, "the request head did not arrive in time"))
        else:
            self.transport.close()

    # -- leaves -----------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Start the requests that can start, one at a time and in their order (29)."""
        reader = self.reader
        self._is_advancing = True
        while self._exchange is None and not (self._is_over or self.transport.is_closing()):
            if reader.queue:
                self._start(reader.queue[0])
            elif reader.refusal is not None:
                self._refuse(reader.refusal)
            else:
                break
        self._is_advancing = False
        if self._exchange is None and reader.is_in_head and not self._is_over:
            self.deadline = min(self.deadline, self.server.now() + HEAD_S)
        if self._is_paused or reader.is_held or self._exchange is not None:
            self.on_congestion()

    def _start(self, request: Request) -> None:
        try:
            if self.reader.refusal is not None and not request.is_complete:
                raise self.reader.refusal
            route = self.server.route_for(request.authority)
        except Refusal as refusal:
            request.keeps_alive = request.keeps_alive and refusal.status != HTTPStatus.BAD_REQUEST
            self.answer(request, refusal.status, refusal.text)
            return
        self._exchange = exchange = Exchange(self, request, route)
        self.deadline = self.server.now() + ANSWER_S
        exchange.start()

    def _continue(self, exchange: Exchange) -> None:
        """Pass on more of the body under way."""
        reader, request = self.reader, exchange.request
        if reader.refusal is not None and not request.is_complete:
            exchange.refuse(reader.refusal)
        elif request.pieces or request.body < 0:
            exchange.push()
            if not exchange.is_replied:
                self.deadline = self.server.now() + ANSWER_S

    def _refuse(self, refusal: Refusal) -> None:
        self.transport.write(
            own_response(refusal.status, refusal.text, is_head=False, is_last=True)
        )
        self._close(is_read_out=False)

    def _close(self, *, is_read_out: bool) -> None:
        """Close after what was written; `is_read_out` says that the client has sent no more."""
        self._is_over = True
        transport = self.transport
        if transport.is_closing():
            return
        is_written = not transport.get_write_buffer_size()
        self.deadline = self.server.now() + (LINGER_S if is_written else ANSWER_S)
        if self._is_eof or (is_read_out and not self.reader.queue):
            transport.close()
        else:
            transport.write_eof()
            self.on_congestion()

    def _drop(self, size_bytes: int) -> None:
        self._dropped_bytes += size_bytes
        if self._dropped_bytes > LINGER_BYTES:
            self.transport.abort()

    def _forget(self) -> None:
        self.server.forget(self)
        self.reader.close()
