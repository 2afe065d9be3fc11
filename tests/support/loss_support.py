"""A data plane under load in which nothing may be lost: workers, applications, clients, tables.

The workers are real processes on sockets that this side owns, as a supervisor does. The
applications are real processes that write down each request before they answer it. The clients
count every answer and every failure, by the id that each request carries. So what was lost shows,
and so does what was sent twice.
"""

import asyncio
import json
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from trafficmgr.controller.link import Link
from trafficmgr.controller.ports import boottime
from trafficmgr.core.dns_policy import DnsPolicy
from trafficmgr.core.events import Event, TableApplied
from trafficmgr.core.model import Publish, Tcp
from trafficmgr.core.routing import Share, Table, Target
from trafficmgr.core.traffic import Front, HttpPolicy

DEADLINE_S = 60.0
HOST = "shop.test"
ORIGIN = Path(__file__).parent / "loss_origin.py"
CONNECTIONS = 16
POST_EVERY = 4


@dataclass
class App:
    """An application: a group of one process."""

    group: str
    process: asyncio.subprocess.Process
    port: int
    log: Path

    def requests(self) -> Counter[str]:
        """Return how often it got each request, as "POST 17"."""
        return Counter(self.log.read_text().splitlines()) if self.log.exists() else Counter()

    async def end(self) -> None:
        """End it in order."""
        self.process.terminate()
        async with asyncio.timeout(DEADLINE_S):
            await self.process.wait()

    async def kill(self) -> None:
        """End it without warning."""
        self.process.kill()
        await self.process.wait()


@dataclass
class Tally:
    """What clients were told. Keys are requests, as "GET 12"."""

    answered: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def bad(self) -> dict[str, str]:
        """Return all that did not end well, and how."""
        wrong = {key: str(status) for key, status in self.answered.items() if status >= 400}
        return {**wrong, **self.failed}


class Crowd:
    """Clients on keep-alive connections, each with one request at a time; every fourth is a POST.

    A request whose connection ended before any byte of the answer is sent again on a new one if it
    is a GET, as browsers do; a POST has failed then.
    """

    def __init__(self, port: int) -> None:
        self.tally = Tally()
        self._port = port
        self._ids = count(1)
        self._is_over = False
        self._progress = asyncio.Event()

    async def run(self) -> None:
        """Ask until told to stop."""
        async with asyncio.TaskGroup() as clients:
            for _ in range(CONNECTIONS):
                clients.create_task(self._client())

    def stop(self) -> None:
        """Let each client end with the answer that it waits for."""
        self._is_over = True

    async def more(self, requests: int) -> None:
        """Wait until so many more requests were answered."""
        goal = len(self.tally.answered) + requests
        async with asyncio.timeout(DEADLINE_S):
            while len(self.tally.answered) < goal:
                self._progress.clear()
                await self._progress.wait()

    async def _client(self) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._is_over:
            number = next(self._ids)
            method = "POST" if number % POST_EVERY == 0 else "GET"
            key = f"{method} {number}"
            connection = connection or await self._dial()
            try:
                status, lives_on = await _asked(connection, method, number)
            except (OSError, asyncio.IncompleteReadError) as error:
                connection[1].close()
                connection = None
                await self._again(key, method, number, error)
                continue
            self.tally.answered[key] = status
            self._progress.set()
            if not lives_on:
                connection[1].close()
                connection = None
        if connection is not None:
            connection[1].close()

    async def _again(self, key: str, method: str, number: int, error: Exception) -> None:
        is_begun = isinstance(error, asyncio.IncompleteReadError) and bool(error.partial)
        if method == "POST" or is_begun:
            self.tally.failed[key] = repr(error)
            return
        try:
            connection = await self._dial()
            status, _ = await _asked(connection, method, number)
            connection[1].close()
        except (OSError, asyncio.IncompleteReadError) as again:
            self.tally.failed[key] = f"again: {again!r}"
        else:
            self.tally.answered[key] = status
            self._progress.set()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(DEADLINE_S):
            return await asyncio.open_connection("127.0.0.1", self._port)


async def _asked(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], method: str, number: int
) -> tuple[int, bool]:
    """Return the status of an answer, and whether its connection lives on."""
    reader, writer = connection
    body = b"12345" if method == "POST" else b""
    head = f"{method} /{number} HTTP/1.1\r\nHost: {HOST}\r\nX-Id: {number}\r\n"
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    writer.write(f"{head}{length}\r\n".encode() + body)
    async with asyncio.timeout(DEADLINE_S):
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().split(": ", 1) for line in answer.split("\r\n")[1:] if line)
        await reader.readexactly(int(fields["content-length"]))
    return int(answer.split(" ", 2)[1]), fields.get("connection") != "close"


