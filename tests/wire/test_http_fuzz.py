"""Whatever arrives, in whatever pieces: nothing raises, and no two readers see another message.

Bounded fuzzing, against ourselves and against two parsers that others wrote: h11, and llhttp as
httptools has it. What we accept they accept, as the same message; the other way round there are
many streams that we refuse and they don't. Where we accept more is said at `_preceded`.
"""

import re
from collections.abc import Callable
from typing import Any

import h11
import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.http_streams import cuts, damaged, pieces_of, requests, responses
from support.http_support import answered, fed, outcome, sent, told, verdict

from trafficmgr.core.traffic import Front
from trafficmgr.wire import http_response
from trafficmgr.wire.http import CHUNKED, BadResponseError
from trafficmgr.wire.http_fields import HOP_BY_HOP, REQUEST_SPECIAL, RESPONSE_SPECIAL
from trafficmgr.wire.http_grammar import RESPONSE_RULES, request_rules
from trafficmgr.wire.http_request import Request, RequestReader

fuzz = settings(deadline=None, database=None, max_examples=400)

pytestmark = pytest.mark.long

NEVER = re.compile(rb"(?!)")
SMALL = Front(request_line_bytes=30, head_bytes=60, fields=4)
"""Limits that the streams here reach."""


def read(stream: bytes, sizes: list[int], reader: RequestReader) -> RequestReader:
    for piece in pieces_of(stream, sizes):
        reader.feed(piece)
    return reader


@fuzz
@given(damaged(requests()), cuts, st.sampled_from([Front(), SMALL]))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r", [1] * 40, Front())
def test_a_stream_of_requests_is_the_same_in_any_pieces(
    stream: bytes, sizes: list[int], front: Front
) -> None:
    whole = fed(stream, front=front)

    assert verdict(read(stream, sizes, RequestReader(front))) == verdict(whole)
    assert verdict(fed(stream, 1, front)) == verdict(whole)
    assert read(stream, sizes, RequestReader(front)).is_in_head == whole.is_in_head


@fuzz
@given(damaged(responses()), cuts, st.booleans())
def test_a_stream_of_responses_is_the_same_in_any_pieces(
    stream: bytes, sizes: list[int], is_bodyless: bool
) -> None:
    whole = outcome([stream], is_bodyless=is_bodyless)

    assert outcome(pieces_of(stream, sizes), is_bodyless=is_bodyless) == whole
    assert outcome(pieces_of(stream, [1] * len(stream)), is_bodyless=is_bodyless) == whole


@fuzz
@given(st.binary(max_size=300), cuts)
def test_noise_is_refused_or_waited_for(noise: bytes, sizes: list[int]) -> None:
    assert verdict(read(noise, sizes, RequestReader())) == verdict(fed(noise))
    assert outcome(pieces_of(noise, sizes), is_bodyless=False) == outcome(
        [noise], is_bodyless=False
    )


@fuzz
@given(damaged(requests()), st.sampled_from([Front(), SMALL]))
def test_a_plain_request_is_what_the_long_way_makes_of_it(stream: bytes, front: Front) -> None:
    slow = RequestReader(front)
    slow._rules = slow._rules._replace(plain=NEVER)
    slow.feed(stream)

    assert verdict(fed(stream, front=front)) == verdict(slow)


@fuzz
@given(damaged(responses()))
def test_a_plain_response_is_what_the_long_way_makes_of_it(stream: bytes) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(http_response, "_PLAIN", NEVER.match)
        slow = outcome([stream], is_bodyless=False)

    assert outcome([stream], is_bodyless=False) == slow


SPECIAL = [
    b"connection", b"content-length", b"expect", b"forwarded", b"host", b"keep-alive",
    b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
    b"transfer-encoding", b"upgrade", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port",
    b"x-forwarded-proto", b"x-forwarded-server", b"x-real-ip", b"x-request-id", b"content_length",
    b"transfer_encoding", b"x_forwarded_for", b"x-forwarded_proto", b"x_real-ip", b"x_request_id",
    b"x-trafficmgr-revision",
]  # fmt: skip
RULES = request_rules(8192, 32768, 100)


@pytest.mark.parametrize("spelled", [bytes.lower, bytes.upper, bytes.title])
@pytest.mark.parametrize("name", SPECIAL)
def test_no_plain_head_has_a_special_field(name: bytes, spelled: Callable[[bytes], bytes]) -> None:
    """As the patterns for both are written by hand."""
    line = b"%b: 1\r\n" % spelled(name)
    request = b"GET / HTTP/1.1\r\nHost: a\r\n%bContent-Length: 1\r\n%b\r\n"
    response = b"HTTP/1.1 200 OK\r\n%bContent-Length: 1\r\n%b\r\n"

    assert RULES.plain.match(request % (b"", b""))
    assert RESPONSE_RULES.plain.match(response % (b"", b""))
    if REQUEST_SPECIAL.search(b"\n" + line):
        assert not RULES.plain.match(request % (line, b""))
        assert not RULES.plain.match(request % (b"", line))
    if RESPONSE_SPECIAL.search(b"\n" + line):
        assert not RESPONSE_RULES.plain.match(response % (line, b""))
        assert not RESPONSE_RULES.plain.match(response % (b"", line))
    assert REQUEST_SPECIAL.search(b"\n" + line) or name == b"x-trafficmgr-revision"


