"""Connections to groups: one protocol object each, and the idle ones kept for reuse.

An `UpstreamConnection` serves one caller at a time. Idle ones lie in `Upstream.pool`, the newest
on top, because the one used last is the least likely to have been closed by the other side. An
idle connection that receives anything is dropped at once: bytes that nobody asked for would become
the next client's answer.

Dialling is the only place of the proxy with a task, one per new connection, none per request.
"""

import asyncio
import errno
from typing import Protocol, cast

from trafficmgr.core.model import Tcp
from trafficmgr.dataplane import ejection
from trafficmgr.dataplane.routes import Upstream
from trafficmgr.wire.http import BadResponseError
from trafficmgr.wire.http_response import ResponseReader

REFUSED_S = 1.0
"""How long a group that refused a connection is passed over; probes decide for longer."""

IDLE_LIMIT = 1024
"""Idle connections kept per group. Below the clients' concurrency it costs connects, no more."""

IDLE_S = 60.0
"""nginx 60 s, Go 90 s."""

FRESH_S = 1.0
"""A request that can't be sent twice gets an idle connection only if it was used this lately.

The shortest keep-alive time-outs in the wild are 2 s (gunicorn) and 5 s (node, uvicorn).
"""

LATE_S = 0.1
"""A timer that is later than this was late because this process, or the machine, stood still."""

_OUR_OWN_LACK = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)
"""Connects that fail for want of something on our side say nothing about the group."""


class Caller(Protocol):
    """Who uses a connection: an exchange under way."""

    def on_connected(self, connection: "UpstreamConnection") -> None:
        """Use this new connection, or give it back."""

    def on_refused(self, upstream: Upstream) -> None:
        """Go elsewhere: no connection came about."""

    def on_response(self) -> None:
        """Take what the connection's reader has got."""

    def on_closed(self, *, is_whole: bool) -> None:
        """Note that the connection ended; `is_whole` if its end completed the response."""

    def on_garbage(self) -> None:
        """Note that what arrived is no response."""

    def on_congestion(self) -> None:
        """Look at `is_congested` again."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to a group.

    Attributes:
        caller: The exchange that uses it now; None while it is idle.
        is_reused: It has carried a request before.
        is_congested: Its write buffer is full.
        idle_since: Loop time at which it became idle.
    """

    __slots__ = (
        "_is_ended",
        "caller",
        "idle_since",
        "is_congested",
        "is_reused",
        "reader",
        "transport",
        "upstream",
    )

    transport: asyncio.Transport

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.reader = ResponseReader()
        self.caller: Caller | None = None
        self.idle_since = 0.0
        self.is_congested = False
        self.is_reused = False
        self._is_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read a piece of the response and let the caller pass it on."""
        caller = self.caller
        if caller is None:
            self.abort()
            return
        try:
            self.reader.feed(data)
        except BadResponseError:
            caller.on_garbage()
        else:
            caller.on_response()

    def eof_received(self) -> bool:
        """Treat the end of the stream as the end of the connection."""
        self._end(is_orderly=True)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the caller, if the end of the stream did not do so before."""
        self._end(is_orderly=exc is None)
        self.reader.close()

    def pause_writing(self) -> None:
        """Stop the client's upload: the group does not keep up."""
        self.is_congested = True
        if self.caller is not None:
            self.caller.on_congestion()

    def resume_writing(self) -> None:
        """Let the client's upload go on."""
        self.is_congested = False
        if self.caller is not None:
            self.caller.on_congestion()

    def abort(self) -> None:
        """Close at once and drop what is not sent; nobody is told."""
        self._is_ended = True
        self.caller = None
        self._forget()
        self.transport.abort()

    def _end(self, *, is_orderly: bool) -> None:
        if self._is_ended:
            return
        self._is_ended = True
        self._forget()
        caller, self.caller = self.caller, None
        if caller is not None:
            caller.on_closed(is_whole=self.reader.feed_eof() and is_orderly)

    def _forget(self) -> None:
        if self in self.upstream.pool:
            self.upstream.pool.remove(self)


class Pools:
    """The idle connections of all groups, and the connects under way."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._known: set[Upstream] = set()
        self._dialling: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def take(self, upstream: Upstream, used_since: float) -> UpstreamConnection | None:
        """Return the idle connection that was used last, or None if it was used too long ago.

        Args:
            upstream: The group.
            used_since: Loop time; a connection idle since before it is left alone.
        """
        pool = upstream.pool
        while pool:
            connection = cast("UpstreamConnection", pool[-1])
            if connection.idle_since < used_since:
                return None
            pool.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    def put(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next request, unless its group is on the way out."""
        connection.caller = None
        upstream = connection.upstream
        if upstream.is_withdrawn or self._is_closed or len(upstream.pool) >= IDLE_LIMIT:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        connection.is_reused = True
        upstream.pool.append(connection)
        self._known.add(upstream)

    def drop(self, upstream: Upstream) -> None:
        """Close the idle connections of a group: it was withdrawn."""
        self._known.discard(upstream)
        for connection in list(upstream.pool):
            cast("UpstreamConnection", connection).abort()

    def dial(self, upstream: Upstream, caller: Caller) -> None:
        """Connect to the group, and hand the connection or its failure to the caller."""
        task = self._loop.create_task(self._dial(upstream, caller))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long; the oldest lie at the bottom."""
        for upstream in list(self._known):
            pool = upstream.pool
            while pool and cast("UpstreamConnection", pool[0]).idle_since < now - IDLE_S:
                cast("UpstreamConnection", pool[0]).abort()
            if not pool:
                self._known.discard(upstream)

    async def close(self) -> None:
        """Close every idle connection and end the connects under way."""
        self._is_closed = True
        for upstream in list(self._known):
            self.drop(upstream)
        tasks = list(self._dialling)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _dial(self, upstream: Upstream, caller: Caller) -> None:
        try:
            connection = await self._connected(upstream)
        except (OSError, TimeoutError, NotImplementedError) as error:
            if getattr(error, "errno", None) not in _OUR_OWN_LACK:
                now = self._loop.time()
                upstream.refused_until = now + REFUSED_S
                ejection.failed(upstream, now)
            caller.on_refused(upstream)
        else:
            caller.on_connected(connection)

    async def _connected(self, upstream: Upstream) -> UpstreamConnection:
        """Return a new connection, if it comes about in time.

        That we looked late, because this process stood still, says nothing about the group: then it
        is dialled once more.

        Raises:
            OSError: As `_connect` does.
            TimeoutError: Nobody answered in time.
        """
        within_s = upstream.http.connect_s
        due = self._loop.time() + within_s
        try:
            async with asyncio.timeout(within_s):
                return await self._connect(upstream)
        except TimeoutError:
            if self._loop.time() < due + LATE_S:
                raise
        async with asyncio.timeout(within_s):
            return await self._connect(upstream)

    async def _connect(self, upstream: Upstream) -> UpstreamConnection:
        """Return a new connection.

        Raises:
            OSError: Nobody is there.
            NotImplementedError: The group is behind a unix socket that hands out connections.
        """
        dial = upstream.dial
        if not isinstance(dial, Tcp):
            raise NotImplementedError(f"group {upstream.group} is dialled via {dial.path}: not yet")
        _, connection = await self._loop.create_connection(
            lambda: UpstreamConnection(upstream), dial.address, dial.port
        )
        return connection
