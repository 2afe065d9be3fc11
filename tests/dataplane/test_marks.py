"""Pins, and affinity by cookie and header: what a request carries decides where it goes."""

import asyncio
from collections import Counter
from itertools import count

import pytest
from support.proxy_support import OK, Client, Message, Rig, read_message, with_proxy

from trafficmgr.core.model import Affinity
from trafficmgr.core.routing import BUCKETS, bucket_of, point_of
from trafficmgr.core.traffic import Pin, PinTo
from trafficmgr.wire.frames import ShareCounts

SALT = "shop-r2"
GREEN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ngreen"
BROKEN = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
BY_HEADER = Pin(to=PinTo.candidate, header="X-Try", value="new")
BY_COOKIE = Pin(to=PinTo.candidate, cookie="try", value="new")
TO_STABLE = Pin(to=PinTo.stable, header="X-Stay")


def settle(rig: Rig, *pins: Pin, by: Affinity = Affinity.none, name: str = "") -> None:
    """Publish the newest table once more, with pins or an affinity."""
    rig.generation += 1
    table = rig.book.by_endpoint["shop"].table
    http = table.http.but(pins=pins, affinity_name=name)
    rig.book.apply(table.but(generation=rig.generation, http=http, affinity=by, salt=SALT))


async def ask(client: Client, *lines: str) -> Message:
    fields = "".join(f"{line}\r\n" for line in lines)
    return await client.ask(f"GET / HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n".encode())


async def bodies(client: Client, times: int, *lines: str) -> Counter[bytes]:
    return Counter([(await ask(client, *lines)).body for _ in range(times)])


def told(rig: Rig) -> dict[str, ShareCounts]:
    return rig.book.counts(0.0).endpoints["shop"]


# -- pins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pin", "lines", "is_pinned"),
    [
        (BY_HEADER, ["X-Try: new"], True),
        (BY_HEADER, ["x-try:  new "], True),
        (BY_HEADER, ["X-Try: newer"], False),
        (BY_HEADER, ["X-Try: "], False),
        (BY_HEADER, ["X-Tryst: new"], False),
        (BY_HEADER, ["Cookie: X-Try=new"], False),
        (BY_HEADER.but(value=""), ["X-Try: whatever"], True),
        (BY_HEADER.but(value=""), ["X-Try:"], False),
        (BY_HEADER.but(value=""), [], False),
        (BY_COOKIE, ["Cookie: try=new"], True),
        (BY_COOKIE, ["Cookie: a=b; try=new; c=d"], True),
        (BY_COOKIE, ["Cookie: a=b", "Cookie: try=new"], True),
        (BY_COOKIE, ["Cookie: retry=new"], False),
        (BY_COOKIE, ["Cookie: Try=new"], False),
        (BY_COOKIE, ["Cookie: try=old"], False),
        (BY_COOKIE, ["try: new"], False),
        (BY_COOKIE.but(value=""), ["Cookie: try=x"], True),
        (BY_COOKIE.but(value=""), ["Cookie: try="], False),
    ],
)
@with_proxy
async def test_a_pin_fits_what_it_names_exactly(
    rig: Rig, pin: Pin, lines: list[str], is_pinned: bool
) -> None:
    """The candidate has no weight: nobody else gets there."""
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    rig.route((100, [blue]), preview=[green])
    settle(rig, pin)
    client = await rig.client()

    assert await bodies(client, 5, *lines) == {b"green" if is_pinned else b"ok": 5}
    assert await bodies(client, 5) == {b"ok": 5}


