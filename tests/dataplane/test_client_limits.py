"""Limits and deadlines of connections: slow heads, too many clients, streams that stand still."""

import asyncio

import pytest
from support.front_support import publish, take_front
from support.proxy_support import Client, Rig, read_head, until, with_proxy

from trafficmgr.core.traffic import Front, HttpPolicy
from trafficmgr.dataplane.client import ClientConnection

GET = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


async def shop(rig: Rig, http: HttpPolicy | None = None) -> None:
    publish(rig, "shop", ("shop.test",), [await rig.app("shop-1")], http=http)


async def taken(connection: ClientConnection, size_bytes: int) -> None:
    await until(lambda: connection._taken_bytes >= size_bytes)


@with_proxy
async def test_bytes_that_drip_do_not_buy_a_head_more_time(rig: Rig) -> None:
    take_front(rig, Front(head_s=5.0, idle_s=60.0))
    await shop(rig)
    client = await rig.client()
    await client.get()
    (connection,) = rig.server.connections
    client.send(GET[:1])
    await until(lambda: connection.reader.is_in_head)
    began = rig.server.now()
    deadline = connection.deadline
    assert deadline <= began + 5

    for at in range(1, 10):
        so_far = connection._taken_bytes
        client.send(GET[at : at + 1])
        await taken(connection, so_far + 1)
        assert connection.deadline == deadline
    rig.server.sweep(deadline - 0.1)
    assert connection in rig.server.connections
    rig.server.sweep(deadline + 0.1)

    answer = await client.answer()
    assert (answer.status, answer.fields["connection"]) == (408, "close")
    assert await client.rest() == b""


@with_proxy
async def test_a_head_that_begins_behind_an_answer_has_its_time_from_then_on(rig: Rig) -> None:
    take_front(rig, Front(head_s=5.0))
    await shop(rig)
    client = await rig.client()

    assert (await client.ask(GET + GET[:10])).status == 200
    (connection,) = rig.server.connections
    await until(lambda: connection.deadline <= rig.server.now() + 5)
    rig.server.sweep(rig.server.now() + 6)

    assert (await client.answer()).status == 408


@with_proxy
async def test_idle_connections_are_closed_after_their_time_without_a_word(rig: Rig) -> None:
    take_front(rig, Front(idle_s=30.0))
    await shop(rig)
    fresh, used = await rig.client(), await rig.client()
    await used.get()
    await until(lambda: len(rig.server.connections) == 2)

    rig.server.sweep(rig.server.now() + 29)
    assert len(rig.server.connections) == 2
    rig.server.sweep(rig.server.now() + 31)

    assert await fresh.rest() == await used.rest() == b""


@with_proxy
async def test_who_comes_when_it_is_full_is_told_and_the_others_are_served(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    take_front(rig, Front(max_connections=10))
    await shop(rig)
    inside = [await rig.client() for _ in range(10)]
    for client in inside:
        await client.get()

    outside = await rig.client()
    outside.send(GET)

    answer = await outside.answer()
    assert answer.status == 503
    assert answer.fields["connection"] == "close"
    assert answer.body == b"503 too many connections\n"
    assert await outside.rest() == b""
    for client in inside:
        assert (await client.get()).status == 200
    rig.server.sweep(rig.server.now())
    assert "connections_turned_away count=1 limit=10" in capsys.readouterr().err
    await outside.close()
    await inside[0].close()
    await until(lambda: len(rig.server.connections) < 10)
    assert (await (await rig.client()).get()).status == 200


@with_proxy
async def test_a_crowd_is_not_heard_out(rig: Rig) -> None:
    """Those who are turned away linger; they must not become a second limit's worth."""
    take_front(rig, Front(max_connections=2))
    await shop(rig)
    for _ in range(2):
        await (await rig.client()).get()

    crowd = [await rig.client() for _ in range(20)]
    for client in crowd:
        assert (await client.answer()).status == 503

    await until(lambda: len(rig.server.connections) <= 4)


@with_proxy
async def test_an_endpoint_says_how_long_its_groups_may_take_to_answer(rig: Rig) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await reader.read(-1)

    app = await rig.app("shop-1", script=silent)
    publish(rig, "shop", ("shop.test",), [app], http=HttpPolicy(response_head_s=7.0))
    client = await rig.client()
    client.send(GET)
    await until(lambda: rig.upstream("shop-1").requests == 1)

    rig.server.sweep(rig.server.now() + 6)
    assert rig.upstream("shop-1").requests == 1
    rig.server.sweep(rig.server.now() + 8)

    assert (await client.answer()).status == 504


class Stream:
    """An application that answers piece by piece, and what the client got of it."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(HEAD)
        while True:
            writer.write(await self._pieces.get())

    async def to(self, rig: Rig, idle_s: float) -> Client:
        app = await rig.app("shop-1", script=self.serve)
        publish(rig, "shop", ("shop.test",), [app], http=HttpPolicy(stream_idle_s=idle_s))
        client = await rig.client()
        client.send(GET)
        await read_head(client.reader)
        return client

    async def send(self, client: Client, piece: bytes) -> None:
        self._pieces.put_nowait(piece)
        assert await client.reader.readexactly(len(piece)) == piece


@with_proxy
async def test_a_stream_may_take_as_long_as_it_likes_while_it_moves(rig: Rig) -> None:
    stream = Stream()
    client = await stream.to(rig, idle_s=10.0)
    now = rig.server.now()

    for number in range(99):
        rig.server.sweep(now + 9 * number)
        await stream.send(client, b"x")
    rig.server.sweep(now + 9 * 99)
    await stream.send(client, b"x")

    await rig.settled()
    assert rig.failures() == {}


@with_proxy
async def test_a_stream_that_stands_still_is_cut_and_does_not_look_complete(rig: Rig) -> None:
    stream = Stream()
    client = await stream.to(rig, idle_s=10.0)
    await stream.send(client, b"x")
    now = rig.server.now()

    rig.server.sweep(now)
    rig.server.sweep(now + 9)
    assert rig.upstream("shop-1").requests == 1
    rig.server.sweep(now + 11)

    assert await client.rest() == b""
    await rig.settled()
    assert rig.failures() == {"stream_idle": 1}


@with_proxy
async def test_an_answer_that_only_an_end_would_complete_is_reset_instead(rig: Rig) -> None:
    """In HTTP/1.0 a body may end with its connection: an end in order would be a lie."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")

    publish(rig, "shop", ("shop.test",), [await rig.app("shop-1", script=half)])
    client = await rig.client()
    client.send(b"GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n")

    with pytest.raises(ConnectionError):
        await client.rest()


