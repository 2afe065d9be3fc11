"""`preview.<host>` reaches the candidate only, and nobody else ever does by way of it."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from support.dns_support import (
    Clock,
    addresses,
    answers,
    asker,
    book,
    shares,
    table,
    target,
    texts,
    zones,
)
from support.proxy_support import App, Message, Rig, read_message, until, with_proxy

from trafficmgr.core.model import Publish
from trafficmgr.core.routing import Share, Table
from trafficmgr.dataplane.book import Book
from trafficmgr.dataplane.routes import Upstream
from trafficmgr.dataplane.upstream import Caller

PREVIEW = "preview.shop.test"
BLUE = b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 4\r\n\r\nblue"
GREEN = b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 5\r\n\r\ngreen"
WEBSOCKET = (
    f"GET / HTTP/1.1\r\nHost: {PREVIEW}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
).encode()

STABLE = shares({"blue": 100}, {"blue": ["127.77.0.1"]})
CANDIDATE = Share(
    revision="green",
    weight_pct=100,
    targets=(target("127.77.0.2"), target("127.77.0.3")),
)


def asked(app: App) -> int:
    return len(app.requests)


def previewed(generation: int = 1, *, publish: Publish = Publish.groups) -> Table:
    """Return a table whose candidate has no weight yet, only a preview."""
    return table(generation=generation, publish=publish, shares=STABLE).but(preview=CANDIDATE)


def before_dialling(rig: Rig, monkeypatch: pytest.MonkeyPatch, swap: Callable[[], None]) -> None:
    """Swap tables just before the next connection is tried."""
    swaps, dial = [swap], rig.server.pools.dial

    def dial_after_the_swap(upstream: Upstream, caller: Caller) -> None:
        while swaps:
            swaps.pop()()
        dial(upstream, caller)

    monkeypatch.setattr(rig.server.pools, "dial", dial_after_the_swap)


# -- the proxy ------------------------------------------------------------------------------------


@with_proxy
async def test_a_preview_reaches_the_candidate_only_and_the_host_never_does(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    rig.route((100, [blue]), preview=[green])
    client = await rig.client()

    for _ in range(10):
        assert (await client.get(host=PREVIEW)).body == b"green"
        assert (await client.get()).body == b"ok"

    assert (asked(blue), asked(green)) == (10, 10)


@with_proxy
async def test_a_preview_has_full_weight_whatever_the_candidate_has(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    rig.route((50, [blue]), (50, [green]), preview=[green])
    client = await rig.client()

    bodies = {(await client.get(host=PREVIEW)).body for _ in range(30)}

    assert bodies == {b"green"}


@with_proxy
async def test_without_a_preview_there_is_no_such_host(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    client = await rig.client()
    statuses = []

    for preview in (None, [green], None):
        rig.route((100, [blue]), preview=preview)
        statuses.append((await client.get(host=PREVIEW)).status)

    assert statuses == [404, 200, 404]


@with_proxy
async def test_a_preview_whose_groups_refuse_is_502_and_not_the_stable_revision(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green")
    rig.route((100, [blue]), preview=[green])
    await green.stop()
    client = await rig.client()

    for _ in range(3):
        assert (await client.get(host=PREVIEW)).status == 502

    assert asked(blue) == 0
    assert rig.failures() == {}


@with_proxy
async def test_a_stable_revision_whose_groups_refuse_does_not_spill_to_the_preview(
    rig: Rig,
) -> None:
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    rig.route((100, [blue]), preview=[green])
    await blue.stop()
    client = await rig.client()

    assert (await client.get()).status == 502
    assert asked(green) == 0


@with_proxy
async def test_a_host_of_an_endpoint_goes_before_a_preview_of_the_same_name(rig: Rig) -> None:
    """In whichever order the tables come; config refuses such a pair."""
    blue, green, other = await rig.app("blue"), await rig.app("green", GREEN), await rig.app("o")
    client = await rig.client()

    rig.route((100, [other]), host=PREVIEW)
    rig.route((100, [blue]), preview=[green])
    rig.route((100, [other]), host=PREVIEW)
    rig.route((100, [blue]), preview=[green])
    assert (await client.get(host=PREVIEW)).body == b"ok"

    gone = rig.book.by_endpoint["preview"].table
    rig.book.apply(gone.but(generation=99, hosts=()))
    assert (await client.get(host=PREVIEW)).body == b"green"


@with_proxy
async def test_a_preview_that_ends_lets_its_requests_and_tunnels_finish(rig: Rig) -> None:
    """And says to the controller that they are under way (promise 1c)."""
    asked_by_now, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_message(reader)
        if "upgrade" in request.fields:
            writer.write(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
            await reader.read(1)
            return
        asked_by_now.set()
        await may_answer.wait()
        writer.write(GREEN)

    blue, green = await rig.app("blue"), await rig.app("green", script=slow)
    rig.route((100, [blue]), preview=[green])
    tunnel, client = await rig.client(), await rig.client()
    assert (await tunnel.ask(WEBSOCKET, has_body=False)).status == 101
    client.send(f"GET / HTTP/1.1\r\nHost: {PREVIEW}\r\n\r\n".encode())
    await asked_by_now.wait()

    rig.route((100, [blue]))

    applied = rig.book.applied("shop")
    assert (applied.http_busy, applied.tunnel_busy) == (("green",), ("green",))
    may_answer.set()
    assert (await client.answer()).body == b"green"
    assert rig.book.applied("shop").http_busy == ()
    assert (await client.get(host=PREVIEW)).status == 404


@with_proxy
async def test_a_request_is_not_served_by_stable_when_its_preview_ends_before_it_is_sent(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first group refuses, and by then there is no preview any more."""
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    rig.route((100, [blue]), preview=[green])
    await green.stop()
    client = await rig.client()
    before_dialling(rig, monkeypatch, lambda: rig.route((100, [blue])))

    assert (await client.get(host=PREVIEW)).status == 502
    assert asked(blue) == 0


