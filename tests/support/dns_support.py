"""What the DNS tests share: small books, an asker that goes through dnspython, and raw sockets.

dnspython is the independent judge here: it encodes the queries and decodes every reply.
"""

import asyncio
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import dns.flags
import dns.message
import dns.rdatatype
import pytest
import uvloop

from trafficmgr.core.model import Dial, Publish, Tcp
from trafficmgr.core.routing import Share, Table, Target, Zone, Zones
from trafficmgr.dataplane.book import Book
from trafficmgr.dataplane.dns_answers import Answers
from trafficmgr.dataplane.dns_server import DnsServer

DEADLINE_S = 20.0
SMALL_BUFFER_BYTES = 16 * 1024
T = TypeVar("T")
NO_OPT = -1
CLIENT = "127.0.0.1"
"""Loopback has no rate limit by default."""


def zones(
    generation: int = 1,
    *,
    advertise: tuple[str, ...] = ("192.0.2.10",),
    zone: tuple[Zone, ...] = (Zone(name="apps.test", ns=("ns1.apps.test", "ns.elsewhere.test")),),
) -> Zones:
    """Return the zones of most tests."""
    return Zones(generation=generation, zones=zone, advertise=advertise)


def shares(weights: dict[str, int], addresses: dict[str, Sequence[str]]) -> tuple[Share, ...]:
    """Return shares by revision; a group is named like its address."""
    return tuple(
        Share(
            revision=revision,
            weight_pct=weight,
            targets=tuple(target(address) for address in addresses[revision]),
        )
        for revision, weight in weights.items()
    )


def target(address: str, dial: Dial | None = None) -> Target:
    """Return a target at an address."""
    return Target(group=f"group-{address}", dial=dial or Tcp(address=address, port=8080))


def table(
    *hosts: str,
    endpoint: str = "shop",
    generation: int = 1,
    publish: Publish = Publish.groups,
    ttl_s: int = 7,
    shares: tuple[Share, ...] = (),
) -> Table:
    """Return a table for hosts ("shop.apps.test" if none is named)."""
    return Table(
        endpoint=endpoint,
        generation=generation,
        hosts=hosts or ("shop.apps.test",),
        publish=publish,
        ttl_s=ttl_s,
        shares=shares,
    )


def book(*tables: Table, served: Zones | None = None) -> Book:
    """Return a book with zones and tables."""
    made = Book("start-1")
    made.apply_zones(served or zones())
    for one in tables:
        made.apply(one)
    return made


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def evenly(steps: int = 100) -> Callable[[], float]:
    """Return a `rand` that walks the unit interval in equal steps, over and over."""
    points = itertools.cycle([step / steps for step in range(steps)])
    return lambda: next(points)


def answers(
    served: Book, *, rand: Callable[[], float] | None = None, clock: Clock | None = None
) -> Answers:
    """Return the answerer of a book, without sockets."""
    return Answers(
        served,
        rand=rand or evenly(),
        clock=clock or Clock(),
        loop_time=lambda: 0.0,
        wall=lambda: 1.8e9,
    )


Asker = Callable[..., dns.message.Message]


def asker(source: Answers | DnsServer) -> Asker:
    """Return a function that asks a question and returns the reply as dnspython reads it."""

    def ask(
        name: str,
        rdtype: str = "A",
        *,
        rdclass: str = "IN",
        edns: int = NO_OPT,
        flags: int = dns.flags.RD,
        **options: Any,
    ) -> dns.message.Message:
        query = dns.message.make_query(
            name, rdtype, rdclass, use_edns=edns if edns != NO_OPT else False, **options
        )
        query.flags = dns.flags.Flag(flags)
        reply = source.answer(query.to_wire(), CLIENT)
        assert reply is not None
        message = dns.message.from_wire(reply)
        assert message.id == query.id
        return message

    return ask


