"""A worker process: DNS and HTTP on a slot's sockets, with the newest tables, and nothing else.

    python -m trafficmgr.dataplane.worker --slot 0 --start-id X --state-dir DIR --link PATH \
        --backlog 1024 --sockets '[{"kind": "http", "host": "127.0.0.1", "port": 8080, "fd": 5}]'

The supervisor starts it and owns the sockets, which outlive it: a worker opens its own descriptors
of them and never shuts them down, so that what waits in a slot is served by the successor.

It reads its tables from disk before it serves, so that it needs no controller to be of use, and
then keeps a link to the controller for newer ones. SIGTERM ends it in order: no new connections,
requests under way are finished, `Bye` is sent. Nothing that comes from outside ends it.
"""

import argparse
import asyncio
import contextlib
import gc
import itertools
import random
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from trafficmgr.core import routing
from trafficmgr.dataplane.book import Book
from trafficmgr.dataplane.dns_server import DnsServer
from trafficmgr.dataplane.link import Link
from trafficmgr.dataplane.notes import Mishaps, note
from trafficmgr.dataplane.proxy import HttpServer

FINISH_S = 10.0
"""How long requests under way may take after SIGTERM."""

LEARN_S = 10.0
"""How long a worker that knows nothing waits for its first controller before it answers."""

BYE_S = 1.0
"""How long a controller may take to take the last frame."""

_TICK_S = 0.1
_BEATS_PER_SWEEP = 10
_BEATS_PER_RENEWAL = 600
_GC_THRESHOLDS = (50_000, 20, 50)


class ListenSocket(msgspec.Struct, frozen=True):
    """A bound socket that was inherited: what it is for, where it is, its descriptor."""

    kind: str
    host: str
    port: int
    fd: int

    def open(self) -> socket.socket:
        """Return a socket of our own for it; closing that one leaves the slot's open."""
        sock = socket.socket(fileno=socket.dup(self.fd))
        sock.setblocking(False)
        return sock


class Settings(msgspec.Struct, frozen=True):
    """What the command line says."""

    slot: int
    start_id: str
    state_dir: Path
    link: Path
    backlog: int
    sockets: tuple[ListenSocket, ...]


def parse(arguments: Sequence[str] | None) -> Settings:
    """Return the settings; exits with a message if they can't be read (the supervisor's defect)."""
    parser = argparse.ArgumentParser(prog="trafficmgr worker", description="serve one slot")
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--start-id", required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--link", type=Path, required=True)
    parser.add_argument("--backlog", type=int, required=True)
    parser.add_argument("--sockets", required=True)
    given = parser.parse_args(arguments)
    sockets = msgspec.json.decode(given.sockets, type=tuple[ListenSocket, ...])
    return Settings(given.slot, given.start_id, given.state_dir, given.link, given.backlog, sockets)


def load(book: Book, folder: Path) -> None:
    """Fill the book from the files that the controller wrote; a bad one is told and skipped.

    An endpoint without its file answers 404 and REFUSED until the controller sends the table.
    """
    for path in sorted(folder.glob("*.table")):
        try:
            book.apply(routing.check(routing.decode(path.read_bytes())))
        except Exception as error:  # noqa: BLE001  whatever is wrong with it: the others are served
            note("table_skipped", file=path, reason=repr(error))
    try:
        zones = (folder / "zones").read_bytes()
        book.apply_zones(msgspec.msgpack.decode(zones, type=routing.Zones))
    except FileNotFoundError:
        pass  # a fresh state_dir
    except Exception as error:  # noqa: BLE001  as above
        note("zones_skipped", file=folder / "zones", reason=repr(error))


class Worker:
    """The parts of a worker and the order in which they start and end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._mishaps = Mishaps()
        self._stop = asyncio.Event()
        self.book = Book(settings.start_id)
        draw = random.SystemRandom().getrandbits(64)  # workers must not draw in step
        self._rand = random.Random(draw).random  # noqa: S311  shares, not secrets
        self.dns = DnsServer(self.book, rand=self._rand, clock=_boottime)
        self.http = HttpServer(self.book)
        self._link = Link(self.book, path=settings.link, slot=settings.slot)

    async def run(self) -> None:
        """Serve until SIGTERM, then end in order."""
        self._take_signals()
        load(self.book, self._settings.state_dir / "tables")
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(self._link.run()), tasks.create_task(self._tick())]
            if not self.book.by_endpoint:
                await self._learn()
            await self._open()
            _settle_memory()
            note("worker_started", slot=self._settings.slot, endpoints=len(self.book.by_endpoint))
            await self._stop.wait()
            is_done = await self._finish()
            for task in background:
                task.cancel()
        note("worker_stopped", slot=self._settings.slot, is_done=is_done)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._mishaps.handle)
        loop.add_signal_handler(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle

    def _end(self) -> None:
        self._stop.set()
        self._link.informed.set()  # wait for nothing any more

    async def _learn(self) -> None:
        """Wait for a first controller's tables; who comes meanwhile waits in the slot's queues.

        Without one, after a while, no answer is no better than "I know no such host".
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEARN_S):
                await self._link.informed.wait()

    async def _open(self) -> None:
        """Open for business on every socket of the slot."""
        for listen in self._settings.sockets:
            sock = listen.open()
            match listen.kind:
                case "dns-udp":
                    self.dns.serve_udp(sock)
                case "dns-tcp":
                    await self.dns.serve_tcp(sock, self._settings.backlog)
                case "http":
                    await self.http.serve(sock, self._settings.backlog)
                case "https":
                    await self.http.serve(sock, self._settings.backlog, tls=True)
                case _:
                    sock.close()
                    note("socket_skipped", kind=listen.kind, fd=listen.fd)

    async def _tick(self) -> None:
        """Call `_beat` ten times a second; a defect in it is told and ends nothing."""
        loop = asyncio.get_running_loop()
        for beat in itertools.count():
            await asyncio.sleep(_TICK_S)
            try:
                await self._beat(beat)
            except Exception as error:  # noqa: BLE001  traffic goes on
                self._mishaps.handle(loop, {"message": "sweep", "exception": error})

    async def _beat(self, beat: int) -> None:
        """Sweep and report once a second; more often while a retiring group waits for news."""
        if beat % _BEATS_PER_RENEWAL == 0:
            self.dns.sweep()
        if beat % _BEATS_PER_SWEEP == 0:
            self.http.sweep(self.http.now())
            self._link.acknowledge()
            await self._link.report_gently()
        elif self._link.is_awaited:
            self._link.acknowledge()

    async def _finish(self) -> bool:
        """Take nothing new, finish what is under way, say bye; returns whether all was finished."""
        self.dns.close()
        self.http.close()
        note("worker_stopping", slot=self._settings.slot)
        is_done = await self.http.closed(FINISH_S)
        await self.dns.closed()
        await self._link.bye(BYE_S)
        return is_done


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _settle_memory() -> None:
    """Leave what is loaded out of every later garbage collection, and let there be few of them.

    What a request or a query leaves behind is freed by its reference counts; there are no circles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


async def _serve(settings: Settings) -> None:
    await Worker(settings).run()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a worker until SIGTERM."""
    uvloop.run(_serve(parse(arguments)))


if __name__ == "__main__":
    main()
