"""The controller's end of the control link (wire/frames.py): tables out, acknowledgements in.

Workers connect; each says hello and is brought up to date. What they say becomes events for the
single writer; what they count goes into the ledger (counts.py).
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import structlog

from trafficmgr.controller import faults
from trafficmgr.controller.counts import Ledger
from trafficmgr.controller.files import replace_file, short_socket_path
from trafficmgr.controller.ports import Clock, Tell
from trafficmgr.core.dns_policy import DnsPolicy
from trafficmgr.core.events import TableApplied, WorkerConnected
from trafficmgr.core.routing import Table, Zone, Zones
from trafficmgr.core.routing import encode as encode_table
from trafficmgr.core.traffic import Front
from trafficmgr.wire.frames import (
    PROTOCOL,
    Applied,
    Bye,
    Counts,
    Decoder,
    Frame,
    Hello,
    ProtocolError,
    ShareCounts,
    TableSent,
    ZonesSent,
    encode,
)

READ_BYTES = 256 * 1024

COOKIE_SECRET_BYTES = 32
"""Of what DNS cookies are derived from; it stays as long as the zones' file does."""

log = structlog.get_logger()


class Link:
    """All workers, as the controller reaches them."""

    def __init__(self, *, state_dir: Path, tell: Tell, clock: Clock) -> None:
        self.farewells: dict[str, Bye] = {}
        self.ledger = Ledger()
        self._tables_dir = state_dir / "tables"
        self._socket_path = state_dir / "run" / "link.sock"
        self._tell = tell
        self._clock = clock
        self._tables: dict[str, Table] = {}
        self._publishing = asyncio.Lock()
        self._zones: Zones | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    # -- out ----------------------------------------------------------------------------------

    async def publish(self, table: Table) -> None:
        """Write the table's file, then send it to every connected worker.

        One after another: a table that a newer one has overtaken is left out.

        Raises:
            OSError: The file can't be written. Nothing was sent: a worker that starts anew must
                never serve an older table than one that was there before it.
        """
        async with self._publishing:
            known = self._tables.get(table.endpoint)
            if known is not None and known.generation > table.generation:
                return
            path = self._tables_dir / f"{table.endpoint}.table"
            await asyncio.to_thread(replace_file, path, encode_table(table))
            faults.passed("during publish")
            if _weights(known) != _weights(table):
                self.ledger.cut(table.endpoint, table.generation)
            self._tables[table.endpoint] = table
            self._send_all(TableSent(table=table))

    async def publish_zones(
        self,
        zones: tuple[Zone, ...],
        advertise: tuple[str, ...],
        front: Front,
        dns: DnsPolicy,
    ) -> None:
        """Write the zones' file under the next generation, then send it to every worker."""
        path = self._tables_dir / "zones"
        before = _before(path)
        secret = before.dns.cookie_secret or os.urandom(COOKIE_SECRET_BYTES)
        known = Zones(
            generation=before.generation + 1,
            zones=zones,
            advertise=advertise,
            front=front,
            dns=dns.but(cookie_secret=secret),
        )
        encoded = msgspec.msgpack.encode(known)
        await asyncio.to_thread(replace_file, path, encoded, mode=0o600)
        self._zones = known
        self._send_all(ZonesSent(zones=known))

    def _send_all(self, frame: Frame) -> None:
        data = encode(frame)
        for writer in self._writers:
            writer.write(data)

    # -- in -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Listen for workers for as long as the context lasts."""
        self._socket_path.parent.mkdir(parents=True, exist_ok=True)
        self._socket_path.unlink(missing_ok=True)
        with short_socket_path(self._socket_path) as path:
            server = await asyncio.start_unix_server(self._serve, path)
        self._socket_path.chmod(0o600)
        try:
            yield
        finally:
            server.close()
            for writer in self._writers:
                writer.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder, hello = Decoder(), None
        try:
            while data := await reader.read(READ_BYTES):
                for frame in decoder.feed(data):
                    if isinstance(frame, Hello):
                        hello = frame
                        await self._welcome(hello, writer)
                    elif hello is not None:
                        await self._hear(hello, frame)
        except (ProtocolError, ConnectionError) as error:
            log.warning("link_broken", slot=hello.slot if hello else None, reason=str(error))
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _welcome(self, hello: Hello, writer: asyncio.StreamWriter) -> None:
        """Bring a worker up to date, then take note of it."""
        if hello.protocol != PROTOCOL:
            raise ProtocolError(f"worker speaks protocol {hello.protocol}, we speak {PROTOCOL}")
        for name, table in self._tables.items():
            if hello.generations.get(name, 0) < table.generation:
                writer.write(encode(TableSent(table=table)))
        if self._zones is not None:  # last: they tell a new worker that it knows everything now
            writer.write(encode(ZonesSent(zones=self._zones)))
        self._writers.add(writer)
        log.info("worker_connected", slot=hello.slot, start_id=hello.start_id, worker=hello.pid)
        await self._tell(
            WorkerConnected(
                at=self._clock(),
                slot=hello.slot,
                start_id=hello.start_id,
                generations=hello.generations,
            )
        )

    async def _hear(self, hello: Hello, frame: Frame) -> None:
        match frame:
            case Applied():
                self.ledger.applied(frame.endpoint, hello.start_id, frame.generation)
                await self._tell(
                    TableApplied(
                        at=self._clock(),
                        endpoint=frame.endpoint,
                        slot=hello.slot,
                        start_id=hello.start_id,
                        generation=frame.generation,
                        answered=frame.answered,
                        http_busy=frame.http_busy,
                        tunnel_busy=frame.tunnel_busy,
                    )
                )
            case Counts():
                self.ledger.hear(frame)
            case Bye():
                self.farewells[frame.start_id] = frame
                self.ledger.end_well(frame.start_id)
            case _:
                raise ProtocolError(f"a worker sent {type(frame).__name__}")

    def observed(self, endpoint: str) -> dict[str, int]:
        """Return the clients served by each revision under the present weights."""
        return self.ledger.observed(endpoint)

    def totals(self, endpoint: str) -> dict[str, ShareCounts]:
        """Return the counts of an endpoint by revision, summed over all workers heard of."""
        return self.ledger.totals(endpoint)


def _weights(table: Table | None) -> dict[str, int]:
    return {} if table is None else {share.revision: share.weight_pct for share in table.shares}


def _before(path: Path) -> Zones:
    """Return what is in a zones file; nothing if there is none that can be read."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Zones)
    except (OSError, msgspec.DecodeError):
        return Zones(generation=0, zones=(), advertise=())
