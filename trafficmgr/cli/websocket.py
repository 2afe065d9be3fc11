"""The client's side of a WebSocket (RFC 6455): bytes in, messages out, and back. Sans-IO.

As much of it as the admin API needs: no extension is offered, so none is used; a message may come
in several frames; whoever feeds it answers pings with `pong`.
"""

import base64
import hashlib
import os
import struct
from collections.abc import Iterator

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3: what a server that understood proves it with."""

FINAL, MASKED = 0x80, 0x80
SHORT, MEDIUM = 126, 127
"""Lengths that say: the true one follows, in two or in eight bytes."""

CONTROL = 0x8
"""Opcodes from here on are not part of any message."""

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""More than the service ever sends; a length beyond it is no WebSocket."""

Message = tuple[int, bytes]
"""Opcode and payload."""


class WebSocketError(ValueError):
    """What came is no WebSocket."""


def new_key() -> str:
    """Return the nonce of one handshake."""
    return base64.b64encode(os.urandom(16)).decode()


def request_headers(key: str) -> dict[str, str]:
    """Return what makes a GET ask for a WebSocket."""
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
    }


def is_accepted(key: str, accept: str | None) -> bool:
    """Return whether the server proved that it understood."""
    digest = hashlib.sha1((key + GUID).encode(), usedforsecurity=False).digest()
    return accept == base64.b64encode(digest).decode()


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a message as one frame, masked as a client's must be (section 5.3)."""
    length = len(payload)
    if length < SHORT:
        head = struct.pack("!BB", FINAL | opcode, MASKED | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", FINAL | opcode, MASKED | SHORT, length)
    else:
        head = struct.pack("!BBQ", FINAL | opcode, MASKED | MEDIUM, length)
    key = os.urandom(4)
    return head + key + _masked(payload, key)


def _masked(payload: bytes, key: bytes) -> bytes:
    """Return payload XOR key, as one operation on a large number instead of one a byte."""
    length = len(payload)
    pattern = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload) ^ int.from_bytes(pattern)).to_bytes(length)


class Reader:
    """Puts messages together from the bytes that come."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._message = bytearray()
        self._opcode = CONTINUATION

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield every message, ping and close that is whole now.

        Raises:
            WebSocketError: What came is none.
        """
        self._bytes += data
        while (taken := self._frame()) is not None:
            first, payload = taken
            opcode = first & 0x0F
            if opcode >= CONTROL:
                yield opcode, payload
                continue
            self._message += payload
            if len(self._message) > MAX_MESSAGE_BYTES:
                raise WebSocketError("a message is too long")
            self._opcode = opcode or self._opcode
            if first & FINAL:
                yield self._opcode, bytes(self._message)
                self._message.clear()

    def _frame(self) -> tuple[int, bytes] | None:
        """Take one frame off; return its first byte and payload, or None if it is not whole."""
        if len(self._bytes) < 2:  # noqa: PLR2004  the fixed part of its head
            return None
        first, length = self._bytes[0], self._bytes[1]
        if length & MASKED:
            raise WebSocketError("a server's frame is masked")
        begin = 2 + {SHORT: 2, MEDIUM: 8}.get(length, 0)
        if len(self._bytes) < begin:
            return None
        if length >= SHORT:
            length = int.from_bytes(self._bytes[2:begin])
        if length > MAX_MESSAGE_BYTES:
            raise WebSocketError("a frame is too long")
        if len(self._bytes) < begin + length:
            return None
        payload = bytes(self._bytes[begin : begin + length])
        del self._bytes[: begin + length]
        return first, payload
