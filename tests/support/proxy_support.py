"""A proxy on a real socket, applications that misbehave on demand, and a client of raw bytes."""

import asyncio
import functools
import inspect
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvloop

from trafficmgr.core.model import Publish, Tcp
from trafficmgr.core.routing import Share, Table, Target, check
from trafficmgr.dataplane.book import Book
from trafficmgr.dataplane.proxy import HttpServer
from trafficmgr.dataplane.routes import Upstream
from trafficmgr.dataplane.tallies import Tally

DEADLINE_S = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Message:
    """A request or a response as it was on the wire; `fields` are lower case, the last one wins."""

    start: str
    fields: dict[str, str]
    raw: bytes
    body: bytes = b""

    @property
    def status(self) -> int:
        return int(self.start.split(" ")[1])


async def read_head(reader: asyncio.StreamReader) -> Message:
    raw = await reader.readuntil(b"\r\n\r\n")
    start, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    return Message(start, fields, raw)


async def read_message(reader: asyncio.StreamReader, *, has_body: bool = True) -> Message:
    """Read one message; a response without any framing ends with the connection."""
    message = await read_head(reader)
    if not has_body:
        return message
    if message.fields.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            message.body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n"
    elif "content-length" in message.fields:
        message.body = await reader.readexactly(int(message.fields["content-length"]))
    elif message.start.startswith("HTTP/"):
        message.body = await reader.read(-1)
    return message


class App:
    """An application: answers each request with `answer`, or runs a script per connection."""

    def __init__(self, group: str, answer: bytes = OK, script: Script | None = None) -> None:
        self.group = group
        self.answer = answer
        self.script = script or self._serve
        self.requests: list[Message] = []
        self.connections = 0
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> "App":
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        self.cut()
        await server.wait_closed()

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with suppress(
            OSError, asyncio.IncompleteReadError, RuntimeError
        ):  # uvloop: handler is closed
            await self.script(reader, writer)
        self._writers.discard(writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.requests.append(await read_message(reader))
            writer.write(self.answer)


@dataclass
class Client:
    """One connection to the proxy."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, has_body: bool = True) -> Message:
        async with asyncio.timeout(DEADLINE_S):
            return await read_message(self.reader, has_body=has_body)

    async def ask(self, data: bytes, *, has_body: bool = True) -> Message:
        self.send(data)
        return await self.answer(has_body=has_body)

    async def get(self, path: str = "/", host: str = "shop.test") -> Message:
        return await self.ask(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    async def rest(self) -> bytes:
        """Return everything until the proxy closes; raises ConnectionError if it is cut."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.read(-1)

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


@dataclass
class Rig:
    """A proxy under test and everything around it."""

    book: Book
    server: HttpServer
    port: int
    clients: list[Client] = field(default_factory=list)
    apps: list[App] = field(default_factory=list)
    generation: int = 0

    async def app(self, group: str, answer: bytes = OK, script: Script | None = None) -> App:
        app = await App(group, answer, script).start()
        self.apps.append(app)
        return app

    def route(
        self,
        *shares: tuple[int, list[App]],
        host: str = "shop.test",
        preview: list[App] | None = None,
    ) -> None:
        """Publish the next table of the endpoint that has this host; a preview is revision r1's."""
        self.generation += 1
        self.book.apply(
            check(
                Table(
                    endpoint=host.partition(".")[0],
                    generation=self.generation,
                    hosts=(host,),
                    publish=Publish.proxy,
                    ttl_s=1,
                    shares=tuple(
                        Share(revision=f"r{number}", weight_pct=weight, targets=_targets(apps))
                        for number, (weight, apps) in enumerate(shares)
                    ),
                    preview=None
                    if preview is None
                    else Share(revision="r1", weight_pct=100, targets=_targets(preview)),
                )
            )
        )

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    def upstreams(self) -> list[Upstream]:
        return [u for known in self.book._upstreams.values() for u in known.values()]

    def upstream(self, group: str) -> Upstream:
        return next(u for u in self.upstreams() if u.group == group)

    def tallies(self) -> list[Tally]:
        return [t for known in self.book._tallies.values() for t in known.values()]

    def failures(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for tally in self.tallies():
            for reason, count in tally.failures.items():
                total[reason] = total.get(reason, 0) + count
        return total

    def is_settled(self) -> bool:
        """Whether nothing is counted as under way: promise 1c rests on this."""
        return all(not (u.requests or u.tunnels) for u in self.upstreams()) and all(
            not tally.in_flight for tally in self.tallies()
        )

    async def settled(self) -> None:
        await until(self.is_settled)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline that fails the test."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  what is waited for are plain integers
            await asyncio.sleep(0.005)


@asynccontextmanager
async def proxy_rig() -> AsyncIterator[Rig]:
    """Run a proxy; at the end every count of what is under way must be back at 0."""
    mishaps: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: mishaps.append(context))
    book = Book("test")
    server = HttpServer(book)
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    await server.serve(sock, 128)
    rig = Rig(book, server, port)
    try:
        yield rig
        for client in rig.clients:
            await client.close()
        for app in rig.apps:
            app.cut()
        await rig.settled()
    finally:
        for client in rig.clients:
            client.writer.transport.abort()
        server.close()
        await server.closed(0)
        for app in rig.apps:
            await app.stop()
    assert rig.is_settled()
    assert not rig.server.connections
    assert not rig.server.tunnels
    assert not mishaps, mishaps


def with_proxy(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test on uvloop, as a worker runs, and give it a proxy as its first argument."""

    @functools.wraps(test)
    def on_uvloop(**arguments: Any) -> None:
        async def run() -> None:
            async with proxy_rig() as rig:
                await test(rig, **arguments)

        uvloop.run(run())

    _, *rest = inspect.signature(test).parameters.values()
    on_uvloop.__signature__ = inspect.Signature(rest)  # type: ignore[attr-defined]
    return on_uvloop


def _targets(apps: list[App]) -> tuple[Target, ...]:
    return tuple(
        Target(group=app.group, dial=Tcp(address="127.0.0.1", port=app.port)) for app in apps
    )
