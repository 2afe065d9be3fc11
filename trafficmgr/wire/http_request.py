"""Reads requests from a client's byte stream.

`RequestReader` is fed with what arrived and queues a `Request` as soon as its head is whole; the
body follows piece by piece in `Request.pieces`, for whoever passes it on. Requests may be
pipelined: they wait in the queue in their order (29). A stream that breaks a rule sets `refusal`
and is not read any further; requests before it are still good.

A head is held to the grammar by one match and searched for special fields by another (http_head,
http_fields); what those mean is in http_semantics. The numbers in brackets are the lines of the
list in docs/http.md, which names the test of each.
"""

import re
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType

from trafficmgr.core.traffic import Front
from trafficmgr.wire.http import CHUNKED, Refusal
from trafficmgr.wire.http_chunks import ChunkReader, too_big
from trafficmgr.wire.http_fields import (
    FORWARDING,
    REQUEST_ID,
    REQUEST_SPECIAL,
    Special,
    sorted_out,
    tokens,
    without_named,
)
from trafficmgr.wire.http_grammar import request_rules
from trafficmgr.wire.http_head import HeadBuffer, MalformedError, check_sizes
from trafficmgr.wire.http_semantics import (
    IDEMPOTENT,
    LIMITED,
    body_of,
    check_expectation,
    check_method,
    place_of,
    with_hop_counted,
)

_EMPTY_LINES = re.compile(rb"(?:\r\n)++")  # before a request: passed over (RFC 9112 section 2.2)
_NO_CLAIMS: Mapping[bytes, bytes] = MappingProxyType({})
_CLAIMS = FORWARDING | {REQUEST_ID}
_BODY_EXPECTED = frozenset({b"POST", b"PUT", b"PATCH"})
"""Methods for which an absent body is said out loud (RFC 9110 section 8.6)."""

_DEFAULTS = Front()


