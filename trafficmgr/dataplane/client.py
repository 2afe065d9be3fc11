"""A client's connection: reads requests, serves them one after the other, closes in order.

Deadlines are plain numbers that the server's sweep compares with the clock; nothing here sets a
timer. The head of a request has `Front.head_s` from its first byte, however many bytes follow; an
answer has `response_head_s` to begin, and as long as it likes from then on, unless for
`stream_idle_s` no byte moves either way.
"""

import asyncio
import math
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, cast

from trafficmgr.core.routing import bucket_of, client_of
from trafficmgr.dataplane import accounts
from trafficmgr.dataplane.admission import Moved, admit
from trafficmgr.dataplane.endings import LINGER_BYTES, LINGER_S, reset
from trafficmgr.dataplane.exchange import Exchange
from trafficmgr.dataplane.identity import Identity
from trafficmgr.dataplane.routes import Route
from trafficmgr.dataplane.tls import Names, names_of
from trafficmgr.wire.http import Refusal, own_response
from trafficmgr.wire.http_request import Request, RequestReader

if TYPE_CHECKING:
    from trafficmgr.dataplane.proxy import HttpServer

ANSWER_S = 60.0
"""For what is written when a connection is closed, if the client is slow. nginx 60 s."""

HELD_LIMIT_BYTES = 64 * 1024
"""What a client may send ahead of the answer to its wish to upgrade."""

_AT_EACH_SWEEP = 0.0