# -- against others -------------------------------------------------------------------------------


def by_h11(stream: bytes) -> tuple[h11.Request, bytes]:
    """Return the first request of a stream and its body as h11 reads them."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(stream)
    request = connection.next_event()
    assert isinstance(request, h11.Request), request
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data), event
        body += event.data
    return request, body


class Llhttp:
    """What llhttp makes of the first request of a stream."""

    def __init__(self, stream: bytes) -> None:
        self.target = self.body = b""
        self.is_complete = False
        parser: Any = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(stream)
        except httptools.HttpParserUpgrade:
            self.is_complete = True
        except httptools.HttpParserError:
            assert self.is_complete  # it is about what follows
        self.method = parser.get_method() if self.is_complete else b""

    def on_url(self, part: bytes) -> None:
        self.target += b"" if self.is_complete else part

    def on_body(self, part: bytes) -> None:
        self.body += b"" if self.is_complete else part

    def on_message_complete(self) -> None:
        self.is_complete = True


def _preceded(stream: bytes) -> bytes:
    """Return a stream without the empty lines that we pass over before a request (h11 doesn't)."""
    while stream.startswith(b"\r\n"):
        stream = stream[2:]
    return stream


def fields_of(request: h11.Request, name: bytes) -> list[bytes]:
    return [value for each, value in request.headers if each == name]


def check_as_written(stream: bytes, ours: Request) -> None:
    """Hold what we understood against what h11 understands of the same bytes."""
    theirs, body = by_h11(_preceded(stream))

    assert (theirs.method, theirs.http_version) == (
        ours.method,
        b"1.0" if ours.is_http10 else b"1.1",
    )
    if theirs.target == ours.target:
        assert fields_of(theirs, b"host") in ([ours.authority], [])
    else:  # absolute form, whose authority goes before Host
        assert theirs.target.lower().startswith(b"http://")
        assert ours.target == b"*" or ours.authority + ours.target in theirs.target + b"/"
    assert body == b"".join(ours.pieces)
    coding, length = fields_of(theirs, b"transfer-encoding"), fields_of(theirs, b"content-length")
    assert bool(coding) is (ours.body == CHUNKED)
    assert [int(value) for value in length] == ([ours.body] if length else [])


def check_as_sent(ours: Request) -> None:
    """Hold what we send against what two next hops understand of it."""
    out = sent(ours, b"X-Forwarded-For: 1.2.3.4\r\n")
    theirs, body = by_h11(out)

    assert (theirs.method, theirs.target, theirs.http_version) == (ours.method, ours.target, b"1.1")
    assert body == b"".join(ours.pieces)
    assert fields_of(theirs, b"host") == [ours.authority]
    assert fields_of(theirs, b"x-forwarded-for") == [b"1.2.3.4"]
    names = {name for name, _ in theirs.headers} & HOP_BY_HOP
    framing = {b"transfer-encoding"} if ours.body == CHUNKED else set()
    assert names == framing | ({b"connection", b"upgrade"} if ours.upgrade else set())
    other = Llhttp(out)
    assert (other.is_complete, other.target, other.body) == (True, ours.target, body)


@fuzz
@given(damaged(requests()))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
@example(
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\r\nb\r\n0\r\nA: b\r\n\r\n"
)
def test_a_request_that_we_accept_is_the_same_one_to_others(stream: bytes) -> None:
    reader = fed(stream)
    if not reader.queue or not reader.queue[0].is_complete:
        return
    ours = reader.queue[0]

    check_as_written(stream, ours)
    check_as_sent(ours)
    assert Llhttp(stream).is_complete


def response_by_h11(stream: bytes) -> tuple[int, bytes]:
    """Return the final response in a stream that ends, as h11 reads it."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(stream)
    connection.receive_data(b"")
    while isinstance(response := connection.next_event(), h11.InformationalResponse):
        pass
    assert isinstance(response, h11.Response), response
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data), event
        body += event.data
    return response.status_code, body


@fuzz
@given(damaged(responses()))
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
@example(b"HTTP/1.1 200 OK\r\n\r\nok")
def test_a_response_that_we_accept_is_the_same_one_to_others(stream: bytes) -> None:
    """205 aside: it has no body (RFC 9110 section 15.3.6), which h11 does not know."""
    try:
        reader = answered(stream)
    except BadResponseError:
        return
    if not reader.feed_eof() or reader.status == 205:
        return

    assert response_by_h11(stream) == response_by_h11(told(reader))
    assert response_by_h11(stream)[0] == reader.status
