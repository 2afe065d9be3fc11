"""DNS over TCP (RFC 7766): messages with two bytes of length before them, answered in order.

A client may pipeline, send byte by byte, or stop reading; none of it costs more than one
connection's bounded buffers. While the client does not take its answers, none are made: a choice
of group must reach the client soon after it was noted, or its TTL would start too late.

Deadlines are kept by one sweep over all connections, not by a timer for each (DESIGN 7).
"""

import asyncio
import struct
from collections.abc import Callable
from typing import cast

IDLE_S = 10.0
"""Without a whole query: RFC 7766 asks for "the order of a few seconds"; PowerDNS 5, BIND 30."""

SWEEP_EVERY_S = 1.0
MAX_CONNECTIONS = 256  # per worker; then the one that is idle for longest gives way
MAX_UNSENT_BYTES = 16 * 1024  # beyond what the kernel takes; some hundred answers

_LENGTH = struct.Struct(">H")


class TcpConnections:
    """The TCP side of a worker's DNS server.

    Args:
        answer: Message and address of the client -> reply, None if the connection is to be closed
            instead. Never raises.
        loop: The worker's loop.
    """

    def __init__(
        self, answer: Callable[[bytes, str], bytes | None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.answer = answer
        self.loop = loop
        self._servers: list[asyncio.Server] = []
        self._open: dict[Connection, float] = {}  # -> idle since (loop time); longest idle first
        self._all_gone: asyncio.Future[None] | None = None
        self._is_closing = False
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return how many connections there are."""
        return len(self._open)

    def protocol(self) -> "Connection":
        """Return the protocol for one more connection."""
        return Connection(self)

    def add_server(self, server: asyncio.Server) -> None:
        """Own a server, whose connections have protocols of ours."""
        self._servers.append(server)
        if self._sweeper is None:
            self._sweep()

    def close(self) -> None:
        """Accept nobody any more; let go of clients once they have the answers that were made."""
        self._is_closing = True
        for server in self._servers:
            server.close()
        for connection in tuple(self._open):
            connection.close()

    async def closed(self) -> None:
        """Wait until the last client is gone; none is waited for longer than `IDLE_S`."""
        if self._open:
            self._all_gone = self.loop.create_future()
            await self._all_gone
        if self._sweeper is not None:
            self._sweeper.cancel()

    def opened(self, connection: "Connection") -> None:
        """Make room for a new connection."""
        if self._is_closing:
            connection.close()
        if len(self._open) >= MAX_CONNECTIONS:
            longest_idle = next(iter(self._open))
            del self._open[longest_idle]
            longest_idle.abort()
        self._open[connection] = self.loop.time()

    def served(self, connection: "Connection") -> None:
        """Note that a connection is not idle: one whole query was answered."""
        self._open.pop(connection, None)
        self._open[connection] = self.loop.time()

    def lost(self, connection: "Connection") -> None:
        """Forget a connection."""
        self._open.pop(connection, None)
        if not self._open and self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)

    def _sweep(self) -> None:
        overdue = self.loop.time() - IDLE_S
        for connection, idle_since in tuple(self._open.items()):
            if idle_since > overdue:
                break
            connection.abort()
        self._sweeper = self.loop.call_later(SWEEP_EVERY_S, self._sweep)


class Connection(asyncio.Protocol):
    """One client. What it sent waits in `_inbox` until its answers can be taken."""

    __slots__ = ("_client", "_has_ended", "_inbox", "_is_paused", "_owner", "_transport")

    def __init__(self, owner: TcpConnections) -> None:
        self._owner = owner
        self._client = ""
        self._inbox = bytearray()
        self._is_paused = False
        self._has_ended = False
        self._transport: asyncio.Transport | None = None

    def close(self) -> None:
        """End the connection after what was answered is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's only quacks like it
        peer = transport.get_extra_info("peername")
        self._client = peer[0] if peer else ""
        self._transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)
        self._owner.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        del exc  # a client that resets its connection is no news
        self._transport = None
        self._owner.lost(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._inbox += data
        self._serve()

    def eof_received(self) -> bool:
        """Stay until queries that wait for back-pressure are answered too."""
        self._has_ended = True
        return self._is_paused

    def pause_writing(self) -> None:
        """See asyncio."""
        self._is_paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._is_paused = False
        self._serve()
        if self._transport is None or self._transport.is_closing() or self._is_paused:
            return
        if self._has_ended:
            self._transport.close()
        else:
            self._transport.resume_reading()

    def _serve(self) -> None:
        """Answer the whole messages in the inbox, as long as answers are taken."""
        inbox = self._inbox
        while not self._is_paused and len(inbox) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(inbox)[0]
            if len(inbox) < end:
                return
            message = bytes(inbox[_LENGTH.size : end])
            del inbox[:end]
            if not self._serve_one(message):
                inbox.clear()
                return

    def _serve_one(self, message: bytes) -> bool:
        """Answer a message; False if this client is to be left."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        reply = self._owner.answer(message, self._client) if message else None
        if reply is None:
            transport.close()
            return False
        self._owner.served(self)
        transport.write(_LENGTH.pack(len(reply)) + reply)
        return True
