"""The records of a log file (`shimlog.py`), read back and written by others than the shim.

A record is a time, one character and a text: a blank if the line ends with it, `+` if more follows
in the next record. What is no record (an older version wrote it, or half of it was lost) counts as
a whole line of the time of the one before it.
"""

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from trafficmgr.core.noun import Noun

STAMP_LENGTH = 30
"""2026-05-04T03:02:01.123456789Z"""
LONGEST_LINE_BYTES = 1024 * 1024
"""A line is put together up to this; who never ends a line must not cost us our memory."""
_TOLD_BYTES = 300
_GOES_ON = b"+"


class Line(Noun):
    """A line and when it was written."""

    stamp: bytes
    text: bytes


def stamp_of(seconds: float) -> bytes:
    """Return seconds since the epoch as records have them: earlier is smaller."""
    whole, nano = divmod(round(seconds * 1_000_000_000), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(whole)).encode() + b"%09dZ" % nano


class Joiner:
    """Puts records together to lines."""

    def __init__(self) -> None:
        self._stamp = stamp_of(0.0)
        self._held = b""

    def lines(self, records: Iterable[bytes]) -> list[Line]:
        """Return the lines that end with these records, which have no line ends themselves."""
        found = []
        for record in records:
            stamp, mark, text = _parsed(record)
            self._stamp = stamp or self._stamp
            self._held += text
            if mark != _GOES_ON or len(self._held) > LONGEST_LINE_BYTES:
                found += self.rest() or [Line(stamp=self._stamp, text=b"")]
        return found

    def rest(self) -> list[Line]:
        """Return what never got its end."""
        text, self._held = self._held, b""
        return [Line(stamp=self._stamp, text=text)] if text else []


def _parsed(record: bytes) -> tuple[bytes, bytes, bytes]:
    """Return time, mark and text; no time if it is no record."""
    mark = record[STAMP_LENGTH : STAMP_LENGTH + 1]
    if record[10:11] == b"T" and record[STAMP_LENGTH - 1 : STAMP_LENGTH] == b"Z" and mark:
        return record[:STAMP_LENGTH], mark, record[STAMP_LENGTH + 1 :]
    return b"", b" ", record


def last(records: Sequence[bytes], lines: int) -> Sequence[bytes]:
    """Return the records that make up the last so many lines, without a look at the others."""
    first, seen = len(records), 0
    while first > 0 and seen <= lines:
        first -= 1
        seen += _parsed(records[first])[1] != _GOES_ON
    return records[first + 1 :] if seen > lines else records


def last_lines(files: Sequence[Path], lines: int) -> str:
    """Return the last lines of a container's log files as part of a sentence."""
    data = b"".join(file.read_bytes() for file in files if file.is_file())
    joiner = Joiner()
    found = [*joiner.lines(data.split(b"\n")[:-1]), *joiner.rest()][-lines:]
    texts = (line.text[:_TOLD_BYTES].decode(errors="replace").strip() for line in found)
    return " | ".join(filter(None, texts))


def append(file: Path, text: str) -> None:
    """Add a line of ours to a container's log, beside its shim. A full disk costs the line."""
    line = stamp_of(time.clock_gettime(time.CLOCK_REALTIME)) + f" {text}\n".encode()
    try:
        fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)
    except OSError:
        return
