"""The worker's end of the control link, against a controller that comes, goes and misbehaves."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from trafficmgr.core.model import Publish, Tcp
from trafficmgr.core.routing import Share, Table, Target, Zones
from trafficmgr.dataplane import link as link_module
from trafficmgr.dataplane.book import Book
from trafficmgr.dataplane.link import Link
from trafficmgr.wire import frames

DEADLINE_S = 20.0


def table(generation: int, *groups: str) -> Table:
    targets = tuple(Target(group=g, dial=Tcp(address="127.0.0.1", port=1)) for g in groups)
    return Table(
        endpoint="shop",
        generation=generation,
        hosts=("shop.test",),
        publish=Publish.proxy,
        ttl_s=1,
        shares=(Share(revision="r", weight_pct=100, targets=targets),),
    )


class Controller:
    """The other end: hands out frames in the order in which they came."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decoder = frames.Decoder()
        self._frames: asyncio.Queue[frames.Frame] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def start(self) -> None:
        folder = os.open(self._path.parent, os.O_PATH)
        try:
            self._server = await asyncio.start_unix_server(
                self._accepted, f"/proc/self/fd/{folder}/{self._path.name}"
            )
        finally:
            os.close(folder)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        if self._writer is not None:
            self._writer.transport.abort()
        await self._server.wait_closed()
        self._path.unlink(missing_ok=True)

    def send(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    async def next(self) -> frames.Frame:
        """Return the next frame; counts go along with most things and are passed over."""
        while isinstance(frame := await self.next_of_all(), frames.Counts):
            pass
        return frame

    async def next_of_all(self) -> frames.Frame:
        async with asyncio.timeout(DEADLINE_S):
            return await self._frames.get()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._decoder = frames.Decoder()
        self._writer = writer
        while data := await reader.read(65536):
            for frame in self._decoder.feed(data):
                self._frames.put_nowait(frame)
        writer.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
async def controller(path: Path) -> AsyncIterator[Controller]:
    controller = Controller(path)
    await controller.start()
    yield controller
    await controller.stop()


@pytest.fixture
def book() -> Book:
    book = Book("start-1")
    book.apply(table(3, "shop-1"))
    return book


@pytest.fixture
async def link(book: Book, path: Path) -> AsyncIterator[Link]:
    link = Link(book, path=path, slot=1)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(link.run())
        yield link
        task.cancel()


HELLO = frames.Hello(
    protocol=frames.PROTOCOL, slot=1, start_id="start-1", pid=os.getpid(), generations={"shop": 3}
)


async def test_a_worker_says_who_it_is_and_what_it_serves(
    controller: Controller, link: Link
) -> None:
    assert await controller.next() == HELLO
    assert await controller.next() == frames.Applied(endpoint="shop", generation=3)
    assert link.is_up


async def test_a_table_is_applied_and_acknowledged_at_once(
    controller: Controller, link: Link, book: Book
) -> None:
    await controller.next()
    await controller.next()
    book._upstreams["shop"]["shop-1"].requests = 1
    book._upstreams["shop"]["shop-1"].answered_at = 7.5

    controller.send(frames.encode(frames.TableSent(table=table(4, "shop-2"))))

    assert await controller.next() == frames.Applied(
        endpoint="shop", generation=4, answered={"shop-1": 7.5}, http_busy=("shop-1",)
    )
    assert link.is_awaited
    assert book.generations() == {"shop": 4}


async def test_an_old_table_is_acknowledged_with_what_is_served(
    controller: Controller, link: Link, book: Book
) -> None:
    await controller.next()
    await controller.next()

    controller.send(frames.encode(frames.TableSent(table=table(2, "shop-0"))))

    assert await controller.next() == frames.Applied(endpoint="shop", generation=3)
    assert book.by_endpoint["shop"].table.groups() == {"shop-1"}
    assert link.is_up


async def test_counts_go_out_with_a_hello_and_with_each_new_table_before_it_is_acknowledged(
    controller: Controller, link: Link, book: Book
) -> None:
    """So that the controller can tell what was served under which weights."""
    await controller.next()
    greeting = await controller.next_of_all()
    await controller.next()
    book.by_endpoint["shop"].lanes[0].tally.requests = 5

    controller.send(frames.encode(frames.TableSent(table=table(4, "shop-2"))))

    counts = await controller.next_of_all()
    assert isinstance(greeting, frames.Counts)
    assert isinstance(counts, frames.Counts)
    assert counts.endpoints["shop"]["r"].requests == 5
    assert isinstance(await controller.next_of_all(), frames.Applied)
    assert link.is_up


async def test_counts_of_endpoints_that_rest_are_said_once_to_each_controller(
    controller: Controller, link: Link, book: Book
) -> None:
    await controller.next()
    first = await controller.next_of_all()
    await controller.next()

    await link.report_gently()
    resting = await controller.next_of_all()
    book.by_endpoint["shop"].lanes[0].tally.requests = 5
    await link.report_gently()
    busy = await controller.next_of_all()
    controller.send(b"garbage that ends the connection")
    await controller.next()
    again = await controller.next_of_all()

    told = [c.endpoints for c in (first, resting, busy, again) if isinstance(c, frames.Counts)]
    assert [set(endpoints) for endpoints in told] == [{"shop"}, set(), {"shop"}, {"shop"}]
    assert told[3] == told[2]


async def test_zones_are_applied(controller: Controller, link: Link, book: Book) -> None:
    await controller.next()
    seen = asyncio.Event()
    book.on_zones.append(lambda _: seen.set())

    controller.send(
        frames.encode(frames.ZonesSent(zones=Zones(generation=2, zones=(), advertise=("::1",))))
    )

    async with asyncio.timeout(DEADLINE_S):
        await seen.wait()
    assert book.zones.advertise == ("::1",)
    assert link.is_up


async def test_news_is_said_once(controller: Controller, link: Link, book: Book) -> None:
    await controller.next()
    await controller.next()
    upstream = book._upstreams["shop"]["shop-1"]
    upstream.requests = 1
    controller.send(frames.encode(frames.TableSent(table=table(4, "shop-2"))))
    await controller.next()

    link.acknowledge()
    upstream.requests = 0
    link.acknowledge()
    link.acknowledge()
    link.report()

    assert await controller.next() == frames.Applied(endpoint="shop", generation=4)
    assert isinstance(await controller.next_of_all(), frames.Counts)
    assert not link.is_awaited


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x01\xc1",
        frames.encode(frames.Bye(start_id="x")),
    ],
)
async def test_after_garbage_or_an_end_the_worker_comes_back(
    controller: Controller, link: Link, garbage: bytes
) -> None:
    await controller.next()
    await controller.next()

    controller.send(garbage)

    assert await controller.next() == HELLO
    assert link.is_up


