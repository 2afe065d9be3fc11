"""Reads an application's responses and writes them anew for the client.

One `ResponseReader` serves one connection, one request after the other: `begin` says what kind of
answer is expected, `feed` and `feed_eof` read, the attributes tell how far it got. What an
application sends beyond its answer makes the connection unfit for another request: otherwise the
next client would get this one's leftovers (27).
"""

from typing import Any

import httptools

from trafficmgr.wire.http import (
    CHUNKED,
    HOP_BY_HOP,
    LAST_CHUNK,
    MAX_RESPONSE_HEAD_BYTES,
    UNTIL_CLOSE,
    BadResponseError,
    chunk,
    length_of,
    status_line,
    tokens,
    without_named,
)
from trafficmgr.wire.http_request import Request

SWITCHING = 101
NO_CONTENT = 204
_FINAL = 200
_NO_BODY = frozenset({NO_CONTENT, 304})
REVISION_FIELD = b"X-Trafficmgr-Revision"
"""Says which revision answered a request to a preview. An application's own is never passed on:
nothing must look like an answer of a revision that it is not of."""

_SPECIAL = HOP_BY_HOP | frozenset({b"content-length", REVISION_FIELD.lower()})
_HTTP_11 = "1.1"


def signature(revision: str) -> bytes:
    """Return the field line that says that this revision answered."""
    return b"%b: %b\r\n" % (REVISION_FIELD, revision.encode())


