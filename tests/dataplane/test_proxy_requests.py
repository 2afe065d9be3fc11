"""What the proxy makes of well-formed requests: routing, fields, framing, order."""

import asyncio
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from support.front_support import publish, take_front
from support.proxy_support import OK, Rig, read_head, read_message, until, with_proxy

from trafficmgr.core.traffic import Front

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: SHOP.Test.:8080\r\n\r\n",
        b"GET http://shop.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n",
        b"GET http://shop.test HTTP/1.1\r\nHost: other.test\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost:   shop.test  \r\n\r\n",
    ],
)
@with_proxy
async def test_a_request_goes_where_its_host_points(rig: Rig, request_: bytes) -> None:
    app = await rig.app("shop-1")
    rig.route((100, [app]))

    answer = await (await rig.client()).ask(request_)

    assert (answer.status, answer.body) == (200, b"ok")
    assert app.requests[0].start == "GET / HTTP/1.1"


@with_proxy
async def test_an_unknown_host_is_404_and_the_connection_lives_on(rig: Rig) -> None:
    rig.route((100, [await rig.app("shop-1")]))
    client = await rig.client()

    unknown = await client.get(host="nobody.test")
    known = await client.get()

    assert unknown.status == 404
    assert unknown.body == b"404 no endpoint has the host nobody.test\n"
    assert known.status == 200


@with_proxy
async def test_no_group_is_503_with_a_hint_when_to_come_back(rig: Rig) -> None:
    rig.route()

    answer = await (await rig.client()).get()

    assert answer.status == 503
    assert answer.fields["retry-after"] == "1"
    assert rig.failures() == {"no_target": 1}


