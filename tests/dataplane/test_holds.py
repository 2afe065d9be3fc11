"""A held endpoint as clients and groups see it."""

import asyncio

from support.proxy_support import Rig, read_head, until, with_proxy
from support.waiting_support import (
    GET,
    GREEN,
    POST,
    asking,
    misses,
    reset,
    settle,
    slow,
)

from trafficmgr.dataplane.waiting import PASSING
from trafficmgr.wire.frames import ShareCounts


@with_proxy
async def test_a_held_endpoint_serves_nobody_and_then_all_in_their_order(rig: Rig) -> None:
    app = await rig.app("shop-1")
    rig.route((100, [app]))
    settle(rig, is_held=True)
    clients = await asking(rig, 8)
    assert (app.connections, misses(rig).waiting) == (0, 8)

    settle(rig, is_held=False)

    for client in clients:
        assert (await client.answer()).status == 200
    assert (len(app.requests), misses(rig)) == (8, ShareCounts())


@with_proxy
async def test_held_requests_are_sent_in_the_order_in_which_they_came(rig: Rig) -> None:
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, is_held=True, max_requests=1)
    clients = await asking(rig, 8)

    settle(rig, is_held=False)
    app.let(8)

    for client in clients:
        assert (await client.answer()).status == 200
    assert app.paths == [f"/{number}" for number in range(8)]


@with_proxy
async def test_what_is_under_way_when_it_is_held_is_finished(rig: Rig) -> None:
    """And who waited for room then is held as well, so that nothing new reaches a group."""
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, max_requests=1)
    clients = await asking(rig, 3)
    await until(lambda: len(app.paths) == 1)

    settle(rig, is_held=True)
    app.let(3)
    assert (await clients[0].answer()).status == 200
    assert (app.paths, misses(rig).waiting) == (["/0"], 2)
    settle(rig, is_held=False)

    for client in clients[1:]:
        assert (await client.answer()).status == 200
    assert app.paths == ["/0", "/1", "/2"]


@with_proxy
async def test_no_more_of_them_go_at_a_time_than_new_groups_can_take(rig: Rig) -> None:
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, is_held=True)
    count = PASSING + 20
    clients = await asking(rig, count)

    settle(rig, is_held=False)
    await until(lambda: len(app.paths) == PASSING)
    assert misses(rig).waiting == 20
    app.let(count)

    for client in clients:
        assert (await client.answer()).status == 200
    assert app.most <= PASSING


@with_proxy
async def test_who_comes_after_the_release_does_not_wait_for_the_others(rig: Rig) -> None:
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, is_held=True)
    held = await asking(rig, PASSING + 1)
    settle(rig, is_held=False)
    await until(lambda: len(app.paths) == PASSING)

    late = await rig.client()
    late.send(GET % 999)
    await until(lambda: "/999" in app.paths)

    app.let(PASSING + 2)
    for client in (*held, late):
        assert (await client.answer()).status == 200


@with_proxy
async def test_a_hold_that_lasts_too_long_is_503_and_so_is_one_too_many(rig: Rig) -> None:
    rig.route((100, [await rig.app("shop-1")]))
    settle(rig, is_held=True, hold_s=30.0, hold_limit=1)
    (held,) = await asking(rig, 1)

    refused = await (await rig.client()).get()
    rig.book.sweep(rig.server.now() + 29)
    assert misses(rig).waiting == 1
    rig.book.sweep(rig.server.now() + 31)

    answer = await held.answer()
    assert (refused.status, refused.fields["retry-after"]) == (503, "1")
    assert (answer.status, answer.body) == (503, b"503 the endpoint is held\n")
    assert misses(rig).failures == {"hold_full": 1, "hold_timeout": 1}


@with_proxy
async def test_held_bodies_arrive_whole_and_are_bounded_until_then(rig: Rig) -> None:
    app = await rig.app("shop-1")
    rig.route((100, [app]))
    settle(rig, is_held=True)
    body = bytes(range(256)) * 4096
    large, small = await rig.client(), await rig.client()
    large.send(POST % len(body) + body)
    small.send(POST % 5 + b"hello")
    await until(lambda: misses(rig).waiting == 2)
    await until(lambda: any(c._is_paused for c in rig.server.connections))
    (paused,) = (c for c in rig.server.connections if c._is_paused)
    assert paused._exchange is not None
    kept = sum(len(piece) for piece in paused._exchange.request.pieces)
    assert kept < len(body)

    settle(rig, is_held=False)

    for client in (large, small):
        assert (await client.answer()).status == 200
    assert sorted((message.body for message in app.requests), key=len) == [b"hello", body]


@with_proxy
async def test_a_held_request_goes_where_the_newest_table_says(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    rig.route((100, [blue]))
    settle(rig, is_held=True)
    (client,) = await asking(rig, 1)

    rig.route((100, [green]))

    assert (await client.answer()).body == b"green"
    assert blue.connections == 0


@with_proxy
async def test_a_preview_is_not_held(rig: Rig) -> None:
    """Whoever tries a candidate before the release has to get through to it."""
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    rig.route((100, [blue]), preview=[green])
    settle(rig, is_held=True)

    assert (await (await rig.client()).get(host="preview.shop.test")).body == b"green"


@with_proxy
async def test_a_held_wish_to_upgrade_becomes_a_tunnel(rig: Rig) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        writer.write(await reader.read(5))
        await reader.read(-1)

    rig.route((100, [await rig.app("shop-1", script=echo)]))
    settle(rig, is_held=True)
    client = await rig.client()
    client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
    client.send(b"early")
    await until(lambda: misses(rig).waiting == 1)

    settle(rig, is_held=False)

    assert (await client.answer(has_body=False)).status == 101
    assert await client.reader.readexactly(5) == b"early"


@with_proxy
async def test_a_client_that_is_held_and_leaves_is_forgotten(rig: Rig) -> None:
    app = await rig.app("shop-1")
    rig.route((100, [app]))
    settle(rig, is_held=True)
    gone, stays = await asking(rig, 2)

    reset(gone)
    await until(lambda: misses(rig).waiting == 1)
    settle(rig, is_held=False)

    assert (await stays.answer()).status == 200
    assert len(app.requests) == 1
    assert misses(rig).failures == {}
