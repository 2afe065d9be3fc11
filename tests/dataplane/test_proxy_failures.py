"""What clients notice when groups fail, and how a table swap stays unnoticed."""

import asyncio
import itertools
import socket
import time
from contextlib import suppress

import pytest
from support.front_support import publish
from support.proxy_support import OK, App, Client, Rig, read_head, read_message, until, with_proxy

from trafficmgr.core.model import Publish, Via
from trafficmgr.core.routing import Share, Table, Target
from trafficmgr.core.traffic import HttpPolicy
from trafficmgr.dataplane import client as client_module
from trafficmgr.dataplane.routes import Upstream
from trafficmgr.dataplane.upstream import Caller

POST = b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello"


def dead(group: str) -> App:
    """Return an application whose port refuses connections."""
    app = App(group)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        app.port = sock.getsockname()[1]
    return app


async def closes_unanswered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_head(reader)
    writer.close()


@with_proxy
async def test_a_group_that_refuses_is_skipped_unnoticed(rig: Rig) -> None:
    app = await rig.app("shop-2")
    rig.route((100, [dead("shop-1"), app, dead("shop-3")]))
    client = await rig.client()

    for _ in range(20):
        assert (await client.ask(POST)).status == 200

    assert [request.body for request in app.requests] == [b"hello"] * 20
    assert rig.failures() == {}
    assert sum(tally.requests for tally in rig.tallies()) == 20


@with_proxy
async def test_a_share_whose_groups_all_refuse_spills_to_the_other(rig: Rig) -> None:
    app = await rig.app("green")
    rig.route((99, [dead("blue-1"), dead("blue-2")]), (1, [app]))
    client = await rig.client()

    for _ in range(10):
        assert (await client.get()).status == 200
    assert sum(tally.spilled for tally in rig.tallies()) > 0


@with_proxy
async def test_no_more_than_three_groups_are_tried(rig: Rig) -> None:
    rig.route((100, [dead(f"shop-{number}") for number in range(5)]))

    answer = await (await rig.client()).get()

    assert (answer.status, answer.body) == (502, b"502 no group took the connection\n")
    assert rig.failures() == {"connect": 1}
    assert sum(upstream.refused_until > 0 for upstream in rig.upstreams()) == 3


@with_proxy
async def test_a_group_behind_a_unix_socket_is_refused_for_now(rig: Rig) -> None:
    target = Target(group="pod", dial=Via(path="/nowhere", port=1))
    rig.book.apply(
        Table(
            endpoint="shop",
            generation=1,
            hosts=("shop.test",),
            publish=Publish.proxy,
            ttl_s=1,
            shares=(Share(revision="r", weight_pct=100, targets=(target,)),),
        )
    )

    assert (await (await rig.client()).get()).status == 502


@pytest.mark.parametrize(
    ("request_", "status", "times"),
    [
        (b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", 200, 2),
        (b"DELETE / HTTP/1.1\r\nHost: shop.test\r\n\r\n", 200, 2),
        (b"PUT / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1\r\n\r\nx", 502, 1),
        (b"POST / HTTP/1.1\r\nHost: shop.test\r\n\r\n", 502, 1),
        (POST, 502, 1),
    ],
)
@with_proxy
async def test_a_reused_connection_that_ends_unanswered_is_retried_only_if_that_is_safe(
    rig: Rig, request_: bytes, status: int, times: int
) -> None:
    """Promise 11: no request is sent twice unless that is safe."""
    seen = 0

    async def first_then_dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        message = await read_message(reader)
        if " /warm " in message.start:
            writer.write(OK)
            await read_message(reader)
            seen += 1
            return
        seen += 1
        writer.write(OK)
        await reader.read(-1)

    app = await rig.app("shop-1", script=first_then_dies)
    rig.route((100, [app]))
    client = await rig.client()

    await client.get("/warm")
    answer = await client.ask(request_)

    assert (answer.status, seen) == (status, times)
    assert app.connections == times


@with_proxy
async def test_a_fresh_connection_that_ends_unanswered_is_not_retried(rig: Rig) -> None:
    app = await rig.app("shop-1", script=closes_unanswered)
    rig.route((100, [app]))

    answer = await (await rig.client()).get()

    assert answer.status == 502
    assert answer.body == b"502 the group closed the connection before answering\n"
    assert app.connections == 1
    assert rig.failures() == {"upstream_closed": 1}


@with_proxy
async def test_an_idle_connection_that_the_group_closed_is_not_used(rig: Rig) -> None:
    async def one_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(OK)

    app = await rig.app("shop-1", script=one_each)
    rig.route((100, [app]))
    client = await rig.client()

    for number in range(1, 4):
        assert (await client.ask(POST)).status == 200
        await until(lambda: not rig.upstream("shop-1").pool)
        assert app.connections == number


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\nx",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000,
    ],
)
@with_proxy
async def test_an_answer_that_is_not_http_is_502(rig: Rig, garbage: bytes) -> None:
    rig.route((100, [await rig.app("shop-1", garbage)]))
    client = await rig.client()

    for _ in range(2):
        answer = await client.get()
        assert (answer.status, answer.body) == (502, b"502 the group's answer is not HTTP\n")
    assert rig.failures() == {"bad_response": 2}


