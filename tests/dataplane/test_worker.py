"""The worker as a process: real signals, inherited sockets, tables from disk."""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from support.front_support import Issued, unverified
from support.proxy_support import OK, App, Client, read_message

from trafficmgr.core import routing
from trafficmgr.core.model import Publish, Tcp
from trafficmgr.core.routing import Share, Table, Target
from trafficmgr.core.traffic import AccessLog, Front
from trafficmgr.dataplane.notes import Mishaps
from trafficmgr.wire import frames

pytestmark = pytest.mark.processes

DEADLINE_S = 30.0
GET = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"


@pytest.fixture
def slot() -> Iterator[dict[str, socket.socket]]:
    """A slot's sockets, owned by the test as by a supervisor."""
    http = socket.create_server(("127.0.0.1", 0))
    dns_tcp = socket.create_server(("127.0.0.1", 0))
    dns_udp = socket.socket(type=socket.SOCK_DGRAM)
    dns_udp.bind(("127.0.0.1", 0))
    https = socket.create_server(("127.0.0.1", 0))
    sockets = {"http": http, "https": https, "dns-tcp": dns_tcp, "dns-udp": dns_udp}
    yield sockets
    for sock in sockets.values():
        sock.close()


@pytest.fixture
async def app() -> AsyncIterator[App]:
    app = await App("shop-1").start()
    yield app
    await app.stop()


def write_table(state_dir: Path, app: App) -> None:
    target = Target(group=app.group, dial=Tcp(address="127.0.0.1", port=app.port))
    table = Table(
        endpoint="shop",
        generation=1,
        hosts=("shop.test",),
        publish=Publish.proxy,
        ttl_s=1,
        shares=(Share(revision="r", weight_pct=100, targets=(target,)),),
    )
    (state_dir / "tables").mkdir(parents=True, exist_ok=True)
    (state_dir / "tables" / "shop.table").write_bytes(routing.encode(table))


class Process:
    """A worker under test; `expect` reads its log."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stderr is not None
        self.log = process.stderr

    async def expect(self, event: str) -> str:
        async with asyncio.timeout(DEADLINE_S):
            while line := (await self.log.readline()).decode():
                if line.startswith(event):
                    return line
        raise AssertionError(f"the log ended before {event}")

    async def end(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()


@asynccontextmanager
async def worker(state_dir: Path, slot: dict[str, socket.socket]) -> AsyncIterator[Process]:
    listens = [
        {"kind": kind, "host": "127.0.0.1", "port": sock.getsockname()[1], "fd": sock.fileno()}
        for kind, sock in slot.items()
    ]
    arguments = ["-m", "trafficmgr.dataplane.worker", "--slot", "0", "--start-id", "s1"]
    arguments += ["--state-dir", str(state_dir), "--link", str(state_dir / "link.sock")]
    arguments += ["--backlog", "64", "--sockets", json.dumps(listens)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=[sock.fileno() for sock in slot.values()],
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def connected(slot: dict[str, socket.socket]) -> Client:
    return Client(*await asyncio.open_connection(*slot["http"].getsockname()))


async def test_a_worker_serves_from_its_files_without_a_controller(
    tmp_path: Path, slot: dict[str, socket.socket], app: App
) -> None:
    write_table(tmp_path, app)
    (tmp_path / "tables" / "broken.table").write_bytes(b"\xc1garbage")
    (tmp_path / "tables" / "zones").write_bytes(b"garbage")

    async with worker(tmp_path, slot) as process:
        assert "broken.table" in await process.expect("table_skipped")
        await process.expect("zones_skipped")
        assert "endpoints=1" in await process.expect("worker_started")
        client = await connected(slot)

        assert (await client.ask(GET)).body == b"ok"
        await client.close()


async def test_a_worker_serves_tls_and_writes_its_access_log(
    tmp_path: Path, slot: dict[str, socket.socket], app: App
) -> None:
    """What concerns every connection comes to a worker with its zones."""
    write_table(tmp_path, app)
    log = tmp_path / "access.log"
    front = Front(
        certificates=(Issued(tmp_path, "shop.test").files,), access_log=AccessLog(path=str(log))
    )
    zones = routing.Zones(generation=1, zones=(), advertise=(), front=front)
    (tmp_path / "tables" / "zones").write_bytes(msgspec.msgpack.encode(zones))

    async with worker(tmp_path, slot) as process:
        await process.expect("worker_started")
        client = Client(
            *await asyncio.open_connection(
                *slot["https"].getsockname(), ssl=unverified(), server_hostname="shop.test"
            )
        )
        assert (await client.ask(GET)).body == b"ok"
        await client.close()
        process.process.send_signal(signal.SIGTERM)
        assert await process.end() == 0

    assert json.loads(log.read_bytes())["group"] == app.group


@asynccontextmanager
async def controller_that_says(path: Path, *said: frames.Frame) -> AsyncIterator[None]:
    """A controller that greets every worker with these frames, and takes what they say."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for frame in said:
            writer.write(frames.encode(frame))
        while await reader.read(65536):
            pass
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    yield
    server.close()
    await server.wait_closed()


