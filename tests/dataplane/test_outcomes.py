"""How a request ended is counted once, in the step in which it is no longer in flight.

Verdicts rest on it: `finished` is the number of trials, `failed` of those that went wrong.
"""

import asyncio
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from support.proxy_support import (
    OK,
    App,
    Client,
    Message,
    Rig,
    Script,
    read_head,
    read_message,
    until,
    with_proxy,
)

from trafficmgr.controller.counts import failed, finished
from trafficmgr.dataplane import client as client_module
from trafficmgr.dataplane.tallies import Tally
from trafficmgr.wire.frames import ShareCounts

HEAD = b"GET / HTTP/1.1\r\nHost: shop.test\r\n"
GET = HEAD + b"\r\n"
POST = b"POST / HTTP/1.1\r\nHost: shop.test\r\n"
WEBSOCKET = HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

Act = Callable[[Rig, Client], Awaitable[None]]


def dead(group: str) -> App:
    """Return an application whose port refuses connections."""
    app = App(group)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        app.port = sock.getsockname()[1]
    return app


def says(answer: bytes, *, is_last: bool = False) -> Script:
    """Return an application that says this to the first request, whatever it is."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer)
        if not is_last:
            await reader.read(-1)

    return script


async def asks(rig: Rig, client: Client) -> None:
    """Send a request and take what comes, until the connection is done."""
    del rig
    client.send(HEAD + b"Connection: close\r\n\r\n")
    with suppress(ConnectionError):
        await client.rest()


def reset(client: Client) -> None:
    """Be gone at once. One that only closes its side might still wait for the answer (30)."""
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


async def leaves_before_the_answer(rig: Rig, client: Client) -> None:
    client.send(GET)
    await until(lambda: rig.upstream("shop-1").requests == 1)
    reset(client)


async def leaves_amid_the_answer(rig: Rig, client: Client) -> None:
    del rig
    client.send(GET)
    await read_head(client.reader)
    reset(client)


async def waits_in_vain(rig: Rig, client: Client) -> None:
    client.send(GET)
    await until(lambda: rig.upstream("shop-1").requests == 1)
    rig.server.sweep(rig.server.now() + client_module.ANSWER_S + 1)
    assert (await client.answer()).status == 504


async def stops_amid_its_body(rig: Rig, client: Client) -> None:
    client.send(POST + b"Content-Length: 5\r\n\r\nhell")
    await until(lambda: rig.upstream("shop-1").requests == 1)
    rig.server.sweep(rig.server.now() + client_module.ANSWER_S + 1)
    assert (await client.answer()).status == 408


async def sends_a_bad_rest(rig: Rig, client: Client) -> None:
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    await until(lambda: rig.upstream("shop-1").requests == 1)
    client.send(b"zz\r\n")
    assert (await client.answer()).status == 400


async def sends_more_than_is_taken(rig: Rig, client: Client) -> None:
    total = 64 * 1024 * 1024
    client.send(POST + b"Content-Length: %d\r\n\r\n" % total + bytes(total))
    await until(lambda: any(connection._is_paused for connection in rig.server.connections))
    await until(lambda: rig.upstream("shop-1").requests == 1)
    rig.server.sweep(rig.server.now() + client_module.ANSWER_S + 1)
    with suppress(ConnectionError):  # more is on its way than is read after the answer
        assert (await client.answer()).status == 504


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the head and nothing of the body, until the test is over."""
    await read_head(reader)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await reader.read(-1)


HALF_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
HALF_500 = b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\nhalf"
WHOLE_503 = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
GONE = b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n"

