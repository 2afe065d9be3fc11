"""Readers of HTTP/1.1 fed with bytes in pieces, and what would have been sent on."""

from collections.abc import Iterator

from trafficmgr.core.traffic import Front
from trafficmgr.wire.http import CHUNKED, LAST_CHUNK, BadResponseError, chunk
from trafficmgr.wire.http_request import Request, RequestReader
from trafficmgr.wire.http_response import ResponseReader

WHOLE = 1 << 30
DEFAULTS = Front()


def cut(data: bytes, piece_bytes: int) -> Iterator[bytes]:
    """Yield data in pieces of one size."""
    for start in range(0, len(data), piece_bytes):
        yield data[start : start + piece_bytes]


def fed(data: bytes, piece_bytes: int = WHOLE, front: Front = DEFAULTS) -> RequestReader:
    """Return a reader that got these bytes from a client."""
    reader = RequestReader(front)
    for piece in cut(data, piece_bytes):
        reader.feed(piece)
    return reader


def request_of(data: bytes) -> Request:
    """Return the one request in a stream, which has to be a good one."""
    reader = fed(data)
    assert reader.refusal is None, reader.refusal
    assert len(reader.queue) == 1
    return reader.queue[0]


def sent(request: Request, forwarded: bytes = b"") -> bytes:
    """Return what an application would get of a request that is whole."""
    assert request.is_complete
    body = b"".join(request.pieces)
    if request.body == CHUNKED:
        body = (chunk([body]) if body else b"") + LAST_CHUNK
    return request.head(forwarded) + body


def verdict(reader: RequestReader) -> tuple[list[bytes], int, str, bool, bytes]:
    """Return all that a client's stream came to."""
    refusal = reader.refusal
    whole = [sent(request) for request in reader.queue if request.is_complete]
    status, text = (refusal.status, refusal.text) if refusal is not None else (0, "")
    return whole, status, text, reader.is_last, reader.rest


def answered(
    data: bytes,
    piece_bytes: int = WHOLE,
    *,
    is_bodyless: bool = False,
    is_switch_asked: bool = False,
) -> ResponseReader:
    """Return a reader that got these bytes from an application.

    Raises:
        BadResponseError: They are no response.
    """
    reader = ResponseReader()
    reader.begin(is_bodyless=is_bodyless, is_switch_asked=is_switch_asked)
    for piece in cut(data, piece_bytes):
        reader.feed(piece)
    return reader


GET = request_of(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
GET_10 = request_of(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")


def told(reader: ResponseReader, request: Request = GET) -> bytes:
    """Return what a client would get of a response so far, with an unbroken connection."""
    interim = b"".join(reader.interim)
    head = b"".join(reader.head(request, is_last=False)) if reader.status else b""
    pieces, reader.pieces = reader.pieces, [b"".join(reader.pieces)] if reader.pieces else []
    body = b"".join(reader.take_body(request))
    reader.pieces = pieces
    return interim + head + body


def outcome(pieces: list[bytes], *, is_bodyless: bool) -> tuple[object, ...]:
    """Return all that an application's stream came to; of an error only that it was one."""
    reader = ResponseReader()
    reader.begin(is_bodyless=is_bodyless, is_switch_asked=False)
    try:
        for piece in pieces:
            reader.feed(piece)
    except BadResponseError as error:
        return (str(error),)
    state = (reader.status, reader.body, reader.is_complete, reader.is_reusable, told(reader))
    return (*state, reader.feed_eof())
