"""Reads requests from a client's byte stream.

`RequestReader` is fed with what arrived and queues a `Request` as soon as its head is whole; the
body follows piece by piece in `Request.pieces`, for whoever passes it on. Requests may be
pipelined: they wait in the queue in their order (29). A stream that breaks a rule sets `refusal`
and is not read any further; requests before it are still good.

llhttp, in its strict mode, refuses on its own: bare CR or LF, NUL and control characters, space
before the colon, folded lines, repeated or malformed Content-Length, Transfer-Encoding beside
Content-Length, chunk sizes and extensions that are not exact (1, 3, 5, 8, 9). What it lets pass is
refused here. tests/wire/test_http_wire.py has the table.
"""

import re
from collections import deque
from typing import Any

import httptools

from trafficmgr.wire.http import (
    CHUNKED,
    FORWARDING,
    HOP_BY_HOP,
    MAX_HEAD_BYTES,
    UNDERSCORED,
    Refusal,
    length_of,
    tokens,
    without_named,
)

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""Methods that may be sent twice (RFC 9110 section 9.2.2)."""

MAX_OVERHEAD_BYTES = MAX_HEAD_BYTES
FREE_OVERHEAD_BYTES = 32
"""What the framing of a body may cost: so much per chunk, and so much altogether (5, 6).

