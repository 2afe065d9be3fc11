"""A request is sent once more only if that is safe, to somebody else, and not too often."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from support.proxy_support import OK, App, Rig, Script, read_head, read_message, until, with_proxy

from trafficmgr.core.traffic import Ejection
from trafficmgr.dataplane.budget import LEAST
from trafficmgr.wire.frames import ShareCounts

GET = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello"
PUT = b"PUT / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
BROKEN = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"


class Dying(App):
    """An application that takes each request and closes without a word, while it `dies`."""

    def __init__(self, group: str) -> None:
        super().__init__(group, script=self._die)
        self.dies = True

    async def _die(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.requests.append(await read_message(reader))
            if self.dies:
                return
            writer.write(OK)


async def dying(rig: Rig, group: str) -> Dying:
    app = Dying(group)
    await app.start()
    rig.apps.append(app)
    return app


def settle(rig: Rig, **http: object) -> None:
    """Publish the newest table once more, with another policy."""
    rig.generation += 1
    table = rig.book.by_endpoint["shop"].table
    rig.book.apply(table.but(generation=rig.generation, http=table.http.but(**http)))


def told(rig: Rig, revision: str = "r0") -> ShareCounts:
    return rig.book.counts(0.0).endpoints["shop"][revision]


async def first_to(rig: Rig, app: App) -> None:
    """See to it that the next request goes to this application."""
    lane = rig.book.by_host["shop.test"].lanes[-1]
    place = next(n for n, upstream in enumerate(lane.upstreams) if upstream.group == app.group)
    lane.turn = place - 1


# -- who survives ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "status"),
    [(GET, 200), (GET.replace(b"GET", b"HEAD"), 200), (POST, 502), (PUT, 502)],
)
@pytest.mark.parametrize("is_warm", [False, True])
@with_proxy
async def test_a_dying_group_costs_no_request_that_can_be_sent_twice(
    rig: Rig, request_: bytes, status: int, is_warm: bool
) -> None:
    """On a fresh connection as on a used one. No body is sent twice: it is not kept."""
    sick, well = await dying(rig, "sick"), await rig.app("well")
    rig.route((100, [sick, well]))
    client = await rig.client()
    if is_warm:
        sick.dies = False
        for _ in range(2):
            await client.get()
        sick.dies = True
    before = len(sick.requests) + len(well.requests)
    await first_to(rig, sick)

    answer = await client.ask(request_, has_body=not request_.startswith(b"HEAD"))

    assert answer.status == status
    after = len(sick.requests) + len(well.requests)
    assert after - before == (2 if status == 200 else 1)
    assert told(rig).repeated == (1 if status == 200 else 0)
    assert (told(rig).requests, told(rig).moved) == (before + 1, 0)


@with_proxy
async def test_a_dying_group_is_passed_over_at_once(rig: Rig) -> None:
    """Whatever it was sent next would be lost as well, and a POST could not be repaired."""
    sick, well = await dying(rig, "sick"), await rig.app("well")
    rig.route((100, [sick, well]))
    client = await rig.client()
    await first_to(rig, sick)
    await client.get()

    for _ in range(10):
        assert (await client.ask(POST)).status == 200

    assert len(sick.requests) == 1
    rig.upstream("sick").spared_until = 0.0
    sick.dies = False
    for _ in range(2):
        assert (await client.ask(POST)).status == 200
    assert len(sick.requests) == 2


@with_proxy
async def test_the_second_time_it_goes_over_a_new_connection(rig: Rig) -> None:
    """Idle ones tend to be closed together, as when a host is cut off."""

    async def forgets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(OK)
        await read_message(reader)

    apps = [await rig.app(f"shop-{number}", script=forgets) for number in range(2)]
    rig.route((100, apps))
    client = await rig.client()
    for _ in apps:
        await client.get()

    assert (await client.get()).status == 200
    assert sum(app.connections for app in apps) == 3


@with_proxy
async def test_it_is_sent_no_more_than_twice(rig: Rig) -> None:
    apps = [await dying(rig, f"sick-{number}") for number in range(4)]
    rig.route((100, list(apps)))

    assert (await (await rig.client()).get()).status == 502
    assert sum(len(app.requests) for app in apps) == 2
    assert rig.failures() == {"upstream_closed": 1}


@with_proxy
async def test_a_request_with_an_answer_begun_is_not_sent_again(rig: Rig) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 2")

    rig.route((100, [await rig.app("half", script=half), await rig.app("half-2", script=half)]))

    assert (await (await rig.client()).get()).status == 502
    assert sum(app.connections for app in rig.apps) == 1


@with_proxy
async def test_stable_does_not_repair_what_the_candidate_breaks(rig: Rig) -> None:
    """Else the gates would see a candidate that never fails."""
    sick, well = await dying(rig, "sick"), await rig.app("well")
    rig.route((100, [sick]), (0, [well]))
    client = await rig.client()

    for _ in range(5):
        assert (await client.get()).status == 502

    assert well.requests == []
    assert (told(rig).requests, told(rig).failures) == (5, {"upstream_closed": 5})
    assert told(rig).spilled == 0


@with_proxy
async def test_nor_if_the_candidate_takes_no_connection_any_more_by_then(rig: Rig) -> None:
    """A new request would go to stable; one that the candidate had is the candidate's failure."""

    async def crash(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await read_message(reader)
        rig.upstream("sick").refused_until = rig.server.now() + 100.0

    sick, well = await rig.app("sick", script=crash), await rig.app("well")
    rig.route((99, [sick]), (1, [well]))
    rig.book.by_host["shop.test"].seat.turn = 4999  # whose next point is the candidate's
    client = await rig.client()

    first, second = await client.get(), await client.get()

    assert (first.status, second.status) == (502, 200)
    assert (sick.connections, len(well.requests)) == (1, 1)
    assert told(rig).failures == {"upstream_closed": 1}


@with_proxy
async def test_a_revision_that_is_gone_by_then_is_repaired_by_the_one_that_is_there(
    rig: Rig,
) -> None:
    asked, may_die = asyncio.Event(), asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await read_message(reader)
        asked.set()
        await may_die.wait()

    old, new = await rig.app("old", script=late), await rig.app("new")
    rig.route((0, [new]), (100, [old]))
    client = await rig.client()
    client.send(GET)
    await asked.wait()

    rig.route((100, [new]))
    may_die.set()

    assert (await client.answer()).status == 200
    assert (told(rig, "r1").moved, told(rig, "r0").requests) == (1, 1)
    assert rig.is_settled()


@with_proxy
async def test_a_group_that_is_alone_gets_it_again_only_on_a_new_connection(rig: Rig) -> None:
    """An idle connection that is closed in the same moment is nobody's fault."""
    app = await dying(rig, "alone")
    app.dies = False
    rig.route((100, [app]))
    client = await rig.client()
    await client.get()
    app.dies = True

    answer = await client.get()

    assert answer.status == 502
    assert (len(app.requests), app.connections) == (3, 2)


@with_proxy
async def test_groups_killed_under_load_cost_no_get_and_double_no_post(rig: Rig) -> None:
    served, failed, posts = [0], Counter[str](), 0
    is_over = False

    async def visit(request: bytes) -> None:
        nonlocal posts
        client = await rig.client()
        while not is_over:
            posts += request is POST
            answer = await client.ask(request)
            served[0] += 1
            failed[request[:4].decode().strip()] += answer.status != 200

    apps = [await rig.app(f"shop-{number}") for number in range(3)]
    rig.route((100, apps))
    async with asyncio.TaskGroup() as tasks:
        for request in (GET, GET, GET, POST):
            tasks.create_task(visit(request))
        for app in apps[:2]:
            before = served[0]
            await until(lambda before=before: served[0] > before + 100)  # type: ignore[misc]
            await app.stop()
            rig.book.sweep(rig.server.now())
        before = served[0]
        await until(lambda: served[0] > before + 100)
        is_over = True

    assert failed["GET"] == 0
    assert failed["POST"] <= 2  # the one that was with the group when it was killed, each time
    assert sum(one.start.startswith("POST") for app in apps for one in app.requests) <= posts


# -- the budget -----------------------------------------------------------------------------------


@with_proxy
async def test_no_more_are_repeated_than_the_budget_allows(rig: Rig) -> None:
    apps = [await dying(rig, f"sick-{number}") for number in range(2)]
    rig.route((100, list(apps)))
    client = await rig.client()

    for _ in range(10):
        assert (await client.get()).status == 502

    assert sum(len(app.requests) for app in apps) == 10 + LEAST
    assert told(rig).repeated == LEAST


@with_proxy
async def test_a_budget_of_nothing_repeats_nothing(rig: Rig) -> None:
    sick, well = await dying(rig, "sick"), await rig.app("well")
    rig.route((100, [sick, well]))
    settle(rig, retry_budget_pct=0)
    await first_to(rig, sick)

    assert (await (await rig.client()).get()).status == 502
    assert well.requests == []


# -- ejection -------------------------------------------------------------------------------------


def says(answer: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_message(reader)
            writer.write(answer)
            if answer == HALF:
                return

    return script


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del writer
    await read_head(reader)


FAILING: dict[str, Callable[[], Script]] = {
    "5xx": lambda: says(BROKEN),
    "an answer that breaks off": lambda: says(HALF),
    "an answer that is none": lambda: says(b"SSH-2.0\r\n"),
    "no answer": lambda: closes,
}


@pytest.mark.parametrize("kind", FAILING)
@with_proxy
async def test_a_group_that_only_fails_is_ejected_and_counted(rig: Rig, kind: str) -> None:
    bad, good = await rig.app("bad", script=FAILING[kind]()), await rig.app("good")
    rig.route((100, [bad, good]))
    settle(rig, ejection=Ejection(failures=3, base_s=100.0), retry_budget_pct=0)

    for _ in range(20):
        rig.upstream("bad").spared_until = rig.upstream("bad").ejected_until
        client = await rig.client()
        client.send(POST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        try:
            await client.rest()
        except ConnectionError:
            assert kind == "an answer that breaks off"

    assert (bad.connections > 0, rig.upstream("bad").failures) == (True, 3)
    assert told(rig).ejected == 1
    assert rig.upstream("bad").ejected_until > rig.server.now() + 50


@with_proxy
async def test_groups_that_refuse_again_and_again_are_ejected_for_longer(rig: Rig) -> None:
    gone, good = await rig.app("gone"), await rig.app("good")
    rig.route((100, [gone, good]))
    settle(rig, ejection=Ejection(failures=2, base_s=100.0))
    await gone.stop()
    client = await rig.client()

    for _ in range(6):
        rig.upstream("gone").refused_until = 0.0
        assert (await client.ask(POST)).status == 200

    assert rig.upstream("gone").failures == 2
    assert told(rig).ejected == 1


@with_proxy
async def test_an_answer_that_is_whole_is_a_success_whatever_was_before(rig: Rig) -> None:
    answers = [BROKEN, BROKEN, OK] * 4

    async def mixed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_message(reader)
            writer.write(answers.pop())

    rig.route((100, [await rig.app("mixed", script=mixed)]))
    settle(rig, ejection=Ejection(failures=3))
    client = await rig.client()

    for _ in range(12):
        await client.get()

    assert (rig.upstream("mixed").failures, told(rig).ejected) == (2, 0)


@with_proxy
async def test_a_client_that_leaves_says_nothing_of_the_group(rig: Rig) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await reader.read(-1)

    rig.route((100, [await rig.app("silent", script=silent)]))
    client = await rig.client()
    client.send(POST[:-2])
    await until(lambda: rig.upstream("silent").requests == 1)

    client.writer.write_eof()
    await rig.settled()

    assert rig.upstream("silent").failures == 0