async def test_a_table_that_breaks_the_rules_is_not_served(
    controller: Controller, link: Link, book: Book
) -> None:
    await controller.next()
    await controller.next()
    broken = table(9, "shop-2").but(shares=(Share(revision="r", weight_pct=7, targets=()),))

    controller.send(frames.encode(frames.TableSent(table=broken)))

    assert await controller.next() == frames.Applied(endpoint="shop", generation=3)
    assert book.generations() == {"shop": 3}
    assert link.is_up


async def test_a_controller_may_come_late_and_come_again(
    path: Path, link: Link, controller: Controller
) -> None:
    await controller.next()
    await controller.stop()
    assert isinstance(await controller.next(), frames.Applied)

    await controller.start()

    assert await controller.next() == HELLO
    assert await controller.next() == frames.Applied(endpoint="shop", generation=3)
    assert path.exists()
    assert link.is_up


async def test_a_controller_that_does_not_read_costs_no_memory(
    controller: Controller, link: Link
) -> None:
    await controller.next()
    writer = link._writer
    assert writer is not None
    writer.write(bytes(2 * 1024 * 1024))  # as if it had piled up

    before = writer.transport.get_write_buffer_size()
    link.report()

    assert writer.transport.get_write_buffer_size() == before


async def test_what_could_not_be_said_is_said_as_soon_as_the_controller_reads(
    controller: Controller, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An acknowledgement that got lost would have the worker restarted."""
    await controller.next()
    await controller.next()
    monkeypatch.setattr(link_module, "UNREAD_LIMIT_BYTES", -1)  # as if much had piled up
    link._take(table(4, "shop-1"))
    monkeypatch.undo()

    link.acknowledge()

    assert await controller.next() == frames.Applied(endpoint="shop", generation=4)


async def test_bye_is_the_last_frame_and_nobody_comes_back(
    controller: Controller, link: Link, book: Book
) -> None:
    await controller.next()
    await controller.next()
    book._upstreams["shop"]["shop-1"].answered_at = 9.5

    await link.bye(DEADLINE_S)
    link.report()

    assert isinstance(await controller.next_of_all(), frames.Counts)
    assert await controller.next() == frames.Bye(
        start_id="start-1", answered={"shop": {"shop-1": 9.5}}
    )
    assert not link.is_up


async def test_a_path_may_be_longer_than_a_socket_address(tmp_path: Path, book: Book) -> None:
    folder = tmp_path / ("a" * 100)
    folder.mkdir()
    controller = Controller(folder / "control.sock")
    await controller.start()
    link = Link(book, path=folder / "control.sock", slot=1)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(link.run())
        assert await controller.next() == HELLO
        task.cancel()
    await controller.stop()
