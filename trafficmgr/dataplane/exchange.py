"""One request under way: both messages, from the first byte sent to the last one of the answer.

How a group is chosen is `placement`. The rules that a client can notice here:

* A group that refuses the connection is passed over for a moment and another one is tried, at
  most TARGETS of them: nothing was sent yet, so the client notices nothing.
* A request whose connection closed without a byte of an answer goes out once more if it is
  idempotent, has no body, and the budget allows it: to another group, or if there is none and the
  connection was a reused one, on a new one to the same. No other request is sent twice (promise 11;
  RFC 9110 section 9.2.2).
* An answer that breaks off breaks the client's connection off: it never looks complete (26).
"""

from time import monotonic
from typing import TYPE_CHECKING

from trafficmgr.dataplane import ejection
from trafficmgr.dataplane.identity import via
from trafficmgr.dataplane.marks import with_cookie
from trafficmgr.dataplane.placement import Placement
from trafficmgr.dataplane.routes import Route, Upstream
from trafficmgr.dataplane.tallies import ANSWERED_5XX
from trafficmgr.dataplane.upstream import FRESH_S, UpstreamConnection
from trafficmgr.wire.http import CHUNKED, LAST_CHUNK, UNTIL_CLOSE, Refusal, chunk
from trafficmgr.wire.http_request import Request
from trafficmgr.wire.http_response import SWITCHING
from trafficmgr.wire.http_semantics import IDEMPOTENT

if TYPE_CHECKING:
    from trafficmgr.dataplane.client import ClientConnection

TARGETS = 3
"""Groups tried for one request before the client is told."""

PENDING_LIMIT_BYTES = 64 * 1024
"""Body bytes held while no connection is there yet; then the client is not read any further."""

_EVER = -1.0