class ResponseReader:
    """Turns an application's bytes into the response to one request.

    Attributes:
        status: Status code of the final response; 0 until its head is whole.
        fields: Lines of its head, without those that concern one hop or are written anew.
        body: Length in bytes, CHUNKED or UNTIL_CLOSE; None when there can't be a body.
        pieces: Body bytes not passed on yet.
        interim: Whole heads of 1xx responses not passed on yet (22).
        is_begun: At least one byte of an answer arrived.
        is_reusable: The connection may carry another request once `is_complete`.
        rest: After 101: the first bytes of the other protocol.
    """

    __slots__ = (
        "_announced",
        "_fed_bytes",
        "_is_bodyless",
        "_is_switch_asked",
        "_parser",
        "_reason",
        "_special",
        "body",
        "fields",
        "interim",
        "is_begun",
        "is_complete",
        "is_reusable",
        "pieces",
        "rest",
        "status",
    )

    def __init__(self) -> None:
        self._parser: Any = None
        self._reason = b""
        self._special: dict[bytes, bytes] = {}
        self.interim: list[bytes] = []
        self.pieces: list[bytes] = []
        self._is_bodyless = False
        self.begin(is_bodyless=False, is_switch_asked=False)

    def begin(self, *, is_bodyless: bool, is_switch_asked: bool) -> None:
        """Expect the response to the next request.

        Args:
            is_bodyless: The request is HEAD.
            is_switch_asked: The request asked for an upgrade.
        """
        if self._parser is None or self._is_bodyless:  # the latter left it in the middle
            self._parser = httptools.HttpResponseParser(self)
        self._is_bodyless = is_bodyless
        self._is_switch_asked = is_switch_asked
        self._fed_bytes = 0
        self._announced: bytes | None = None
        self.status = 0
        self.fields: list[bytes] = []
        self.body: int | None = None
        self.rest = b""
        self.is_begun = False
        self.is_complete = False
        self.is_reusable = False

    def feed(self, data: bytes) -> None:
        """Read what arrived.

        Raises:
            BadResponseError: It is no response; the connection is of no more use.
        """
        self.is_begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if not self.is_complete:
                cause = error.__context__
                reason = cause if isinstance(cause, BadResponseError) else error
                raise BadResponseError(str(reason)) from None
            self.is_reusable = False
        if not self.status:
            self._fed_bytes += len(data)
            if self._fed_bytes > MAX_RESPONSE_HEAD_BYTES:
                raise BadResponseError("the response head is too large")

    def feed_eof(self) -> bool:
        """Take note of the end of the stream; returns whether the response is whole."""
        if self.status and self.body == UNTIL_CLOSE:
            self.is_complete = True
        self.is_reusable = False
        return self.is_complete

    def close(self) -> None:
        """Break the circle between reader and parser, so that memory is free at once."""
        self._parser = None

    def head(self, request: Request, *, is_last: bool, also: bytes = b"") -> bytes:
        """Return the head of the final response as it goes to the client.

        Args:
            request: What it answers.
            is_last: The client's connection is closed after it.
            also: Field lines of our own.
        """
        lines = [status_line(self.status, self._reason), *self.fields, also]
        if self.body is None:
            if self._announced is not None and self.status != NO_CONTENT:
                lines.append(b"Content-Length: %b\r\n" % self._announced)
        elif self.body >= 0:
            lines.append(b"Content-Length: %d\r\n" % self.body)
        elif not request.is_http10:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        if is_last:
            lines.append(b"Connection: close\r\n")
        elif request.is_http10:
            lines.append(b"Connection: keep-alive\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def switch_head(self, *, also: bytes = b"") -> bytes:
        """Return the head of a 101 response as it goes to the client (25)."""
        upgrade = self._special.get(b"upgrade", b"")
        switch = b"Connection: upgrade\r\nUpgrade: %b\r\n\r\n" % upgrade
        return b"".join((status_line(SWITCHING, self._reason), *self.fields, also, switch))

    def take_body(self, request: Request) -> list[bytes]:
        """Return what the client gets of the body that arrived, framed for it."""
        if self.body is None:
            self.pieces.clear()
            return []
        pieces, self.pieces = self.pieces, []
        if self.body >= 0 or request.is_http10:
            return pieces
        framed = [chunk(pieces)] if pieces else []
        if self.is_complete:
            framed.append(LAST_CHUNK)
        return framed

    # -- callbacks of llhttp ----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Start over; a message after the answer was not asked for."""
        if self.is_complete:
            self.is_reusable = False
            return
        self._reason = b""
        self._special = {}
        self.fields = []

    def on_status(self, part: bytes) -> None:
        """Collect the reason phrase."""
        if not self.is_complete:
            self._reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Sort a field: ours to understand, or a line to pass on."""
        if self.status:
            return  # a trailer, or a message that nobody asked for
        lower = name.lower()
        if lower not in _SPECIAL:
            self.fields.append(b"%b: %b\r\n" % (name, value))
        elif lower in self._special:
            self._special[lower] += b", " + value
        else:
            self._special[lower] = value

    def on_headers_complete(self) -> None:
        """Understand the head; raises BadResponseError through llhttp."""
        if self.is_complete:
            return
        status = self._parser.get_status_code()
        connection = self._special.get(b"connection")
        if connection is not None:
            self.fields = without_named(self.fields, tokens(connection))
        if status == SWITCHING:
            if not (self._is_switch_asked and self._parser.should_upgrade()):
                raise BadResponseError("it switched protocols without being asked")
            self.status = status
        elif status < _FINAL:
            self.interim.append(
                b"".join((status_line(status, self._reason), *self.fields, b"\r\n"))
            )
        else:
            self._understand(status)

    def on_body(self, piece: bytes) -> None:
        """Keep some bytes of the body for whoever passes them on."""
        if self.is_complete:
            self.is_reusable = False
        else:
            self.pieces.append(piece)

    def on_message_complete(self) -> None:
        """Note that a response is whole."""
        if self.status and not self.is_complete:
            self.is_complete = True
            self.is_reusable = self._parser.should_keep_alive()

    def _understand(self, status: int) -> None:
        """Settle how the body is framed, before the first byte of it is passed on."""
        special = self._special
        coding = special.get(b"transfer-encoding")
        length = special.get(b"content-length")
        if length is not None:
            self._announced = b"%d" % _length(length)
        if self._is_bodyless or status in _NO_BODY:
            self._end_at_head()
        elif coding is not None:
            if coding.strip(b" \t").lower() != b"chunked":
                raise BadResponseError("its Transfer-Encoding is not exactly chunked")
            self.body = CHUNKED
        else:
            self.body = UNTIL_CLOSE if length is None else _length(length)
        self.status = status

    def _end_at_head(self) -> None:
        """End the response to HEAD here: llhttp can't be told, and is thrown away afterwards."""
        if self._is_bodyless:
            self.is_complete = True
            options = tokens(self._special.get(b"connection", b""))
            self.is_reusable = (
                b"close" not in options and self._parser.get_http_version() == _HTTP_11
            )


def _length(value: bytes) -> int:
    try:
        return length_of(value)
    except ValueError as error:
        raise BadResponseError(str(error)) from None
