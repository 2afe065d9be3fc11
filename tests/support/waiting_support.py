"""A slow application, and clients that have to wait for it."""

import asyncio
import socket
import struct

from support.proxy_support import OK, App, Client, Rig, read_message, until
from trafficmgr.dataplane.exchange import Exchange
from trafficmgr.wire.frames import ShareCounts

GET = b"GET /%d HTTP/1.1\r\nHost: shop.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: %d\r\n\r\n"
GREEN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ngreen"


class Slow(App):
    """An application that answers one request for each `let`, and counts what it has at a time."""

    def __init__(self, group: str) -> None:
        super().__init__(group, script=self._one_by_one)
        self.paths: list[str] = []
        self.most = 0
        self._now = 0
        self._may = asyncio.Semaphore(0)

    def let(self, count: int = 1) -> None:
        for _ in range(count):
            self._may.release()

    async def _one_by_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            message = await read_message(reader)
            self.paths.append(message.start.split(" ")[1])
            self._now += 1
            self.most = max(self.most, self._now)
            await self._may.acquire()
            self._now -= 1
            writer.write(OK)


async def slow(rig: Rig, group: str = "shop-1") -> Slow:
    app = Slow(group)
    await app.start()
    rig.apps.append(app)
    return app


def settle(rig: Rig, **http: object) -> None:
    """Publish the newest table once more, with another policy."""
    rig.generation += 1
    table = rig.book.by_endpoint["shop"].table
    rig.book.apply(table.but(generation=rig.generation, http=table.http.but(**http)))


def misses(rig: Rig) -> ShareCounts:
    """Return what is counted for no revision."""
    return rig.book.counts(0.0).endpoints["shop"][""]


async def asking(rig: Rig, count: int, first: int = 0) -> list[Client]:
    """Return clients that have asked for /0, /1 ..., in this order as the proxy sees them."""
    clients = []
    for number in range(first, first + count):
        before = _seen(rig)
        client = await rig.client()
        client.send(GET % number)
        await until(lambda before=before: _seen(rig) > before)  # type: ignore[misc]
        clients.append(client)
    return clients


def _seen(rig: Rig) -> int:
    under_way = sum(upstream.requests for upstream in rig.upstreams())
    return under_way + misses(rig).waiting + misses(rig).requests


def reset(client: Client) -> None:
    """Be gone at once. One that only closes its side might still wait for the answer (30)."""
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


def waiting_of(rig: Rig) -> list[Exchange]:
    exchanges = [connection._exchange for connection in rig.server.connections]
    return [one for one in exchanges if one is not None and one.upstream is None]