@with_proxy
async def test_a_client_that_takes_nothing_any_more_is_cut(rig: Rig) -> None:
    """It would hold a connection to the group for ever; the group is not to blame."""
    size = 64 * 1024 * 1024

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            writer.write(bytes(65536))
            await writer.drain()

    app = await rig.app("shop-1", script=flood)
    publish(rig, "shop", ("shop.test",), [app], http=HttpPolicy(stream_idle_s=10.0))
    client = await rig.client()
    client.send(GET)
    await until(lambda: any(c.is_congested for c in rig.server.connections))
    (connection,) = rig.server.connections
    now = rig.server.now()

    def stands_still() -> bool:
        """Whether a sweep saw nothing move since the one before."""
        before = connection._moved_bytes
        rig.server.sweep(now)
        return connection._moved_bytes == before

    await until(stands_still)
    rig.server.sweep(now + 11)

    await rig.settled()
    assert rig.failures() == {}


@with_proxy
async def test_an_upload_that_goes_on_keeps_a_stream_alive(rig: Rig) -> None:
    """An echo over one request and one answer: no byte one way is no silence."""

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(HEAD)
        await reader.read(-1)

    app = await rig.app("shop-1", script=early)
    publish(rig, "shop", ("shop.test",), [app], http=HttpPolicy(stream_idle_s=10.0))
    client = await rig.client()
    client.send(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100\r\n\r\n")
    await read_head(client.reader)
    (connection,) = rig.server.connections
    now = rig.server.now()

    for number in range(10):
        so_far = connection._taken_bytes
        client.send(b"x")
        await taken(connection, so_far + 1)
        rig.server.sweep(now + 9 * number)
    assert rig.upstream("shop-1").requests == 1
    rig.server.sweep(now + 9 * 9 + 11)

    await rig.settled()


@with_proxy
async def test_a_body_larger_than_its_endpoint_takes_is_413(rig: Rig) -> None:
    await shop(rig, HttpPolicy(max_body_bytes=4))
    client = await rig.client()
    head = b"POST / HTTP/1.1\r\nHost: shop.test\r\n"

    assert (await client.ask(head + b"Content-Length: 4\r\n\r\n1234")).status == 200
    answer = await client.ask(head + b"Content-Length: 5\r\n\r\n")

    assert (answer.status, answer.fields["connection"]) == (413, "close")


@with_proxy
async def test_fronts_say_how_large_a_head_may_be(rig: Rig) -> None:
    take_front(rig, Front(request_line_bytes=64, head_bytes=256, fields=4))
    await shop(rig)
    for head, status in (
        (GET, 200),
        (b"GET /%b HTTP/1.1\r\nHost: shop.test\r\n\r\n" % (b"x" * 64), 414),
        (GET[:-2] + b"X: %b\r\n\r\n" % (b"x" * 256), 431),
        (GET[:-2] + b"X: 1\r\n" * 4 + b"\r\n", 431),
    ):
        assert (await (await rig.client()).ask(head)).status == status