@pytest.mark.parametrize(
    "broken",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxx",
    ],
)
@with_proxy
async def test_an_answer_that_breaks_off_never_looks_complete(rig: Rig, broken: bytes) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(broken)

    rig.route((100, [await rig.app("shop-1", script=half)]))
    client = await rig.client()

    client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
    with suppress(ConnectionError):
        assert not (await client.rest()).endswith(b"0\r\n\r\n")

    assert sum(rig.failures().values()) == 1


@pytest.mark.parametrize("extra", [OK, b"x", b"HTTP/1.1"])
@with_proxy
async def test_bytes_beyond_an_answer_never_reach_another_client(rig: Rig, extra: bytes) -> None:
    app = await rig.app("shop-1", OK + extra)
    rig.route((100, [app]))
    client = await rig.client()

    for _ in range(3):
        assert (await client.get()).body == b"ok"
    assert app.connections == 3


@with_proxy
async def test_what_the_application_answers_is_its_own_error(rig: Rig) -> None:
    rig.route((100, [await rig.app("shop-1", b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")]))

    assert (await (await rig.client()).get()).status == 503
    (tally,) = (t for t in rig.tallies() if t.requests)
    assert (tally.requests, tally.errors_5xx, tally.failures) == (1, 1, {})


@with_proxy
async def test_a_client_that_leaves_is_no_failure_and_frees_the_group(rig: Rig) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(1000))
            await writer.drain()
            await asyncio.sleep(0.001)

    rig.route((100, [await rig.app("shop-1", script=endless)]))
    client = await rig.client()
    client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    await read_head(client.reader)
    assert rig.upstream("shop-1").requests == 1

    await client.close()

    await rig.settled()
    assert rig.failures() == {}


@pytest.mark.parametrize(
    "start",
    [
        b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 9\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nHo",
    ],
)
@with_proxy
async def test_a_client_that_leaves_amid_its_request_frees_the_group(
    rig: Rig, start: bytes
) -> None:
    rig.route((100, [await rig.app("shop-1")]))
    client = await rig.client()
    client.send(start)
    await until(lambda: len(rig.server.connections) == 1)

    client.writer.write_eof()

    assert await client.rest() == b""
    await rig.settled()
    assert rig.failures() == {}


@with_proxy
async def test_a_group_that_does_not_answer_in_time_is_504(rig: Rig) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await reader.read(-1)

    rig.route((100, [await rig.app("shop-1", script=silent)]))
    client = await rig.client()
    client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    await until(lambda: rig.upstream("shop-1").requests == 1)

    rig.server.sweep(rig.server.now() + client_module.ANSWER_S - 1)
    assert rig.upstream("shop-1").requests == 1
    rig.server.sweep(rig.server.now() + client_module.ANSWER_S + 1)

    assert (await client.answer()).status == 504
    assert rig.failures() == {"timeout": 1}


@with_proxy
async def test_slow_and_idle_clients_are_closed_by_the_sweep(rig: Rig) -> None:
    rig.route((100, [await rig.app("shop-1")]))
    idle, slow_head, slow_body = await rig.client(), await rig.client(), await rig.client()
    await idle.get()
    slow_head.send(b"GET / HTTP/1.1\r\n")
    slow_body.send(POST[:-1])
    await until(lambda: sum(not c.is_idle for c in rig.server.connections) == 2)
    await until(lambda: rig.upstream("shop-1").requests == 1)

    rig.server.sweep(rig.server.now() + rig.server.front.head_s + 1)
    assert (await slow_head.answer()).status == 408
    rig.server.sweep(rig.server.now() + client_module.ANSWER_S + 1)
    assert (await slow_body.answer()).status == 408
    rig.server.sweep(rig.server.now() + rig.server.front.idle_s + 1)
    assert await idle.rest() == b""
    assert rig.failures() == {}


@with_proxy
async def test_idle_connections_to_groups_are_closed_when_old_or_withdrawn(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green")
    client = await rig.client()
    rig.route((100, [blue]))
    await client.get()
    assert len(rig.upstream("blue").pool) == 1

    rig.route((100, [green]))
    assert rig.upstream("blue").pool == []
    await client.get()
    rig.server.sweep(rig.server.now() + 61)
    assert rig.upstream("green").pool == []

    assert (await client.get()).status == 200


@with_proxy
async def test_a_connection_to_a_group_withdrawn_meanwhile_is_not_kept(rig: Rig) -> None:
    go = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        await go.wait()
        writer.write(OK)
        await reader.read(-1)

    blue, green = await rig.app("blue", script=slow), await rig.app("green")
    rig.route((100, [blue]))
    client = await rig.client()
    client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    await until(lambda: rig.upstream("blue").requests == 1)

    rig.route((100, [green]))
    assert rig.book.applied("shop").http_busy == ("blue",)
    go.set()

    assert (await client.answer()).status == 200
    assert rig.book.applied("shop").http_busy == ()
    assert rig.upstream("blue").pool == []


@with_proxy
async def test_a_table_swap_under_load_costs_nothing(rig: Rig) -> None:
    """An old group is shut down as soon as its count is 0; no client may notice any of it."""
    failed: list[object] = []
    served = 0
    is_over = False

    async def visit(client: Client) -> None:
        nonlocal served
        while not is_over:
            request = POST if served % 3 else b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"
            try:
                answer = await client.ask(request)
            except (OSError, asyncio.IncompleteReadError) as error:
                failed.append(error)
                return
            if answer.status != 200:
                failed.append(answer)
            served += 1

    async def replace(old: App, new: App) -> None:
        upstream: Upstream = rig.upstream(old.group)
        before = served
        await until(lambda: served > before + 200)
        rig.route((50, [old]), (50, [new]))
        await until(lambda: len(new.requests) > 50)
        rig.route((100, [new]))
        await until(lambda: upstream.requests == 0)
        await old.stop()

    apps = [await rig.app(f"shop-{number}") for number in range(6)]
    rig.route((100, [apps[0]]))
    clients = [await rig.client() for _ in range(20)]
    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(visit(client))
        for old, new in itertools.pairwise(apps):
            await replace(old, new)
        is_over = True

    assert failed == []
    assert served > 1000


@with_proxy
async def test_closing_finishes_what_is_under_way_and_says_so_to_the_busy(rig: Rig) -> None:
    go = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_message(reader)
            await go.wait()
            writer.write(OK)

    rig.route((100, [await rig.app("shop-1", script=slow)]))
    busy, idle = await rig.client(), await rig.client()
    busy.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    await until(lambda: rig.upstream("shop-1").requests == 1)
    await until(lambda: len(rig.server.connections) == 2)

    rig.server.close()
    async with asyncio.TaskGroup() as tasks:
        closed = tasks.create_task(rig.server.closed(20))
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", rig.port)
        last = await idle.ask(b"GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n")
        go.set()
        answer = await busy.answer()

    assert closed.result() is True
    assert (answer.status, answer.fields["connection"]) == (200, "close")
    assert last.fields["connection"] == "close"


@with_proxy
async def test_closing_gives_up_at_its_deadline(rig: Rig) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await reader.read(-1)

    rig.route((100, [await rig.app("shop-1", script=silent)]))
    client = await rig.client()
    client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    await until(lambda: rig.upstream("shop-1").requests == 1)

    rig.server.close()

    assert await rig.server.closed(0.2) is False
    assert rig.is_settled()


@with_proxy
async def test_a_standstill_of_our_own_is_not_held_against_a_group(rig: Rig) -> None:
    """The connection came about in time; that it did is noticed late, after the timer."""
    publish(rig, "shop", ("shop.test",), [await rig.app("shop-1")], http=HttpPolicy(connect_s=0.2))
    client = await rig.client()
    dial = rig.server.pools.dial

    def stalled(upstream: Upstream, caller: Caller) -> None:
        dial(upstream, caller)
        rig.server.pools.dial = dial  # type: ignore[method-assign]
        asyncio.get_running_loop().call_soon(time.sleep, 0.6)

    rig.server.pools.dial = stalled  # type: ignore[method-assign]

    assert (await client.get()).status == 200
