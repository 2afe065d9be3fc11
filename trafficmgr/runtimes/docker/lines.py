"""The engine's log streams as lines with their times.

An answer is a row of frames: a byte for the stream, a length, and one message that begins with the
time at which it was written. A line longer than 16 KiB is several messages, each with a time; here
it is one line again, with its first.
"""

import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import NamedTuple

_HEADER = struct.Struct(">BxxxL")
_LONGEST_LINE = 1024 * 1024
"""A line that never ends is cut here: a progress bar may write for days."""


class Line(NamedTuple):
    """A line, without its end."""

    stamp: bytes
    text: bytes


async def frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """Yield (stream, content) for each frame."""
    buffer = b""
    async for chunk in chunks:
        buffer += chunk
        start = 0
        while len(buffer) - start >= _HEADER.size:
            stream, size = _HEADER.unpack_from(buffer, start)
            end = start + _HEADER.size + size
            if end > len(buffer):
                break
            yield stream, buffer[start + _HEADER.size : end]
            start = end
        buffer = buffer[start:]


async def lines(chunks: AsyncIterator[bytes], *, is_last: bool = True) -> AsyncIterator[Line]:
    """Yield the lines of an answer that has timestamps, in its order.

    Args:
        chunks: The answer.
        is_last: Whether a line without its end is one, because no more of it will come.
    """
    partial: dict[int, Line] = {}
    async for stream, message in frames(chunks):
        stamp, _, text = message.partition(b" ")
        begun = partial.pop(stream, None)
        line = Line(stamp, text) if begun is None else Line(begun.stamp, begun.text + text)
        if line.text.endswith(b"\n"):
            yield Line(line.stamp, line.text[:-1])
        elif len(line.text) > _LONGEST_LINE:
            yield line
        else:
            partial[stream] = line
    for line in partial.values() if is_last else ():
        yield line


class Position:
    """How far a container's lines were read: the time of the last, and how many had the same."""

    def __init__(self) -> None:
        """Begin before the first line."""
        self.stamp = b""
        self._number = 0
        self._to_skip = 0

    def begin(self) -> str:
        """Begin to read again from here; return since when, as the engine wants to have it."""
        self._to_skip = self._number
        if not self.stamp:
            return ""
        second = datetime.fromisoformat(self.stamp[:19].decode()).replace(tzinfo=UTC)
        return f"{int(second.timestamp())}.{self.stamp[20:29].decode()}"

    def passes(self, line: Line) -> bool:
        """Whether a line is a new one; it is read then."""
        if line.stamp == self.stamp:
            if self._to_skip:
                self._to_skip -= 1
                return False
            self._number += 1
            return True
        if line.stamp < self.stamp:
            return False
        self.stamp, self._number, self._to_skip = line.stamp, 1, 0
        return True