OUTCOMES: dict[str, tuple[Script, Act, dict[str, int]]] = {
    "an answer": (says(OK), asks, {}),
    "an answer of 4xx": (says(GONE), asks, {}),
    "an answer of 5xx": (says(WHOLE_503), asks, {"5xx": 1}),
    "an answer of 5xx that breaks off": (says(HALF_500, is_last=True), asks, {"5xx": 1}),
    "an answer of 5xx that is not taken": (says(HALF_500), leaves_amid_the_answer, {"5xx": 1}),
    "an answer that breaks off": (says(HALF_OK, is_last=True), asks, {"upstream_closed": 1}),
    "an answer that is not taken": (says(HALF_OK), leaves_amid_the_answer, {}),
    "an answer that is none": (says(b"SSH-2.0\r\n"), asks, {"bad_response": 1}),
    "no answer": (says(b"", is_last=True), asks, {"upstream_closed": 1}),
    "no answer in time": (says(b""), waits_in_vain, {"timeout": 1}),
    "no answer waited for": (says(b""), leaves_before_the_answer, {}),
    "half a request": (says(b""), stops_amid_its_body, {}),
    "a bad request": (says(b""), sends_a_bad_rest, {}),
    "a request that is not taken": (deaf, sends_more_than_is_taken, {"timeout": 1}),
}
"""What happens -> what the application does, what the client does, which failures are counted."""


def told(rig: Rig) -> dict[str, ShareCounts]:
    """Return what the worker says of its revisions; "" is no target."""
    return rig.book.counts(0.0).endpoints["shop"]


@pytest.mark.parametrize("outcome", OUTCOMES)
@with_proxy
async def test_an_outcome_is_counted_once(rig: Rig, outcome: str) -> None:
    script, act, failures = OUTCOMES[outcome]
    rig.route((100, [await rig.app("shop-1", script=script)]))
    client = await rig.client()

    await act(rig, client)
    await rig.settled()

    share = told(rig)["r0"]
    counted = {"5xx": share.errors_5xx} if share.errors_5xx else {}
    assert {**counted, **share.failures} == failures
    assert (share.requests, finished(share), failed(share)) == (1, 1, sum(failures.values()))


@with_proxy
async def test_a_failure_counts_when_the_request_is_no_longer_in_flight(rig: Rig) -> None:
    """Else there would be failures of requests that are not among the trials yet."""
    may_end = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(HALF_500)
        await may_end.wait()
        writer.write(b" done")

    rig.route((100, [await rig.app("shop-1", script=slow)]))
    client = await rig.client()
    client.send(GET)
    await read_head(client.reader)

    during = told(rig)["r0"]
    may_end.set()
    await rig.settled()

    after = told(rig)["r0"]
    assert (during.in_flight, finished(during), failed(during)) == (1, 0, 0)
    assert (after.in_flight, finished(after), failed(after)) == (0, 1, 1)


@with_proxy
async def test_a_tunnel_is_an_answer_and_no_longer_in_flight(rig: Rig) -> None:
    switch = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    app = await rig.app("shop-1", script=says(switch))
    rig.route((100, [app]))
    client = await rig.client()

    assert (await client.ask(WEBSOCKET, has_body=False)).status == 101
    during = told(rig)["r0"]
    app.cut()
    reset(client)
    await rig.settled()

    assert (during.requests, during.in_flight, finished(during)) == (1, 0, 1)
    assert told(rig)["r0"] == during


@with_proxy
async def test_no_target_fails_nobody_but_the_endpoint(rig: Rig) -> None:
    rig.route()

    assert (await (await rig.client()).get()).status == 503

    assert (finished(told(rig)[""]), failed(told(rig)[""])) == (1, 1)


# -- refused connections --------------------------------------------------------------------------


@with_proxy
async def test_a_refusal_that_another_revision_repairs_is_no_failure(rig: Rig) -> None:
    """The request is finished for the one that answered, and only for that."""
    rig.route((99, [dead("blue-1"), dead("blue-2")]), (1, [await rig.app("green")]))
    client = await rig.client()

    for _ in range(10):
        assert (await client.get()).status == 200

    blue, green = told(rig)["r0"], told(rig)["r1"]
    assert blue.moved > 0
    assert (finished(blue), finished(green)) == (0, 10)
    assert failed(blue) == failed(green) == 0


