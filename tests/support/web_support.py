"""Web servers for tests: one that answers as told, and one that speaks bytes of one's choice."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(
    handler: Handler, address: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[int]:
    """Answer every request by a handler; yield the port (0: any that is free)."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, address, port)
    await site.start()
    assert site._server is not None
    try:
        yield site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]  # it has
    finally:
        await runner.cleanup()


class Replies:
    """A handler that answers the same until told otherwise, and remembers what it was asked."""

    def __init__(
        self, status: int = 200, body: bytes | str = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.body = body.encode() if isinstance(body, str) else body
        self.headers = dict(headers or {})
        self.hangs = False
        self.asked: list[tuple[str, str, bytes]] = []
        self.hosts: list[str] = []
        self.peers: set[object] = set()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path_qs, await request.read()))
        self.hosts.append(request.headers["Host"])
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        if self.hangs:
            await asyncio.Event().wait()
        return web.Response(status=self.status, body=self.body, headers=self.headers)


@asynccontextmanager
async def speaking(words: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answer every connection's first bytes with words, then close; yield port and what came."""
    heard: list[bytes] = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(65536))
        writer.write(words)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await server.wait_closed()


@contextmanager
def nobody() -> Iterator[int]:
    """Yield a port that is taken, but on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