@with_proxy
async def test_weights_are_exact_at_the_ends_and_close_in_between(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green")
    client = await rig.client()

    rig.route((100, [blue]), (0, [green]))
    for _ in range(100):
        await client.get()
    assert (len(blue.requests), len(green.requests)) == (100, 0)
    rig.route((80, [blue]), (20, [green]))
    for _ in range(500):
        await client.get()
    assert 60 < len(green.requests) < 140
    seen = len(blue.requests)
    rig.route((0, [blue]), (100, [green]))
    for _ in range(100):
        await client.get()
    assert len(blue.requests) == seen


@with_proxy
async def test_fields_of_one_hop_end_here_and_a_strangers_claims_too(rig: Rig) -> None:
    app = await rig.app("shop-1")
    rig.route((100, [app]))

    await (await rig.client()).ask(
        b"GET /a?b=c HTTP/1.1\r\nHost: shop.test\r\n"
        b"Connection: keep-alive, X-Secret, Authorization\r\n"
        b"X-Secret: 1\r\nAuthorization: Bearer t\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n"
        b"Proxy-Authorization: x\r\nTrailer: x\r\n"
        b"X-Forwarded-For: 10.9.9.9\r\nX-Real-IP: 10.9.9.9\r\n"
        b"X_Forwarded_For: 10.9.9.9\r\nForwarded: for=10.9.9.9\r\nX-Forwarded-Proto: https\r\n"
        b"Upgrade: websocket\r\nAccept: */*\r\n\r\n"
    )

    fields = app.requests[0].fields
    assert fields.pop("x-request-id")
    assert fields == {
        "host": "shop.test",
        "authorization": "Bearer t",
        "accept": "*/*",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "shop.test",
        "x-real-ip": "127.0.0.1",
        "forwarded": 'for=127.0.0.1;host="shop.test";proto=http',
    }
    assert app.requests[0].start == "GET /a?b=c HTTP/1.1"


@with_proxy
async def test_response_fields_of_one_hop_end_here(rig: Rig) -> None:
    app = await rig.app(
        "shop-1",
        b"HTTP/1.1 200 Fine\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nDate: x\r\nContent-Length: 2\r\n\r\nok",
    )
    rig.route((100, [app]))

    answer = await (await rig.client()).get()

    assert answer.raw == (
        b"HTTP/1.1 200 Fine\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nDate: x\r\n"
        b"Content-Length: 2\r\n\r\n"
    )


@with_proxy
async def test_an_answer_without_a_date_gets_one(rig: Rig) -> None:
    """Of an application and of the proxy itself (RFC 9110 section 6.6.1)."""
    dated = await rig.app("shop-1", OK.replace(b"\r\n", b"\r\ndate: theirs\r\n", 1))
    rig.route((100, [await rig.app("shop-2")]))
    publish(rig, "dated", ("dated.test",), [dated])
    client = await rig.client()
    began = datetime.now(UTC).replace(microsecond=0)

    ours, own = await client.get(), await client.get(host="nobody.test")
    theirs = await client.get(host="dated.test")

    for answer in (ours, own):
        assert answer.raw.count(b"Date: ") == 1
        assert began <= parsedate_to_datetime(answer.fields["date"]) <= datetime.now(UTC)
    assert (theirs.fields["date"], theirs.raw.lower().count(b"date: ")) == ("theirs", 1)


@with_proxy
async def test_what_is_meant_for_tls_is_not_served_without(rig: Rig) -> None:
    """RFC 9110 section 7.4; a trusted proxy may have ended the TLS."""
    app = await rig.app("shop-1")
    rig.route((100, [app]))
    absolute = b"GET %b://shop.test/ HTTP/1.1\r\nHost: shop.test\r\n%b\r\n"
    secure = b"X-Forwarded-Proto: https\r\n"
    client = await rig.client()

    plain = await client.ask(absolute % (b"http", b""))
    strange = await client.ask(absolute % (b"HTTPS", secure))
    take_front(rig, Front(trusted_proxies=("127.0.0.0/8",)))
    trusted = await (await rig.client()).ask(absolute % (b"https", secure))

    assert [plain.status, strange.status, trusted.status] == [200, 421, 200]
    assert [request.start for request in app.requests] == ["GET / HTTP/1.1"] * 2


@with_proxy
async def test_connections_to_groups_are_reused(rig: Rig) -> None:
    app = await rig.app("shop-1")
    rig.route((100, [app]))

    for _ in range(3):
        client = await rig.client()
        for _ in range(3):
            assert (await client.get()).status == 200

    assert len(app.requests) == 9
    assert app.connections == 1


@with_proxy
async def test_pipelined_requests_are_answered_in_their_order(rig: Rig) -> None:
    async def echo_path(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_message(reader)
            path = request.start.split(" ")[1].encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    rig.route((100, [await rig.app("shop-1", script=echo_path)]))
    client = await rig.client()

    client.send(
        b"".join(
            b"POST /%d HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1\r\n\r\nx" % number
            if number % 2
            else b"GET /%d HTTP/1.1\r\nHost: shop.test\r\n\r\n" % number
            for number in range(50)
        )
        + b"GET /x HTTP/1.1\r\nHost: nobody.test\r\n\r\n"
        + b"GET / HTTP/9.9\r\n\r\n"
    )

    assert [(await client.answer()).body for _ in range(50)] == [b"/%d" % n for n in range(50)]
    assert (await client.answer()).status == 404
    assert (await client.answer()).status == 505
    assert await client.rest() == b""


@with_proxy
async def test_thousands_of_pipelined_errors_need_no_deep_stack(rig: Rig) -> None:
    client = await rig.client()

    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 5000)

    for _ in range(5000):
        assert (await client.answer()).status == 404


@pytest.mark.parametrize("piece_bytes", [1, 7, 100_000])
@with_proxy
async def test_bodies_pass_in_any_pieces_and_keep_their_framing(rig: Rig, piece_bytes: int) -> None:
    app = await rig.app("shop-1")
    rig.route((100, [app]))
    client = await rig.client()
    stream = (
        b"POST /1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello"
        b"POST /2 HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: Chunked\r\n\r\n"
        b'3;a="b;c"\r\nwor\r\n2\r\nld\r\n0\r\nX-Trailer: dropped\r\n\r\n'
        b"PUT /3 HTTP/1.1\r\nHost: shop.test\r\n\r\n"
    )

    for start in range(0, len(stream), piece_bytes):
        client.send(stream[start : start + piece_bytes])
        await asyncio.sleep(0)
    for _ in range(3):
        assert (await client.answer()).status == 200

    first, second, third = app.requests
    assert (first.body, first.fields["content-length"]) == (b"hello", "5")
    assert (second.body, second.fields["transfer-encoding"]) == (b"world", "chunked")
    assert "x-trailer" not in second.fields
    assert "content-length" not in second.fields
    assert third.fields["content-length"] == "0"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (
            CHUNKED_HEAD + b"1\r\na\r\n2;x=y\r\nbc\r\n0\r\nT: 1\r\n\r\n",
            b"abc",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
    ],
)
@with_proxy
async def test_answers_pass_with_their_framing(rig: Rig, answer: bytes, body: bytes) -> None:
    app = await rig.app("shop-1", answer)
    rig.route((100, [app]))
    client = await rig.client()

    for _ in range(3):
        assert (await client.get()).body == body
    assert app.connections == 1


@with_proxy
async def test_an_answer_that_ends_with_its_connection_is_whole(rig: Rig) -> None:
    async def until_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello")

    rig.route((100, [await rig.app("shop-1", script=until_close)]))
    modern, old = await rig.client(), await rig.client()

    first = await modern.get()
    again = await modern.get()
    second = await old.ask(b"GET / HTTP/1.0\r\nHost: shop.test\r\nConnection: keep-alive\r\n\r\n")

    assert first.fields["transfer-encoding"] == "chunked"
    assert first.body == again.body == second.body == b"hello"
    assert "transfer-encoding" not in second.fields
    assert second.fields["connection"] == "close"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
@with_proxy
async def test_an_answer_to_head_has_no_body(rig: Rig, answer: bytes) -> None:
    app = await rig.app("shop-1", answer)
    rig.route((100, [app]))
    client = await rig.client()

    for _ in range(3):
        head = await client.ask(b"HEAD / HTTP/1.1\r\nHost: shop.test\r\n\r\n", has_body=False)
        assert head.status == 200
    assert app.connections == 1