class ClientConnection(asyncio.Protocol):
    """One connection of a client.

    Once the last answer is written `_is_over` is set: whatever else arrives is dropped.

    Attributes:
        identity: Who the client is.
        forwarded: The field lines that tell groups so, for the request under way.
        route: Where that request was sent at first.
        deadline: Loop time after which the sweep calls `expire`.
        is_congested: The write buffer is full; answers are not read any further.
        sent_bytes: What was written to the client since the connection was made.
        status: What it was told of the request under way; 0 is nothing yet.
        names: The hosts that the connection's certificate is for, if it is held to them.
        covered: The authority that was last found to be among them.
        begun_at: When its head was whole (`time.monotonic`).
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
        "_is_secure",
        "_logged_bytes",
        "_moved_bytes",
        "_salt",
        "_still_since",
        "_taken_bytes",
        "begun_at",
        "covered",
        "deadline",
        "forwarded",
        "identity",
        "is_congested",
        "names",
        "reader",
        "route",
        "sent_bytes",
        "server",
        "status",
        "transport",
    )

    transport: asyncio.Transport
    identity: Identity

    def __init__(self, server: "HttpServer", *, is_secure: bool) -> None:
        self.server = server
        self.reader = RequestReader(server.front)
        self.forwarded = b""
        self.deadline = server.now() + server.front.idle_s
        self.is_congested = False
        self.route: Route | None = None
        self.sent_bytes = 0
        self.status = 0
        self.begun_at = 0.0
        self._exchange: Exchange | None = None
        self._address = "unknown"
        self._salt: str | None = None
        self._bucket = 0
        self.names: Names | None = None
        self.covered = b""
        self._taken_bytes = 0
        self._moved_bytes = 0
        self._still_since = 0.0
        self._logged_bytes = 0
        self._dropped_bytes = 0
        self._is_secure = is_secure
        self._is_advancing = False
        self._is_eof = False
        self._is_over = False
        self._is_paused = False

    # -- callbacks of the transport ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who the client is, and turn it away if there are too many."""
        self.transport = cast("asyncio.Transport", transport)
        server = self.server
        peer = transport.get_extra_info("peername")
        self.identity = server.identity(peer[0] if peer else "unknown", is_secure=self._is_secure)
        self._address = self.identity.client
        if self._is_secure:
            self.names = names_of(transport.get_extra_info("ssl_object"))
        server.connections.add(self)
        excess = server.excess()
        if excess:
            self._turn_away(is_crowd=excess > 1)

    def data_received(self, data: bytes) -> None:
        """Read requests; pass on the body of the one under way, start what can start."""
        if self._is_over:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > LINGER_BYTES:
                self.transport.abort()
            return
        self._taken_bytes += len(data)
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
        return not self._is_secure  # there is no half of a TLS connection that could stay open

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the reason is theirs
        """Break off what is under way: nobody is there to take the answer."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abort()
            self.status = self.status or accounts.CLIENT_LEFT
            self._log(exchange.request, exchange, "client_left")
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
        if not request.keeps_alive or self.server.is_closing:
            return False
        reader = self.reader
        return not self._is_eof or len(reader.queue) > 1 or reader.refusal is not None

    def bucket(self, salt: str) -> int:
        """Return the client's bucket; it is worked out anew only for another salt or client."""
        address = self.identity.client
        if salt != self._salt or address != self._address:
            self._salt, self._address = salt, address
            self._bucket = bucket_of(client_of(address), salt)
        return self._bucket

    def await_answer(self) -> None:
        """Give the group its time to answer: the request is with it, or is going there."""
        if self.route is not None:
            self.deadline = self.server.now() + self.route.table.http.response_head_s

    def on_reply(self, status: int) -> None:
        """Note that the answer has begun: it may take as long as it likes, if it goes on."""
        self.status = status
        self.deadline = _AT_EACH_SWEEP
        self._moved_bytes = -1

    def on_done(self, *, is_last: bool) -> None:
        """Go on to the next request, or close."""
        request = self.reader.queue.popleft()
        exchange, self._exchange = self._exchange, None
        if self.server.access_log is not None:
            self._log(request, exchange)
        self.status = 0
        if is_last:
            self._close(is_read_out=request.is_complete)
            return
        server, reader = self.server, self.reader
        self.deadline = server.now() + server.front.idle_s
        if reader.is_held:
            reader.resume()
        is_more = reader.queue or reader.is_in_head or reader.refusal is not None
        if (is_more or self._is_paused) and not self._is_advancing:
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

    def answer(self, request: Request, status: int, text: str, also: bytes = b"") -> None:
        """Answer the oldest request in the group's stead; `also` are more field lines."""
        is_last = not (request.is_complete and self.may_live_on(request))
        self._tell(status, text, is_last=is_last, also=also)
        self.on_done(is_last=is_last)

    def break_off(self) -> None:
        """Cut the connection in a way that no client takes for the end of an answer."""
        exchange, self._exchange = self._exchange, None
        self._is_over = True
        if exchange is None or not exchange.request.is_http10:
            self.transport.abort()
        else:
            reset(self.transport)  # an end in order may be the end of the answer
        if exchange is not None:
            self._log(exchange.request, exchange, "broken_off")

    def release(self) -> asyncio.Transport:
        """Give the transport away to a tunnel, with reading on."""
        self._exchange = None
        self._forget()
        if self._is_paused:
            self.transport.resume_reading()
        return self.transport

    # -- what the server calls --------------------------------------------------------------------

    def take_sent_bytes(self) -> int:
        """Return what was sent since this was asked last."""
        before, self._logged_bytes = self._logged_bytes, self.sent_bytes
        return self.sent_bytes - before

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
            self._expire_exchange(self._exchange, now)
        elif self.reader.is_in_head:
            self._refuse(Refusal(408, "the request head did not arrive in time"))
        else:
            self.end()

    def end(self) -> None:
        """Close an idle connection, without a word."""
        self._close(is_read_out=True)

    # -- leaves -----------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Start the requests that can start, one at a time and in their order (29)."""
        reader = self.reader
        self._is_advancing = True
        while self._exchange is None and (reader.queue or reader.refusal is not None):
            if self._is_over or self.transport.is_closing():
                break
            if reader.queue:
                self._start(reader.queue[0])
            elif reader.refusal is not None:
                self._refuse(reader.refusal)
        self._is_advancing = False
        exchange = self._exchange
        if exchange is None and reader.is_in_head and not self._is_over:
            self.deadline = min(self.deadline, self.server.now() + self.server.front.head_s)
        is_more = len(reader.queue) > 1 or reader.is_held
        if is_more or self._is_paused or (exchange is not None and exchange.request.body):
            self.on_congestion()

    def _start(self, request: Request) -> None:
        self.forwarded = self.identity.lines(request)
        if self.server.access_log is not None:
            self.begun_at = monotonic()
        self.route = None
        try:
            if self.reader.refusal is not None and not request.is_complete:
                raise self.reader.refusal
            self.route = route = admit(self, request)
        except Refusal as refusal:
            request.keeps_alive = request.keeps_alive and refusal.status != HTTPStatus.BAD_REQUEST
            also = refusal.line if isinstance(refusal, Moved) else b""
            self.answer(request, refusal.status, refusal.text, also)
            return
        self._exchange = exchange = Exchange(self, request, route)
        now = self.server.now()
        self.deadline = now + route.table.http.response_head_s
        exchange.start(now)

    def _continue(self, exchange: Exchange) -> None:
        """Pass on more of the body under way."""
        reader, request = self.reader, exchange.request
        if reader.refusal is not None and not request.is_complete:
            exchange.refuse(reader.refusal)
        elif request.pieces or request.body < 0:
            exchange.push()
            if not exchange.is_replied and self.deadline != math.inf:
                self.await_answer()

    def _expire_exchange(self, exchange: Exchange, now: float) -> None:
        """End a wait for an answer, or an answer that stands still."""
        if exchange.is_replied:
            moved = self.sent_bytes + self._taken_bytes - self.transport.get_write_buffer_size()
            if moved != self._moved_bytes:
                self._moved_bytes, self._still_since = moved, now
            if now - self._still_since < exchange.route.table.http.stream_idle_s:
                return
        exchange.expire()

    def _refuse(self, refusal: Refusal) -> None:
        self._tell(refusal.status, refusal.text)
        self.route = None
        if self.server.access_log is not None:
            self.begun_at = monotonic()
            self._log(None, None)
        self._close(is_read_out=False)

    def _turn_away(self, *, is_crowd: bool) -> None:
        """Answer before anything was asked; in a crowd nobody waits until it was read."""
        self.server.turned_away += 1
        self._tell(503, "too many connections")
        self._close(is_read_out=is_crowd)

    def _tell(self, status: int, text: str, *, is_last: bool = True, also: bytes = b"") -> None:
        queue = self.reader.queue
        is_head = bool(queue) and queue[0].is_head
        also += self.server.date_line()
        answer = own_response(status, text, is_head=is_head, is_last=is_last, also=also)
        self.sent_bytes += len(answer)
        self.transport.write(answer)
        self.status = status

    def _close(self, *, is_read_out: bool) -> None:
        """Close after what was written; `is_read_out` says that the client has sent no more."""
        self._is_over = True
        transport = self.transport
        if transport.is_closing():
            return
        is_written = not transport.get_write_buffer_size()
        self.deadline = self.server.now() + (LINGER_S if is_written else ANSWER_S)
        if self._is_eof or self._is_secure or (is_read_out and not self.reader.queue):
            transport.close()
        else:
            transport.write_eof()
            self.on_congestion()

    def _log(self, request: Request | None, exchange: Exchange | None, reason: str = "") -> None:
        log = self.server.access_log
        if log is not None:
            log.add(accounts.of_request(self, request, exchange, reason))

    def _forget(self) -> None:
        self.server.forget(self)
        self.reader.close()
