"""Reading what a group wrote, while it runs and after it is gone.

A container's log is `log.1` and then `log`; the shim renames the second to the first when it is
full. A reader that follows keeps the file open across the rename and reads it to its end first.
With more than one container every line is preceded by the container's name in brackets.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO

from trafficmgr.runtimes.embedded.folders import LOG_NAMES

_OLD, _NEW = LOG_NAMES
_GAP_S = 0.01
"""Far more than the shim needs between renaming the full file and making the next."""
_POLL_S = 0.2
"""How late a follower may see a line; the standard library has no inotify."""
_CHUNK_BYTES = 256 * 1024


class ContainerLog:
    """One container's log files, read forward."""

    def __init__(self, folder: Path, prefix: bytes) -> None:
        self._folder = folder
        self._prefix = prefix
        self._file: IO[bytes] | None = None
        self._partial = b""

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def read(self) -> list[bytes]:
        """Return the whole lines that arrived since the last call."""
        data = self._partial + self._new()
        lines = data.splitlines(keepends=True) if b"\r" not in data else _split(data)
        self._partial = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        return [self._prefix + line for line in lines]

    def rest(self) -> list[bytes]:
        """Return the last line if it never got its end."""
        partial, self._partial = self._partial, b""
        return [self._prefix + partial] if partial else []

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


def _split(data: bytes) -> list[bytes]:
    r"""Split at \n only: \r is a progress bar's, within a line."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def open_logs(folder: Path, names: tuple[str, ...]) -> list[ContainerLog]:
    """Return the logs of the containers, which need not exist yet."""
    is_alone = len(names) == 1
    return [
        ContainerLog(folder / name, b"" if is_alone else f"[{name}] ".encode()) for name in names
    ]


async def read(
    logs: list[ContainerLog], *, tail: int | None, is_followed: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Yield the lines of the logs in chunks, each log in its own order.

    Args:
        logs: The containers' logs; they are closed at the end.
        tail: How many of the last lines to begin with; None is all.
        is_followed: Whether more may come; asked before each look.
    """
    try:
        is_last = not is_followed()
        lines = deque(await asyncio.to_thread(_gather, logs, is_last=is_last), maxlen=tail)
        for chunk in _chunks(lines):
            yield chunk
        while not is_last:
            await asyncio.sleep(_POLL_S)
            is_last = not is_followed()
            for chunk in _chunks(deque(await asyncio.to_thread(_gather, logs, is_last=is_last))):
                yield chunk
    finally:
        for log in logs:
            log.close()


def _gather(logs: list[ContainerLog], *, is_last: bool) -> list[bytes]:
    return [line for log in logs for line in log.read() + (log.rest() if is_last else [])]


def _chunks(lines: deque[bytes]) -> list[bytes]:
    chunks, chunk, size = [], list[bytes](), 0
    for line in lines:
        chunk.append(line)
        size += len(line)
        if size >= _CHUNK_BYTES:
            chunks.append(b"".join(chunk))
            chunk, size = [], 0
    return [*chunks, b"".join(chunk)] if chunk else chunks
