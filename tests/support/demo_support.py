"""Small servers for the demo's clients: one that answers HTTP by a script, one that answers DNS."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Self, cast

from demo.ledger import Batch
from demo.load import Client, DnsClient, Plan, ProxyClient

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Version: v1\r\nX-Group: %s\r\n\r\nok"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno"
OWN_ERROR = GOOD.replace(b"200 OK", b"500 Internal Server Error").replace(b"v1", b"v4")
HALF = GOOD[:40]
CLOSE = b""
"""What the script says for a request: these bytes; after HALF and CLOSE the connection ends."""


class ScriptedServer:
    """Takes one entry of its script for each request, then goes on with GOOD."""

    def __init__(self, script: Iterable[bytes], address: str) -> None:
        self._script = iter(script)
        self._address = address
        self.connections = 0
        self.pages: set[str] = set()
        self.port = 0
        self.talks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    def hang_up(self) -> None:
        """Close every connection."""
        for writer in self._writers:
            writer.close()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        talk = asyncio.current_task()
        assert talk is not None
        self.talks.add(talk)
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.pages.add(head.split(b" ", 2)[1].decode())
                answer = next(self._script, GOOD)
                writer.write(answer.replace(b"%s", self._address.encode()))
                await writer.drain()
                if answer in {HALF, CLOSE}:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def scripted(
    *script: bytes, address: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[ScriptedServer]:
    """Serve HTTP by a script."""
    scripted_server = ScriptedServer(script, address)
    server = await asyncio.start_server(scripted_server.converse, address, port)
    scripted_server.port = server.sockets[0].getsockname()[1]
    try:
        yield scripted_server
    finally:
        server.close()
        await asyncio.gather(*scripted_server.talks)
        await server.wait_closed()


class NameServer(asyncio.DatagramProtocol):
    """Answers each query with what `answer` says: an address and a TTL, or None for silence."""

    def __init__(self, answer: Callable[[], tuple[str, int] | None]) -> None:
        self._answer = answer
        self.queries = 0
        self.gone = asyncio.Event()
        self.port = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def serving(cls, answer: Callable[[], tuple[str, int] | None]) -> AsyncIterator[Self]:
        loop = asyncio.get_running_loop()
        transport, server = await loop.create_datagram_endpoint(
            lambda: cls(answer), local_addr=("127.0.0.1", 0)
        )
        server.port = transport.get_extra_info("sockname")[1]
        try:
            yield server
        finally:
            transport.close()
            await server.gone.wait()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        self.gone.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        self.queries += 1
        answer = self._answer()
        if answer is not None:
            self._transport.sendto(a_record(data, *answer), addr)


def a_record(query: bytes, address: str, ttl_s: int) -> bytes:
    """Return a response with one A record whose name points back to the question."""
    head = query[:2] + struct.pack(">HHHHH", 0x8400, 1, 1, 0, 0)
    record = struct.pack(">HHHIH", 0xC00C, 1, 1, ttl_s, 4) + socket.inet_aton(address)
    return head + query[12:] + record


def plan(*, http: int = 1, dns: int = 1, group_port: int = 1, **more: float) -> Plan:
    """Return a plan for servers on loopback; port 1 is where nobody listens."""
    changes = {"proxy_rate": 50.0, "proxy_clients": 1, "dns_rate": 50.0, "dns_clients": 1} | more
    return Plan(
        http=("127.0.0.1", http),
        proxy_host="shop.apps.test",
        dns=("127.0.0.1", dns),
        dns_host="api.apps.test",
        group_port=group_port,
        proxy_rate=changes["proxy_rate"],
        proxy_clients=int(changes["proxy_clients"]),
        dns_rate=changes["dns_rate"],
        dns_clients=int(changes["dns_clients"]),
    )


async def seen_by(kind: type[ProxyClient | DnsClient], plan_: Plan, *, requests: int) -> Batch:
    """Return what one client saw in so many requests, one right after the other."""
    seen = Batch()
    client: Client = kind(seen, plan_)
    for _ in range(requests):
        await client.once(0.0)
    await client.close()
    return seen
