"""The controller's end of the link: files before frames, everything at a hello, counts summed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from support.controller_support import DEADLINE_S, NAME, Clock, eventually

from trafficmgr.controller.files import MAX_SOCKET_PATH_BYTES, short_socket_path
from trafficmgr.controller.link import Link
from trafficmgr.core import routing
from trafficmgr.core.dns_policy import DnsPolicy
from trafficmgr.core.events import Event, TableApplied, WorkerConnected
from trafficmgr.core.model import Publish
from trafficmgr.core.routing import Table, Zone, Zones
from trafficmgr.core.traffic import Front
from trafficmgr.wire import frames

ZONE = Zone(name="apps.test", ns=("ns1.apps.test",))


class Worker:
    """A worker's end, as bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.decoder = frames.Decoder()
        self.heard: list[frames.Frame] = []

    @classmethod
    async def connected(cls, state_dir: Path, **generations: int) -> "Worker":
        worker = cls(*await asyncio.open_unix_connection(state_dir / "run" / "link.sock"))
        hello = frames.Hello(
            protocol=frames.PROTOCOL, slot=0, start_id="0-a", pid=1, generations=generations
        )
        worker.say(hello)
        return worker

    def say(self, frame: frames.Frame) -> None:
        self.writer.write(frames.encode(frame))

    async def hear(self, count: int) -> list[frames.Frame]:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.heard) < count:
                self.heard += self.decoder.feed(await self.reader.read(65536))
        return self.heard

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


def table(generation: int) -> Table:
    return Table(endpoint=NAME, generation=generation, hosts=(), publish=Publish.proxy, ttl_s=1)


class Stage:
    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.told: list[Event] = []
        self.link = Link(state_dir=state_dir, tell=self.tell, clock=Clock())

    async def tell(self, event: Event) -> None:
        self.told.append(event)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    async with stage.link.opened():
        yield stage


async def test_a_table_is_on_disk_before_it_is_sent(stage: Stage) -> None:
    worker = await Worker.connected(stage.state_dir)
    await eventually(lambda: stage.told)

    await stage.link.publish(table(3))

    path = stage.state_dir / "tables" / f"{NAME}.table"
    assert routing.decode(path.read_bytes()) == table(3)
    assert await worker.hear(1) == [frames.TableSent(table=table(3))]
    await worker.close()


async def test_a_table_that_cannot_be_written_is_not_sent(stage: Stage) -> None:
    (stage.state_dir / "tables").write_text("a file in the way")
    worker = await Worker.connected(stage.state_dir)
    await eventually(lambda: stage.told)

    with pytest.raises(OSError, match="tables"):
        await stage.link.publish(table(3))

    (stage.state_dir / "tables").unlink()
    await stage.link.publish(table(4))
    assert await worker.hear(1) == [frames.TableSent(table=table(4))]
    await worker.close()


async def test_a_worker_is_brought_up_to_date_at_its_hello_zones_last(stage: Stage) -> None:
    """The zones tell a worker without tables that it knows everything now."""
    front = Front(idle_s=5.0)
    await stage.link.publish_zones((ZONE,), ("192.0.2.1",), front, DnsPolicy(nsid="node-1"))
    await stage.link.publish(table(3))

    fresh = await Worker.connected(stage.state_dir)
    current = await Worker.connected(stage.state_dir, **{NAME: 3})

    sent, zones = await fresh.hear(2)
    assert sent == frames.TableSent(table=table(3))
    assert isinstance(zones, frames.ZonesSent)
    policy = DnsPolicy(nsid="node-1", cookie_secret=zones.zones.dns.cookie_secret)
    assert zones.zones == Zones(
        generation=1, zones=(ZONE,), advertise=("192.0.2.1",), front=front, dns=policy
    )
    assert await current.hear(1) == [zones]
    await fresh.close()
    await current.close()


async def test_zones_move_forward_across_controllers_and_reboots(tmp_path: Path) -> None:
    """Workers refuse an older generation; a clock that starts anew must not bring one."""
    for _ in range(3):
        await Stage(tmp_path).link.publish_zones((ZONE,), (), Front(), DnsPolicy())

    written = (tmp_path / "tables" / "zones").read_bytes()
    assert msgspec.msgpack.decode(written, type=Zones).generation == 3


async def test_the_secret_of_cookies_outlives_controllers_and_is_for_nobody_else(
    tmp_path: Path,
) -> None:
    path = tmp_path / "tables" / "zones"
    secrets = set()
    for _ in range(2):
        await Stage(tmp_path).link.publish_zones((ZONE,), (), Front(), DnsPolicy())
        written = msgspec.msgpack.decode(path.read_bytes(), type=Zones)
        secrets.add(written.dns.cookie_secret)

    assert [len(secret) for secret in secrets] == [32]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_path_too_long_for_af_unix_works(tmp_path: Path) -> None:
    stage = Stage(tmp_path / ("long" * 20) / ("longer" * 10))
    path = stage.state_dir / "run" / "link.sock"
    assert len(str(path)) > MAX_SOCKET_PATH_BYTES

    async with stage.link.opened():
        assert path.is_socket()
        with short_socket_path(path) as name:
            _, writer = await asyncio.open_unix_connection(name)
        writer.close()
        await writer.wait_closed()


async def test_what_a_worker_says_becomes_events(stage: Stage) -> None:
    worker = await Worker.connected(stage.state_dir, **{NAME: 2})
    worker.say(
        frames.Applied(endpoint=NAME, generation=2, answered={"shop-1": 5.0}, http_busy=("shop-1",))
    )
    await eventually(lambda: len(stage.told) == 2)

    connected, applied = stage.told
    assert isinstance(connected, WorkerConnected)
    assert connected.generations == {NAME: 2}
    assert isinstance(applied, TableApplied)
    assert (applied.start_id, applied.answered) == ("0-a", {"shop-1": 5.0})
    await worker.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x01\xc1",
        frames.encode(frames.Hello(protocol=frames.PROTOCOL + 1, slot=0, start_id="0-a", pid=1)),
    ],
)
async def test_garbage_ends_that_connection_only(stage: Stage, garbage: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(stage.state_dir / "run" / "link.sock")
    writer.write(garbage)

    async with asyncio.timeout(DEADLINE_S):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()

    assert stage.told == []
    worker = await Worker.connected(stage.state_dir)
    await eventually(lambda: stage.told)
    await worker.close()


async def test_counts_of_all_workers_are_summed(stage: Stage) -> None:
    worker = await Worker.connected(stage.state_dir)
    for start_id, requests in (("0-a", 10), ("1-a", 5), ("0-a", 12)):
        share = frames.ShareCounts(requests=requests, failures={"connect": 1})
        worker.say(frames.Counts(start_id=start_id, at=1.0, endpoints={NAME: {"v1": share}}))
    await eventually(
        lambda: stage.link.totals(NAME) and stage.link.totals(NAME)["v1"].requests == 17
    )

    assert stage.link.totals(NAME)["v1"].failures == {"connect": 2}
    await worker.close()
