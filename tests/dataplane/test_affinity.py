"""With affinity a client stays with its revision: it crosses to the candidate once (promise 10).

Clients are told apart by their address; all of 127/8 is ours to connect from.
"""

import asyncio
from collections.abc import Callable

import pytest
from support.proxy_support import OK, App, Client, Rig, Script, read_message, with_proxy

from trafficmgr.core.model import Affinity, Publish, Tcp
from trafficmgr.core.routing import Share, Table, Target, bucket_of, client_of, point_of
from trafficmgr.dataplane import client as client_module
from trafficmgr.dataplane.book import TOLD_APART, Book
from trafficmgr.dataplane.routes import Upstream
from trafficmgr.dataplane.upstream import Caller
from trafficmgr.wire import frames
from trafficmgr.wire.frames import ShareCounts

SALT = "shop-r2"
OTHER_SALT = "shop-r3"
GREEN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ngreen"
BROKEN = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
ADDRESSES = [f"127.{a}.{b}.9" for a in range(1, 6) for b in range(8)]


def bucket(address: str, salt: str = SALT) -> int:
    return bucket_of(client_of(address), salt)


def is_early(address: str, weight_pct: int, salt: str = SALT) -> bool:
    """Whether a client is on the candidate at this weight."""
    return point_of(bucket(address, salt)) * 100 < weight_pct


def stick(rig: Rig, salt: str = SALT) -> None:
    """Publish the newest table once more, with affinity."""
    rig.generation += 1
    table = rig.book.by_endpoint["shop"].table
    rig.book.apply(table.but(generation=rig.generation, affinity=Affinity.client, salt=salt))


async def client_at(rig: Rig, address: str) -> Client:
    """Return a connection to the proxy from this address."""
    streams = await asyncio.open_connection("127.0.0.1", rig.port, local_addr=(address, 0))
    client = Client(*streams)
    rig.clients.append(client)
    return client


async def served_by(client: Client) -> bytes:
    return (await client.get()).body


def told(rig: Rig) -> dict[str, ShareCounts]:
    return rig.book.counts(0.0).endpoints["shop"]


# -- where clients go -----------------------------------------------------------------------------


@with_proxy
async def test_each_client_crosses_once_as_the_weight_rises(rig: Rig) -> None:
    """On a connection that lives on as on new ones, and back in the order in which they came."""
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    lasting = {address: await client_at(rig, address) for address in ADDRESSES}

    for weight in (0, 5, 25, 50, 75, 100, 30):
        rig.route((weight, [green]), (100 - weight, [blue]))
        stick(rig)
        for address, client in lasting.items():
            expected = b"green" if is_early(address, weight) else b"ok"
            assert {await served_by(client) for _ in range(2)} == {expected}
            assert await served_by(await client_at(rig, address)) == expected

    assert 0 < sum(is_early(address, 50) for address in ADDRESSES) < len(ADDRESSES)


