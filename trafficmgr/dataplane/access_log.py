"""The access log: a line per request, off by default, and never in the way of a request.

Lines are collected in memory; once a second the sweep hands them over to a thread, which does all
that a slow disk could hold up: it looks whether the file was moved away (then it opens a new one),
and appends the batch in one write, so that workers can share a file. While the thread is busy
lines wait, up to LIMIT_BYTES; what does not fit is dropped, counted, and said once a second.

`json` has a line of JSON per request; `combined` is what Apache and nginx call so.
"""

import os
import queue
import threading
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from trafficmgr.core.traffic import AccessLog
from trafficmgr.dataplane.notes import note

LIMIT_BYTES = 4 * 1024 * 1024
"""Lines that may wait for the disk: some 20,000 of them."""

CLOSE_S = 1.0
"""How long the disk may take for the last lines of a worker that ends."""


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One request as it is written down; what is empty is left out of JSON.

    Attributes:
        status: What the client was told. 499 if it left before that (nginx has that number).
        bytes: What went to the client, with the head of the answer.
        seconds: From the head of the request to the end of the answer or tunnel.
        reason: What went wrong, if we had to answer or break off ourselves.
    """

    time: str = ""
    client: str = ""
    method: str = ""
    host: str = ""
    target: str = ""
    status: int
    bytes: int
    seconds: float
    endpoint: str = ""
    revision: str = ""
    group: str = ""
    reason: str = ""
    request_id: str = ""
    referer: str = ""
    user_agent: str = ""


class AccessLogWriter:
    """Collects lines, and has them written by a thread of its own."""

    def __init__(self, settings: AccessLog) -> None:
        self.settings = settings
        self._lines: list[bytes] = []
        self._size_bytes = 0
        self._dropped = 0
        self._batches: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._is_busy = threading.Event()
        self._file = _File(Path(settings.path))
        self._thread = threading.Thread(target=self._write, name="access-log", daemon=True)
        self._thread.start()

    def add(self, entry: Entry) -> None:
        """Note a request; it is on the disk a second later."""
        if self._size_bytes > LIMIT_BYTES:
            self._dropped += 1
            return
        entry.seconds = round(entry.seconds, 6)
        now = datetime.now(UTC)
        line = _combined(entry, now) if self.settings.format == "combined" else _json(entry, now)
        self._lines.append(line)
        self._size_bytes += len(line)

    def flush(self) -> None:
        """Hand over what was collected, unless the disk is not done with what it got before."""
        dropped, self._dropped = self._dropped, 0
        if dropped:
            note("access_log_dropped", file=self.settings.path, lines=dropped)
        if not self._lines or self._is_busy.is_set():
            return
        batch = b"".join(self._lines)
        self._lines, self._size_bytes = [], 0
        self._is_busy.set()
        self._batches.put(batch)

    def close(self, wait_s: float = 0.0) -> None:
        """Have written what is left, and wait for that for at most so many seconds."""
        if self._lines:
            self._batches.put(b"".join(self._lines))
            self._lines = []
        self._batches.put(None)
        self._thread.join(wait_s)

    def _write(self) -> None:
        """Run in the thread."""
        while (batch := self._batches.get()) is not None:
            self._file.append(batch)
            self._is_busy.clear()
        self._file.close()


class _File:
    """The file behind a path; used by the thread only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._is_failing = False

    def append(self, data: bytes) -> None:
        """Write at the end of the file that has the path now; a failure is told once."""
        try:
            self._open()
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            if not self._is_failing:
                note("access_log_failed", file=self._path, reason=error)
            self._is_failing = True
            self.close()
        else:
            if self._is_failing:
                note("access_log_restored", file=self._path)
            self._is_failing = False

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open(self) -> None:
        """Open the path anew if it is not the file that is open: it was moved away (logrotate)."""
        if self._fd >= 0 and not self._is_current():
            self.close()
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o640)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), self._path.stat())
        except FileNotFoundError:
            return False


def _json(entry: Entry, now: datetime) -> bytes:
    entry.time = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode(entry) + b"\n"


def _combined(entry: Entry, now: datetime) -> bytes:
    line = f"{entry.method} {entry.target} HTTP/1.1" if entry.method else ""
    return (
        f"{entry.client or '-'} - - [{now:%d/%b/%Y:%H:%M:%S +0000}] {_quoted(line)}"
        f" {entry.status:03d} {entry.bytes} {_quoted(entry.referer)} {_quoted(entry.user_agent)}\n"
    ).encode()


def _quoted(text: str) -> str:
    """Return text in quotes; what could end the field or the line is escaped as nginx does it."""
    if not text:
        return '"-"'
    return '"{}"'.format(
        "".join(
            c if c.isascii() and c.isprintable() and c not in '"\\' else _escaped(c) for c in text
        )
    )


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02X}" for byte in character.encode("latin-1", "replace"))