def texts(message: dns.message.Message, section: str = "answer") -> list[str]:
    """Return the records of a section as text, one a line."""
    return [line for rrset in getattr(message, section) for line in rrset.to_text().splitlines()]


def addresses(message: dns.message.Message) -> list[str]:
    """Return the addresses of an answer."""
    return [line.split()[-1] for line in texts(message)]


def packet(
    name: bytes = b"\4shop\4apps\4test\0",
    qtype: int = 1,
    qclass: int = 1,
    *,
    ident: int = 0x1234,
    flags: int = 0x0100,
    counts: tuple[int, int, int, int] = (1, 0, 0, 0),
    tail: bytes = b"",
) -> bytes:
    """Return a query made of raw parts."""
    header = struct.pack(">HHHHHH", ident, flags, *counts)
    return header + name + struct.pack(">HH", qtype, qclass) + tail


def opt(
    size_bytes: int = 1232, *, owner: bytes = b"\0", extended: int = 0, options: bytes = b""
) -> bytes:
    """Return an OPT record."""
    return owner + struct.pack(">HHIH", 41, size_bytes, extended, len(options)) + options


def udp_socket(host: str = "127.0.0.1") -> socket.socket:
    """Return a bound, non-blocking UDP socket on a free port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((host, 0))
    return sock


def tcp_socket() -> socket.socket:
    """Return a bound TCP socket on a free port; its connections have small buffers."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    return sock


class Running:
    """A DNS server that listens on loopback."""

    def __init__(self, server: DnsServer, udp: tuple[str, int], tcp: tuple[str, int]) -> None:
        self.server = server
        self.udp = udp
        self.tcp = tcp


@asynccontextmanager
async def running(
    served: Book,
    *,
    host: str = "127.0.0.1",
    rand: Callable[[], float] | None = None,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[Running]:
    """Serve a book on free ports until the block ends."""
    server = DnsServer(served, rand=rand or evenly(), clock=clock or Clock())
    udp, tcp = udp_socket(host), tcp_socket()
    ports = (udp.getsockname()[:2], tcp.getsockname()[:2])
    server.serve_udp(udp)
    await server.serve_tcp(tcp, 64)
    try:
        yield Running(server, *ports)
    finally:
        server.close()
        await asyncio.wait_for(server.closed(), DEADLINE_S)


async def exchange(sock: socket.socket, message: bytes, to: tuple[str, int]) -> bytes:
    """Send a datagram from a non-blocking socket and return the reply, if it is from there."""
    sock.connect(to)
    sock.send(message)
    return await within(asyncio.get_running_loop().sock_recv(sock, 65535))


@asynccontextmanager
async def connected(
    to: tuple[str, int],
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Be a TCP client with small buffers until the block ends, however the server ends it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
    sock.setblocking(False)
    await within(asyncio.get_running_loop().sock_connect(sock, to))
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await within(writer.wait_closed())


def framed(*messages: bytes) -> bytes:
    """Return messages as they go over TCP."""
    return b"".join(struct.pack(">H", len(message)) + message for message in messages)


async def read_framed(reader: asyncio.StreamReader) -> bytes:
    """Return the next message of a TCP stream."""
    length = struct.unpack(">H", await within(reader.readexactly(2)))[0]
    return await within(reader.readexactly(length))


async def within(waited: Awaitable[T]) -> T:
    """Wait, but not for ever."""
    return await asyncio.wait_for(waited, DEADLINE_S)


async def until(look: Callable[[], T]) -> T:
    """Return what a look shows as soon as it is something."""
    async with asyncio.timeout(DEADLINE_S):
        while not (seen := look()):  # noqa: ASYNC110  what is looked at tells nobody
            await asyncio.sleep(0.01)
        return seen


LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


def on_both_loops(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[str], None]:
    """Make a test of a coroutine, run on the workers' uvloop and on asyncio's own loop."""

    @pytest.mark.parametrize("loop", sorted(LOOPS))
    def test(loop: str) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(scenario())

    test.__doc__ = scenario.__doc__
    return test
