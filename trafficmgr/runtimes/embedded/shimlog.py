"""The shim's log file: when each line came, and never more of them than there is room for.

```
2026-05-04T03:02:01.123456789Z a line
2026-05-04T03:02:01.123456789Z+a piece of a line of which more follows
```

The time is that of the read which brought the end of the line; UTC, RFC 3339, nanoseconds, always
30 characters. A line without an end is held back until it gets one, at most 16 KiB of it (as CRI
does), so that whatever is written is a record: files are changed between any two of them, and a
follower is never in need of memory. A last line that never got its end stays marked as a piece.

Part of the shim: standard library only, and little of that (`shim.py`). Read by `loglines.py`.
"""

import os
import time

PIECE_BYTES = 16 * 1024


class Log:
    """The file `log`, of at most about `limit` bytes, and the one before it, `log.1`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.dropped = 0
        self.held = b""
        self.second = -1
        self.date = b""
        self.open()

    def open(self) -> None:
        """Go on where the file ends."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self.fd = os.open("log", flags, 0o640)
        self.size = os.fstat(self.fd).st_size

    def write(self, data: bytes) -> None:
        """Append what the application wrote."""
        data = self.held + data
        end = data.rfind(b"\n") + 1
        stamp = self.stamp()
        records = b""
        if end:
            records = stamp + b" " + data[: end - 1].replace(b"\n", b"\n" + stamp + b" ") + b"\n"
        while len(data) - end >= PIECE_BYTES:
            records += stamp + b"+" + data[end : end + PIECE_BYTES] + b"\n"
            end += PIECE_BYTES
        self.held = data[end:]
        if records:
            self.append(records, end)

    def finish(self) -> None:
        """Append what never got its end."""
        if self.held:
            self.append(self.stamp() + b"+" + self.held + b"\n", len(self.held))
            self.held = b""

    def append(self, records: bytes, weight: int) -> None:
        """Write whole records or nothing; what the disk has no room for is dropped and counted.

        Args:
            records: Lines of the file.
            weight: How many of the application's bytes they hold.
        """
        if self.size >= self.limit:
            self.rotate()
        try:
            written = os.write(self.fd, records)
            if written < len(records):
                os.ftruncate(self.fd, self.size)  # half a record would spoil the next one
                written = 0
        except OSError:
            written = 0
        self.size += written
        if not written:
            self.dropped += weight

    def rotate(self) -> None:
        """Go on in a new file. If there can't be one, the file at hand goes on."""
        try:
            os.replace("log", "log.1")  # noqa: PTH105  pathlib is slow to import
            os.close(self.fd)
            self.open()
        except OSError:
            return

    def stamp(self) -> bytes:
        """Return the time of day. The part that rarely changes is not made again each time."""
        second, nano = divmod(time.clock_gettime_ns(time.CLOCK_REALTIME), 1_000_000_000)
        if second != self.second:
            self.second = second
            self.date = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        return b"%s%09dZ" % (self.date, nano)
