"""Limits and queues as clients and groups see them; what ends with the worker."""

import pytest
from support.proxy_support import Rig, until, with_proxy
from support.waiting_support import (
    GET,
    GREEN,
    POST,
    asking,
    misses,
    reset,
    settle,
    slow,
    waiting_of,
)

from trafficmgr.core.model import Affinity
from trafficmgr.wire.frames import ShareCounts

# -- limits ---------------------------------------------------------------------------------------


@with_proxy
async def test_a_group_never_has_more_than_its_limit_and_the_others_wait_in_order(
    rig: Rig,
) -> None:
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, max_requests=2)
    clients = await asking(rig, 6)
    await until(lambda: len(app.paths) == 2)
    assert (rig.upstream("shop-1").requests, misses(rig).waiting) == (2, 4)

    for client in clients:
        app.let()
        assert (await client.answer()).status == 200

    assert app.most == 2
    assert sorted(app.paths[:2]) == ["/0", "/1"]  # two connections, which may overtake each other
    assert app.paths[2:] == ["/2", "/3", "/4", "/5"]
    assert misses(rig) == ShareCounts()


@with_proxy
async def test_a_newcomer_is_behind_those_that_wait(rig: Rig) -> None:
    """Also if there is room by then that nobody has told them of."""
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, max_requests=1)
    (first, second) = await asking(rig, 2)
    lane = rig.book.by_host["shop.test"].lanes[0]
    lane.most = 2

    (third,) = await asking(rig, 1, first=2)
    assert misses(rig).waiting == 2
    rig.book.sweep(rig.server.now())
    await until(lambda: app.paths == ["/0", "/1"])
    app.let(3)

    for client in (first, second, third):
        assert (await client.answer()).status == 200
    assert app.paths == ["/0", "/1", "/2"]


@with_proxy
async def test_a_full_queue_is_503_at_once(rig: Rig) -> None:
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, max_requests=1, queue_limit=2)
    clients = await asking(rig, 3)

    answer = await (await rig.client()).get()

    assert (answer.status, answer.body) == (503, b"503 2 requests wait already\n")
    assert answer.fields["retry-after"] == "1"
    assert misses(rig).failures == {"queue_full": 1}
    app.let(3)
    for client in clients:
        assert (await client.answer()).status == 200


@with_proxy
async def test_who_waits_for_too_long_is_503_and_its_connection_lives_on(rig: Rig) -> None:
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, max_requests=1, queue_s=5.0)
    served, late = await asking(rig, 2)

    rig.book.sweep(rig.server.now() + 4)
    assert misses(rig).waiting == 1
    rig.book.sweep(rig.server.now() + 6)

    answer = await late.answer()
    assert (answer.status, answer.fields["retry-after"]) == (503, "1")
    assert "connection" not in answer.fields
    assert misses(rig).but(durations=()) == ShareCounts(requests=1, failures={"queue_timeout": 1})
    app.let(2)
    assert (await served.answer()).status == 200
    assert (await late.get()).status == 200


@with_proxy
async def test_while_it_waits_a_request_has_no_other_deadline(rig: Rig) -> None:
    """The time for the answer begins when the group has it."""
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, max_requests=1, queue_s=900.0, response_head_s=60.0)
    served, waiting = await asking(rig, 2)
    (connection,) = (c for c in rig.server.connections if c._exchange and not c._exchange.upstream)

    connection.expire(rig.server.now() + 600)
    app.let()
    await served.answer()
    await until(lambda: len(app.paths) == 2)
    connection.expire(rig.server.now() + 59)
    assert rig.upstream("shop-1").requests == 1
    connection.expire(rig.server.now() + 61)

    assert (await waiting.answer()).status == 504


@with_proxy
async def test_waiting_is_no_part_of_how_long_an_answer_took(rig: Rig) -> None:
    """Else a queue would look like a slow revision."""
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, max_requests=1)
    clients = await asking(rig, 2)
    (waiting,) = waiting_of(rig)
    waiting.since -= 1000.0

    app.let(2)
    for client in clients:
        await client.answer()

    assert rig.book.counts(0.0).endpoints["shop"]["r0"].durations_s < 500.0


@with_proxy
async def test_a_body_that_waited_goes_on_over_a_connection_that_was_there(rig: Rig) -> None:
    """Reading was stopped, and nothing but the group's turn can set it going again."""
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, max_requests=1)
    (first,) = await asking(rig, 1)
    body = bytes(1024 * 1024)
    second = await rig.client()
    second.send(POST % len(body) + body)
    await until(lambda: any(c._is_paused for c in rig.server.connections))

    app.let(2)

    assert (await first.answer()).status == (await second.answer()).status == 200
    assert app.connections == 1