class Exchange(Placement):
    """A request, the client it came from, and the connection to the group that was chosen for it.

    Attributes:
        is_replied: The head of the answer went to the client; no other answer is possible.
    """

    __slots__ = (
        "_attempts",
        "_connection",
        "_is_body_sent",
        "_is_last",
        "_is_repeated",
        "_pending_bytes",
        "is_replied",
    )

    def __init__(self, client: "ClientConnection", request: Request, route: Route) -> None:
        self._begin(client, request, route)
        self._connection: UpstreamConnection | None = None
        self._attempts = 0
        self._pending_bytes = 0
        self._is_body_sent = False
        self._is_repeated = False
        self._is_last = False
        self.is_replied = False

    @property
    def is_congested(self) -> bool:
        """Whether the client's upload has to wait."""
        if self._connection is None:
            return self._pending_bytes > PENDING_LIMIT_BYTES
        return self._connection.is_congested

    # -- what the client's side calls -------------------------------------------------------------

    def push(self) -> None:
        """Pass on what arrived of the request's body."""
        if self._connection is None:
            self._pending_bytes = sum(map(len, self.request.pieces))
            return
        framed = self._framed_body()
        if framed:
            self._connection.transport.write(b"".join(framed))

    def abort(self) -> None:
        """Break off: the client is gone, or must not get an answer."""
        if not self.is_over:
            self._let_go()
            self._end()

    def refuse(self, refusal: Refusal) -> None:
        """Break off because the rest of the request is not acceptable."""
        if self.is_replied:
            self.abort()
            self._client.break_off()
        else:
            self._fail(refusal.status, refusal.text)

    def expire(self) -> None:
        """Break off: the answer, or the rest of either message, did not come in time.

        Whose doing it was: a group that takes no more of the body keeps the client from sending it.
        """
        if self.is_replied:
            self._break("", "" if self._client.is_congested else "stream_idle")
        elif self.request.is_complete or self.is_congested:
            self._break("the group did not answer in time", "timeout", 504)
        else:
            self._fail(408, "the rest of the request did not arrive in time")

    def pause_response(self) -> None:
        """Stop reading the answer: the client does not keep up."""
        if self._connection is not None:
            self._connection.transport.pause_reading()

    def resume_response(self) -> None:
        """Go on reading the answer."""
        if self._connection is not None:
            self._connection.transport.resume_reading()

    # -- what the group's side calls --------------------------------------------------------------

    def on_connected(self, connection: UpstreamConnection) -> None:
        """Send the request over a new connection; without one to send it is kept for the next."""
        if self.is_over:
            self._client.server.pools.put(connection)
        else:
            self._use(connection)
            self._client.on_congestion()

    def on_refused(self, upstream: Upstream) -> None:
        """Go to another group, as long as there is one; nothing was sent yet."""
        if self.is_over:
            return
        self._attempts += 1
        now = self._client.server.now()
        if self._attempts < TARGETS and self._choose(now, upstream):
            self._connect(now)
        elif self._attempts >= TARGETS or not self._queue():
            self._fail(502, "no group took the connection", "connect")

    def on_response(self) -> None:
        """Pass on what arrived of the answer, in one write."""
        connection = self._connection
        assert connection is not None  # noqa: S101  a connection without exchange does not call
        reader = connection.reader
        out: list[bytes] = []
        if reader.interim:
            out, reader.interim = reader.interim, []
            if self.request.is_http10:
                out.clear()
        if reader.status == SWITCHING:
            self._switch(connection, b"".join(out))
            return
        if reader.status:
            if not self.is_replied:
                out += self._reply_head(connection)
            if reader.pieces or reader.is_complete:
                out += reader.take_body(self.request)
        if out:
            data = b"".join(out)
            client = self._client
            client.sent_bytes += len(data)
            client.transport.write(data)
        if reader.is_complete:
            self._finish(connection)

    def on_closed(self, *, is_whole: bool) -> None:
        """Note that the group closed the connection."""
        connection = self._connection
        assert connection is not None  # noqa: S101  as above
        if is_whole:
            self.on_response()
            return
        if not connection.reader.is_begun:
            ejection.broke_off(connection.upstream, self._client.server.now())
        if not (self._may_repeat(connection) and self._repeat(connection)):
            self._break("the group closed the connection before answering", "upstream_closed")

    def on_garbage(self) -> None:
        """Note that the group's answer is none."""
        self._break("the group's answer is not HTTP", "bad_response")

    def on_congestion(self) -> None:
        """Note that the group's connection filled up or emptied."""
        self._client.on_congestion()

    # -- leaves -----------------------------------------------------------------------------------

    def _connect(self, now: float) -> None:
        """Take an idle connection, or dial."""
        upstream = self.upstream
        assert upstream is not None  # noqa: S101  chosen just before
        server = self._client.server
        used_since = _EVER if self.request.method in IDEMPOTENT else now - FRESH_S
        connection = server.pools.take(upstream, used_since)
        if connection is None:
            server.pools.dial(upstream, self)
        else:
            self._use(connection)

    def _use(self, connection: UpstreamConnection) -> None:
        """Send the head and what is there of the body, in one write."""
        request = self.request
        self._connection = connection
        connection.caller = self
        connection.reader.begin(is_bodyless=request.is_head, is_switch_asked=bool(request.upgrade))
        if self._client.is_congested:
            connection.transport.pause_reading()
        head = request.head(self._client.forwarded)
        if request.body:
            head = b"".join((head, *self._framed_body()))
        connection.transport.write(head)

    def _framed_body(self) -> list[bytes]:
        """Return what arrived of the body since the last time, framed for the group."""
        request = self.request
        pieces, request.pieces = request.pieces, []
        self._pending_bytes = 0
        if request.body != CHUNKED:
            return pieces
        framed = [chunk(pieces)] if pieces else []
        if request.is_complete and not self._is_body_sent:
            self._is_body_sent = True
            framed.append(LAST_CHUNK)
        return framed

    def _reply_head(self, connection: UpstreamConnection) -> list[bytes]:
        """Return the head for the client and settle whether its connection lives on."""
        reader, request, client = connection.reader, self.request, self._client
        self.is_replied = True
        self._tally.answered(monotonic() - self.since)
        if reader.status >= 500:  # noqa: PLR2004  the class of server errors
            self.failure = ANSWERED_5XX
            ejection.failed(connection.upstream, client.server.now())
        is_delimited = not request.is_http10 or reader.body not in {CHUNKED, UNTIL_CLOSE}
        self._is_last = not (request.is_complete and is_delimited and client.may_live_on(request))
        client.on_reply(reader.status)
        also = self.route.signature
        if not reader.is_dated:
            also += client.server.date_line()
        if client.server.front.has_via:
            also += via(is_http10=reader.is_http10)
        head = reader.head(request, is_last=self._is_last, also=also)
        return [with_cookie(b"".join(head), self._cookie)] if self._cookie else head

    def _finish(self, connection: UpstreamConnection) -> None:
        """End in order: the answer is with the client.

        The connection is kept if both messages ended on it cleanly.
        """
        self._connection = None
        connection.caller = None
        if connection.upstream.failures and not self.failure:
            ejection.succeeded(connection.upstream)
        is_clean = connection.reader.is_reusable and self.request.is_complete
        if is_clean and not connection.is_congested:
            if self._client.is_congested:
                connection.transport.resume_reading()
            self._client.server.pools.put(connection)
        else:
            connection.abort()
        self._end()
        self._client.on_done(is_last=self._is_last)

    def _switch(self, connection: UpstreamConnection, interim: bytes) -> None:
        """Become a tunnel; bytes that both sides sent ahead are kept (25)."""
        client, upstream = self._client, connection.upstream
        self._tally.answered(monotonic() - self.since)
        ejection.succeeded(upstream)
        head = connection.reader.switch_head(also=self.route.signature)
        if self._cookie:
            head = with_cookie(head, self._cookie)
        data = interim + head + connection.reader.rest
        client.sent_bytes += len(data)
        client.transport.write(data)
        held = client.reader.rest
        self._connection = None
        connection.caller = None
        client.server.join(client, connection.transport, upstream)
        self._end()
        if held:
            connection.transport.write(held)

    def _may_repeat(self, connection: UpstreamConnection) -> bool:
        """Whether the request can go out once more without being served twice (promise 11)."""
        request, seat = self.request, self.route.seat
        return (
            not connection.reader.is_begun
            and not self._is_repeated
            and request.is_idempotent
            and request.is_complete
            and request.body == 0
            and seat.budget.take(seat.turn, self.route.table.http.retry_budget_pct)
        )

    def _repeat(self, connection: UpstreamConnection) -> bool:
        """Send the request once more, on a new connection: another idle one may be gone as well.

        Returns:
            Whether there is anybody to send it to.
        """
        upstream = connection.upstream
        if not self._choose_another(upstream) and not connection.is_reused:
            return False
        self._is_repeated = True
        self._connection = None
        self._tally.repeated += 1
        self._client.server.pools.dial(self.upstream or upstream, self)
        return True

    def _break(self, text: str, reason: str, status: int = 502) -> None:
        """End because the group failed: tell the client, or break its connection off.

        Args:
            text: What happened, for the client.
            reason: How it is counted; empty if it is no failure of the group.
            status: What is answered, if anything still can be.
        """
        if reason and not self.failure and self.upstream is not None:
            ejection.failed(self.upstream, self._client.server.now())
        if not self.is_replied:
            self._fail(status, text, reason)
            return
        self.failure = self.failure or reason
        self.abort()
        self._client.break_off()

    def _fail(self, status: int, text: str, reason: str = "") -> None:
        """Answer in the group's stead, and count the reason if it is the group's failure."""
        self.failure = reason
        self.abort()
        self.is_replied = True
        self._client.answer(self.request, status, text)

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