@with_proxy
async def test_a_bucket_is_worked_out_once_per_connection_and_salt(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(client: bytes, salt: str) -> int:
        asked.append(salt)
        return bucket_of(client, salt)

    monkeypatch.setattr(client_module, "bucket_of", counted)
    client = await rig.client()
    rig.route((100, [await rig.app("blue")]))
    await client.get()
    assert asked == []

    for salt in (SALT, SALT, OTHER_SALT):
        stick(rig, salt)
        for _ in range(3):
            await client.get()

    assert asked == [SALT, OTHER_SALT]


@with_proxy
async def test_a_client_whose_revision_refuses_is_served_by_the_other(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    rig.route((50, [green]), (50, [blue]))
    stick(rig)
    early = next(address for address in ADDRESSES if is_early(address, 50))
    client = await client_at(rig, early)
    assert await served_by(client) == b"green"

    await green.stop()

    assert await served_by(client) == b"ok"


def before_dialling(rig: Rig, monkeypatch: pytest.MonkeyPatch, swap: Callable[[], None]) -> None:
    """Swap tables just before the next connection is tried."""
    swaps, dial = [swap], rig.server.pools.dial

    def dial_after_the_swap(upstream: Upstream, caller: Caller) -> None:
        while swaps:
            swaps.pop()()
        dial(upstream, caller)

    monkeypatch.setattr(rig.server.pools, "dial", dial_after_the_swap)


@with_proxy
async def test_a_request_that_goes_on_in_another_table_has_the_bucket_of_that_one(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would show a client the candidate of a rollout that has it wait for its turn."""
    address = next(a for a in ADDRESSES if is_early(a, 50) and not is_early(a, 50, OTHER_SALT))
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    refusing = await rig.app("refusing")
    rig.route((50, [refusing]), (50, [blue]))
    stick(rig)
    await refusing.stop()

    def swap() -> None:
        rig.route((50, [green]), (50, [blue]))
        stick(rig, OTHER_SALT)

    before_dialling(rig, monkeypatch, swap)

    assert await served_by(await client_at(rig, address)) == b"ok"


@with_proxy
async def test_a_preview_goes_by_no_bucket(rig: Rig) -> None:
    blue, green = await rig.app("blue"), await rig.app("green", GREEN)
    rig.route((100, [blue]), preview=[green])
    stick(rig)

    for address in ADDRESSES[:10]:
        client = await client_at(rig, address)
        assert (await client.get(host="preview.shop.test")).body == b"green"

    assert told(rig)["r1"] == ShareCounts(preview=10)


# -- what is counted ------------------------------------------------------------------------------


def by_path(answers: dict[str, bytes]) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            message = await read_message(reader)
            writer.write(answers[message.start.split(" ")[1]])

    return script


@with_proxy
async def test_finished_and_failed_requests_are_counted_by_bucket(rig: Rig) -> None:
    app = await rig.app("shop-1", script=by_path({"/": OK, "/broken": BROKEN}))
    rig.route((100, [app]))
    stick(rig)

    for address, paths in {
        "127.1.0.9": ["/", "/"],
        "127.1.1.9": ["/", "/broken", "/broken"],
    }.items():
        for path in paths:
            await (await client_at(rig, address)).get(path)

    share = told(rig)["r0"]
    assert share.clients == {bucket("127.1.0.9"): 2, bucket("127.1.1.9"): 3}
    assert share.failing == {bucket("127.1.1.9"): 2}
    assert (share.requests, share.errors_5xx) == (5, 2)


@with_proxy
async def test_a_client_that_another_revision_serves_is_counted_there(rig: Rig) -> None:
    green, gone = await rig.app("green"), App("gone")
    gone.port = (await rig.app("gone")).port
    await rig.apps[-1].stop()
    rig.route((99, [gone]), (1, [green]))
    stick(rig)
    address = next(a for a in ADDRESSES if is_early(a, 99))

    await (await client_at(rig, address)).get()

    assert (told(rig)["r0"].clients, told(rig)["r0"].moved) == ({}, 1)
    assert told(rig)["r1"].clients == {bucket(address): 1}
    assert told(rig)["r1"].failing == {}


@with_proxy
async def test_without_affinity_nobody_is_told_apart(rig: Rig) -> None:
    app = await rig.app("shop-1", BROKEN)
    rig.route((100, [app]))
    client = await rig.client()

    await client.get()
    before = told(rig)["r0"]
    stick(rig)
    await client.get()
    during = told(rig)["r0"]
    rig.route((100, [app]))
    await client.get()
    after = told(rig)["r0"]

    assert [one.clients for one in (before, during, after)] == [{}, {bucket("127.0.0.1"): 1}, {}]
    assert (after.requests, after.failing) == (3, {})


def sticky(generation: int, *revisions: str) -> Table:
    """Return a table with affinity that splits evenly between two revisions, or has only one."""
    return Table(
        endpoint="shop",
        generation=generation,
        hosts=("shop.test",),
        publish=Publish.proxy,
        ttl_s=1,
        affinity=Affinity.client,
        salt=SALT,
        shares=tuple(
            Share(
                revision=revision,
                weight_pct=100 // len(revisions),
                targets=(
                    Target(group=revision, dial=Tcp(address=f"127.77.0.{revision[1:]}", port=80)),
                ),
            )
            for revision in revisions
        ),
    )


def test_clients_are_told_apart_for_the_newest_revisions_only() -> None:
    """A worker that lives for thousands of rollouts reports on a few of them in full."""
    book = Book("0-a")
    for number in range(1, 20):
        book.apply(sticky(2 * number, f"v{number + 1}", f"v{number}"))
        for lane in book.by_host["shop.test"].lanes:
            lane.tally.requests += 1
            lane.tally.finish_for(7, is_failed=True)
        book.apply(sticky(2 * number + 1, f"v{number + 1}"))

    shares = book.counts(0.0).endpoints["shop"]

    assert len(shares) == 21  # and one for those that found no target
    assert [name for name, share in shares.items() if share.clients] == [
        f"v{number}" for number in range(20, 20 - TOLD_APART, -1)
    ][::-1]
    assert shares["v19"].clients == shares["v19"].failing == {7: 2}


def test_a_rollout_never_loses_the_buckets_that_it_compares() -> None:
    """Whatever comes and goes meanwhile: stable may be away for a while and come back."""
    book = Book("0-a")
    book.apply(sticky(1, "v2", "v1"))
    for lane in book.by_host["shop.test"].lanes:
        lane.tally.finish_for(7, is_failed=False)

    for generation in range(2, 40):
        book.apply(sticky(generation, "v2") if generation % 2 else sticky(generation, "v2", "v1"))

    shares = book.counts(0.0).endpoints["shop"]
    assert shares["v1"].clients == shares["v2"].clients == {7: 1}


def test_buckets_go_over_the_link_and_cost_nothing_without_affinity() -> None:
    full = dict.fromkeys(range(1000), 3)
    counts = frames.Counts(
        start_id="0-a", at=1.0, endpoints={"shop": {"v1": ShareCounts(clients=full, failing=full)}}
    )
    plain = frames.Counts(start_id="0-a", at=1.0, endpoints={"shop": {"v1": ShareCounts()}})

    assert frames.Decoder().feed(frames.encode(counts)) == [counts]
    assert len(frames.encode(counts)) < 8 * 1024
    assert b"clients" not in frames.encode(plain)
    assert b"failing" not in frames.encode(plain)
