"""Nothing that a client sends ends the server, slips past it, or leaves a count behind."""

import asyncio
import random
from contextlib import suppress

import pytest
from support.proxy_support import Rig, read_head, until, with_proxy

GET = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"
HOST = b"POST / HTTP/1.1\r\nHost: shop.test\r\n"
CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED_AT_THE_HEAD = [
    (HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    (HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    (HOST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    (HOST + b"Content-Length: +5\r\n\r\nhello", 400),
    (HOST + b"Content-Length: 0x5\r\n\r\nhello", 400),
    (HOST + b"Content-Length: 5_0\r\n\r\nhello", 400),
    (HOST + b"Content-Length: -1\r\n\r\n", 400),
    (HOST + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
    (HOST + b"Content-Length: 9999999999999999999\r\n\r\n", 400),
    (HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    (HOST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    (HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    (HOST + b"Transfer-Encoding:\r\n\r\n", 400),
    (b"POST / HTTP/1.0\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (HOST + b"X: a\r\n b\r\n\r\n", 400),
    (HOST + b"X : a\r\n\r\n", 400),
    (HOST + b"X: a\x00b\r\n\r\n", 400),
    (HOST + b"X: a\rb\r\n\r\n", 400),
    (HOST + b"X: a\nY: b\r\n\r\n", 400),
    (HOST + b": a\r\n\r\n", 400),
    (HOST + b"X(y): a\r\n\r\n", 400),
    (HOST + b"Host: shop.test\r\n\r\n", 400),
    (b"GET http://shop.test/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: shop.test/evil\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a@shop.test\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: shop.test:80:80\r\n\r\n", 400),
    (b"GET http://a@shop.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
    (b"GET ftp://shop.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
    (b"GET shop HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
    (b"GET /#a HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
    (b"GET /\xff HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: shop.test\n\n", 400),
    (b" GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    (b"FROB / HTTP/1.1\r\nHost: shop.test\r\n\r\n", 501),
    (b"CONNECT shop.test:443 HTTP/1.1\r\nHost: shop.test:443\r\n\r\n", 501),
    (b"GET /\r\n\r\n", 505),
    (b"GET / HTTP/1.2\r\nHost: shop.test\r\n\r\n", 505),
    (b"GET / HTTP/1.32\r\nHost: shop.test\r\n\r\n", 505),
    (b"GET / HTTP/2.0\r\nHost: shop.test\r\n\r\n", 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (HOST + b"Expect: 200-maybe\r\n\r\n", 417),
    (HOST + b"X: " + b"a" * 40_000 + b"\r\n\r\n", 431),
    (HOST + b"X: a\r\n" * 6000 + b"\r\n", 431),
    (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: shop.test\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\n" + b"X" * 400_000, 431),
]

REFUSED_IN_THE_BODY = [
    b"0x1\r\na\r\n0\r\n\r\n",
    b"+1\r\na\r\n0\r\n\r\n",
    b"1_0\r\na\r\n0\r\n\r\n",
    b" 1\r\na\r\n0\r\n\r\n",
    b"1\na\r\n0\r\n\r\n",
    b"1\r\nab\r\n0\r\n\r\n",
    b"1\r\na\n0\r\n\r\n",
    b"1;\n\r\na\r\n0\r\n\r\n",
    b'1;a="\n"\r\na\r\n0\r\n\r\n',
    b"fffffffffffffffff\r\n",
    b"1;" + b"a" * 400_000,
    b"0\r\nX: " + b"a" * 400_000,
]


@pytest.mark.parametrize(("request_", "status"), REFUSED_AT_THE_HEAD)
@with_proxy
async def test_a_head_that_is_not_exact_is_refused_and_the_rest_not_read(
    rig: Rig, request_: bytes, status: int
) -> None:
    app = await rig.app("shop-1")
    rig.route((100, [app]))
    client = await rig.client()

    assert (await client.ask(GET)).status == 200
    client.send(request_ if len(request_) > 300_000 else request_ + GET)

    answer = await client.answer()
    assert (answer.status, answer.fields["connection"]) == (status, "close")
    assert answer.body.startswith(b"%d " % status)
    assert await client.rest() == b""
    assert len(app.requests) == 1


@pytest.mark.parametrize(
    ("body", "is_together"),
    [(body, False) for body in REFUSED_IN_THE_BODY]
    + [(body, True) for body in REFUSED_IN_THE_BODY if len(body) < 1000],
)
@with_proxy
async def test_a_body_that_is_not_exact_is_refused_and_the_rest_not_read(
    rig: Rig, body: bytes, *, is_together: bool
) -> None:
    app = await rig.app("shop-1")
    rig.route((100, [app]))
    client = await rig.client()

    client.send(CHUNKED)
    if not is_together:
        await until(lambda: rig.upstream("shop-1").requests == 1)
    client.send(body)

    assert (await client.answer()).status == 400
    with suppress(ConnectionError):  # 400 kB are more than is read after the answer
        assert await client.rest() == b""
    assert app.requests == []
    assert rig.failures() == {}


@with_proxy
async def test_a_bad_request_behind_good_ones_is_answered_in_its_turn(rig: Rig) -> None:
    app = await rig.app("shop-1")
    rig.route((100, [app]))
    client = await rig.client()

    client.send(GET + GET + HOST + b"X : a\r\n\r\n" + GET)

    assert [(await client.answer()).status for _ in range(3)] == [200, 200, 400]
    assert await client.rest() == b""
    assert len(app.requests) == 2


@with_proxy
async def test_a_body_that_turns_bad_under_way_does_not_reach_its_end(rig: Rig) -> None:
    ended: list[bytes] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await read_head(reader)
        with suppress(ConnectionError):
            ended.append(await reader.read(-1))
            return
        ended.append(b"")

    rig.route((100, [await rig.app("shop-1", script=collect)]))
    client = await rig.client()

    client.send(CHUNKED + b"3\r\nabc\r\n")
    await until(lambda: rig.upstream("shop-1").requests == 1)
    client.send(b"zz\r\n")

    assert (await client.answer()).status == 400
    await until(lambda: bool(ended))
    assert not ended[0].endswith(b"0\r\n\r\n")


@with_proxy
async def test_a_large_upload_is_no_large_head(rig: Rig) -> None:
    """The head of a pipelined request is not charged with the body before it."""
    app = await rig.app("shop-1")
    rig.route((100, [app]))
    client = await rig.client()
    body = bytes(300_000)
    upload = HOST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)

    client.send((upload + GET) * 3 + GET[:20])
    for _ in range(6):
        assert (await client.answer()).status == 200
    client.send(GET[20:])

    assert (await client.answer()).status == 200


@with_proxy
async def test_random_damage_never_ends_the_server(rig: Rig) -> None:
    """Fuzz with a fixed seed: after each damaged stream an undamaged request is served."""
    app = await rig.app("shop-1")
    rig.route((100, [app]))
    rand = random.Random(20)  # noqa: S311  a seed, not a secret
    good = [
        GET,
        HOST + b"Content-Length: 5\r\n\r\nhello",
        CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        HOST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
    ]

    for _ in range(300):
        stream = bytearray(b"".join(rand.choices(good, k=3)))
        for _ in range(rand.randrange(1, 4)):
            at = rand.randrange(len(stream))
            match rand.randrange(3):
                case 0:
                    stream[at] = rand.randrange(256)
                case 1:
                    del stream[at : at + rand.randrange(1, 9)]
                case _:
                    stream[at:at] = rand.randbytes(rand.randrange(1, 9))
        client = await rig.client()
        cut = rand.randrange(len(stream) + 1)
        client.send(bytes(stream[:cut]))
        await asyncio.sleep(0)
        client.send(bytes(stream[cut:]))
        with suppress(OSError):
            client.writer.write_eof()
            await client.rest()
        await client.close()
    async with asyncio.timeout(20):
        probe = await rig.client()
        assert (await probe.get()).status == 200
    await rig.settled()


@with_proxy
async def test_clients_that_reset_at_any_moment_leave_nothing_behind(rig: Rig) -> None:
    app = await rig.app("shop-1")
    rig.route((100, [app]))
    rand = random.Random(7)  # noqa: S311  a seed, not a secret
    stream = (GET + CHUNKED + b"5\r\nhello\r\n0\r\n\r\n") * 3

    for _ in range(100):
        client = await rig.client()
        client.send(stream[: rand.randrange(len(stream))])
        for _ in range(rand.randrange(6)):
            await asyncio.sleep(0)
        client.writer.transport.abort()

    await until(lambda: not rig.server.connections)
    await rig.settled()


@with_proxy
async def test_a_body_that_turns_bad_during_the_answer_cuts_the_connection(rig: Rig) -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        with suppress(ConnectionError):
            await reader.read(-1)

    rig.route((100, [await rig.app("shop-1", script=early)]))
    client = await rig.client()

    client.send(CHUNKED + b"3\r\nabc\r\n")
    await read_head(client.reader)
    client.send(b"zz\r\n")

    with suppress(ConnectionError):
        assert await client.rest() == b"half"
    await rig.settled()


@with_proxy
async def test_a_bad_request_and_the_end_of_the_stream_may_come_together(rig: Rig) -> None:
    rig.route((100, [await rig.app("shop-1")]))
    client = await rig.client()

    client.send(GET + HOST + b"X : a\r\n\r\n" + GET)
    client.writer.write_eof()

    assert (await client.rest()).count(b"HTTP/1.1 ") == 2
