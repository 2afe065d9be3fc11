"""The HTTP reverse proxy of a worker: listens, routes by host, sweeps, ends in order.

The story of a request goes through these files: `client` reads it, `hosts` says whom it is for,
`identity` who it is from, `exchange` chooses a group and carries both messages, `upstream` keeps
the connections to groups, `tunnel` takes over after an upgrade, `access_log` writes it down. How
messages are read and written is wire.http, which knows no sockets.

Nothing here starts a task, sets a timer, waits or logs per request (DESIGN 7). The worker calls
`sweep` once a second; all deadlines are kept there.
"""

import asyncio
import functools
import socket
from collections.abc import Callable
from email.utils import formatdate
from time import CLOCK_REALTIME, clock_gettime, monotonic
from typing import cast

from trafficmgr.core.routing import Zones
from trafficmgr.core.traffic import Front
from trafficmgr.dataplane import accounts
from trafficmgr.dataplane.access_log import CLOSE_S, AccessLogWriter
from trafficmgr.dataplane.book import Book
from trafficmgr.dataplane.client import ANSWER_S, ClientConnection
from trafficmgr.dataplane.hosts import Hosts, Site
from trafficmgr.dataplane.identity import Identity, RequestNames, Trust
from trafficmgr.dataplane.notes import note
from trafficmgr.dataplane.routes import Route, Upstream
from trafficmgr.dataplane.tls import Certificates
from trafficmgr.dataplane.tunnel import BOUNDARY_S, FAREWELL_S, Ahead, Tunnel
from trafficmgr.dataplane.upstream import Pools, UpstreamConnection
from trafficmgr.wire.http import Refusal, host_of
from trafficmgr.wire.http_fields import tokens

LAST_REQUEST_S = 1.0
"""How long an idle client may still send a request after the end was announced.

Closing at once would cut off requests that are on their way; a client that is busy learns of the
end by `Connection: close` in its next answer.
"""

SHUT_SPREAD_S = 3.0
"""Over how much of the last seconds WebSockets are told goodbye."""

_TICK_S = 0.1
_TURNS = 100
"""Turns of the loop for aborted connections to be reported lost; it takes two or three."""

_SPELLINGS = 1024
"""Ways to write known hosts that are remembered; more than this is somebody playing."""


_CROWD = 1.1
"""Clients above this part of the limit are not even heard out when they are turned away."""

_HTTPS_PORT = 443
_WEBSOCKET = [b"websocket"]


