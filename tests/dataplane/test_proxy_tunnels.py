"""Upgrades: a tunnel both ways, counted until both ends are closed."""

import asyncio
from contextlib import suppress

import pytest
from support.proxy_support import OK, Client, Rig, read_head, read_message, until, with_proxy

from trafficmgr.core.traffic import HttpPolicy

UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: shop.test\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: raw\r\nSec-WebSocket-Key: x\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: raw\r\nConnection: Upgrade\r\n\r\n"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await read_head(reader)
    assert head.fields["upgrade"] == "raw"
    assert head.fields["connection"] == "upgrade"
    assert head.fields["sec-websocket-key"] == "x"
    writer.write(SWITCH + b"hello ")
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b" bye")


async def upgraded(rig: Rig, ahead: bytes = b"") -> Client:
    client = await rig.client()
    client.send(UPGRADE + ahead)
    head = await read_head(client.reader)
    assert head.status == 101
    assert head.fields == {"upgrade": "raw", "connection": "upgrade"}
    return client


@with_proxy
async def test_a_tunnel_carries_both_ways_and_half_closes(rig: Rig) -> None:
    rig.route((100, [await rig.app("shop-1", script=echo)]))

    client = await upgraded(rig, ahead=b"early ")
    upstream = rig.upstream("shop-1")
    assert (upstream.requests, upstream.tunnels) == (0, 1)
    client.send(b"late")
    client.writer.write_eof()

    assert await client.rest() == b"hello early late bye"
    await until(lambda: upstream.tunnels == 0)


@with_proxy
async def test_a_withdrawn_group_keeps_its_tunnels(rig: Rig) -> None:
    rig.route((100, [await rig.app("shop-1", script=echo)]))
    client = await upgraded(rig)

    rig.route((100, [await rig.app("shop-2")]))
    client.send(b"still here")

    assert await client.reader.readexactly(16) == b"hello still here"
    assert rig.book.applied("shop").tunnel_busy == ("shop-1",)
    client.writer.transport.abort()
    await until(lambda: rig.book.applied("shop").tunnel_busy == ())


@with_proxy
async def test_a_tunnel_that_the_group_cuts_is_cut(rig: Rig) -> None:
    app = await rig.app("shop-1", script=echo)
    rig.route((100, [app]))
    client = await upgraded(rig)

    app.cut()

    with suppress(ConnectionError):  # the kernel decides between an end and a reset
        assert await client.rest() == b"hello "
    await client.close()
    await rig.settled()


@with_proxy
async def test_a_tunnel_has_back_pressure(rig: Rig) -> None:
    total = 32 * 1024 * 1024
    rig.route((100, [await rig.app("shop-1", script=echo)]))
    client = await upgraded(rig)

    client.send(bytes(total))
    received = 0
    while received < total:
        received += len(await client.reader.read(1024 * 1024))


@with_proxy
async def test_a_declined_upgrade_is_an_ordinary_answer(rig: Rig) -> None:
    app = await rig.app("shop-1")
    rig.route((100, [app]))
    client = await rig.client()

    client.send(UPGRADE + b"GET /next HTTP/1.1\r\nHost: shop.test\r\n\r\n")

    assert (await client.answer()).body == b"ok"
    assert (await client.answer()).body == b"ok"
    assert (await client.get("/third")).status == 200
    assert [r.start.split(" ")[1] for r in app.requests] == ["/chat", "/next", "/third"]


@pytest.mark.parametrize("piece_bytes", [1, 100_000])
@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
@with_proxy
async def test_an_upgrade_with_a_body_is_served_without_the_upgrade(
    rig: Rig, framing: bytes, piece_bytes: int
) -> None:
    """Java's client offers h2c with every first request; llhttp would lose the body."""
    app = await rig.app("shop-1")
    rig.route((100, [app]))
    client = await rig.client()
    head = b"POST / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    stream = (head + framing) * 2

    for start in range(0, len(stream), piece_bytes):
        client.send(stream[start : start + piece_bytes])
        await asyncio.sleep(0)

    for _ in range(2):
        assert (await client.answer()).status == 200
    assert [request.body for request in app.requests] == [b"hello", b"hello"]
    assert "upgrade" not in app.requests[0].fields


@with_proxy
async def test_h2c_is_not_passed_on(rig: Rig) -> None:
    """It would carry requests past the routing ("h2c smuggling")."""
    app = await rig.app("shop-1")
    rig.route((100, [app]))
    client = await rig.client()

    for _ in range(2):
        answer = await client.ask(
            b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        assert answer.status == 200
    assert "upgrade" not in app.requests[0].fields
    assert "http2-settings" not in app.requests[0].fields


@with_proxy
async def test_a_client_that_leaves_before_the_switch_frees_the_group(rig: Rig) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await reader.read(-1)

    rig.route((100, [await rig.app("shop-1", script=silent)]))
    client = await rig.client()
    client.send(UPGRADE)
    await until(lambda: rig.upstream("shop-1").requests == 1)

    await client.close()

    await rig.settled()


@with_proxy
async def test_what_is_sent_ahead_of_a_switch_is_bounded(rig: Rig) -> None:
    go = asyncio.Event()
    total = 16 * 1024 * 1024

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await go.wait()
        writer.write(SWITCH)
        size = 0
        while data := await reader.read(65536):
            size += len(data)
        writer.write(b"%d" % size)

    rig.route((100, [await rig.app("shop-1", script=slow)]))
    client = await rig.client()
    client.send(UPGRADE + bytes(total))
    await until(lambda: any(c._is_paused for c in rig.server.connections))
    (connection,) = rig.server.connections
    assert len(connection.reader.rest) < total // 2
    go.set()

    await read_head(client.reader)
    client.writer.write_eof()

    assert await client.rest() == b"%d" % total


@with_proxy
async def test_idle_tunnels_end_by_the_sweep_and_the_rest_with_the_server(rig: Rig) -> None:
    rig.route((100, [await rig.app("shop-1", script=echo)]))
    first = await upgraded(rig)
    await first.reader.readexactly(6)

    rig.server.sweep(rig.server.now() + HttpPolicy().tunnel_idle_s + 1)
    await until(lambda: rig.upstream("shop-1").tunnels == 0)
    await upgraded(rig)
    rig.server.close()

    assert await rig.server.closed(20) is True
    assert rig.upstream("shop-1").tunnels == 0


@with_proxy
async def test_an_ordinary_request_follows_on_the_groups_connection(rig: Rig) -> None:
    """A group that declines keeps its connection in use."""

    async def decline(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_message(reader)
            writer.write(OK)

    app = await rig.app("shop-1", script=decline)
    rig.route((100, [app]))
    client = await rig.client()

    await client.ask(UPGRADE)
    await client.get()

    assert app.connections == 1
