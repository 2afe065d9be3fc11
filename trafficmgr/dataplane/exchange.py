"""One request under way: from the choice of a group to the last byte of its answer.

The rules that a client can notice:

* Choosing a group and counting the request in flight is one synchronous step (`_choose`), so that
  no table swap can come in between. On every path it is given back exactly once (`_end`), in one
  step with how the request ended: what is not in flight is counted, as one failure at most.
* A group that refuses the connection is passed over for a moment and another one is tried, at
  most TARGETS of them: nothing was sent yet, so the client notices nothing.
* A request that went out on a reused connection, which closed without a byte of an answer, goes
  out once more if it is idempotent and has no body. No other request is sent twice (promise 11).
* An answer that breaks off breaks the client's connection off: it never looks complete (26).
* With affinity the client's bucket takes the place of chance, in each table that it meets.
"""

from time import monotonic
from typing import TYPE_CHECKING

from trafficmgr.core.routing import point_of
from trafficmgr.dataplane.routes import ANSWERED_5XX, Route, Tally, Upstream
from trafficmgr.dataplane.upstream import FRESH_S, UpstreamConnection
from trafficmgr.wire.http import CHUNKED, LAST_CHUNK, UNTIL_CLOSE, Refusal, chunk
from trafficmgr.wire.http_request import Request
from trafficmgr.wire.http_response import SWITCHING

if TYPE_CHECKING:
    from trafficmgr.dataplane.client import ClientConnection

TARGETS = 3
"""Groups tried for one request before the client is told."""

PENDING_LIMIT_BYTES = 64 * 1024
"""Body bytes held while no connection is there yet; then the client is not read any further."""

_EVER = -1.0


