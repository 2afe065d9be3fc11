"""The worker's end of the control link: tables come in, acknowledgements and counts go out.

The controller may be away, slow or new: the worker serves on with what it has and reconnects for
ever (DESIGN 3). Nothing here is awaited by the hot path, and nothing is kept for a controller that
does not read: what it missed is said again after the next hello, or as soon as it reads again.
"""

import asyncio
import os
import time
from pathlib import Path

from trafficmgr.core.routing import Table, Zones, check
from trafficmgr.dataplane.book import Book
from trafficmgr.dataplane.notes import note
from trafficmgr.wire import frames

RETRY_S = 0.05
RETRY_MAX_S = 0.5
"""Waits between attempts to reach the controller, doubling; it restarts within a second or so."""

UNREAD_LIMIT_BYTES = 1024 * 1024
"""What may wait for a controller that has stopped reading; beyond it nothing is queued."""

SLICE_S = 0.001
"""How long tables are applied in one go; requests wait meanwhile."""

_PATH_LIMIT = 107
"""sun_path holds 108 bytes with the final NUL (unix(7))."""

_READ_BYTES = 64 * 1024


class Link:
    """Keeps the connection to the controller and the book up to date.

    Attributes:
        is_up: The controller is connected now.
        informed: Set once a controller has said all that it knows; the zones come last.
    """

    def __init__(self, book: Book, *, path: Path, slot: int) -> None:
        self._book = book
        self._path = path
        self._slot = slot
        self._writer: asyncio.StreamWriter | None = None
        self.informed = asyncio.Event()
        self._is_ended = False
        self._acknowledged: dict[str, frames.Applied] = {}
        self._unsaid: set[str] = set()
        self._reported: dict[str, dict[str, frames.ShareCounts]] = {}

    @property
    def is_up(self) -> bool:
        """Whether the controller is connected."""
        return self._writer is not None

    @property
    def is_awaited(self) -> bool:
        """Whether the last acknowledgement named a withdrawn group as busy: news is due soon."""
        return any(sent.http_busy or sent.tunnel_busy for sent in self._acknowledged.values())

    async def run(self) -> None:
        """Connect, obey, and connect again, until `bye` or cancelled."""
        wait_s = RETRY_S
        while not self._is_ended:
            try:
                reader, writer = await _connect(self._path)
            except OSError:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_MAX_S)
                continue
            wait_s = RETRY_S
            await self._serve(reader, writer)
            await asyncio.sleep(wait_s)

    def acknowledge(self) -> None:
        """Say again what changed since it was last said, and what could not be said before."""
        for endpoint in self._book.retiring() | self._unsaid:
            applied = self._book.applied(endpoint)
            if applied != self._acknowledged.get(endpoint):
                self._acknowledge(endpoint, applied)

    def _acknowledge(self, endpoint: str, applied: frames.Applied) -> None:
        if self._send(applied):
            self._acknowledged[endpoint] = applied
            self._unsaid.discard(endpoint)
        else:
            self._unsaid.add(endpoint)

    def report(self) -> None:
        """Send what changed of the counts; what the controller does not read is sent again."""
        if self._writer is None:
            return
        counted = self._book.counts(0.0).endpoints
        known = self._reported
        self._send_counts({name: now for name, now in counted.items() if now != known.get(name)})

    async def report_gently(self) -> None:
        """Send what changed, as `report` does, and let requests be served in between.

        Ten thousand busy endpoints take a tenth of a second. The last frame comes always: it says
        that nothing else changed.
        """
        known, news = self._reported, dict[str, dict[str, frames.ShareCounts]]()
        until = time.monotonic() + SLICE_S
        for endpoint in list(self._book.by_endpoint):
            counted = self._book.counts_of(endpoint)
            if counted != known.get(endpoint):
                news[endpoint] = counted
            if time.monotonic() > until:
                self._send_counts(news)
                news = {}
                await asyncio.sleep(0)
                until = time.monotonic() + SLICE_S
        self._send_counts(news)

    def _report_of(self, endpoint: str) -> None:
        """Send what was counted for an endpoint, if there is anything new."""
        counted = self._book.counts_of(endpoint)
        if counted != self._reported.get(endpoint, {}):
            self._send_counts({endpoint: counted})

    def _send_counts(self, news: dict[str, dict[str, frames.ShareCounts]]) -> None:
        at = time.clock_gettime(time.CLOCK_BOOTTIME)
        if self._send(frames.Counts(start_id=self._book.start_id, at=at, endpoints=news)):
            self._reported |= news

    async def bye(self, deadline_s: float) -> None:
        """Send the last frame, and wait for at most so many seconds until it is on its way."""
        self._is_ended = True
        writer = self._writer
        if writer is None:
            return
        self.acknowledge()
        self.report()
        self._send(self._book.bye())
        self._writer = None
        writer.close()
        try:
            async with asyncio.timeout(deadline_s):
                await writer.wait_closed()
        except (OSError, TimeoutError):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak with one controller until the connection ends."""
        self._writer = writer
        self._acknowledged.clear()
        self._reported.clear()
        note("link_up")
        reason = "closed"
        try:
            self._greet()
            await self._obey(reader)
        except (OSError, frames.ProtocolError) as error:
            reason = str(error) or type(error).__name__
        finally:
            if self._writer is writer:
                self._writer = None
                writer.transport.abort()
        note("link_down", reason=reason)

    def _greet(self) -> None:
        book = self._book
        self._send(
            frames.Hello(
                protocol=frames.PROTOCOL,
                slot=self._slot,
                start_id=book.start_id,
                pid=os.getpid(),
                generations=book.generations(),
            )
        )
        self.report()
        self._unsaid |= book.by_endpoint.keys()
        self.acknowledge()

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        """Apply what the controller sends, and acknowledge it at once.

        Raises:
            ProtocolError: The controller sent something that is none of its frames.
        """
        decoder = frames.Decoder()
        while data := await reader.read(_READ_BYTES):
            await self._obey_all(decoder.feed(data))

    async def _obey_all(self, sent: list[frames.Frame]) -> None:
        """Apply what came at once, in slices that delay no request for long."""
        until = 0.0
        for frame in sent:
            if time.monotonic() > until:
                await asyncio.sleep(0)
                until = time.monotonic() + SLICE_S
            self._apply(frame)

    def _apply(self, frame: frames.Frame) -> None:
        match frame:
            case frames.TableSent(table=table):
                self._take(table)
            case frames.ZonesSent(zones=zones):
                self._take_zones(zones)
                self.informed.set()
            case _:
                raise frames.ProtocolError(f"a {type(frame).__name__} from the controller")

    def _take(self, table: Table) -> None:
        """Serve a table and acknowledge what is served now, also if it was known before.

        What was counted before goes out first, so that the controller can tell what was served with
        which weights.
        """
        self._report_of(table.endpoint)
        try:
            if self._book.apply(check(table)):
                note("table_applied", endpoint=table.endpoint, generation=table.generation)
        except Exception as error:  # noqa: BLE001  whatever is wrong with it: traffic goes on
            note("table_refused", endpoint=table.endpoint, reason=repr(error))
        if table.endpoint in self._book.by_endpoint:
            self._acknowledge(table.endpoint, self._book.applied(table.endpoint))

    def _take_zones(self, zones: Zones) -> None:
        try:
            self._book.apply_zones(zones)
        except Exception as error:  # noqa: BLE001  as above
            note("zones_refused", generation=zones.generation, reason=repr(error))

    def _send(self, frame: frames.Frame) -> bool:
        """Send a frame; returns False if there is nobody who reads it."""
        writer = self._writer
        if writer is None or writer.transport.is_closing():
            return False
        if writer.transport.get_write_buffer_size() > UNREAD_LIMIT_BYTES:
            return False
        writer.write(frames.encode(frame))
        return True


async def _connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a unix socket, whatever the length of its path.

    Raises:
        OSError: Nobody listens there now.
    """
    if len(os.fsencode(path)) <= _PATH_LIMIT:
        return await asyncio.open_unix_connection(path)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