@with_proxy
async def test_a_new_client_that_waits_stays_the_same_client(rig: Rig) -> None:
    """Its cookie is made once; else it could wait for one revision and belong to the other."""
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, max_requests=1)
    table = rig.book.by_endpoint["shop"].table
    rig.book.apply(table.but(generation=99, affinity=Affinity.cookie, salt="x"))
    clients = await asking(rig, 2)
    (waiting,) = waiting_of(rig)
    bucket = waiting._bucket

    for _ in range(10):
        rig.book.sweep(rig.server.now())

    assert waiting._bucket == bucket is not None
    app.let(2)
    for client in clients:
        await client.answer()


@with_proxy
async def test_a_client_that_leaves_the_queue_costs_nobody_a_turn(rig: Rig) -> None:
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, max_requests=1)
    first, second, third = await asking(rig, 3)

    reset(second)
    await until(lambda: misses(rig).waiting == 1)
    app.let(2)

    assert (await first.answer()).status == (await third.answer()).status == 200
    assert app.paths == ["/0", "/2"]
    assert misses(rig).failures == {}


@with_proxy
async def test_a_group_that_refuses_gives_its_requests_to_the_queue_of_the_others(
    rig: Rig,
) -> None:
    """They were sent nowhere, so they may wait like everybody else."""
    app, gone = await slow(rig), await slow(rig, "shop-2")
    rig.route((100, [app, gone]))
    settle(rig, max_requests=1)
    (first,) = await asking(rig, 1)
    await until(lambda: len(app.paths) + len(gone.paths) == 1)
    busy, dead = (app, gone) if app.paths else (gone, app)
    await dead.stop()

    second = await rig.client()
    second.send(GET % 1)
    await until(lambda: misses(rig).waiting == 1)
    busy.let(2)

    assert (await first.answer()).status == (await second.answer()).status == 200
    share = rig.book.counts(0.0).endpoints["shop"]["r0"]
    assert (share.requests - share.moved, share.in_flight, share.failures) == (2, 0, {})


@with_proxy
async def test_who_waits_for_groups_that_are_replaced_goes_to_the_new_ones(rig: Rig) -> None:
    app, new = await slow(rig), await rig.app("new", GREEN)
    rig.route((100, [app]))
    settle(rig, max_requests=1)
    clients = await asking(rig, 4)

    rig.route((100, [new]))

    for client in clients[1:]:
        assert (await client.answer()).body == b"green"
    assert misses(rig).waiting == 0
    app.let()
    assert (await clients[0].answer()).status == 200


@with_proxy
async def test_tables_that_come_and_go_give_nobody_more_time(rig: Rig) -> None:
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, max_requests=1, queue_s=5.0)
    served, late = await asking(rig, 2)
    (until_,) = rig.book.by_host["shop.test"].lanes[0].line._deadlines.values()  # type: ignore[union-attr]

    for _ in range(5):
        settle(rig)

    assert list(rig.book.by_host["shop.test"].lanes[0].line._deadlines.values()) == [until_]  # type: ignore[union-attr]
    app.let(2)
    assert (await served.answer()).status == (await late.answer()).status == 200


@with_proxy
async def test_a_limit_that_is_raised_lets_those_go_that_wait(rig: Rig) -> None:
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, max_requests=1)
    clients = await asking(rig, 4)

    settle(rig, max_requests=None)
    await until(lambda: len(app.paths) == 4)
    app.let(4)

    for client in clients:
        assert (await client.answer()).status == 200


# -- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("http", [{"is_held": True}, {"max_requests": 1}])
@with_proxy
async def test_a_worker_that_ends_answers_who_waits_and_keeps_nobody_waiting(
    rig: Rig, http: dict[str, object]
) -> None:
    app = await slow(rig)
    rig.route((100, [app]))
    settle(rig, **http)
    clients = await asking(rig, 4)
    waiting = misses(rig).waiting
    idle = await rig.client()
    idle.send(b"GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n")
    assert (await idle.answer()).status == 404

    rig.server.close()
    rig.book.dismiss()

    late = await idle.get()
    for client in clients[-waiting:]:
        answer = await client.answer()
        assert (answer.status, answer.fields["retry-after"]) == (503, "1")
        assert answer.fields["connection"] == "close"
    assert (late.status, late.fields["connection"]) == (503, "close")
    assert misses(rig).failures == {"closing": waiting + 1}
    app.let(4)
    for client in clients[:-waiting]:
        assert (await client.answer()).status == 200
