"""Reads an application's responses and writes them anew for the client.

One `ResponseReader` serves one connection, one request after the other: `begin` says what kind of
answer is expected, `feed` and `feed_eof` read, the attributes tell how far it got. What an
application sends beyond its answer makes the connection unfit for another request: otherwise the
next client would get this one's leftovers (27).

What breaks a rule ends the answer: there is no telling where it ends, or what the client would
make of it. The numbers in brackets are the lines of the list in docs/http.md.
"""

import re

from trafficmgr.wire.http import (
    CHUNKED,
    LAST_CHUNK,
    UNTIL_CLOSE,
    BadResponseError,
    chunk,
    status_line,
)
from trafficmgr.wire.http_chunks import ChunkReader
from trafficmgr.wire.http_fields import (
    RESPONSE_SPECIAL,
    Special,
    length_of,
    sorted_out,
    tokens,
    without_named,
)
from trafficmgr.wire.http_grammar import RESPONSE_RULES
from trafficmgr.wire.http_head import HeadBuffer, MalformedError, check_sizes
from trafficmgr.wire.http_request import Request

SWITCHING = 101
NO_CONTENT = 204
RESET_CONTENT = 205
_FINAL = 200
_NO_BODY = frozenset({NO_CONTENT, 304})
_EMPTY = _NO_BODY | {RESET_CONTENT}

REVISION_FIELD = b"X-Trafficmgr-Revision"
"""Says which revision answered a request to a preview. An application's own is never passed on:
nothing must look like an answer of a revision that it is not of."""

_PLAIN = RESPONSE_RULES.plain.match
_SAFE_BYTES = RESPONSE_RULES.safe_bytes
_DATE = re.compile(rb"\n[Dd](?i:ate):")


def signature(revision: str) -> bytes:
    """Return the field line that says that this revision answered."""
    return b"%b: %b\r\n" % (REVISION_FIELD, revision.encode())


