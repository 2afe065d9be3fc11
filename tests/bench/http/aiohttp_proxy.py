"""A plain reverse proxy as one writes it with aiohttp; on uvloop, with its C parser.

python -m bench.http.aiohttp_proxy PORT ORIGIN
"""

import asyncio
import socket
import sys

import aiohttp
import uvloop
from aiohttp import web

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length"}
)
SESSION = web.AppKey("session", aiohttp.ClientSession)


async def serve(port: int, origin: int) -> None:
    app = web.Application(client_max_size=0)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{origin}",
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    ) as session:
        app[SESSION] = session
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        sock = socket.create_server(("127.0.0.1", port), backlog=4096)
        await web.SockSite(runner, sock, backlog=4096).start()
        await asyncio.Event().wait()  # until a signal ends the process


async def forward(request: web.Request) -> web.StreamResponse:
    headers = [(k, v) for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP]
    headers.append(("X-Forwarded-For", request.remote or "unknown"))
    headers.append(("X-Forwarded-Proto", request.scheme))
    headers.append(("X-Forwarded-Host", request.host))
    async with request.app[SESSION].request(
        request.method,
        request.raw_path,
        headers=headers,
        data=request.content if request.can_read_body else None,
        allow_redirects=False,
    ) as answer:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in HOP_BY_HOP:
                response.headers.add(name, value)
        if answer.content_length is not None:
            response.content_length = answer.content_length
        await response.prepare(request)
        async for piece in answer.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