@with_proxy
async def test_the_first_pin_that_fits_wins(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    rig.route((50, [green]), (50, [blue]))
    settle(rig, TO_STABLE, BY_HEADER)
    client = await rig.client()

    assert await bodies(client, 10, "X-Try: new", "X-Stay: 1") == {b"ok": 10}
    settle(rig, BY_HEADER, TO_STABLE)
    assert await bodies(client, 10, "X-Try: new", "X-Stay: 1") == {b"green": 10}


@with_proxy
async def test_pins_go_before_weights_and_affinity(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    rig.route((50, [green]), (50, [blue]))
    client = await rig.client()

    for by, name in ((Affinity.none, ""), (Affinity.client, ""), (Affinity.cookie, "id")):
        settle(rig, BY_HEADER, TO_STABLE, by=by, name=name)
        assert await bodies(client, 10, "X-Try: new") == {b"green": 10}
        assert await bodies(client, 10, "X-Stay: 1") == {b"ok": 10}


@with_proxy
async def test_without_a_candidate_stable_serves_those_that_are_pinned_to_it(rig: Rig) -> None:
    """Before a rollout, after it, and while its preview shows stable again."""
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    client = await rig.client()

    rig.route((100, [blue]))
    settle(rig, BY_HEADER)
    assert await bodies(client, 5, "X-Try: new") == {b"ok": 5}
    rig.route((100, [green]), preview=[])
    settle(rig, BY_HEADER)
    assert await bodies(client, 5, "X-Try: new") == {b"green": 5}
    table = rig.book.by_endpoint["shop"].table
    rig.book.apply(table.but(generation=99, preview=table.shares[0]))
    assert await bodies(client, 5, "X-Try: new") == {b"green": 5}
    assert told(rig)["r0"].requests == 15


@with_proxy
async def test_a_candidate_that_refuses_leaves_its_pinned_clients_to_stable(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    rig.route((100, [blue]), preview=[green])
    settle(rig, BY_HEADER)
    await green.stop()

    assert await bodies(await rig.client(), 5, "X-Try: new") == {b"ok": 5}


@with_proxy
async def test_who_is_pinned_to_the_candidate_is_counted_apart(rig: Rig) -> None:
    """They chose it, so that they say nothing of how weights work out; as a preview's clients."""
    blue, green = await rig.app("blue"), await rig.app("green", BROKEN)
    client = await rig.client()
    rig.route((100, [blue]), preview=[green])
    settle(rig, BY_HEADER, TO_STABLE)
    for _ in range(4):
        await ask(client, "X-Try: new")
    assert told(rig)["r1"] == ShareCounts(preview=4)


@with_proxy
async def test_so_they_are_when_the_candidate_has_weight(rig: Rig) -> None:
    """Who is pinned to stable is one client of stable's more."""
    blue, green = await rig.app("blue"), await rig.app("green", BROKEN)
    rig.route((50, [green]), (50, [blue]))
    settle(rig, BY_HEADER, TO_STABLE)
    client = await rig.client()

    for _ in range(3):
        await ask(client, "X-Try: new")
    await ask(client, "X-Stay: 1")

    assert told(rig)["r0"] == ShareCounts(preview=3)
    assert told(rig)["r1"].requests == 1
    assert rig.is_settled()


# -- affinity by cookie ---------------------------------------------------------------------------


def is_early(value: str, weight_pct: int) -> bool:
    """Whether a client of this name is on the candidate at this weight."""
    return point_of(bucket_of(value.encode(), SALT)) * 100 < weight_pct


@pytest.mark.parametrize(
    ("by", "line"), [(Affinity.cookie, "Cookie: a=b; Id={}"), (Affinity.header, "id: {}")]
)
@with_proxy
async def test_each_value_crosses_once_as_the_weight_rises(
    rig: Rig, by: Affinity, line: str
) -> None:
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    client = await rig.client()
    values = [f"client-{number}" for number in range(30)]

    for weight in (0, 5, 25, 50, 75, 100, 30):
        rig.route((weight, [green]), (100 - weight, [blue]))
        settle(rig, by=by, name="Id")
        for value in values:
            expected = b"green" if is_early(value, weight) else b"ok"
            answer = await ask(client, line.format(value))
            assert answer.body == expected
            assert "set-cookie" not in answer.fields

    assert 0 < sum(is_early(value, 50) for value in values) < len(values)


@with_proxy
async def test_a_client_without_the_cookie_gets_one_that_counts_at_once(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    rig.route((50, [green]), (50, [blue]))
    settle(rig, by=Affinity.cookie, name="id")

    seen, values = set[bytes](), set[str]()
    for _ in range(12):
        client = await rig.client()
        first = await ask(client, "Cookie: other=1")
        cookie, *attributes = first.fields["set-cookie"].split("; ")
        assert attributes == ["Path=/", "HttpOnly", "SameSite=Lax"]
        assert await bodies(client, 3, f"Cookie: {cookie}") == {first.body: 3}
        seen.add(first.body)
        values.add(cookie)

    assert seen == {b"ok", b"green"}
    assert len(values) == 12
    assert all(value.startswith("id=") and len(value) == 35 for value in values)


@with_proxy
async def test_a_cookie_that_names_nothing_has_a_name_all_the_same(rig: Rig) -> None:
    rig.route((100, [await rig.app("blue")]))
    settle(rig, by=Affinity.cookie)

    answer = await ask(await rig.client())

    assert answer.fields["set-cookie"].startswith("trafficmgr=")


@pytest.mark.parametrize(
    ("field", "is_ours"),
    [
        (b"Set-Cookie: id=theirs; Path=/\r\n", False),
        (b"set-cookie:id=theirs\r\n", False),
        (b"Set-Cookie: other=1\r\nSet-Cookie: id=theirs\r\n", False),
        (b"Set-Cookie: grid=1\r\n", True),
        (b"X-Set-Cookie: id=theirs\r\n", True),
    ],
)
@with_proxy
async def test_a_cookie_that_the_application_sets_is_not_overwritten(
    rig: Rig, field: bytes, is_ours: bool
) -> None:
    """It may be a session; the client is then told apart by that."""
    answer = b"HTTP/1.1 200 OK\r\n" + field + b"Content-Length: 2\r\n\r\nok"
    rig.route((100, [await rig.app("blue", answer)]))
    settle(rig, by=Affinity.cookie, name="id")

    raw = (await ask(await rig.client())).raw

    assert (b"HttpOnly; SameSite=Lax\r\n\r\n" in raw) is is_ours
    assert field in raw


@with_proxy
async def test_a_cookie_goes_with_a_switch_of_protocols_too(rig: Rig) -> None:
    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        await reader.read(-1)

    rig.route((100, [await rig.app("blue", script=switch)]))
    settle(rig, by=Affinity.cookie, name="id")
    client = await rig.client()
    client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")

    answer = await client.answer(has_body=False)

    assert (answer.status, answer.fields["upgrade"]) == (101, "x")
    assert answer.fields["set-cookie"].startswith("id=")


@with_proxy
async def test_a_request_that_goes_to_a_second_group_has_the_same_new_cookie(rig: Rig) -> None:
    refusing, app = await rig.app("refusing"), await rig.app("shop-2")
    rig.route((100, [refusing, app]))
    settle(rig, by=Affinity.cookie, name="id")
    await refusing.stop()
    client = await rig.client()

    answers = [await ask(client) for _ in range(2)]  # one of the two meets the one that refuses

    assert all(answer.raw.count(b"Set-Cookie") == 1 for answer in answers)
    buckets = {
        bucket_of(answer.fields["set-cookie"].partition("=")[2][:32].encode(), SALT): 1
        for answer in answers
    }
    assert told(rig)["r0"].clients == buckets


# -- affinity by header ---------------------------------------------------------------------------


@with_proxy
async def test_without_the_header_requests_take_turns_and_get_no_cookie(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    rig.route((30, [green]), (70, [blue]))
    settle(rig, by=Affinity.header, name="X-User")
    client = await rig.client()

    answers = [await ask(client) for _ in range(100)]

    assert abs(sum(answer.body == b"green" for answer in answers) - 30) <= 5
    assert not any("set-cookie" in answer.fields for answer in answers)


@with_proxy
async def test_finished_and_failed_requests_are_counted_by_bucket_also_without_the_header(
    rig: Rig,
) -> None:
    """Else a candidate that fails only those without it would look as good as stable."""
    blue, green = await rig.app("blue"), await rig.app("green", BROKEN)
    rig.route((50, [green]), (50, [blue]))
    settle(rig, by=Affinity.header, name="X-User")
    client = await rig.client()
    late = next(name for number in count() if not is_early(name := f"u{number}", 50))

    for _ in range(3):
        await ask(client, f"X-User: {late}")
    for _ in range(20):
        await ask(client)

    stable, candidate = told(rig)["r1"], told(rig)["r0"]
    assert stable.clients[bucket_of(late.encode(), SALT)] >= 3
    assert sum(stable.clients.values()) == stable.requests
    assert sum(candidate.clients.values()) == candidate.requests > 0
    assert candidate.failing == candidate.clients
    assert all(bucket < BUCKETS // 2 for bucket in candidate.clients)


# -- nothing asked for ----------------------------------------------------------------------------


@with_proxy
async def test_without_pins_and_affinity_nothing_is_looked_for(rig: Rig) -> None:
    rig.route((100, [await rig.app("blue", OK)]))

    answer = await ask(await rig.client(), "X-Try: new", "Cookie: id=1")

    assert rig.book.by_host["shop.test"].marks is None
    assert "set-cookie" not in answer.fields
