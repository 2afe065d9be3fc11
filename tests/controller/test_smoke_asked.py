"""The smoke test asks the preview through every door, and is told apart from our own trouble."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from support.controller_support import NAME, Clock, eventually
from support.web_support import Replies, nobody, serving

from trafficmgr.controller import smoke
from trafficmgr.controller.answer import Answer
from trafficmgr.controller.smoke import PER_WORKER, SmokeTest, reachable
from trafficmgr.core.commands import AskSmoke
from trafficmgr.core.events import Event, SmokeEnded
from trafficmgr.core.gating import Smoke, SmokeRequest

HOST = "preview.shop.test"
RIGHT = {"X-Trafficmgr-Revision": "v2"}


def command(*requests: SmokeRequest, timeout_s: float = 20.0) -> AskSmoke:
    return AskSmoke(
        endpoint=NAME,
        rollout="shop-r2",
        leg=1,
        host=HOST,
        revision="v2",
        smoke=Smoke(requests=requests or (SmokeRequest(),), timeout_s=timeout_s),
    )


@asynccontextmanager
async def asking(
    doors: Sequence[str], asked: AskSmoke, *, workers: int = 1
) -> AsyncIterator[list[Event]]:
    """Ask for as long as the context lasts; yield what is told."""
    told: list[Event] = []

    async def tell(event: Event) -> None:
        told.append(event)

    test = SmokeTest(tell=tell, clock=Clock(), doors=doors, workers=workers)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(test.make(asked))
        try:
            yield told
        finally:
            task.cancel()


async def ended(doors: Sequence[str], asked: AskSmoke, *, workers: int = 1) -> SmokeEnded:
    """Ask; return how it ended."""
    async with asking(doors, asked, workers=workers) as told:
        await eventually(lambda: told)
    (event,) = told
    assert isinstance(event, SmokeEnded)
    assert (event.endpoint, event.rollout, event.leg) == (NAME, "shop-r2", 1)
    return event


async def test_right_answers_to_all_requests_pass() -> None:
    replies = Replies(200, "<h1>Hello, world</h1>", RIGHT)
    async with serving(replies) as port:
        event = await ended(
            [f"127.0.0.1:{port}"],
            command(SmokeRequest(body="Hello.*world"), SmokeRequest(path="/cart")),
        )

    assert (event.is_success, event.reason) == (True, "")
    assert {path for _, path, _ in replies.asked} == {"/", "/cart"}
    assert set(replies.hosts) == {HOST}


async def test_each_request_is_repeated_over_new_connections_to_meet_every_worker() -> None:
    replies = Replies(headers=RIGHT)
    async with serving(replies) as port:
        await ended([f"127.0.0.1:{port}"], command(), workers=3)

    assert len(replies.asked) == len(replies.peers) == 3 * PER_WORKER


async def test_a_big_machine_does_not_storm_the_preview() -> None:
    replies = Replies(headers=RIGHT)
    async with serving(replies) as port:
        await ended([f"127.0.0.1:{port}"], command(), workers=64)

    assert len(replies.asked) == smoke.MOST


async def test_every_door_is_asked() -> None:
    good, bad = Replies(headers=RIGHT), Replies(500)
    async with serving(good) as first, serving(bad) as second:
        event = await ended([f"127.0.0.1:{first}", f"127.0.0.1:{second}"], command())

    assert good.asked
    assert event.reason == f"GET / on {HOST} answered 500, not 200"


async def test_without_a_door_nothing_passes() -> None:
    event = await ended([], command())

    assert not event.is_success
    assert event.reason == f"there is no HTTP listener through which {HOST} could be asked"


@pytest.mark.parametrize(
    ("replies", "request_", "reason"),
    [
        (
            Replies(503, headers=RIGHT),
            SmokeRequest(path="/x"),
            "GET /x on {} answered 503, not 200",
        ),
        (
            Replies(302, headers={"Location": "/login", **RIGHT}),
            SmokeRequest(),
            "GET / on {} answered 302, not 200",
        ),
        (
            Replies(headers={"X-Trafficmgr-Revision": "v1"}),
            SmokeRequest(),
            "GET / on {} was answered by revision v1, not by v2",
        ),
        (
            Replies(404),
            SmokeRequest(status=404),
            "GET / on {} was answered by no revision that is named, not by v2",
        ),
        (
            Replies(body="canary-3f9a", headers=RIGHT),
            SmokeRequest(body="^Hello"),
            "GET / on {} answered 200 with a body that does not match '^Hello'",
        ),
    ],
)
async def test_a_wrong_answer_fails_and_says_what_came_and_what_was_wanted(
    replies: Replies, request_: SmokeRequest, reason: str
) -> None:
    async with serving(replies) as port:
        event = await ended([f"127.0.0.1:{port}"], command(request_))

    assert (event.is_success, event.reason) == (False, reason.format(HOST))


async def test_nothing_is_asked_after_a_wrong_answer() -> None:
    replies = Replies(500)
    async with serving(replies) as port:
        await ended([f"127.0.0.1:{port}"], command(SmokeRequest(), SmokeRequest(path="/cart")))

    assert {path for _, path, _ in replies.asked} == {"/"}


async def test_an_answer_that_does_not_come_in_time_fails() -> None:
    replies = Replies()
    replies.hangs = True
    async with serving(replies) as port:
        event = await ended([f"127.0.0.1:{port}"], command(timeout_s=0.05))

    assert event.reason == f"GET / on {HOST}: no answer within 0.05s"


async def test_a_body_is_searched_as_far_as_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "BODY_BYTES", 1000)
    replies = Replies(body="x" * 1000 + "Hello", headers=RIGHT)
    async with serving(replies) as port:
        event = await ended([f"127.0.0.1:{port}"], command(SmokeRequest(body="Hello")))

    assert not event.is_success


async def test_a_worker_that_refuses_is_asked_again_until_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says nothing about the revision, and another worker takes its place."""
    monkeypatch.setattr(smoke, "RETRY_S", 0.001)
    broken = 0

    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal broken
        broken += 1
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    door = "{}:{}".format(*server.sockets[0].getsockname())
    async with asking([door], command()) as told:
        await eventually(lambda: broken > 10)
        assert told == []

        monkeypatch.setattr(smoke, "answer_to", answered)
        await eventually(lambda: told)
    server.close()
    await server.wait_closed()

    assert isinstance(told[0], SmokeEnded)
    assert told[0].is_success


async def answered(*_: object, **__: object) -> Answer:
    return Answer(200, {smoke.REVISION_HEADER: "v2"}, b"")


async def test_it_can_be_cancelled_while_it_waits_for_a_worker() -> None:
    with nobody() as port:
        async with asking([f"127.0.0.1:{port}"], command()) as told:
            pass

    assert told == []


@pytest.mark.parametrize(
    ("door", "where"),
    [
        ("192.0.2.7:80", "192.0.2.7:80"),
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("[::]:8080", "[::1]:8080"),
        ("[2001:db8::7]:80", "[2001:db8::7]:80"),
    ],
)
def test_a_wildcard_door_is_reached_on_loopback(door: str, where: str) -> None:
    assert reachable(door) == where
