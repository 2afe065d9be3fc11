"""The demo's users, in one process of their own: steady load that does not wait for the server.

    python -m demo.load PLAN     (a JSON object, see `Plan`)

Each client has its own timetable and keeps to it: when the server is slow, requests fall due all
the same and are made up for at once, and their latency counts from when they were due. So a server
that stalls can't hide it by slowing its clients down ("coordinated omission").

Two kinds of client:

* `proxy` keeps a connection to the HTTP listener. It sends a request again, once and on a new
  connection, only if the old one ended before any byte of the response; that is told as a cut.
* `dns` resolves the name, keeps a connection to the address for as long as the TTL allows, never
  longer, then resolves again. Whatever goes wrong on its way to a group is a failure.

A request fails unless the app itself answers it with 200. One exception is counted apart: the 500s
of the release that is bad on purpose, which says in X-Version that they are its own.

What they saw goes to standard output, a `ledger.Batch` a line. They stop when standard input ends,
so that they never outlive the demo.
"""

import asyncio
import contextlib
import os
import random
import sys
from abc import abstractmethod

import msgspec
import uvloop

from demo.browser import Answer, Connection, CutError, RequestFailedError
from demo.ledger import DNS, OK, PROXY, Batch, NameAnswer, Response, Trouble, now, to_line
from demo.resolver import NameNotResolvedError, Resolver
from demo.versions import FLAWED, PAGES

REQUEST_TIMEOUT_S = 10.0
FLUSH_EVERY_S = 0.1
REQUESTS_PER_CONNECTION = 150
"""A proxy client opens a new connection now and then, so that accepting is tested too."""

OWN_ERROR = 500
"""What the app answers on a page that it has broken; a proxy's own errors are 502, 503, 504."""


class Plan(msgspec.Struct, frozen=True):
    """Who asks for what, where, and how often (`*_rate`: requests a second of all its clients)."""

    http: tuple[str, int]
    proxy_host: str
    dns: tuple[str, int]
    dns_host: str
    group_port: int
    proxy_rate: float = 540.0
    proxy_clients: int = 32
    dns_rate: float = 120.0
    dns_clients: int = 16