class ResponseReader:
    """Turns an application's bytes into the response to one request.

    Attributes:
        status: Status code of the final response; 0 until its head is whole.
        body: Length in bytes, CHUNKED or UNTIL_CLOSE; None when there can't be a body.
        pieces: Body bytes not passed on yet.
        interim: Whole heads of 1xx responses not passed on yet (22).
        is_http10: It is of HTTP/1.0.
        is_begun: At least one byte of an answer arrived.
        is_reusable: The connection may carry another request once `is_complete`.
        rest: After 101: the first bytes of the other protocol.
    """

    __slots__ = (
        "_announced",
        "_chunks",
        "_interim_bytes",
        "_is_bodyless",
        "_is_switch_asked",
        "_kept",
        "_left",
        "_partial",
        "_protocol",
        "body",
        "interim",
        "is_begun",
        "is_complete",
        "is_http10",
        "is_reusable",
        "pieces",
        "rest",
        "status",
    )

    def __init__(self) -> None:
        self.interim: list[bytes] = []
        self.pieces: list[bytes] = []
        self._kept: list[bytes] = []  # first line and the field lines that are passed on
        self._chunks: ChunkReader | None = None
        self._partial: HeadBuffer | None = None
        self._left = 0
        self._protocol = b""
        self.begin(is_bodyless=False, is_switch_asked=False)

    def begin(self, *, is_bodyless: bool, is_switch_asked: bool) -> None:
        """Expect the response to the next request.

        Args:
            is_bodyless: The request is HEAD.
            is_switch_asked: The request asked for an upgrade.
        """
        self._is_bodyless = is_bodyless
        self._is_switch_asked = is_switch_asked
        self._announced: int | None = None
        self._interim_bytes = 0
        self.status = 0
        self.body: int | None = None
        self.rest = b""
        self.is_begun = False
        self.is_http10 = False
        self.is_complete = False
        self.is_reusable = False

    def feed(self, data: bytes) -> None:
        """Read what arrived.

        Raises:
            BadResponseError: It is no response; the connection is of no more use.
        """
        is_first, self.is_begun = not self.is_begun, True
        try:
            if is_first and (head := _PLAIN(data)) is not None and self._is_taken(head):
                at = head.end()
                if at < len(data):
                    self._read_body(data, at)
            elif self.status:
                self._read_body(data, 0)
            else:
                self._read_heads(data)
        except MalformedError as error:
            raise BadResponseError(str(error)) from None

    def feed_eof(self) -> bool:
        """Take note of the end of the stream; returns whether the response is whole."""
        if self.status and self.body == UNTIL_CLOSE:
            self.is_complete = True
        self.is_reusable = False
        return self.is_complete

    def close(self) -> None:
        """Keep nothing: the connection is gone."""
        self._partial = self._chunks = None

    @property
    def is_dated(self) -> bool:
        """Whether the response has a Date; if it has none, the proxy has to add it (20)."""
        first = self._kept[0]
        return first.find(b"\nDate:") > 0 or _DATE.search(b"".join(self._kept)) is not None

    def head(self, request: Request, *, is_last: bool, also: bytes = b"") -> list[bytes]:
        """Return the head of the final response as it goes to the client, in pieces.

        Args:
            request: What it answers.
            is_last: The client's connection is closed after it.
            also: Field lines of our own.
        """
        body, end = self.body, b"\r\n"
        if is_last:
            end = b"Connection: close\r\n\r\n"
        elif request.is_http10:
            end = b"Connection: keep-alive\r\n\r\n"
        framing = b""
        if body is None:
            if self._announced is not None and self.status != NO_CONTENT:
                framing = b"Content-Length: %d\r\n" % self._announced
        elif body >= 0:
            framing = b"Content-Length: %d\r\n" % body
        elif not request.is_http10:
            framing = b"Transfer-Encoding: chunked\r\n"
        return [*self._kept, also, framing, end]

    def switch_head(self, *, also: bytes = b"") -> bytes:
        """Return the head of a 101 response as it goes to the client (25)."""
        switch = b"Connection: upgrade\r\nUpgrade: %b\r\n\r\n" % self._protocol
        return b"".join((*self._kept, also, switch))

    def take_body(self, request: Request) -> list[bytes]:
        """Return what the client gets of the body that arrived, framed for it."""
        pieces, self.pieces = self.pieces, []
        if self.body is None or self.body >= 0 or request.is_http10:
            return pieces
        framed = [chunk(pieces)] if pieces else []
        if self.is_complete:
            framed.append(LAST_CHUNK)
        return framed

    # -- leaves -----------------------------------------------------------------------------------

    def _read_heads(self, data: bytes) -> None:
        """Read heads up to the final one, and what is behind it."""
        partial = self._partial
        if partial is not None:
            if not partial.feed(data):
                return
            data = bytes(partial.data)
            self._partial = None
        at = 0
        while not self.status and at < len(data):
            head = RESPONSE_RULES.pattern.match(data, at)
            if head is None:
                self._keep(data[at:])
                return
            self._understand(data, head)
            at = head.end()
        if at < len(data):
            self._read_body(data, at)

    def _keep(self, data: bytes) -> None:
        """Keep the beginning of a head."""
        self._partial = HeadBuffer(RESPONSE_RULES)
        if self._partial.feed(data):
            raise MalformedError(502, "not HTTP")

    def _is_taken(self, head: re.Match[bytes]) -> bool:
        """Understand a head that has nothing special about it; whether that is so."""
        if self._is_bodyless or head.end() > _SAFE_BYTES:
            return False
        first, code, second, length, chunked, third, fourth = head.groups()
        status = int(code)  # three digits, and 1 to 18 of them, by the pattern
        if status in _EMPTY and (length or chunked or status == RESET_CONTENT):
            return False
        self._kept = [first, second, third, fourth]
        if length is not None:
            self.body = self._left = int(length)
            self.is_complete = not self._left
        elif chunked is not None:
            self.body = CHUNKED
            self._chunks = ChunkReader(RESPONSE_RULES)
        elif status in _NO_BODY:
            self.is_complete = True
        else:
            self.body = UNTIL_CLOSE
        self.is_reusable = True
        self.status = status
        return True

    def _understand(self, data: bytes, head: re.Match[bytes]) -> None:
        """Settle what a head means, before anything of it is passed on."""
        version, code, reason = head.groups()
        end = head.end()
        line_end = data.index(b"\n", head.end(2))
        if end - head.start() > RESPONSE_RULES.safe_bytes:
            line_bytes = line_end + 1 - head.start()
            check_sizes(RESPONSE_RULES, line_bytes=line_bytes, section_bytes=end - line_end - 1)
        fields, special = sorted_out(data[line_end : end - 2], RESPONSE_SPECIAL)
        options = tokens(special.get(b"connection", b""))
        if options:
            fields = without_named(fields, options)
        status = int(code)  # three digits, by the pattern
        line = b"HTTP/1.1 %b %b\r" % (code, reason) if reason else status_line(status)[:-1]
        self._kept = [line, *fields]
        if status < _FINAL:
            self._take_interim(status, special, options, end - head.start())
            return
        self.is_reusable = b"close" not in options and (version == b"1" or b"keep-alive" in options)
        self.is_http10 = version == b"0"
        self._frame(status, special, is_http10=self.is_http10)
        self.status = status

    def _take_interim(
        self, status: int, special: Special, options: list[bytes], size_bytes: int
    ) -> None:
        """Keep a 1xx response to be passed on, or switch protocols; it has no body (21, 22)."""
        if status == SWITCHING:
            self._protocol = special.get(b"upgrade", b"")
            if not (self._is_switch_asked and self._protocol and b"upgrade" in options):
                raise BadResponseError("it switched protocols without being asked")
            self.status = status
            return
        self._interim_bytes += size_bytes
        if self._interim_bytes > RESPONSE_RULES.section_bytes:
            raise BadResponseError("its interim responses have no end")
        self.interim.append(b"".join((*self._kept, b"\r\n")))

    def _frame(self, status: int, special: Special, *, is_http10: bool) -> None:
        """Settle how the body is framed (1 to 4, 21, 26)."""
        length, coding = special.get(b"content-length"), special.get(b"transfer-encoding")
        if length is not None:
            self._announced = _length(length)
        if coding is not None:
            _check_coding(coding, is_alone=length is None, is_http10=is_http10)
        if self._is_bodyless or status in _NO_BODY:
            self.is_complete = True
            if status == NO_CONTENT and (self._announced or coding is not None):
                self.is_reusable = False  # it may send a body all the same
        elif status == RESET_CONTENT:
            self.body = 0
            self.is_complete = True
            self.is_reusable = self.is_reusable and self._announced == 0
        elif coding is not None:
            self.body = CHUNKED
            self._chunks = ChunkReader(RESPONSE_RULES)
        elif length is not None:
            self.body = self._left = self._announced or 0
            self.is_complete = not self._left
        else:
            self.body = UNTIL_CLOSE

    def _read_body(self, data: bytes, at: int) -> None:
        """Read some of the body; what is behind its end was not asked for (27)."""
        end = len(data)
        if self.is_complete:
            self.is_reusable = False
        elif self._left:
            end = at + self._left
            self.pieces.append(data[at:end])
            self._left = max(end - len(data), 0)
            self.is_complete = not self._left
        elif self._chunks is not None:
            end = self._chunks.feed(data, at, self.pieces)
            if self._chunks.is_complete:
                self._chunks = None
                self.is_complete = True
        elif self.status == SWITCHING:
            self.rest += data[at:]
        else:
            self.pieces.append(data[at:])
        if end < len(data) and self.is_complete:
            self.is_reusable = False


def _check_coding(coding: bytes, *, is_alone: bool, is_http10: bool) -> None:
    if is_http10 or not is_alone:
        raise BadResponseError("its Transfer-Encoding is in HTTP/1.0 or beside Content-Length")
    if coding.lower() != b"chunked":
        raise BadResponseError("its Transfer-Encoding is not exactly chunked")


def _length(value: bytes) -> int:
    try:
        return length_of(value)
    except ValueError as error:
        raise BadResponseError(str(error)) from None