class Plane:
    """The whole of it. Slots hold the sockets, so a worker that ends is succeeded in its place."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.apps: dict[str, App] = {}
        self.workers: dict[int, asyncio.subprocess.Process] = {}
        self._folder = folder
        self._stack = stack
        self._link = Link(state_dir=folder, tell=self._hear, clock=boottime)
        self._sockets: list[socket.socket] = []
        self._port = 0
        self._starts = count(1)
        self._generation = 0
        self._applied: dict[tuple[int, str], TableApplied] = {}
        self._news = asyncio.Event()

    async def open(self, slots: int) -> None:
        """Listen on a port in so many slots."""
        (self._folder / "tables").mkdir(parents=True)
        await self._stack.enter_async_context(self._link.opened())
        for _ in range(slots):
            sock = socket.socket()
            self._stack.callback(sock.close)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", self._port))
            sock.listen(256)
            self._port = sock.getsockname()[1]
            self._sockets.append(sock)
        await self._link.publish_zones((), (), Front(), DnsPolicy())
        self._stack.push_async_callback(self._end_all)

    async def _end_all(self) -> None:
        for process in [*self.workers.values(), *(app.process for app in self.apps.values())]:
            if process.returncode is None:
                process.kill()
                await process.wait()

    # -- applications and workers -----------------------------------------------------------------

    async def app(self, group: str) -> App:
        """Start an application."""
        log = self._folder / f"{group}.log"
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(ORIGIN), str(log), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            port = int(await process.stdout.readline())
        self.apps[group] = App(group, process, port, log)
        return self.apps[group]

    async def worker(self, slot: int) -> asyncio.subprocess.Process:
        """Start a worker in its slot, and wait until it serves the newest table."""
        sock = self._sockets[slot]
        listens = [{"kind": "http", "host": "127.0.0.1", "port": self._port, "fd": sock.fileno()}]
        start_id = f"{slot}-{next(self._starts)}"
        arguments = ["--slot", str(slot), "--start-id", start_id, "--backlog", "256"]
        arguments += ["--state-dir", str(self._folder), "--sockets", json.dumps(listens)]
        arguments += ["--link", str(self._folder / "run" / "link.sock")]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "trafficmgr.dataplane.worker",
            *arguments,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=[sock.fileno()],
        )
        self.workers[slot] = process
        if self._generation:
            await self._until(lambda: (slot, start_id) in self._applied)
        return process

    # -- tables -----------------------------------------------------------------------------------

    async def publish(self, weights: dict[str, int], *, http: HttpPolicy | None = None) -> None:
        """Serve these groups by these weights, each a revision of its own; return at once.

        "red green" are two groups of one revision.
        """
        self._generation += 1
        shares = tuple(
            Share(
                revision=f"of-{groups}",
                weight_pct=pct,
                targets=tuple(map(self._target, groups.split())),
            )
            for groups, pct in weights.items()
        )
        await self._link.publish(
            Table(
                endpoint="shop",
                generation=self._generation,
                hosts=(HOST,),
                publish=Publish.proxy,
                ttl_s=1,
                shares=shares,
                http=http or HttpPolicy(),
            )
        )

    def _target(self, group: str) -> Target:
        return Target(group=group, dial=Tcp(address="127.0.0.1", port=self.apps[group].port))

    async def settled(self, *, without: str = "") -> None:
        """Wait until every worker serves the newest table and has nothing under way elsewhere."""

        def is_so() -> bool:
            newest = {slot: applied for (slot, _), applied in self._applied.items()}
            return all(
                slot in newest
                and newest[slot].generation >= self._generation
                and without not in newest[slot].http_busy
                for slot, process in self.workers.items()
                if process.returncode is None
            )

        await self._until(is_so)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not is_so():
                self._news.clear()
                await self._news.wait()

    async def _hear(self, event: Event) -> None:
        if isinstance(event, TableApplied):
            self._applied[event.slot, event.start_id] = event
            self._news.set()

    # -- load -------------------------------------------------------------------------------------

    async def under_load(self, happenings: Callable[[Crowd], Awaitable[None]]) -> Tally:
        """Let things happen while clients ask; return what they were told."""
        crowd = Crowd(self._port)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(crowd.run())
            try:
                await crowd.more(200)
                await happenings(crowd)
                await crowd.more(200)
            finally:
                crowd.stop()
        return crowd.tally

    def got(self) -> Counter[str]:
        """Return how often applications got each request, all of them together."""
        return sum((app.requests() for app in self.apps.values()), Counter())


@asynccontextmanager
async def plane(folder: Path, *, slots: int = 1) -> AsyncIterator[Plane]:
    """Return a data plane without workers, applications or tables."""
    async with AsyncExitStack() as stack:
        opened = Plane(folder, stack)
        await opened.open(slots)
        yield opened


def terminate(process: asyncio.subprocess.Process) -> None:
    """Ask a worker to end in order."""
    process.send_signal(signal.SIGTERM)