@with_proxy
async def test_a_request_goes_on_in_the_newest_preview(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first group refuses, and by then another has taken over."""
    blue, green = await rig.app("blue"), await rig.app("green")
    newer = await rig.app("newer", GREEN)
    rig.route((100, [blue]), preview=[green])
    await green.stop()
    client = await rig.client()
    before_dialling(rig, monkeypatch, lambda: rig.route((100, [blue]), preview=[newer]))

    assert (await client.get(host=PREVIEW)).body == b"green"


@with_proxy
async def test_requests_to_a_preview_are_counted_apart(rig: Rig) -> None:
    """Else a test run against the candidate would look like weights that are wrong."""
    blue = await rig.app("blue")
    green = await rig.app("green", b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
    rig.route((100, [blue]), preview=[green])
    client = await rig.client()

    statuses: list[Message] = [await client.get(host=PREVIEW) for _ in range(5)]
    await client.get()

    counts = rig.book.counts(0.0).endpoints["shop"]
    assert {message.status for message in statuses} == {500}
    assert (counts["r0"].requests, counts["r0"].preview) == (1, 0)
    assert counts["r1"].but(preview=0) == type(counts["r1"])()
    assert counts["r1"].preview == 5
    assert rig.upstream("green").tally.of_preview().in_flight == 0
    assert rig.upstream("green").tally.in_flight == 0


# -- which revision answered ----------------------------------------------------------------------

SIGNED = b"HTTP/1.1 200 OK\r\nDate: x\r\nX-Trafficmgr-Revision: r1\r\nContent-Length: 5\r\n\r\n"
FORGED = (
    b"HTTP/1.1 200 OK\r\nx-trafficmgr-REVISION: r7\r\nServer: x\r\nDate: x\r\nContent-Length: 2\r\n"
    b"X-Trafficmgr-Revision: r8\r\n\r\nok"
)


@with_proxy
async def test_only_answers_of_a_preview_name_their_revision(rig: Rig) -> None:
    blue, green = await rig.app("blue", BLUE), await rig.app("green", GREEN)
    rig.route((50, [blue]), (50, [green]), preview=[green])
    client = await rig.client()

    assert (await client.get(host=PREVIEW)).raw == SIGNED
    assert {(await client.get()).raw for _ in range(20)} == {
        BLUE.removesuffix(b"blue"),
        GREEN.removesuffix(b"green"),
    }


@with_proxy
async def test_a_revision_that_an_application_names_itself_is_dropped(rig: Rig) -> None:
    """Else one could pass its smoke test as another."""
    forging = await rig.app("forging", FORGED)
    rig.route((100, [forging]), preview=[forging])
    client = await rig.client()

    host, preview = (await client.get()).raw, (await client.get(host=PREVIEW)).raw

    assert host == b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: x\r\nContent-Length: 2\r\n\r\n"
    assert preview == (
        b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: x\r\nX-Trafficmgr-Revision: r1\r\n"
        b"Content-Length: 2\r\n\r\n"
    )


@with_proxy
async def test_a_revision_that_is_named_before_or_at_a_switch_is_dropped_too(rig: Rig) -> None:
    forged = b"X-Trafficmgr-Revision: r7\r\n"
    script = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n" + forged + b"\r\n"
    switch = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\n" + forged + b"Upgrade: x\r\n\r\n"
    forging = await rig.app("forging", script + switch)
    rig.route((100, [forging]), preview=[forging])
    preview, host = await rig.client(), await rig.client()

    preview.send(WEBSOCKET)
    host.send(WEBSOCKET.replace(b"preview.", b""))
    hints, switched = [await preview.answer(has_body=False) for _ in range(2)]
    plain = [await host.answer(has_body=False) for _ in range(2)]

    assert [hints.fields, plain[0].fields] == [{"link": "</a>"}] * 2
    assert switched.fields["x-trafficmgr-revision"] == "r1"
    assert plain[1].fields == {"upgrade": "x", "connection": "upgrade"}


@with_proxy
async def test_an_answer_that_the_proxy_makes_is_of_no_revision(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green")
    rig.route((100, [blue]), preview=[green])
    await green.stop()

    answer = await (await rig.client()).get(host=PREVIEW)

    assert answer.status == 502
    assert "x-trafficmgr-revision" not in answer.fields


@with_proxy
async def test_an_answer_names_the_revision_that_it_is_of_whatever_the_preview_is_by_then(
    rig: Rig,
) -> None:
    """A rehearsal switches it forth and back."""
    asked_by_now, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        asked_by_now.set()
        await may_answer.wait()
        writer.write(GREEN)

    blue, green = await rig.app("blue"), await rig.app("green", script=slow)
    rig.route((100, [blue]), preview=[green])
    early, late = await rig.client(), await rig.client()
    early.send(f"GET / HTTP/1.1\r\nHost: {PREVIEW}\r\n\r\n".encode())
    await asked_by_now.wait()

    table = rig.book.by_endpoint["shop"].table
    rig.book.apply(table.but(generation=9, preview=table.shares[0]))
    after = await late.get(host=PREVIEW)
    may_answer.set()

    assert (await early.answer()).fields["x-trafficmgr-revision"] == "r1"
    assert after.fields["x-trafficmgr-revision"] == "r0"


# -- what is under way ----------------------------------------------------------------------------


@with_proxy
async def test_a_group_that_leaves_only_the_preview_is_not_withdrawn(rig: Rig) -> None:
    """It has weight now; its idle connections stay, and its clients count as everybody's do."""
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    client = await rig.client()
    rig.route((100, [blue]), preview=[green])
    await client.get(host=PREVIEW)

    rig.route((0, [blue]), (100, [green]))
    await client.get()

    assert not rig.upstream("green").is_withdrawn
    assert green.connections == 1
    counts = rig.book.counts(0.0).endpoints["shop"]["r1"]
    assert (counts.requests, counts.preview) == (1, 1)
    rig.route((100, [blue]))
    assert rig.upstream("green").is_withdrawn
    await until(lambda: not rig.upstream("green").pool)


# -- DNS ------------------------------------------------------------------------------------------


def test_a_preview_is_answered_with_the_candidates_addresses_and_the_tables_ttl() -> None:
    ask = asker(answers(book(previewed())))

    replies = [texts(ask("preview.shop.apps.test")) for _ in range(10)]
    stable = {addresses(ask("shop.apps.test"))[0] for _ in range(10)}

    assert Counter(map(tuple, replies)) == {
        (f"preview.shop.apps.test. 7 IN A {address}",): 5
        for address in ("127.77.0.2", "127.77.0.3")
    }
    assert stable == {"127.77.0.1"}


def test_a_proxied_preview_is_answered_with_the_proxys_address() -> None:
    ask = asker(answers(book(previewed(publish=Publish.proxy))))

    assert texts(ask("preview.shop.apps.test")) == ["preview.shop.apps.test. 7 IN A 192.0.2.10"]


def test_a_preview_that_comes_and_goes_is_a_name_that_comes_and_goes() -> None:
    served = book(table(shares=STABLE))
    ask, codes = asker(answers(served)), []

    codes.append(ask("preview.shop.apps.test").rcode().name)
    served.apply(previewed(2))
    codes.append(ask("preview.shop.apps.test").rcode().name)
    codes.append(ask("preview.shop.apps.test", "TXT").rcode().name)
    served.apply(table(generation=3, shares=STABLE))
    codes.append(ask("preview.shop.apps.test").rcode().name)

    assert codes == ["NXDOMAIN", "NOERROR", "NOERROR", "NXDOMAIN"]


def test_a_preview_outside_our_zones_is_refused_like_its_host() -> None:
    served = book(
        Table(
            endpoint="shop",
            generation=1,
            hosts=("shop.elsewhere.test",),
            publish=Publish.proxy,
            ttl_s=1,
            shares=STABLE,
            preview=CANDIDATE,
        ),
        served=zones(),
    )
    ask = asker(answers(served))

    assert ask("preview.shop.elsewhere.test").rcode().name == "REFUSED"


def test_an_answer_of_a_preview_is_remembered_for_the_groups_retirement() -> None:
    """The TTL is waited for after a preview as after any other answer (promise 1b)."""
    served, clock = book(previewed()), Clock(1000.0)
    ask = asker(answers(served, clock=clock))
    ask("preview.shop.apps.test")
    clock.now = 1004.0
    ask("preview.shop.apps.test")

    served.apply(table(generation=2, shares=STABLE))

    answered = served.applied("shop").answered
    assert sorted(answered.values()) == [1000.0, 1004.0]
    assert set(answered) == {"group-127.77.0.2", "group-127.77.0.3"}


def test_answers_of_a_preview_are_counted_apart() -> None:
    served = book(previewed())
    ask = asker(answers(served))

    for _ in range(4):
        ask("preview.shop.apps.test")
    ask("shop.apps.test")

    counts = served.counts(0.0).endpoints["shop"]
    assert (counts["green"].dns, counts["green"].preview) == (0, 4)
    assert (counts["blue"].dns, counts["blue"].preview) == (1, 0)


def test_a_host_goes_before_a_preview_of_the_same_name_in_dns_too() -> None:
    other = table("preview.shop.apps.test", endpoint="other", shares=STABLE)
    served: Book = book(previewed(), other)
    ask = asker(answers(served))

    assert addresses(ask("preview.shop.apps.test")) == ["127.77.0.1"]
    served.apply(other.but(generation=2, hosts=()))
    assert addresses(ask("preview.shop.apps.test"))[0] in {"127.77.0.2", "127.77.0.3"}
