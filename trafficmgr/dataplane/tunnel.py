"""A tunnel: after a 101 both connections carry bytes that are none of our business (25).

Each end passes on what it gets, stops its peer while it can't keep up, and passes on the end of
its stream without closing the other direction. The group counts the tunnel until both ends are
closed (promise 1c), so the count can't be lost on any path: it is given back in one place.
"""

import asyncio
from collections.abc import Callable

from trafficmgr.dataplane.routes import Upstream

IDLE_S = 3600.0
"""HAProxy's usual `timeout tunnel` is 1 h; nginx cuts after 60 s, which users work around."""


class Tunnel:
    """Two connections that are joined, and the group that counts them."""

    __slots__ = ("_loop", "_on_closed", "_open", "ends", "idle_by", "upstream")

    def __init__(
        self,
        client: asyncio.Transport,
        group: asyncio.Transport,
        *,
        upstream: Upstream,
        on_closed: Callable[["Tunnel"], None],
    ) -> None:
        self.upstream = upstream
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._open = 2
        self.idle_by = self._loop.time() + IDLE_S
        self.ends = (TunnelEnd(self, client, group), TunnelEnd(self, group, client))
        upstream.tunnels += 1
        for end in self.ends:
            end.transport.set_protocol(end)

    def touch(self) -> None:
        """Note that something went through."""
        self.idle_by = self._loop.time() + IDLE_S

    def abort(self) -> None:
        """Close both ends at once."""
        for end in self.ends:
            end.transport.abort()

    def end_lost(self) -> None:
        """Note that one end is closed; after the second the tunnel is over."""
        self._open -= 1
        if not self._open:
            self.upstream.tunnels -= 1
            self._on_closed(self)


class TunnelEnd(asyncio.Protocol):
    """One side of a tunnel; `peer` is the transport of the other."""

    __slots__ = ("_is_ended", "_tunnel", "peer", "transport")

    def __init__(
        self, tunnel: Tunnel, transport: asyncio.Transport, peer: asyncio.Transport
    ) -> None:
        self._tunnel = tunnel
        self.transport = transport
        self.peer = peer
        self._is_ended = False

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self._tunnel.touch()
        if not self.peer.is_closing():
            self.peer.write(data)

    def eof_received(self) -> bool:
        """Pass the end of the stream on; close both once both directions have ended."""
        self._is_ended = True
        first, second = self._tunnel.ends
        if first._is_ended and second._is_ended:  # noqa: SLF001  both are of this class
            self.peer.close()
            return False
        if not self.peer.is_closing():
            self.peer.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other side too: in order, or hard if this one broke."""
        if exc is None:
            self.peer.close()
        else:
            self.peer.abort()
        self._tunnel.end_lost()

    def pause_writing(self) -> None:
        """Stop the other side: this one does not keep up."""
        if not self.peer.is_closing():
            self.peer.pause_reading()

    def resume_writing(self) -> None:
        """Let the other side go on."""
        if not self.peer.is_closing():
            self.peer.resume_reading()
