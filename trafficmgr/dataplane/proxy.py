"""The HTTP reverse proxy of a worker: listens, routes by host, sweeps, ends in order.

The story of a request goes through four files: `client` reads it, `exchange` chooses a group and
carries both messages, `upstream` keeps the connections to groups, `tunnel` takes over after an
upgrade. How messages are read and written is wire.http, which knows no sockets.

Nothing here starts a task, sets a timer, waits or logs per request (DESIGN 7). The worker calls
`sweep` once a second; all deadlines are kept there.
"""

import asyncio
import socket
from collections.abc import Callable

from trafficmgr.dataplane.book import Book
from trafficmgr.dataplane.client import ClientConnection
from trafficmgr.dataplane.routes import Route, Upstream
from trafficmgr.dataplane.tunnel import Tunnel
from trafficmgr.dataplane.upstream import Pools
from trafficmgr.wire.http import Refusal, host_of

LAST_REQUEST_S = 1.0
"""How long an idle client may still send a request after the end was announced.

Closing at once would cut off requests that are on their way; a client that is busy learns of the
end by `Connection: close` in its next answer.
"""

_TICK_S = 0.1
_TURNS = 100
"""Turns of the loop for aborted connections to be reported lost; it takes two or three."""

_SPELLINGS = 1024
"""Ways to write known hosts that are remembered; more than this is somebody playing."""


class HttpServer:
    """A reverse proxy over the tables of a book.

    Attributes:
        connections: Clients whose connection is ours (not a tunnel's).
        tunnels: What became of upgraded connections.
        is_closing: No request follows the ones under way.
    """

    def __init__(self, book: Book, *, rand: Callable[[], float]) -> None:
        self.book = book
        self.rand = rand
        self.pools = Pools()
        self.now = asyncio.get_running_loop().time
        self.connections: set[ClientConnection] = set()
        self.tunnels: set[Tunnel] = set()
        self.is_closing = False
        self._idle_by = 0.0
        self._servers: list[asyncio.Server] = []
        self._routes: dict[bytes, Route] = {}
        book.on_withdrawn.append(self.pools.drop)
        book.on_table.append(self._table_changed)

    async def serve(self, sock: socket.socket, backlog: int) -> None:
        """Accept connections on a bound socket; it is closed with the server.

        Args:
            sock: Bound, and if need be listening. The slot's own descriptor stays open elsewhere.
            backlog: Length of the accept queue (listen(2) clamps it to net.core.somaxconn).
        """
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: ClientConnection(self), sock=sock, backlog=backlog
        )
        self._servers.append(server)

    def close(self) -> None:
        """Accept no more; requests under way are served to their end."""
        self.is_closing = True
        self._idle_by = self.now() + LAST_REQUEST_S
        for server in self._servers:
            server.close()

    async def closed(self, deadline_s: float) -> bool:
        """Wait for the requests under way, then close everything.

        Tunnels don't end by themselves; they are cut as soon as the requests are done.

        Args:
            deadline_s: Seconds after which requests still under way are cut.

        Returns:
            Whether every request came to its end.
        """
        ends_at = self.now() + deadline_s
        while self.connections and self.now() < ends_at:
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
        return is_done

    def sweep(self, now: float) -> None:
        """Keep the deadlines of clients, tunnels and idle connections (loop time in seconds)."""
        for connection in list(self.connections):
            connection.expire(now)
            if self.is_closing and connection.is_idle and now >= self._idle_by:
                connection.transport.close()
        for tunnel in list(self.tunnels):
            if now >= tunnel.idle_by:
                tunnel.abort()
        self.pools.sweep(now)

    # -- what connections call --------------------------------------------------------------------

    def route_for(self, authority: bytes) -> Route:
        """Return the route of the endpoint that has this host.

        Raises:
            Refusal: The host is malformed, or no endpoint has it.
        """
        route = self._routes.get(authority)
        if route is None:
            host = host_of(authority)
            route = self.book.route_of(host)
            if route is None:
                raise Refusal(404, f"no endpoint has the host {host}")
            if len(self._routes) >= _SPELLINGS:
                self._routes.clear()
            self._routes[authority] = route
        return route

    def join(self, client: ClientConnection, group: asyncio.Transport, upstream: Upstream) -> None:
        """Make a tunnel of a client's and a group's connection."""
        transport = client.release()
        tunnel = Tunnel(transport, group, upstream=upstream, on_closed=self.tunnels.discard)
        self.tunnels.add(tunnel)

    def forget(self, connection: ClientConnection) -> None:
        """Note that a connection is closed, or a tunnel's."""
        self.connections.discard(connection)

    def _table_changed(self, _: Route) -> None:
        self._routes.clear()