class Request:
    r"""A request as it was understood. `pieces` holds the body bytes not passed on yet.

    Attributes:
        target: What goes into the request line: origin form or `*`.
        authority: The host it is for, as the client wrote it.
        lines: The head as it is passed on, in pieces, up to the lines that the proxy adds: what
            neither concerns one hop nor is written anew is there as it came.
        claims: What it says about the client, and its name (X-Request-Id), by lower-case field
            name; none of it is in `lines`.
        body: Length in bytes, or CHUNKED.
        body_bytes: Bytes of a body in chunks that were announced so far.
        is_head: The response has no body whatever its fields say (21).
        is_https: Its target says that it is meant for a connection with TLS.
        upgrade: The protocol that the client would like to switch to; empty is none.
        max_body_bytes: How large the body may be, see `limit_body`; None is any size.
        keeps_alive: The client would send another request on this connection.
    """

    __slots__ = (
        "authority",
        "body",
        "body_bytes",
        "claims",
        "is_complete",
        "is_head",
        "is_http10",
        "is_https",
        "keeps_alive",
        "lines",
        "max_body_bytes",
        "method",
        "pieces",
        "target",
        "upgrade",
    )

    def __init__(self, method: bytes, target: bytes, authority: bytes, lines: list[bytes]) -> None:
        self.method = method
        self.target = target
        self.authority = authority
        self.lines = lines
        self.pieces: list[bytes] = []
        self.body = 0
        self.body_bytes = 0
        self.max_body_bytes: int | None = None
        self.claims = _NO_CLAIMS
        self.upgrade = b""
        self.is_head = method == b"HEAD"
        self.is_http10 = False
        self.is_https = False
        self.is_complete = False
        self.keeps_alive = True

    @property
    def is_idempotent(self) -> bool:
        """Whether sending it twice is the same as sending it once."""
        return self.method in IDEMPOTENT

    def find(self, finder: re.Pattern[bytes]) -> bytes | None:
        """Return the value of a field or cookie, None if there is none (see http_fields)."""
        found = finder.search(b"".join(self.lines))
        return None if found is None else found[1].rstrip(b" \t")

    def limit_body(self, limit_bytes: int | None) -> None:
        """Settle how large the body may be, once it is known whom the request is for (12).

        Raises:
            Refusal: It is larger already. One in chunks that grows beyond it sets the reader's
                `refusal` later.
        """
        self.max_body_bytes = limit_bytes
        if limit_bytes is not None and max(self.body, self.body_bytes) > limit_bytes:
            raise Refusal(413, str(too_big(limit_bytes)))

    def head(self, forwarded: bytes) -> bytes:
        """Return the head as it goes to an application.

        Args:
            forwarded: Field lines that say who the client is, and whatever else is added.
        """
        return b"".join((*self.lines, forwarded, b"\r\n"))


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
        "_chunks",
        "_front",
        "_is_plain",
        "_left",
        "_partial",
        "_request",
        "_rules",
        "is_held",
        "is_in_head",
        "is_last",
        "queue",
        "refusal",
        "rest",
    )

    def __init__(self, front: Front = _DEFAULTS) -> None:
        self.queue: deque[Request] = deque()
        self.refusal: Refusal | None = None
        self.rest = b""
        self.is_held = False
        self.is_in_head = False
        self.is_last = False
        self._front = front
        self._rules = request_rules(front.request_line_bytes, front.head_bytes, front.fields)
        self._is_plain = True  # the newest head was; a client's heads are much alike
        self._partial: HeadBuffer | None = None
        self._request: Request | None = None  # whose body is under way
        self._chunks: ChunkReader | None = None
        self._left = 0

    def feed(self, data: bytes) -> None:
        """Read what arrived; results are in the attributes. Never raises for bad input."""
        if self.is_held:
            self.rest += data
            return
        if self.is_last or self.refusal is not None:
            return
        try:
            self._read(data)
        except Refusal as refusal:
            self._refuse(refusal)
        except MalformedError as error:
            text = str(error)
            is_plain = error.status == 400  # noqa: PLR2004  the other ones say it themselves
            self._refuse(
                Refusal(error.status, f"the request is malformed: {text}" if is_plain else text)
            )

    def resume(self) -> None:
        """Go on as HTTP after an upgrade that the application declined."""
        self.is_held = False
        data, self.rest = self.rest, b""
        self.feed(data)

    def close(self) -> None:
        """Read nothing any more, and keep nothing."""
        self.is_last = True
        self.is_held = False
        self._partial = self._request = self._chunks = None

    # -- leaves -----------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        """Read heads and bodies, one after the other.

        Raises:
            Refusal: The stream breaks a rule that a request has to obey.
            MalformedError: It breaks a rule of the grammar.
        """
        at = 0
        if self._request is not None:
            at = self._read_body(self._request, data, 0)
        elif self._partial is not None:
            data = self._joined(self._partial, data)
        while at < len(data) and not (self.is_last or self.is_held):
            head = self._rules.plain.match(data, at) if self._is_plain else None
            if head is not None:
                request = self._take_plain(head)
            else:
                head = self._rules.pattern.match(data, at)
                if head is None:
                    empty = _EMPTY_LINES.match(data, at)
                    if empty is None:
                        self._keep(data[at:])
                        return
                    at = empty.end()
                    continue
                request = self._understood(data, head)
            self.queue.append(request)
            at = head.end()
            if request.body:
                at = self._read_body(request, data, at)
            elif not request.is_complete:
                self._complete(request)
        if self.is_held:
            self.rest = data[at:]

    def _joined(self, partial: HeadBuffer, data: bytes) -> bytes:
        """Return a head that is whole now with what follows it; nothing if it is not."""
        if not partial.feed(data):
            self.is_in_head = bool(partial.data)
            return b""
        self._partial = None
        self.is_in_head = False
        return bytes(partial.data)

    def _keep(self, data: bytes) -> None:
        """Keep the beginning of a head."""
        partial = HeadBuffer(self._rules)
        if partial.feed(data):
            raise MalformedError(400, "not HTTP")
        self._partial = partial
        self.is_in_head = bool(partial.data)

    def _take_plain(self, head: re.Match[bytes]) -> Request:
        """Understand a head that has nothing special about it."""
        if len(head.string) > self._rules.safe_bytes:
            self._check_sizes(head, head.end(3) + len(b" HTTP/1.1\r\n"))
        first, method, target, host, close, second, length, third = head.groups()
        request = Request(method, target, host, [first, second, third])
        if close is not None:
            request.keeps_alive = False
        if length is not None:
            request.body = self._left = int(length)  # 1 to 18 digits, by the pattern
            _frame(request)
        else:
            request.is_complete = True
            self.is_last = not request.keeps_alive
            if method in _BODY_EXPECTED:
                _frame(request)
        return request

    def _understood(self, data: bytes, head: re.Match[bytes]) -> Request:
        """Understand any head."""
        line_end, end = head.end(3) + 2, head.end()
        if end - head.start() > self._rules.safe_bytes:
            self._check_sizes(head, line_end)
        method, target, version = head.groups()
        check_method(method)
        fields, special = sorted_out(data[line_end - 1 : end - 2], REQUEST_SPECIAL)
        is_http10 = version == b"0"
        host, connection = special.pop(b"host", None), special.pop(b"connection", None)
        authority, target, is_https = place_of(method, target, host, is_http10=is_http10)
        request = Request(method, target, authority, fields)
        request.is_https = is_https
        self._is_plain = not special
        if is_http10:
            request.is_http10 = True
            request.keeps_alive = False
        if connection is not None and (is_http10 or connection.lower() != b"keep-alive"):
            _connect(request, connection, special.get(b"upgrade"))
        if special or method in LIMITED:
            self._apply(request, special)
        request.lines.insert(0, b"%b %b HTTP/1.1\r\nHost: %b\r" % (method, target, authority))
        _frame(request)
        return request

    def _check_sizes(self, head: re.Match[bytes], line_end: int) -> None:
        line_bytes, section_bytes = line_end - head.start(), head.end() - line_end
        check_sizes(self._rules, line_bytes=line_bytes, section_bytes=section_bytes)

    def _apply(self, request: Request, special: Special) -> None:
        """Settle what few requests ask for."""
        request.body = body = body_of(special, is_http10=request.is_http10)
        if body == CHUNKED:
            self._chunks = ChunkReader(self._rules)
        self._left = body
        if body:
            request.upgrade = b""  # ignoring it is allowed; what follows is not the new protocol
        expect = special.get(b"expect")
        if expect is not None:
            check_expectation(expect)
            if not request.is_http10:
                request.lines.append(b"Expect: 100-continue\r\n")
        name = special.get(REQUEST_ID)
        if name is not None and not self._front.names_requests:
            request.lines.append(b"X-Request-Id: %b\r\n" % special.pop(REQUEST_ID))
        if not _CLAIMS.isdisjoint(special):
            request.claims = {name: special[name] for name in special if name in _CLAIMS}
        request.lines = with_hop_counted(request.method, request.lines, body)

    def _read_body(self, request: Request, data: bytes, at: int) -> int:
        """Read some of a body; returns where in `data` it ends, or the end of that."""
        chunks = self._chunks
        if chunks is not None:
            chunks.limit_bytes = request.max_body_bytes
            end = chunks.feed(data, at, request.pieces)
            request.body_bytes = chunks.size_bytes
            is_complete = chunks.is_complete
        else:
            end = at + self._left
            piece = data[at:end]
            if piece:
                request.pieces.append(piece)
            self._left -= len(piece)
            is_complete = not self._left
        if not is_complete:
            self._request = request
            return len(data)
        self._complete(request)
        return end

    def _complete(self, request: Request) -> None:
        """Note that the newest request is whole."""
        self._request = self._chunks = None
        request.is_complete = True
        self.is_last = not request.keeps_alive
        self.is_held = bool(request.upgrade)

    def _refuse(self, refusal: Refusal) -> None:
        self.refusal = refusal
        self.is_in_head = False
        self._partial = self._request = self._chunks = None


def _frame(request: Request) -> None:
    """Write down how the body is framed, and the wish to upgrade, behind all other lines (7)."""
    body, lines = request.body, request.lines
    if body > 0:
        lines.append(b"Content-Length: %d\r\n" % body)
    elif body == CHUNKED:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    elif request.method in _BODY_EXPECTED:
        lines.append(b"Content-Length: 0\r\n")
    if request.upgrade:
        lines.append(b"Connection: upgrade\r\nUpgrade: %b\r\n" % request.upgrade)


def _connect(request: Request, connection: bytes, upgrade: bytes | None) -> None:
    """Settle what Connection says: what ends at this hop, and what follows the request (17, 25).

    Ignoring a wish to upgrade is always allowed. That is done if the connection is to be closed or
    speaks HTTP/1.0, and for h2c, which would carry requests past the routing.
    """
    options = tokens(connection)
    request.lines = without_named(request.lines, options)
    is_11 = not request.is_http10
    request.keeps_alive = b"close" not in options and (is_11 or b"keep-alive" in options)
    if upgrade and is_11 and request.keeps_alive and b"upgrade" in options:
        request.upgrade = b"" if b"h2c" in tokens(upgrade) else upgrade