@pytest.mark.parametrize("status", [204, 304])
@with_proxy
async def test_a_status_without_body_ends_at_its_head(rig: Rig, status: int) -> None:
    app = await rig.app("shop-1", b"HTTP/1.1 %d X\r\nETag: a\r\nDate: x\r\n\r\n" % status)
    rig.route((100, [app]))
    client = await rig.client()

    for _ in range(3):
        answer = await client.ask(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", has_body=False)
        assert (answer.status, answer.fields) == (status, {"etag": "a", "date": "x"})
    assert app.connections == 1


@with_proxy
async def test_interim_answers_are_relayed(rig: Rig) -> None:
    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            assert head.fields["expect"] == "100-continue"
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await reader.readexactly(int(head.fields["content-length"]))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    rig.route((100, [await rig.app("shop-1", script=patient)]))
    client = await rig.client()

    client.send(
        b"POST / HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    )
    hints = await client.answer(has_body=False)
    go_on = await client.answer(has_body=False)
    final = await client.ask(b"abc")

    assert (hints.status, hints.fields) == (103, {"link": "</a>"})
    assert go_on.status == 100
    assert (final.status, final.body) == (200, b"abc")


@pytest.mark.parametrize(
    ("request_", "is_closed"),
    [
        (b"GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nHost: shop.test\r\nConnection: keep-alive\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n", True),
    ],
)
@with_proxy
async def test_the_client_says_whether_its_connection_lives_on(
    rig: Rig, request_: bytes, *, is_closed: bool
) -> None:
    rig.route((100, [await rig.app("shop-1")]))
    client = await rig.client()

    answer = await client.ask(request_)

    assert answer.fields.get("connection", "close" if is_closed else "") == (
        "close" if is_closed else "keep-alive"
    )
    if is_closed:
        assert await client.rest() == b""
    else:
        assert (await client.ask(request_)).status == 200


@with_proxy
async def test_a_client_that_closes_its_side_still_gets_its_answers(rig: Rig) -> None:
    go = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_message(reader)
            await go.wait()
            writer.write(OK)

    app = await rig.app("shop-1", script=slow)
    rig.route((100, [app]))
    client = await rig.client()

    client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n" * 2)
    client.writer.write_eof()
    await until(lambda: rig.upstream("shop-1").requests == 1)
    go.set()

    assert (await client.rest()).count(b"200 OK") == 2


@with_proxy
async def test_an_answer_streams_as_it_comes(rig: Rig) -> None:
    go_on = asyncio.Event()

    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await go_on.wait()
        writer.write(b"data: 2\n\n")

    rig.route((100, [await rig.app("shop-1", script=events)]))
    client = await rig.client()

    client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    await read_head(client.reader)
    first = await client.reader.readuntil(b"\r\n") + await client.reader.readexactly(11)
    go_on.set()

    assert first == b"9\r\ndata: 1\n\n\r\n"
    assert await client.reader.readuntil(b"0\r\n\r\n") == b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"


@with_proxy
async def test_an_answer_may_come_before_the_request_is_whole(rig: Rig) -> None:
    async def impatient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await reader.read(-1)

    rig.route((100, [await rig.app("shop-1", script=impatient)]))
    client = await rig.client()

    answer = await client.ask(
        b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100000\r\n\r\nabc"
    )

    assert (answer.status, answer.fields["connection"]) == (413, "close")
    assert await client.rest() == b""


@with_proxy
async def test_an_upload_waits_for_a_group_that_does_not_read(rig: Rig) -> None:
    """Back-pressure: a body of 64 MiB must not be collected in the proxy."""
    go = asyncio.Event()
    total = 64 * 1024 * 1024

    async def lazy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await go.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        left = total
        while left:
            left -= len(await reader.read(65536))
        writer.write(OK)

    rig.route((100, [await rig.app("shop-1", script=lazy)]))
    client = await rig.client()

    client.send(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: %d\r\n\r\n" % total)
    client.send(bytes(total))
    await until(lambda: len(rig.server.connections) == 1)
    (connection,) = rig.server.connections
    await until(lambda: connection._is_paused and rig.upstream("shop-1").requests == 1)
    await asyncio.sleep(0.05)  # time to collect more than it may, if it would
    assert client.writer.transport.get_write_buffer_size() > total // 2
    go.set()

    assert (await client.answer()).status == 200


@with_proxy
async def test_a_download_waits_for_a_client_that_does_not_read(rig: Rig) -> None:
    total = 64 * 1024 * 1024
    written = 0

    async def firehose(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        piece = bytes(256 * 1024)
        while written < total:
            writer.write(piece)
            await writer.drain()
            written += len(piece)

    rig.route((100, [await rig.app("shop-1", script=firehose)]))
    client = await rig.client()

    client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    await until(lambda: any(c.is_congested for c in rig.server.connections))
    (connection,) = rig.server.connections
    await asyncio.sleep(0.2)  # time to collect more than it may, if it would
    assert connection.transport.get_write_buffer_size() < 4 * 1024 * 1024
    assert written < total
    answer = await client.answer()

    assert len(answer.body) == total