NO_ZONES = frames.ZonesSent(zones=routing.Zones(generation=1, zones=(), advertise=()))


async def test_a_new_worker_answers_nobody_before_it_knows_what(
    tmp_path: Path, slot: dict[str, socket.socket], app: App
) -> None:
    """A 404 at the first start would be an answer to a question that it did not understand yet."""
    async with worker(tmp_path, slot):
        client = await connected(slot)
        client.send(GET)
        write_table(tmp_path / "elsewhere", app)
        table = routing.decode((tmp_path / "elsewhere" / "tables" / "shop.table").read_bytes())

        said = (frames.TableSent(table=table), NO_ZONES)
        async with controller_that_says(tmp_path / "link.sock", *said):
            assert (await client.answer()).body == b"ok"
            await client.close()


async def test_a_worker_without_tables_serves_404_and_survives_garbage_and_ctrl_c(
    tmp_path: Path, slot: dict[str, socket.socket]
) -> None:
    async with (
        controller_that_says(tmp_path / "link.sock", NO_ZONES),
        worker(tmp_path, slot) as process,
    ):
        await process.expect("worker_started")
        process.process.send_signal(signal.SIGINT)
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for packet in (b"", b"\x00", b"\xff" * 12, b"\xff" * 600):
                sender.sendto(packet, slot["dns-udp"].getsockname())
        for garbage in (
            b"\x16\x03\x01\x00",
            b"\r\n\r\n\x00",
            b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
        ):
            bad = await connected(slot)
            bad.send(garbage)
            bad.writer.write_eof()
            await bad.rest()
            await bad.close()
        client = await connected(slot)

        assert (await client.ask(GET)).status == 404
        await client.close()
        process.process.send_signal(signal.SIGTERM)
        assert await process.end() == 0


async def test_sigterm_finishes_what_is_under_way_and_says_bye(
    tmp_path: Path, slot: dict[str, socket.socket]
) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()
    received: list[frames.Frame] = []
    over = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        arrived.set()
        await go.wait()
        writer.write(OK)
        await reader.read(-1)

    async def controller(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = frames.Decoder()
        while data := await reader.read(65536):
            received.extend(decoder.feed(data))
        writer.close()
        over.set()

    app = await App("shop-1", script=slow).start()
    link = await asyncio.start_unix_server(controller, tmp_path / "link.sock")
    write_table(tmp_path, app)
    async with asyncio.timeout(DEADLINE_S), worker(tmp_path, slot) as process:
        await process.expect("link_up")
        client = await connected(slot)
        client.send(GET)
        await arrived.wait()

        process.process.send_signal(signal.SIGTERM)
        await process.expect("worker_stopping")
        go.set()
        answer = await client.answer()

        assert (answer.status, answer.fields["connection"]) == (200, "close")
        assert "is_done=True" in await process.expect("worker_stopped")
        assert await process.end() == 0
        await over.wait()
        await client.close()
    link.close()
    await link.wait_closed()
    await app.stop()
    assert received[-1] == frames.Bye(start_id="s1", answered={"shop": {}})


async def test_those_who_wait_in_a_slot_are_served_by_the_successor(
    tmp_path: Path, slot: dict[str, socket.socket], app: App
) -> None:
    """The slot's sockets outlive the worker, whichever way it ends (DESIGN 3)."""
    write_table(tmp_path, app)
    for end in (signal.SIGKILL, signal.SIGTERM):
        async with worker(tmp_path, slot) as process:
            await process.expect("worker_started")
            process.process.send_signal(end)
            await process.end()
        waiting = [await connected(slot) for _ in range(10)]
        for client in waiting:
            client.send(GET)

        async with worker(tmp_path, slot):
            for client in waiting:
                assert (await client.answer()).body == b"ok"
                await client.close()


def test_mishaps_are_counted_and_written_once_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    loop = asyncio.new_event_loop()
    mishaps = Mishaps()

    for _ in range(5):
        mishaps.handle(loop, {"message": "oops", "exception": ValueError("a defect")})
    loop.close()

    assert mishaps.count == 5
    written = capsys.readouterr().err
    assert written.count("mishap ") == 1
    assert "a defect" in written
