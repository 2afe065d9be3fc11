"""A tunnel: after a 101 both connections carry bytes that are none of our business (25).

Each end passes on what it gets, stops its peer while it can't keep up, and passes on the end of
its stream without closing the other direction. The group counts the tunnel until both ends are
closed (promise 1c), so the count can't be lost on any path: it is given back in one place.

A tunnel ends by itself, or because

* nothing went through for the endpoint's `tunnel_idle`: it is cut;
* its group was withdrawn. Then it may stay until the last part of `drain.websocket`, over which the
  tunnels of a group are spread by a hash, so that their clients don't come back all at once. None
  outlives the deadline. If the group comes back into the table, its tunnels stay;
* the worker ends.

In the last two cases a WebSocket is closed in its own words: both sides get a close frame with 1001
at the next end of a frame in their direction (`websocket`), answer it, and are closed. Whoever
takes too long is cut. Other protocols have no such words, and are closed.
"""

import asyncio
import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

from trafficmgr.dataplane.routes import Seat, Upstream
from trafficmgr.dataplane.websocket import GOING_AWAY, Frames, close_frame

SPREAD = 0.2
"""The last part of the time to drain over which tunnels are closed."""

BOUNDARY_S = 5.0
"""How long the end of a frame is waited for."""

FAREWELL_S = 2.0
"""How long a side may take to answer a close frame."""

MARGIN_S = 2.0
"""How long before its deadline the last tunnel is cut: a sweep may be a second late, twice."""


class Ahead(NamedTuple):
    """What both sides of a WebSocket sent before there was a tunnel; others pass it on."""

    of_client: bytes = b""
    of_group: bytes = b""


class Tunnel:
    """Two connections that are joined, and the group that counts them.

    Attributes:
        is_leaving: It has been given a time to end.
        idle_by: Loop time at which it is cut, if nothing goes through.
        passed_bytes: What the client got through it.
    """

    __slots__ = (
        "_close_at",
        "_cut_at",
        "_idle_s",
        "_is_shut",
        "_loop",
        "_on_closed",
        "_open",
        "_seat",
        "ends",
        "idle_by",
        "is_leaving",
        "passed_bytes",
        "point",
        "upstream",
    )

    def __init__(
        self,
        client: asyncio.Transport,
        group: asyncio.Transport,
        *,
        upstream: Upstream,
        seat: Seat,
        on_closed: Callable[["Tunnel"], None],
        websocket: Ahead | None = None,
    ) -> None:
        self.upstream = upstream
        self.is_leaving = False
        self.passed_bytes = 0
        self.point = _point_of(client)
        self._seat = seat
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._open = 2
        self._close_at = self._cut_at = math.inf
        self._is_shut = False
        self._idle_s = seat.newest.table.http.tunnel_idle_s
        self.idle_by = self._loop.time() + self._idle_s
        self.ends = (
            TunnelEnd(self, client, group, is_client=True),
            TunnelEnd(self, group, client, is_client=False),
        )
        if websocket is not None:
            self.ends[0].follow(websocket.of_client)
            self.ends[1].follow(websocket.of_group)
        upstream.tunnels += 1
        for end in self.ends:
            end.transport.set_protocol(end)

    @property
    def is_websocket(self) -> bool:
        """Whether it can be closed in words that both sides understand."""
        return self.ends[0].frames is not None

    @property
    def is_parting(self) -> bool:
        """Whether close frames are on their way, or are as soon as that is possible."""
        return self.ends[0].is_parting

    def touch(self) -> None:
        """Note that something went through."""
        self.idle_by = self._loop.time() + self._idle_s

    def sweep(self, now: float) -> None:
        """Keep the deadlines (loop time in seconds)."""
        if self.upstream.is_withdrawn != self.is_leaving and not self._is_shut:
            if self.upstream.is_withdrawn:
                self._leave(now)
            else:
                self._stay()
        if now >= self.idle_by or now >= self._cut_at:
            self.abort()
        elif now >= self._close_at and not self.is_parting:
            self._part(now)

    def shut(self, now: float, *, spread_s: float) -> None:
        """Let it end within so many seconds, because the worker does; once is enough."""
        if self._is_shut:
            return
        self._is_shut = self.is_leaving = True
        self._close_at = min(self._close_at, now + self.point * spread_s)

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

    def parted(self) -> None:
        """Note that a close frame went out; once both did, an answer is due."""
        if all(end.is_parted for end in self.ends):
            self._cut_at = min(self._cut_at, self._loop.time() + FAREWELL_S)

    def _leave(self, now: float) -> None:
        """Choose when to end, now that the group was withdrawn."""
        self.is_leaving = True
        drain_s = self._seat.newest.table.http.drain_websocket_s
        farewell_s = min(BOUNDARY_S + FAREWELL_S + MARGIN_S, drain_s / 2)
        spread_s = min(drain_s * SPREAD, drain_s - farewell_s)
        self._close_at = now + drain_s - farewell_s - self.point * spread_s
        self._cut_at = now + max(drain_s - MARGIN_S, drain_s / 2)

    def _stay(self) -> None:
        if not self.is_parting:
            self.is_leaving = False
            self._close_at = self._cut_at = math.inf

    def _part(self, now: float) -> None:
        """End it in order, as far as the protocol has words for that."""
        self._cut_at = min(self._cut_at, now + BOUNDARY_S)
        for end in self.ends:
            end.part()