Beyond it somebody plays with chunk extensions or sends trailers without end.
"""

_SPECIAL = (
    HOP_BY_HOP | FORWARDING | UNDERSCORED | frozenset({b"host", b"content-length", b"expect"})
)
_REQUEST_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [^ ]+ HTTP/1\.[01]\r\n")


class Request:
    """A request as it was understood. `pieces` holds the body bytes not passed on yet.

    Attributes:
        target: What goes into the request line: origin form or `*`.
        authority: The host it is for, as the client wrote it.
        fields: Whole lines with CRLF, without those that concern one hop or are written anew.
        body: Length in bytes, or CHUNKED.
        upgrade: The protocol that the client would like to switch to; empty is none.
        keeps_alive: The client would send another request on this connection.
    """

    __slots__ = (
        "authority",
        "body",
        "fields",
        "is_complete",
        "is_http10",
        "keeps_alive",
        "method",
        "pieces",
        "target",
        "upgrade",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.authority = b""
        self.fields: list[bytes] = []
        self.body = 0
        self.upgrade = b""
        self.is_http10 = False
        self.is_complete = False
        self.keeps_alive = True
        self.pieces: list[bytes] = []

    @property
    def is_head(self) -> bool:
        """Whether the response has no body whatever its fields say (21)."""
        return self.method == b"HEAD"

    @property
    def is_idempotent(self) -> bool:
        """Whether sending it twice is the same as sending it once."""
        return self.method in IDEMPOTENT

    def head(self, forwarded: bytes) -> bytes:
        """Return the head as it goes to an application.

        Args:
            forwarded: Field lines that say who the client is; X-Forwarded-Host is added to them.
        """
        authority = self.authority
        lines = [b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (self.method, self.target, authority)]
        lines += self.fields
        if self.body > 0:
            lines.append(b"Content-Length: %d\r\n" % self.body)
        elif self.body == CHUNKED:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        elif self.method in _BODY_EXPECTED:
            lines.append(b"Content-Length: 0\r\n")
        if self.upgrade:
            lines.append(b"Connection: upgrade\r\nUpgrade: %b\r\n" % self.upgrade)
        lines.append(b"%bX-Forwarded-Host: %b\r\n\r\n" % (forwarded, authority))
        return b"".join(lines)


_BODY_EXPECTED = frozenset({b"POST", b"PUT", b"PATCH"})
"""Methods for which an absent body is said out loud (RFC 9110 section 8.6)."""


class RequestReader:
    """Turns a client's bytes into requests.

    Attributes:
        queue: Requests whose head is whole, oldest first; only the newest can lack body.
        refusal: What to answer after them, before the connection is closed.
        is_last: Nothing after the newest request is read: the client asked to close.
        is_held: The newest request asks for an upgrade; what follows it waits in `rest`.
        is_in_head: A head has begun and is not whole.
    """

    __slots__ = (
        "_fed",
        "_head_bytes",
        "_is_mid_feed",
        "_is_misread",
        "_is_muted",
        "_overhead",
        "_parser",
        "_request",
        "_special",
        "is_held",
        "is_in_head",
        "is_last",
        "queue",
        "refusal",
        "rest",
    )

    def __init__(self) -> None:
        self.queue: deque[Request] = deque()
        self.refusal: Refusal | None = None
        self.rest = b""
        self.is_held = False
        self.is_in_head = False
        self.is_last = False
        self._parser: Any = httptools.HttpRequestParser(self)
        self._request = Request()
        self._special: dict[bytes, bytes] = {}
        self._fed = 0
        self._head_bytes = 0
        self._overhead = 0
        self._is_mid_feed = False
        self._is_misread = False
        self._is_muted = False

    def feed(self, data: bytes) -> None:
        """Read what arrived; results are in the attributes. Never raises for bad input."""
        if self.is_held:
            self.rest += data
            return
        if self.is_last or self.refusal is not None:
            return
        self._fed = len(data)
        self._is_mid_feed = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if not self.is_last:
                self._refuse(_refusal_for(error, data))
        if self.is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_too_large())
        elif self.queue and self.queue[-1].body == CHUNKED:
            self._watch_overhead(len(data))

    def resume(self) -> None:
        """Go on as HTTP after an upgrade that the application declined."""
        self.is_held = False
        self._parser = httptools.HttpRequestParser(self)
        data, self.rest = self.rest, b""
        self.feed(data)

    def close(self) -> None:
        """Break the circle between reader and parser, so that memory is free at once."""
        self._parser = None
        self.is_last = True
        self.is_held = False

    # -- callbacks of llhttp ----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Note that a head has begun; what precedes it in the same read is not counted to it."""
        self.is_in_head = True
        self._head_bytes = -self._fed if self._is_mid_feed else 0

    def on_url(self, part: bytes) -> None:
        """Collect the target."""
        self._request.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Sort a field: ours to understand, or a line to pass on."""
        lower = name.lower()
        if not self.is_in_head:
            return  # a trailer: dropped (6)
        if lower not in _SPECIAL:
            self._request.fields.append(b"%b: %b\r\n" % (name, value))
        elif lower in self._special:
            self._special[lower] += b", " + value
        else:
            self._special[lower] = value

    def on_headers_complete(self) -> None:
        """Understand the head and queue the request; raises Refusal through llhttp."""
        self.is_in_head = False
        request, special = self._request, self._special
        self._request, self._special = Request(), {}
        if self._is_muted:
            self._is_muted = False
            return
        if max(self._head_bytes, 0) + self._fed > MAX_HEAD_BYTES:
            self._check_size(request, special)
        self._overhead = -self._fed  # the head is not charged to the body
        request.method = self._parser.get_method()
        try:
            self._understand(request, special)
        except Refusal as refusal:
            self.refusal = refusal
            raise
        self.queue.append(request)

    def on_body(self, piece: bytes) -> None:
        """Keep some bytes of the body for whoever passes them on."""
        self.queue[-1].pieces.append(piece)
        self._overhead -= len(piece) + FREE_OVERHEAD_BYTES

    def on_message_complete(self) -> None:
        """Note that the newest request is whole."""
        if self._is_misread:
            return
        self._is_mid_feed = True
        request = self.queue[-1]
        request.is_complete = True
        if not self._parser.should_keep_alive():
            request.keeps_alive = False
            self.is_last = True

    # -- leaves -----------------------------------------------------------------------------------

    def _understand(self, request: Request, special: dict[bytes, bytes]) -> None:
        version = self._parser.get_http_version()
        if version != "1.1":
            _check_version(version, special)
            request.is_http10 = True
        _set_target(request, special.get(b"host"))
        if len(special) == 1 and b"host" in special:
            return
        _set_body(request, special)
        connection = special.get(b"connection")
        if connection is not None:
            options = tokens(connection)
            request.keeps_alive = b"close" not in options
            request.fields = without_named(request.fields, options)
        expect = special.get(b"expect")
        if expect is not None:
            _set_expectation(request, expect)
        if b"upgrade" in special and self._parser.should_upgrade():
            self._set_upgrade(request, special[b"upgrade"])

    def _set_upgrade(self, request: Request, protocols: bytes) -> None:
        """Decide whether a wish to upgrade is passed on; ignoring it is always allowed.

        With a body, in HTTP/1.0 or for h2c (which would tunnel requests past the routing) it is
        ignored. llhttp then wrongly takes the body for the new protocol, and is told again.
        """
        if request.body or request.is_http10 or b"h2c" in tokens(protocols):
            self._is_misread = True
        else:
            request.upgrade = protocols

    def _upgraded(self, rest: bytes) -> None:
        if not self._is_misread:
            self.is_held = True
            self.rest = rest
            return
        self._is_misread = False
        self._is_muted = True
        self._parser = httptools.HttpRequestParser(self)
        self.feed(_framing_only(self.queue[-1]) + rest)

    def _check_size(self, request: Request, special: dict[bytes, bytes]) -> None:
        """Refuse a head that is too large although it came at once.

        Raises:
            Refusal: 431.
        """
        size = len(request.target) + sum(map(len, request.fields))
        size += sum(len(name) + len(value) + 4 for name, value in special.items())
        if size > MAX_HEAD_BYTES:
            self.refusal = _too_large()
            raise self.refusal

    def _refuse(self, refusal: Refusal) -> None:
        if self.refusal is None:
            self.refusal = refusal

    def _watch_overhead(self, size_bytes: int) -> None:
        """Refuse a body that is all framing: extensions or trailers without end (5)."""
        self._overhead = max(self._overhead + size_bytes, 0)
        if self._overhead > MAX_OVERHEAD_BYTES:
            self._refuse(Refusal(400, "the body's framing has no end"))


def _too_large() -> Refusal:
    return Refusal(431, f"the request head is larger than {MAX_HEAD_BYTES} bytes")


def _refusal_for(error: Exception, data: bytes) -> Refusal:
    """Return what to answer when llhttp gave up; the words in `error` are llhttp's own."""
    reason = str(error)
    if reason == "Invalid HTTP version":
        return Refusal(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if isinstance(error, httptools.HttpParserInvalidMethodError) and _REQUEST_LINE.match(data):
        return Refusal(501, "the method is not known here")
    return Refusal(400, f"the request is malformed: {reason or 'not HTTP'}")


def _check_version(version: str, special: dict[bytes, bytes]) -> None:
    if version != "1.0":
        raise Refusal(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if b"transfer-encoding" in special:
        raise Refusal(400, "Transfer-Encoding does not exist in HTTP/1.0")


def _set_target(request: Request, host: bytes | None) -> None:
    """Settle where the request goes: the target and the authority it is for (13 to 16)."""
    if request.method == b"CONNECT":
        raise Refusal(501, "CONNECT is not served here")
    if host is None and not request.is_http10:
        raise Refusal(400, "the request has no Host field")
    if host is not None and b", " in host:
        raise Refusal(400, "the request has more than one Host field")
    request.authority = (host or b"").strip(b" \t")
    target = request.target
    if b"#" in target or not target.isascii():
        raise Refusal(400, "the request target is malformed")
    if target.startswith(b"/") or (target == b"*" and request.method == b"OPTIONS"):
        return
    scheme, separator, after = target.partition(b"://")
    if not separator or scheme.lower() not in {b"http", b"https"}:
        raise Refusal(400, "the request target is malformed")
    cut = min((at for at in (after.find(b"/"), after.find(b"?")) if at >= 0), default=len(after))
    request.authority = after[:cut]
    path = after[cut:]
    if not path and request.method == b"OPTIONS":
        path = b"*"
    request.target = path if path[:1] in {b"/", b"*"} else b"/" + path


def _set_body(request: Request, special: dict[bytes, bytes]) -> None:
    coding = special.get(b"transfer-encoding")
    length = special.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise Refusal(400, "Transfer-Encoding and Content-Length exclude each other")
        if coding.strip(b" \t").lower() != b"chunked":
            raise Refusal(400, "Transfer-Encoding is not exactly chunked")
        request.body = CHUNKED
    elif length is not None:
        try:
            request.body = length_of(length)
        except ValueError:
            raise Refusal(400, "Content-Length is malformed") from None


def _set_expectation(request: Request, value: bytes) -> None:
    if value.strip(b" \t").lower() != b"100-continue":
        raise Refusal(417, "the only expectation that can be met is 100-continue")
    if not request.is_http10:
        request.fields.append(b"Expect: 100-continue\r\n")


def _framing_only(request: Request) -> bytes:
    """Return a head that makes llhttp read the body of a request whose head it has seen."""
    close = b"" if request.keeps_alive and not request.is_http10 else b"Connection: close\r\n"
    if request.body == CHUNKED:
        return b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n%b\r\n" % close
    return b"POST / HTTP/1.1\r\nContent-Length: %d\r\n%b\r\n" % (request.body, close)