class Exchange:
    """A request, the client it came from, and the group that was chosen for it.

    Attributes:
        is_replied: The head of the answer went to the client; no other answer is possible.
        is_over: Nothing more happens to it.
    """

    __slots__ = (
        "_attempts",
        "_bucket",
        "_client",
        "_connection",
        "_failure",
        "_is_body_sent",
        "_is_last",
        "_is_repeated",
        "_pending_bytes",
        "_point",
        "_route",
        "_started_at",
        "_tally",
        "_upstream",
        "is_over",
        "is_replied",
        "request",
    )

    def __init__(self, client: "ClientConnection", request: Request, route: Route) -> None:
        self._client = client
        self._route = route
        self._tally = route.misses
        self._point = client.server.rand()
        self._upstream: Upstream | None = None
        self._connection: UpstreamConnection | None = None
        self._attempts = 0
        self._bucket: int | None = None
        self._failure = ""
        self._pending_bytes = 0
        self._is_body_sent = False
        self._is_repeated = False
        self._is_last = False
        self._started_at = monotonic()  # the loop's own time moves in whole milliseconds
        self.request = request
        self.is_over = False
        self.is_replied = False

    @property
    def is_congested(self) -> bool:
        """Whether the client's upload has to wait."""
        if self._connection is None:
            return self._pending_bytes > PENDING_LIMIT_BYTES
        return self._connection.is_congested

    # -- what the client's side calls -------------------------------------------------------------

    def start(self) -> None:
        """Choose a group and send the request, or what there is of it."""
        if self._choose(None):
            self._connect()
        else:
            self._tally.requests += 1
            self._fail(503, "no group can take the request now", "no_target")

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
        """Break off: the answer, or the rest of the request, did not come in time.

        Whose doing it was: a group that takes no more of the body keeps the client from sending it.
        """
        if self.is_replied:
            return
        if self.request.is_complete or self.is_congested:
            self._fail(504, "the group did not answer in time", "timeout")
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
        if self._attempts < TARGETS and self._choose(upstream):
            self._connect()
        else:
            self._fail(502, "no group took the connection", "connect")

    def on_response(self) -> None:
        """Pass on what arrived of the answer, in one write."""
        connection = self._connection
        assert connection is not None  # noqa: S101  a connection without exchange does not call
        reader = connection.reader
        out: list[bytes] = []
        if reader.interim:
            if not self.request.is_http10:
                out += reader.interim
            reader.interim.clear()
        if reader.status == SWITCHING:
            self._switch(connection, b"".join(out))
            return
        if reader.status and not self.is_replied:
            out.append(self._reply_head(connection))
        if self.is_replied:
            out += reader.take_body(self.request)
        if out:
            self._client.transport.write(b"".join(out))
        if reader.is_complete:
            self._finish(connection)

    def on_closed(self, *, is_whole: bool) -> None:
        """Note that the group closed the connection."""
        connection = self._connection
        assert connection is not None  # noqa: S101  as above
        if is_whole:
            self.on_response()
        elif self._may_repeat(connection):
            self._is_repeated = True
            self._connection = None
            self._client.server.pools.dial(connection.upstream, self)
        else:
            self._break("the group closed the connection before answering", "upstream_closed")

    def on_garbage(self) -> None:
        """Note that the group's answer is none."""
        self._break("the group's answer is not HTTP", "bad_response")

    def on_congestion(self) -> None:
        """Note that the group's connection filled up or emptied."""
        self._client.on_congestion()

    # -- leaves -----------------------------------------------------------------------------------

    def _choose(self, refused: Upstream | None) -> bool:
        """Choose a group and count the request in flight; no other code may run in between.

        The newest route has it, and only that of the client's own kind: a preview that is gone
        by now is served by nobody, never by those who carry the endpoint.

        Args:
            refused: The group that was tried before; choosing it again would change nothing.
        """
        self._route = route = self._route.seat.newest
        if route.salt is not None:
            self._bucket = bucket = self._client.bucket(route.salt)
            self._point = point_of(bucket)
        upstream = route.choose(self._point, self._client.server.now())
        if upstream is None or upstream is refused:
            return False
        tally = route.preview or upstream.tally
        if refused is not None:
            self._leave(refused, tally)
        if tally is not self._tally:
            self._tally = tally
            tally.requests += 1
        tally.in_flight += 1
        upstream.requests += 1
        self._upstream = upstream
        return True

    def _leave(self, refused: Upstream, tally: Tally) -> None:
        """Give the count back to a group that another one repairs: that is no failure."""
        refused.requests -= 1
        self._tally.in_flight -= 1
        if tally is not self._tally:
            self._tally.moved += 1

    def _end(self) -> None:
        """Count the request as finished and how it ended, and give back what is in flight."""
        self.is_over = True
        tally, failure = self._tally, self._failure
        upstream = self._upstream
        if upstream is not None:
            upstream.requests -= 1
            tally.in_flight -= 1
        if failure:
            tally.fail(failure)
        if self._bucket is not None:
            tally.finish_for(self._bucket, is_failed=bool(failure))

    def _connect(self) -> None:
        """Take an idle connection, or dial."""
        upstream = self._upstream
        assert upstream is not None  # noqa: S101  chosen just before
        server = self._client.server
        used_since = _EVER if self.request.is_idempotent else server.now() - FRESH_S
        connection = server.pools.take(upstream, used_since=used_since)
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

    def _reply_head(self, connection: UpstreamConnection) -> bytes:
        """Return the head for the client and settle whether its connection lives on."""
        reader, request, client = connection.reader, self.request, self._client
        self.is_replied = True
        self._tally.answered(monotonic() - self._started_at)
        if reader.status >= 500:  # noqa: PLR2004  the class of server errors
            self._failure = ANSWERED_5XX
        is_delimited = not request.is_http10 or reader.body not in {CHUNKED, UNTIL_CLOSE}
        self._is_last = not (request.is_complete and is_delimited and client.may_live_on(request))
        client.on_reply()
        return reader.head(request, is_last=self._is_last, also=self._route.signature)

    def _finish(self, connection: UpstreamConnection) -> None:
        """End in order: the answer is with the client."""
        self._connection = None
        connection.caller = None
        self._release(connection)
        self._end()
        self._client.on_done(is_last=self._is_last)

    def _release(self, connection: UpstreamConnection) -> None:
        """Keep the connection if both messages ended on it cleanly."""
        if not connection.reader.is_reusable or not self.request.is_complete:
            connection.abort()
            return
        if connection.is_congested:
            connection.abort()
            return
        if self._client.is_congested:
            connection.transport.resume_reading()
        self._client.server.pools.put(connection)

    def _switch(self, connection: UpstreamConnection, interim: bytes) -> None:
        """Become a tunnel; bytes that both sides sent ahead are kept (25)."""
        client, upstream = self._client, connection.upstream
        self._tally.answered(monotonic() - self._started_at)
        head = connection.reader.switch_head(also=self._route.signature)
        client.transport.write(interim + head + connection.reader.rest)
        held = client.reader.rest
        self._connection = None
        connection.caller = None
        client.server.join(client, connection.transport, upstream)
        self._end()
        if held:
            connection.transport.write(held)

    def _may_repeat(self, connection: UpstreamConnection) -> bool:
        """Whether the request can go out once more without being served twice (promise 11)."""
        request = self.request
        return (
            connection.is_reused
            and not connection.reader.is_begun
            and not self._is_repeated
            and request.is_idempotent
            and request.is_complete
            and request.body == 0
        )

    def _break(self, text: str, reason: str) -> None:
        """End because the group failed: tell the client, or break its connection off."""
        if not self.is_replied:
            self._fail(502, text, reason)
            return
        self._failure = self._failure or reason
        self.abort()
        self._client.break_off()

    def _fail(self, status: int, text: str, reason: str = "") -> None:
        """Answer in the group's stead, and count the reason if it is the group's failure."""
        self._failure = reason
        self.abort()
        self.is_replied = True
        self._client.answer(self.request, status, text)

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
