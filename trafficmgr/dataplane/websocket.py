"""WebSocket frames as far as a tunnel needs them: where one ends, and how to say goodbye.

Only the heads of frames are read (RFC 6455 section 5.2): what is in them is none of our business,
but a frame of ours must never be put into the middle of one of theirs.
"""

import secrets

GOING_AWAY = 1001
"""The server goes down, or the client's group does (RFC 6455 section 7.4.1)."""

_CLOSE = 0x8
_OPCODE_BITS = 0xF
_FIN = 0x80
_MASKED = 0x80
_LENGTH_BITS = 0x7F
_LENGTH_OF_2 = 126
_LENGTH_OF_8 = 127
_HEAD_LIMIT = 10
"""Bytes after which the size of a frame is known in any case."""

_KEY_BYTES = 4


class Frames:
    """How far one direction of a WebSocket has got.

    Attributes:
        is_closed: A close frame began; nothing but its own rest follows it in this direction.
    """

    __slots__ = ("_head", "_left", "is_closed")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self.is_closed = False

    @property
    def is_between(self) -> bool:
        """Whether the next byte is the first of a frame."""
        return not (self._left or self._head)

    def feed(self, data: bytes, *, is_last: bool = False) -> int:
        """Take what went by; returns how many bytes that was.

        Args:
            data: The next bytes of the stream.
            is_last: Take no more than what completes the frame under way, if there is one.
        """
        end, at = len(data), self._left
        if self._head:
            at = self._complete_head(data)
        if not is_last:
            self._pass(data, at)
            return end
        taken = min(at, end)
        self._left = at - taken
        return taken

    def _complete_head(self, data: bytes) -> int:
        """Return where in the data a frame ends whose size was not known yet, or where that ends.

        As long as it is not known, all that is known is that the frame takes all of the data.
        """
        known, self._head = self._head, b""
        head = known + data[:_HEAD_LIMIT]
        size = _size_of(head)
        if not size:
            self._head = head
            return len(data)
        self.is_closed = self.is_closed or head[0] & _OPCODE_BITS == _CLOSE
        return size - len(known)

    def _pass(self, data: bytes, at: int) -> None:
        """Go from frame to frame, beginning with one that begins at this place of the data."""
        end = len(data)
        while at < end - 1:
            second = data[at + 1]
            size = second & _LENGTH_BITS
            if size < _LENGTH_OF_2:
                size += 6 if second & _MASKED else 2
            else:
                size = _size_of(data[at : at + _HEAD_LIMIT])
                if not size:
                    break
            if data[at] & _OPCODE_BITS == _CLOSE:
                self.is_closed = True
            at += size
        self._left = max(at - end, 0)
        if at < end:
            self._head = data[at:]


def _size_of(head: bytes) -> int:
    """Return the size of a frame in bytes; 0 if it takes more of its head to know."""
    if len(head) < 2:  # noqa: PLR2004  the byte that tells
        return 0
    length, more = head[1] & _LENGTH_BITS, 0
    if length >= _LENGTH_OF_2:
        more = 8 if length == _LENGTH_OF_8 else 2
        if len(head) < 2 + more:
            return 0
        length = int.from_bytes(head[2 : 2 + more], "big")
    return 2 + more + (_KEY_BYTES if head[1] & _MASKED else 0) + length


def close_frame(code: int, *, is_masked: bool) -> bytes:
    """Return a whole close frame.

    Args:
        code: Why (RFC 6455 section 7.4).
        is_masked: It goes to a server: clients must mask, servers must not (section 5.3).
    """
    content = code.to_bytes(2, "big")
    first = _FIN | _CLOSE
    if not is_masked:
        return bytes((first, len(content))) + content
    key = secrets.token_bytes(_KEY_BYTES)
    masked = bytes(byte ^ key[number % _KEY_BYTES] for number, byte in enumerate(content))
    return bytes((first, _MASKED | len(content))) + key + masked