@with_proxy
async def test_a_refusal_by_everybody_fails_the_last_that_was_tried(rig: Rig) -> None:
    rig.route((99, [dead("blue-1"), dead("blue-2")]), (1, [dead("green")]))

    assert (await (await rig.client()).get()).status == 502

    blue, green = told(rig)["r0"], told(rig)["r1"]
    assert (finished(blue), failed(blue)) == (0, 0)
    assert (finished(green), failed(green)) == (1, 1)


@with_proxy
async def test_a_refusal_within_a_revision_leaves_it_one_request(rig: Rig) -> None:
    rig.route((100, [dead("shop-1"), await rig.app("shop-2"), dead("shop-3")]))

    assert (await (await rig.client()).get()).status == 200

    share = told(rig)["r0"]
    assert (share.requests, share.moved, finished(share), failed(share)) == (1, 0, 1, 0)


# -- anything at all ------------------------------------------------------------------------------


class Auditor:
    """Looks at the counts of every revision again and again: what was counted stays counted."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._seen: dict[Tally, ShareCounts] = {}
        self.complaints: list[str] = []

    def look(self) -> None:
        for tally in self._rig.tallies():
            now = tally.frozen()
            before = self._seen.get(tally, ShareCounts())
            self._seen[tally] = now
            grew = (
                finished(now) - finished(before),
                failed(now) - failed(before),
                now.requests - before.requests,
            )
            if min(*grew, now.in_flight) < 0 or failed(now) > finished(now):
                self.complaints.append(f"{before} became {now}")


async def misbehave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request in another way, by its path."""
    while True:
        message: Message = await read_message(reader)
        number = int(message.start.split(" ")[1].removeprefix("/"))
        answer = (OK, WHOLE_503, HALF_500, HALF_OK, b"", GONE, b"garbage\r\n")[number % 7]
        writer.write(answer)
        if number % 7 in {2, 3, 4}:
            return


@with_proxy
async def test_counts_add_up_at_every_moment_whatever_happens(rig: Rig) -> None:
    """Under tables that come and go, with groups that refuse, and clients that leave."""
    rand, auditor = random.Random(5), Auditor(rig)  # noqa: S311  a seed, not a secret
    apps = [await rig.app(f"shop-{number}", script=misbehave) for number in range(3)]
    gone = [dead(f"dead-{number}") for number in range(3)]
    sent = 0

    async def visit() -> None:
        nonlocal sent
        for _ in range(40):
            client = await rig.client()
            client.send(b"GET /%d HTTP/1.1\r\nHost: shop.test\r\n\r\n" % rand.randrange(1000))
            sent += 1
            if rand.random() < 0.2:
                await until(lambda: len(rig.server.connections) > 0)
            else:
                with suppress(OSError, asyncio.IncompleteReadError):
                    await client.answer()
            auditor.look()
            client.writer.transport.abort()

    async def change() -> None:
        while not is_over:
            mixed = rand.sample([*apps, *gone], 4)
            weight = rand.choice([0, 1, 50, 100])
            rig.route((weight, mixed[:2]), (100 - weight, mixed[2:]))
            for _ in range(rand.randrange(1, 6)):
                await asyncio.sleep(0)
                auditor.look()

    is_over = False
    rig.route((50, [apps[0]]), (50, [apps[1], gone[0]]))
    async with asyncio.TaskGroup() as tasks:
        changing = tasks.create_task(change())
        visits = [tasks.create_task(visit()) for _ in range(8)]
        await asyncio.wait(visits)
        is_over = True
        await changing
    await rig.settled()
    auditor.look()

    shares = told(rig).values()
    assert auditor.complaints == []
    assert 0 < sum(map(failed, shares)) < sum(map(finished, shares)) <= sent
    assert sum(share.moved for share in shares) > 0