class HttpServer:
    """A reverse proxy over the tables of a book.

    Attributes:
        front: What concerns every connection.
        connections: Clients whose connection is ours (not a tunnel's).
        tunnels: What became of upgraded connections.
        turned_away: Clients for whom there was no room since the last sweep.
        access_log: None while requests are not written down.
        is_closing: No request follows the ones under way.
    """

    def __init__(self, book: Book) -> None:
        self.book = book
        self.pools = Pools()
        self.now = asyncio.get_running_loop().time
        self.connections: set[ClientConnection] = set()
        self.tunnels: set[Tunnel] = set()
        self.access_log: AccessLogWriter | None = None
        self.is_closing = False
        self._idle_by = 0.0
        self._servers: list[asyncio.Server] = []
        self.turned_away = 0
        self._https_port = _HTTPS_PORT
        self._hosts = Hosts(book)
        self._sites: dict[bytes, Site] = {}
        self._certificates = Certificates()
        self._request_names = RequestNames()
        self._trust = Trust()
        self._date_line = b""
        self._dated_until = 0.0
        self.front = Front()
        self._take_front(book.zones)
        book.on_zones.append(self._take_front)
        book.on_withdrawn.append(self.pools.drop)
        book.on_table.append(self._table_changed)

    async def serve(self, sock: socket.socket, backlog: int, *, tls: bool = False) -> None:
        """Accept connections on a bound socket; it is closed with the server.

        Args:
            sock: Bound, and if need be listening. The slot's own descriptor stays open elsewhere.
            backlog: Length of the accept queue (listen(2) clamps it to net.core.somaxconn).
            tls: Clients speak TLS here.
        """
        loop = asyncio.get_running_loop()
        accept = functools.partial(ClientConnection, self, is_secure=tls)
        if not tls:
            server = await loop.create_server(accept, sock=sock, backlog=backlog)
        else:
            self._https_port = sock.getsockname()[1]
            server = await loop.create_server(
                accept,
                sock=sock,
                backlog=backlog,
                ssl=self._certificates.context,
                ssl_handshake_timeout=self.front.head_s,
                ssl_shutdown_timeout=ANSWER_S,
            )
        self._servers.append(server)

    def close(self) -> None:
        """Accept no more; requests under way are served to their end, those that wait are not."""
        self.is_closing = True
        self.book.dismiss()
        self._idle_by = self.now() + LAST_REQUEST_S
        for server in self._servers:
            server.close()

    async def closed(self, deadline_s: float) -> bool:
        """Wait for the requests under way, then close everything.

        Tunnels don't end by themselves. WebSockets are told goodbye, spread over a part of the
        time; others are cut as soon as the requests are done.

        Args:
            deadline_s: Seconds after which what is still under way is cut.

        Returns:
            Whether every request came to its end.
        """
        now = self.now()
        ends_at = now + deadline_s
        spread_s = max(min(deadline_s - BOUNDARY_S - FAREWELL_S, SHUT_SPREAD_S), 0)
        while self._is_busy() and self.now() < ends_at:
            for tunnel in self.tunnels:
                if tunnel.is_websocket:
                    tunnel.shut(self.now(), spread_s=spread_s)
            self.sweep(self.now())
            await asyncio.sleep(_TICK_S)
        is_done = not any(not connection.is_idle for connection in self.connections)
        for connection in list(self.connections):
            connection.transport.abort()
        for tunnel in list(self.tunnels):
            tunnel.abort()
        await self.pools.close()
        for _ in range(_TURNS):
            if not (self.connections or self.tunnels):
                break
            await asyncio.sleep(0)
        if self.access_log is not None:
            self.access_log.close(CLOSE_S)
        return is_done

    def sweep(self, now: float) -> None:
        """Keep all deadlines of the proxy (loop time in seconds)."""
        for connection in list(self.connections):
            connection.expire(now)
            if self.is_closing and connection.is_idle and now >= self._idle_by:
                connection.end()
        for tunnel in list(self.tunnels):
            tunnel.sweep(now)
        self.book.sweep(now)
        self.pools.sweep(now)
        self._certificates.sweep()
        if self.access_log is not None:
            self.access_log.flush()
        if self.turned_away:
            limit = self.front.max_connections
            note("connections_turned_away", count=self.turned_away, limit=limit)
            self.turned_away = 0

    # -- what connections call --------------------------------------------------------------------

    def identity(self, peer: str, *, is_secure: bool) -> Identity:
        """Return who is at the other end of a new connection."""
        front = self.front
        names = self._request_names if front.names_requests else None
        return Identity(peer, self._trust, names, is_secure=is_secure, has_via=front.has_via)

    def excess(self) -> int:
        """Return 0 if there is room for the newest connection, 1 if there is none, 2 in a crowd."""
        limit, count = self.front.max_connections, len(self.connections) + len(self.tunnels)
        if count <= limit:
            return 0
        return 1 if count <= limit * _CROWD + 1 else 2

    def route_for(self, authority: bytes, target: bytes) -> Route:
        """Return the route of the endpoint that has this host and path.

        Raises:
            Refusal: The host is malformed, or no endpoint has it.
        """
        site = self._sites.get(authority)
        if site is None:
            site = self._site_for(authority)
        route = site.route_for(target) if site.prefixes else site.whole
        if route is None:
            raise Refusal(404, "no endpoint has this path of the host")
        return route

    def secure_place(self, authority: bytes, target: bytes) -> bytes:
        """Return where the same is under https; the target may be `*`."""
        port = b"" if self._https_port == _HTTPS_PORT else b":%d" % self._https_port
        path = target if target.startswith(b"/") else b"/"
        return b"https://%b%b%b" % (host_of(authority).encode(), port, path)

    def date_line(self) -> bytes:
        """Return the Date field line of an answer that has none; it is made once a second (20)."""
        now = self.now()
        if now >= self._dated_until:
            seconds = clock_gettime(CLOCK_REALTIME)
            self._date_line = b"Date: %b\r\n" % formatdate(seconds, usegmt=True).encode()
            self._dated_until = now + 1 - seconds % 1
        return self._date_line

    def join(self, client: ClientConnection, group: asyncio.Transport, upstream: Upstream) -> None:
        """Make a tunnel of a client's and a group's connection."""
        request, route = client.reader.queue[0], client.route
        assert route is not None  # noqa: S101  set with every exchange
        websocket = None
        if tokens(request.upgrade) == _WEBSOCKET:
            ahead = cast("UpstreamConnection", group.get_protocol()).reader.rest
            websocket = Ahead(of_client=client.reader.rest, of_group=ahead)
        on_closed: Callable[[Tunnel], None] = self.tunnels.discard
        if self.access_log is not None:
            on_closed = self._logging(client, upstream)
        tunnel = Tunnel(
            client.release(),
            group,
            upstream=upstream,
            seat=route.seat,
            on_closed=on_closed,
            websocket=websocket,
        )
        self.tunnels.add(tunnel)

    def forget(self, connection: ClientConnection) -> None:
        """Note that a connection is closed, or a tunnel's."""
        self.connections.discard(connection)

    # -- leaves -----------------------------------------------------------------------------------

    def _is_busy(self) -> bool:
        return bool(self.connections) or any(tunnel.is_websocket for tunnel in self.tunnels)

    def _site_for(self, authority: bytes) -> Site:
        host = host_of(authority)
        site = self._hosts.find(host)
        if site is None:
            raise Refusal(404, f"no endpoint has the host {host}")
        if len(self._sites) >= _SPELLINGS:
            self._sites.clear()
        self._sites[authority] = site
        return site

    def _table_changed(self, _: Route) -> None:
        self._sites.clear()

    def _take_front(self, zones: Zones) -> None:
        """Let it concern every connection from now on; those that are open keep their identity."""
        old, self.front = self.front, zones.front
        if self.front.trusted_proxies != old.trusted_proxies:
            self._trust = Trust(self.front.trusted_proxies)
        self._certificates.apply(self.front.certificates)
        if self.front.access_log != old.access_log:
            if self.access_log is not None:
                self.access_log.close()
            log = self.front.access_log
            self.access_log = None if log is None else AccessLogWriter(log)

    def _logging(self, client: ClientConnection, upstream: Upstream) -> Callable[[Tunnel], None]:
        """Return what writes a tunnel down when it is over."""
        entry = accounts.of_tunnel(client, upstream)
        began_at = client.begun_at

        def log(tunnel: Tunnel) -> None:
            self.tunnels.discard(tunnel)
            entry.seconds = monotonic() - began_at
            entry.bytes += tunnel.passed_bytes
            if self.access_log is not None:
                self.access_log.add(entry)

        return log