class Client:
    """One user with a timetable, who asks for one page or another."""

    kind = ""

    def __init__(self, seen: Batch, host: str) -> None:
        self._seen = seen
        self._connection: Connection | None = None
        self._requests = [
            f"GET {page} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: demo\r\n\r\n".encode()
            for page in PAGES
        ]

    async def run(self, *, first_at: float, period_s: float, stop: asyncio.Event) -> None:
        """Make a request whenever one is due, until told to stop."""
        due = first_at
        while not stop.is_set():
            await asyncio.sleep(max(0.0, due - now()))
            await self.once(due)
            due += period_s
        await self.close()

    async def once(self, due: float) -> None:
        """Make one request that was due at a time, and tell how it went."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                # at random, so that nobody's turns fall in with those of a proxy or of a group
                answer = await self.fetch(random.choice(self._requests))
        except TimeoutError:
            self._fail(f"no answer within {REQUEST_TIMEOUT_S:g} s")
        except (RequestFailedError, NameNotResolvedError) as error:
            self._fail(str(error))
        else:
            self._take(answer, due)

    def _take(self, answer: Answer, due: float) -> None:
        wrong, at = wrong_with(answer), now()
        if wrong:
            self._fail(wrong)
            return
        latency_s = round(at - due, 6)
        self._seen.responses.append(
            Response(at, self.kind, answer.version, answer.group, latency_s, answer.status)
        )

    def _fail(self, reason: str) -> None:
        self._seen.failures.append(Trouble(now(), self.kind, reason))
        self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @abstractmethod
    async def fetch(self, request: bytes) -> Answer:
        """Return the answer to one request, or raise why there is none."""

    async def close(self) -> None:
        """Let go of the connection."""
        connection = self._connection
        self._drop()
        if connection is not None:
            await connection.wait_closed()


def wrong_with(answer: Answer) -> str:
    """Return why a whole answer is a failure; "" for one of the app, its errors on purpose too."""
    if not answer.version:
        is_fine = answer.status == OK
        return "an answer that is not the app's" if is_fine else f"status {answer.status}"
    if answer.status == OK or (answer.version, answer.status) == (FLAWED, OWN_ERROR):
        return ""
    return f"status {answer.status} of {answer.version}"


class ProxyClient(Client):
    """A user of the HTTP listener."""

    kind = PROXY

    def __init__(self, seen: Batch, plan: Plan) -> None:
        super().__init__(seen, plan.proxy_host)
        self._place = plan.http

    async def fetch(self, request: bytes) -> Answer:
        """Ask, and ask once more if the connection went away before it answered anything."""
        try:
            return await (await self._open()).get(request)
        except CutError as cut:
            self._seen.cuts.append(Trouble(now(), self.kind, str(cut)))
        self._drop()
        return await (await self._open()).get(request)

    async def _open(self) -> Connection:
        held = self._connection
        if held is not None and held.is_open and held.served < REQUESTS_PER_CONNECTION:
            return held
        self._drop()
        self._connection = await Connection.to(*self._place)
        return self._connection


class DnsClient(Client):
    """A user who connects to the groups themselves, by what DNS says."""

    kind = DNS

    def __init__(self, seen: Batch, plan: Plan) -> None:
        super().__init__(seen, plan.dns_host)
        self._name = plan.dns_host
        self._server = plan.dns
        self._port = plan.group_port
        self._resolver: Resolver | None = None
        self._address = ""
        self._expires_at = 0.0

    async def fetch(self, request: bytes) -> Answer:
        """Ask the group that the name points to now; there is no excuse for it to be gone."""
        connection = await self._open()
        try:
            return await connection.get(request)
        except RequestFailedError as error:
            raise RequestFailedError(f"group {self._address}: {error}") from error

    async def _open(self) -> Connection:
        """Return a connection to where the name pointed last, for as long as that may be believed.

        A connection that the group has closed is opened again, at the same address: only the TTL
        sends a client to the name server, as it does a browser or a JVM with their own caches.
        """
        while self._connection is None or not self._connection.is_open or self._is_expired():
            if self._is_expired():
                await self._look_up()
            self._drop()
            try:
                self._connection = await Connection.to(self._address, self._port)
            except RequestFailedError as error:
                raise RequestFailedError(f"group {self._address}: {error}") from error
        return self._connection

    async def _look_up(self) -> None:
        self._drop()
        if self._resolver is None:
            self._resolver = await Resolver.to(self._server)
        found = await self._resolver.resolve(self._name)
        at = now()
        self._address, self._expires_at = found.address, at + found.ttl_s
        self._seen.names.append(NameAnswer(at, found.address, found.ttl_s))

    def _is_expired(self) -> bool:
        return now() >= self._expires_at

    async def close(self) -> None:
        """Let go of the connection and of the resolver's socket."""
        await super().close()
        if self._resolver is not None:
            await self._resolver.close()


async def run(plan: Plan, seen: Batch, stop: asyncio.Event) -> None:
    """Let all clients of the plan run until told to stop; each finishes its last request."""
    start_at = now()
    async with asyncio.TaskGroup() as tasks:
        for make, count, rate in (
            (ProxyClient, plan.proxy_clients, plan.proxy_rate),
            (DnsClient, plan.dns_clients, plan.dns_rate),
        ):
            for index in range(count):
                client = make(seen, plan)
                first_at = start_at + index / rate
                tasks.create_task(client.run(first_at=first_at, period_s=count / rate, stop=stop))


def flush(seen: Batch, *, is_last: bool = False) -> None:
    """Write what was seen since the last time, and forget it."""
    seen.is_last = is_last
    if not seen.is_empty:
        sys.stdout.buffer.write(to_line(seen))
        sys.stdout.buffer.flush()
    seen.responses, seen.failures, seen.cuts, seen.names = [], [], [], []


async def report(seen: Batch, done: asyncio.Event) -> None:
    """Write a line every now and then until the clients are done."""
    while not done.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), FLUSH_EVERY_S)
        flush(seen)
    flush(seen, is_last=True)


async def main(plan: Plan) -> None:
    """Make load until standard input ends."""
    seen, stop, done = Batch(), asyncio.Event(), asyncio.Event()
    loop, standard_input = asyncio.get_running_loop(), sys.stdin.fileno()

    def on_input() -> None:
        if not os.read(standard_input, 1024):
            loop.remove_reader(standard_input)
            stop.set()

    loop.add_reader(standard_input, on_input)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(report(seen, done))
        await run(plan, seen, stop)
        done.set()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        uvloop.run(main(msgspec.json.decode(sys.argv[1], type=Plan)))
