"""Reads a body in chunks.

`ChunkReader` is strict: a size is up to sixteen hexadecimal digits and nothing else, lines end with
CRLF, extensions have the grammar of RFC 9112 section 7.1.1 without the white space that it
tolerates (5). Extensions and trailers are read, counted and dropped (6): a next hop that splits
them in another way would see another message.
"""

import re

from trafficmgr.wire.http_head import TEXT, TOKEN, HeadBuffer, HeadRules, MalformedError

MAX_EXTENSION_BYTES = 16 * 1024
"""For all extensions of a body together. Go and Node.js 16 KiB, since CVE-2023-39326 and
CVE-2024-22019: whoever sends more keeps a server busy with nothing."""

MAX_LINE_BYTES = 4096
"""For the line of a chunk's size with its extensions."""

_SHORT_LINE_BYTES = 8
"""Lines up to this size are not looked at again: they may have extensions, but not many bytes."""

_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\%b)*+"' % TEXT
_EXTENSION = rb";%b++(?:=(?:%b++|%b))?+" % (TOKEN, TOKEN, _QUOTED)
_SIZE = rb"([0-9A-Fa-f]{1,16}+)((?:%b)*+)\r\n" % _EXTENSION
_BEGUN = rb"(?:[0-9A-Fa-f]{1,16}+(?:;%b*+)?+\r?+)?+" % TEXT

_FIRST = re.compile(_SIZE)
_NEXT = re.compile(rb"\r\n" + _SIZE)
"""The end of a chunk's data goes with the next size: one match per chunk."""

_FIRST_BEGUN = re.compile(_BEGUN)
_NEXT_BEGUN = re.compile(rb"\r?+|\r\n" + _BEGUN)

_NO_TRAILER = re.compile(
    rb"(?:\A|\n)(?i:(?:proxy-)?authorization|content-length|host|transfer-encoding):"
)
"""Fields that would change what was understood already (RFC 9110 section 6.5.1)."""


class ChunkReader:
    """One body in chunks.

    Attributes:
        is_complete: Its last byte was read.
        size_bytes: Size of the chunks that were announced, without framing.
        limit_bytes: What that may be; None is any size.
    """

    is_complete = False
    limit_bytes: int | None = None
    size_bytes = 0
    _extension_bytes = 0
    _is_last = False
    _left = 0
    _line = b""
    _size_line = _FIRST
    _trailers: HeadBuffer | None = None

    def __init__(self, rules: HeadRules) -> None:
        self._rules = rules

    def feed(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Read what arrived from `at` on, and append the body's bytes to `pieces`.

        Returns:
            Where in `data` the body ends, or -1 if it goes on.

        Raises:
            MalformedError: This is no body in chunks; what was appended is worth nothing.
        """
        kept_bytes = len(self._line)
        if kept_bytes:
            data, at = self._line + data[at:], 0
            self._line = b""
        if not self._is_last:
            at = self._take_chunks(data, at, pieces)
        if self._is_last:
            at = self._take_trailers(data, at)
        return at - kept_bytes if at >= 0 else -1

    def _take_chunks(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Take chunks up to the last one, of size 0; returns where its line ends, or -1.

        One long loop on local names: it runs for each chunk, and a body may have very many.
        """
        left, size_line = self._left, self._size_line
        total, limit = self.size_bytes, self.limit_bytes
        while True:
            if left:
                end = at + left
                if end > len(data):
                    if at < len(data):  # an empty piece would be passed on as the last chunk
                        pieces.append(data[at:])
                    left = end - len(data)
                    break
                pieces.append(data[at:end])
                at = end
            found = size_line.match(data, at)
            if found is None:
                left = 0
                self._keep_line(data[at : at + MAX_LINE_BYTES + 1], size_line)
                break
            end = found.end()
            if end - at > _SHORT_LINE_BYTES:
                self._check_extensions(found)
            at, left, size_line = end, int(found[1], 16), _NEXT  # digits only, by the pattern
            total += left
            if limit is not None and total > limit:
                raise too_big(limit)
            if not left:
                self._is_last = True
                break
        self._left, self.size_bytes, self._size_line = left, total, size_line
        return at if self._is_last else -1

    def _check_extensions(self, found: re.Match[bytes]) -> None:
        """Count the extensions of a chunk, which are dropped."""
        self._extension_bytes += len(found[2])
        if found.end() - found.start() > MAX_LINE_BYTES:
            raise _malformed()
        if self._extension_bytes > MAX_EXTENSION_BYTES:
            raise MalformedError(400, "the body's chunk extensions have no end")

    def _keep_line(self, line: bytes, size_line: re.Pattern[bytes]) -> None:
        """Keep the beginning of a size line, if it can still become one."""
        begun = _FIRST_BEGUN if size_line is _FIRST else _NEXT_BEGUN
        if len(line) > MAX_LINE_BYTES or begun.fullmatch(line) is None:
            raise _malformed()
        self._line = line

    def _take_trailers(self, data: bytes, at: int) -> int:
        """Read the trailer section and drop it; returns where it ends, or -1 if it goes on."""
        trailers = self._trailers
        if trailers is None:
            if data.startswith(b"\r\n", at):
                self.is_complete = True
                return at + 2
            trailers = self._trailers = HeadBuffer(self._rules._replace(begins=None))
        seen = len(trailers.data)
        try:
            if not trailers.feed(data[at : at + self._rules.section_bytes + 4]):
                return -1
        except MalformedError as error:
            raise MalformedError(400, f"in the trailers: {error}") from None
        if _NO_TRAILER.search(trailers.data, 0, trailers.end):
            raise MalformedError(400, "in the trailers: a field that belongs into a head")
        self.is_complete = True
        return at + trailers.end - seen


def too_big(limit_bytes: int) -> MalformedError:
    """Return what to raise for a body beyond its limit."""
    return MalformedError(413, f"the body is larger than {limit_bytes} bytes")


def _malformed() -> MalformedError:
    return MalformedError(400, "a chunk of the body is malformed")