class TunnelEnd(asyncio.Protocol):
    """One side of a tunnel; `peer` is the transport of the other.

    Attributes:
        frames: How far this side's WebSocket frames have got; None for another protocol.
        is_parting: The peer gets a close frame of ours as soon as no frame is under way to it.
        is_parted: It got one; nothing that this side sends is passed on any more.
    """

    __slots__ = (
        "_is_client",
        "_is_ended",
        "_tunnel",
        "frames",
        "is_parted",
        "is_parting",
        "peer",
        "transport",
    )

    def __init__(
        self,
        tunnel: Tunnel,
        transport: asyncio.Transport,
        peer: asyncio.Transport,
        *,
        is_client: bool,
    ) -> None:
        self._tunnel = tunnel
        self._is_client = is_client
        self._is_ended = False
        self.transport = transport
        self.peer = peer
        self.frames: Frames | None = None
        self.is_parting = self.is_parted = False

    def follow(self, ahead: bytes) -> None:
        """Follow the frames of a WebSocket, of which these bytes went by already."""
        self.frames = Frames()
        self.frames.feed(ahead)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        tunnel = self._tunnel
        tunnel.touch()
        if self.frames is not None:
            data = self._followed(self.frames, data)
        if data and not self.peer.is_closing():
            if not self._is_client:
                tunnel.passed_bytes += len(data)
            self.peer.write(data)

    def eof_received(self) -> bool:
        """Pass the end of the stream on; close both once both directions have ended.

        TLS has no half of a connection that could stay open: there the end of one is that of both.
        """
        self._is_ended = True
        first, second = self._tunnel.ends
        is_whole = first.transport.can_write_eof() and second.transport.can_write_eof()
        if not is_whole or (first._is_ended and second._is_ended):  # noqa: SLF001  both are of this class
            self.peer.close()
            return False
        if not self.peer.is_closing():
            self.peer.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other side too: in order, or hard if this one broke.

        One that was told goodbye may answer first; the sweep sees to it that it does.
        """
        if exc is not None:
            self.peer.abort()
        elif not self.is_parted:
            self.peer.close()
        self._tunnel.end_lost()

    def pause_writing(self) -> None:
        """Stop the other side: this one does not keep up."""
        if not self.peer.is_closing():
            self.peer.pause_reading()

    def resume_writing(self) -> None:
        """Let the other side go on."""
        if not self.peer.is_closing():
            self.peer.resume_reading()

    def part(self) -> None:
        """Tell the peer goodbye as soon as that is possible; another protocol is just closed."""
        self.is_parting = True
        if self.frames is None:
            self.peer.close()
        elif self.frames.is_between and not self.frames.is_closed:
            self._say_goodbye()

    def _followed(self, frames: Frames, data: bytes) -> bytes:
        """Return what of the data is passed on."""
        if not self.is_parting:
            frames.feed(data)
            return data
        passed = b""
        if not self.is_parted:
            taken = frames.feed(data, is_last=True)
            passed, data = data[:taken], data[taken:]
            if frames.is_between and not frames.is_closed:
                self.peer.write(passed)
                passed = b""
                self._say_goodbye()
        frames.feed(data)
        self._close_if_answered(frames)
        return passed

    def _say_goodbye(self) -> None:
        self.is_parted = True
        if not (self._is_ended or self.peer.is_closing()):
            self.peer.write(close_frame(GOING_AWAY, is_masked=self._is_client))
        self._tunnel.parted()

    def _close_if_answered(self, frames: Frames) -> None:
        """Close this side once it has answered the close frame that it got."""
        first, second = self._tunnel.ends
        other = second if self is first else first
        if other.is_parted and frames.is_closed and frames.is_between:
            self.transport.close()


def _point_of(client: asyncio.Transport) -> float:
    """Return a client's place in [0, 1), by its address and port."""
    return zlib.crc32(repr(client.get_extra_info("peername")).encode()) / 2**32
