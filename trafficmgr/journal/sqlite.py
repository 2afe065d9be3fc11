"""The journal: observed events and the states they led to, durable and in step (DESIGN 5).

Rules:

* `append` writes events and the resulting states in one transaction and returns after it is on
  the disk. What it raised for was not kept, no part of it.
* All of SQLite runs in one thread of the journal's own. The event loop only waits, so a slow disk
  delays decisions but never a probe or an answer.
* Requests are served in the order in which they were made. Appends that wait at the same time
  share one transaction and one fsync (group commit), and they share its fate: states build on each
  other, so keeping a later one without an earlier one would be a hole in the history.
* An append that was asked for is carried out even if the task that awaits it is cancelled:
  what was observed stays observed.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple, Self, TypeVar

from trafficmgr.journal.entries import Entry, JournalError, Kept, Stored
from trafficmgr.journal.schema import connect, failure

__all__ = ["Entry", "Journal", "JournalError", "Kept", "Stored"]

T = TypeVar("T")

CHUNK = 1000
"""Events read or dropped in one turn of the thread, so that an append never waits long."""

KEPT_RECEIPTS = 10_000
"""Of finished rollouts; some kilobytes each. Beyond it the oldest are dropped."""

_COLUMNS = "seq, wall, at, boot_id, endpoint, kind, event"


class _Append(NamedTuple):
    """An append that waits for its transaction."""

    entries: tuple[Entry, ...]
    states: dict[str, bytes | None]
    done: Future[int]


class Journal:
    """The durable log of one installation. Made by `open`; one process writes it at a time."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, thread: ThreadPoolExecutor
    ) -> None:
        self.path = path
        self._connection = connection
        self._thread = thread
        self._waiting: SimpleQueue[_Append] = SimpleQueue()
        self._is_closed = False

    def __repr__(self) -> str:
        """Show which file it is and whether it can still be used."""
        return f"<Journal {self.path} {'closed' if self._is_closed else 'open'}>"

    @classmethod
    async def open(cls, path: Path, *, max_pages: int | None = None) -> Self:
        """Open or create the journal.

        Args:
            path: Its file, in a folder that exists.
            max_pages: A limit in pages of 4 KiB, for tests of a full disk.

        Raises:
            JournalError: It can't be opened, is no database, not ours, or newer than we are.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        opening = thread.submit(connect, path, max_pages)
        try:
            return cls(path, await asyncio.wrap_future(opening), thread)
        except BaseException:
            thread.submit(_abandon, opening)
            thread.shutdown(wait=False)
            raise

    async def append(self, entries: Sequence[Entry], states: Mapping[str, bytes | None]) -> int:
        """Write events and the states they led to; return the seq of the last event.

        Args:
            entries: In the order in which they were observed; may be empty.
            states: Name -> newest state. None forgets the name.

        Raises:
            JournalError: Nothing of it was kept (disk full, locked, damaged, closed).
        """
        self._check_open()
        done: Future[int] = Future()
        self._waiting.put(_Append(tuple(entries), dict(states), done))
        self._thread.submit(self._commit_waiting)
        return await asyncio.wrap_future(done)

    async def load(self) -> Kept:
        """Return the newest states and where the history stands."""
        return await self._ask(self._load)

    async def events(
        self,
        *,
        endpoint: str | None = None,
        after: int = 0,
        limit: int = 100,
        from_end: bool = False,
    ) -> list[Stored]:
        """Return events in the order in which they were observed.

        Args:
            endpoint: Only what concerns this endpoint, its own events and those of all; None is
                everything.
            after: Only events with a greater seq.
            limit: At most so many.
            from_end: Which ones when there are more: the last instead of the first.
        """
        return await self._ask(lambda: self._events(endpoint, after, limit, from_end=from_end))

    async def replay(self) -> AsyncIterator[Stored]:
        """Yield every event that is kept, from the first; reads a thousand at a time."""
        after = 0
        while chunk := await self.events(after=after, limit=CHUNK):
            for stored in chunk:
                yield stored
            after = chunk[-1].seq

    async def compact(self, keep: int) -> int:
        """Drop the oldest events beyond the newest `keep`; return how many were dropped.

        States are untouched. `Kept.dropped_through` remembers that the history no longer starts
        at the first event. The file keeps its size and is filled again.
        """
        dropped = 0
        while count := await self._ask(lambda: self._drop_chunk(keep)):
            dropped += count
        return dropped

    async def put_receipt(
        self, rollout: str, endpoint: str, receipt: bytes, *, is_final: bool
    ) -> bool:
        """Keep the receipt of a rollout, in place of the draft that there may be.

        Returns:
            Whether it was kept: a final receipt is written once and never changed.

        Raises:
            JournalError: Nothing was kept.
        """
        return await self._ask(lambda: self._put_receipt(rollout, endpoint, receipt, is_final))

    async def receipt(self, rollout: str) -> bytes | None:
        """Return the receipt of a rollout as it was put, final or not; None if there is none."""
        found = await self._ask(lambda: self._receipts("id = ?", rollout, limit=1))
        return found[0] if found else None

    async def receipts(self, endpoint: str | None = None, *, limit: int = 100) -> list[bytes]:
        """Return the newest receipts, final or not, of one endpoint or all, oldest first."""
        where, given = ("1", ()) if endpoint is None else ("endpoint = ?", (endpoint,))
        return await self._ask(lambda: self._receipts(where, *given, limit=limit))

    async def drafts(self) -> list[bytes]:
        """Return every receipt that is not final yet, oldest first."""
        return await self._ask(lambda: self._receipts("NOT is_final", limit=-1))

    async def final_receipts(self) -> frozenset[str]:
        """Return the rollouts whose receipt is final."""
        query = "SELECT id FROM receipts WHERE is_final"
        rows = await self._ask(lambda: self._connection.execute(query).fetchall())
        return frozenset(rollout for (rollout,) in rows)

    async def close(self) -> None:
        """Finish what was asked for and close the file. Closing twice is harmless."""
        if self._is_closed:
            return
        self._is_closed = True
        closing = self._thread.submit(self._connection.close)
        self._thread.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(closing))

    # -- from here on: in the journal's thread, except _ask and _check_open ------------------------

    async def _ask(self, question: Callable[[], T]) -> T:
        self._check_open()
        try:
            return await asyncio.wrap_future(self._thread.submit(question))
        except sqlite3.Error as error:
            raise failure(self.path, "use", error) from error

    def _check_open(self) -> None:
        if self._is_closed:
            raise JournalError(
                f"journal: {self.path} is closed already; nothing more can be read or kept."
            )

    def _commit_waiting(self) -> None:
        """Write everything that waits now as one transaction; the first job does it for all."""
        group: list[_Append] = []
        try:
            while True:
                append = self._waiting.get_nowait()
                append.done.set_running_or_notify_cancel()
                group.append(append)
        except Empty:
            if group:
                self._commit(group)

    def _commit(self, group: list[_Append]) -> None:
        try:
            with _transaction(self._connection):
                seqs = [self._write(append) for append in group]
        except Exception as error:  # noqa: BLE001  each waiting caller gets it
            for append in group:
                _answer(append.done, failure(self.path, "write to", error))
        else:
            for append, seq in zip(group, seqs, strict=True):
                _answer(append.done, seq)

    def _write(self, append: _Append) -> int:
        wall = datetime.now(UTC).isoformat(timespec="milliseconds")
        seq = 0
        for entry in append.entries:
            cursor = self._connection.execute(
                "INSERT INTO events (at, boot_id, wall, endpoint, kind, event)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (entry.at, entry.boot_id, wall, entry.endpoint, entry.kind, entry.event),
            )
            seq = cursor.lastrowid or 0
        for name, state in append.states.items():
            if state is None:
                self._connection.execute("DELETE FROM states WHERE name = ?", (name,))
            else:
                self._connection.execute(
                    "INSERT OR REPLACE INTO states VALUES (?, ?)", (name, state)
                )
        return seq or self._last_seq()

    def _load(self) -> Kept:
        return Kept(
            states=dict(self._connection.execute("SELECT name, state FROM states ORDER BY name")),
            last_seq=self._last_seq(),
            dropped_through=self._one("SELECT dropped_through FROM history"),
        )

    def _events(
        self, endpoint: str | None, after: int, limit: int, *, from_end: bool
    ) -> list[Stored]:
        where = "" if endpoint is None else "AND endpoint IN (:endpoint, '')"
        order = "DESC" if from_end else "ASC"
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM events WHERE seq > :after {where}"  # noqa: S608  our own words
            f" ORDER BY seq {order} LIMIT :limit",
            {"after": after, "endpoint": endpoint, "limit": limit},
        ).fetchall()
        return [_stored(row) for row in (reversed(rows) if from_end else rows)]

    def _put_receipt(self, rollout: str, endpoint: str, receipt: bytes, is_final: bool) -> bool:
        with _transaction(self._connection):
            count = self._connection.execute(
                "INSERT INTO receipts (id, endpoint, is_final, receipt) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET is_final = excluded.is_final,"
                " receipt = excluded.receipt WHERE NOT is_final",
                (rollout, endpoint, is_final, receipt),
            ).rowcount
            self._connection.execute(
                "DELETE FROM receipts WHERE is_final AND number <="
                " (SELECT number FROM receipts ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (KEPT_RECEIPTS,),
            )
        return count > 0

    def _receipts(self, where: str, *given: str, limit: int) -> list[bytes]:
        rows = self._connection.execute(
            f"SELECT receipt FROM receipts WHERE {where}"  # noqa: S608  our own words
            " ORDER BY number DESC LIMIT ?",
            (*given, limit),
        ).fetchall()
        return [receipt for (receipt,) in reversed(rows)]

    def _drop_chunk(self, keep: int) -> int:
        newest_dropped = "SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET ?"
        with _transaction(self._connection):
            row = self._connection.execute(newest_dropped, (keep,)).fetchone()
            if row is None:
                return 0
            first = self._one("SELECT min(seq) FROM events")
            through = min(row[0], first + CHUNK - 1)
            count = self._connection.execute(
                "DELETE FROM events WHERE seq <= ?", (through,)
            ).rowcount
            self._connection.execute("UPDATE history SET dropped_through = ?", (through,))
        return count

    def _last_seq(self) -> int:
        """Return the last seq ever given; SQLite remembers it even if its event was dropped."""
        return self._one("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'")

    def _one(self, query: str) -> int:
        (value,) = self._connection.execute(query).fetchone()
        assert isinstance(value, int)  # noqa: S101  only asked of queries that count
        return value


class _transaction:  # noqa: N801  reads as a word of the with statement
    """Everything or nothing: commits at the end, rolls back on any error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:  # an error, or a COMMIT that failed
                self._connection.execute("ROLLBACK")


def _answer(done: Future[int], answer: int | JournalError) -> None:
    if done.cancelled():
        return
    if isinstance(answer, JournalError):
        done.set_exception(answer)
    else:
        done.set_result(answer)


def _abandon(opening: Future[sqlite3.Connection]) -> None:
    """Close what was opened for a caller that went away meanwhile."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _stored(row: tuple[int, str, float, str, str, str, bytes]) -> Stored:
    seq, wall, at, boot_id, endpoint, kind, event = row
    entry = Entry(at=at, boot_id=boot_id, endpoint=endpoint, kind=kind, event=event)
    return Stored(seq=seq, wall=wall, entry=entry)
