"""The supervisor's end of the socket pair that each controller start gets: JSON lines, both ways.

Nothing here blocks. What the controller does not take is buffered up to a bound; one that lets
more pile up has hung and is replaced, and its successor is told everything again.
"""

import json
import socket
from typing import Any

from trafficmgr.supervisor.spec import say

MAX_UNSENT_BYTES = 1 << 20
"""Thousands of lines; a controller takes a line in well under a second."""

MAX_LINE_BYTES = 64 * 1024
"""The longest line that we know has below 100 bytes."""

_READ_BYTES = 64 * 1024


class Link:
    """One controller's line. `is_open` turns false when all that it said has been read."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.is_open = True
        self._is_deaf = False
        self._unsent = bytearray()
        self._unread = bytearray()

    @property
    def wants_write(self) -> bool:
        """Whether `flush` should be called when the socket takes more."""
        return bool(self._unsent) and not self._is_deaf

    @property
    def is_overfull(self) -> bool:
        """Whether the controller left more unread than one that lives ever would."""
        return self.wants_write and len(self._unsent) > MAX_UNSENT_BYTES

    def send(self, message: dict[str, Any]) -> None:
        """Pass a message on, now or as soon as the controller reads."""
        self._unsent += json.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes."""
        try:
            while self.wants_write:
                del self._unsent[: self.sock.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # EPIPE, ECONNRESET: it ended; what it missed, its successor is told
            self._is_deaf = True

    def receive(self) -> list[dict[str, Any]]:
        """Return the messages that arrived; what is none is told on stderr and ignored."""
        try:
            while self.is_open and len(self._unread) <= MAX_LINE_BYTES:
                data = self.sock.recv(_READ_BYTES)
                self._unread += data
                self.is_open = bool(data)
        except BlockingIOError:
            pass
        except OSError:
            self.is_open = False
        *lines, rest = self._unread.split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            lines.append(rest)
            rest = bytearray()
        self._unread = rest
        return [message for line in lines if (message := _message(bytes(line))) is not None]

    def close(self) -> None:
        """Let go of the socket."""
        self.is_open = False
        self.sock.close()


def _message(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if isinstance(message, dict):
        return message
    ignore(line)
    return None


def ignore(line: object) -> None:
    """Say that the controller sent something that this supervisor does not know."""
    text = line.decode(errors="replace") if isinstance(line, bytes) else str(line)
    say("controller_line_ignored", line=text[:200])
