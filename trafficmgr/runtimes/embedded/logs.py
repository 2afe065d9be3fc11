"""Reading what a group wrote, while it runs and after it is gone.

A container's log is `log.1` and then `log`; the shim renames the second to the first when it is
full. A reader that follows keeps the file open across the rename and reads it to its end first.
Lines of several containers come in the order in which they were written, each container's in its
own order even if the clock was set back; each has the container's name in brackets before it.
"""

import asyncio
import heapq
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import IO

from trafficmgr.runtimes.contract import LogQuery
from trafficmgr.runtimes.embedded.folders import LOG_NAMES
from trafficmgr.runtimes.embedded.loglines import Joiner, Line, last, stamp_of

_OLD, _NEW = LOG_NAMES
_GAP_S = 0.01
"""Far more than the shim needs between renaming the full file and making the next."""
_POLL_S = 0.2
"""How late a follower may see a line; the standard library has no inotify."""
_CHUNK_BYTES = 256 * 1024


class ContainerLog:
    """One container's log files, read forward."""

    def __init__(self, folder: Path, prefix: bytes) -> None:
        """Know where they are.

        Args:
            folder: They need not be there yet.
            prefix: What goes before each line.
        """
        self._folder = folder
        self._prefix = prefix
        self._file: IO[bytes] | None = None
        self._partial = b""
        self._joiner = Joiner()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def read(self, tail: int | None, *, is_last: bool) -> list[Line]:
        """Return the whole lines that arrived since the last call.

        Args:
            tail: How many of them at most, the last ones; None is all.
            is_last: Whether nothing more will come, so that what has no end is a line, too.
        """
        records: Sequence[bytes] = (self._partial + self._new()).split(b"\n")
        self._partial = records[-1]
        records = records[:-1]
        if is_last and self._partial:
            records = [*records, self._partial]
            self._partial = b""
        if tail is not None:
            records = last(records, tail)
        lines = self._joiner.lines(records)
        if is_last:
            lines += self._joiner.rest()
        if not self._prefix:
            return lines
        return [Line(stamp=line.stamp, text=self._prefix + line.text) for line in lines]

    def _new(self) -> bytes:
        chunks = [] if self._file is not None else [self._first()]
        while self._file is not None:
            chunks.append(self._file.read())
            newer = self._newer()
            if newer is None:
                break
            chunks.append(self._file.read())
            self._file.close()
            self._file = newer
        return b"".join(chunks)

    def _first(self) -> bytes:
        """Open the log; return what the file before it holds."""
        self._file = _opened(self._folder / _NEW) or self._opened_after_the_gap()
        if self._file is None or (old := _opened(self._folder / _OLD)) is None:
            return b""
        with old:
            return b"" if _is_same(old, self._file) else old.read()

    def _opened_after_the_gap(self) -> IO[bytes] | None:
        """Open the log, missing because the shim is just changing files or nothing was written."""
        if (self._folder / _OLD).exists():
            time.sleep(_GAP_S)
        return _opened(self._folder / _NEW)

    def _newer(self) -> IO[bytes] | None:
        """Return the file that has taken the place of the one at hand, if one has."""
        newer = _opened(self._folder / _NEW)
        if newer is None or self._file is None or not _is_same(newer, self._file):
            return newer
        newer.close()
        return None


def _opened(path: Path) -> IO[bytes] | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _is_same(one: IO[bytes], other: IO[bytes]) -> bool:
    return os.path.samestat(os.fstat(one.fileno()), os.fstat(other.fileno()))


def open_logs(folder: Path, names: Sequence[str], *, is_alone: bool) -> list[ContainerLog]:
    """Return the logs of the containers, which need not exist yet.

    Args:
        folder: Where theirs are.
        names: The containers.
        is_alone: Whether their lines need no name.
    """
    return [
        ContainerLog(folder / name, b"" if is_alone else f"[{name}] ".encode()) for name in names
    ]


async def read(
    logs: Sequence[ContainerLog], query: LogQuery, *, is_followed: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Yield the lines of the logs in chunks.

    Args:
        logs: The containers' logs; they are closed at the end.
        query: Which lines, and how.
        is_followed: Whether more may come; asked before each look.
    """
    try:
        is_last = not is_followed()
        first = await asyncio.to_thread(_gather, logs, query, query.tail, is_last=is_last)
        for chunk in first:
            yield chunk
        while not is_last:
            await asyncio.sleep(_POLL_S)
            is_last = not is_followed()
            for chunk in await asyncio.to_thread(_gather, logs, query, None, is_last=is_last):
                yield chunk
    finally:
        for log in logs:
            log.close()


def _gather(
    logs: Sequence[ContainerLog], query: LogQuery, tail: int | None, *, is_last: bool
) -> list[bytes]:
    """Return the lines that arrived since the last call, of all logs, in chunks."""
    each = [log.read(tail, is_last=is_last) for log in logs]
    lines = list(heapq.merge(*each, key=lambda line: line.stamp)) if len(each) > 1 else each[0]
    if query.since is not None:
        since = stamp_of(query.since)
        lines = [line for line in lines if line.stamp >= since]
    if tail is not None:
        lines = lines[max(0, len(lines) - tail) :]
    return _chunks(_written(line, query) for line in lines)


def _written(line: Line, query: LogQuery) -> bytes:
    return b"%s %s\n" % (line.stamp, line.text) if query.has_timestamps else line.text + b"\n"


def _chunks(lines: Iterable[bytes]) -> list[bytes]:
    chunks, chunk, size = [], list[bytes](), 0
    for line in lines:
        chunk.append(line)
        size += len(line)
        if size >= _CHUNK_BYTES:
            chunks.append(b"".join(chunk))
            chunk, size = [], 0
    return [*chunks, b"".join(chunk)] if chunk else chunks
