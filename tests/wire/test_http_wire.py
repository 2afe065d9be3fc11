"""What both directions of HTTP/1.1 share, and streams of several requests.

The list of docs/http.md: test_http_requests, test_http_responses. Over sockets: tests/dataplane.
"""

import pytest
from support.http_support import WHOLE, answered, fed, request_of

from trafficmgr.wire.http import CHUNKED, Refusal, chunk, host_of, own_response
from trafficmgr.wire.http_fields import length_of

STREAM = (
    b"GET /a HTTP/1.1\r\nHost: a.test\r\nAccept: x\r\n\r\n"
    b"POST /b HTTP/1.1\r\nHost: b.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    b"PUT /c HTTP/1.1\r\nHost: c.test\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
    b"GET /never HTTP/1.1\r\nHost: d.test\r\n\r\n"
)


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 17, WHOLE])
def test_requests_are_the_same_in_any_pieces(piece_bytes: int) -> None:
    reader = fed(STREAM, piece_bytes)

    assert [(r.method, r.target, r.authority, r.body) for r in reader.queue] == [
        (b"GET", b"/a", b"a.test", 0),
        (b"POST", b"/b", b"b.test", CHUNKED),
        (b"PUT", b"/c", b"c.test", 3),
    ]
    assert [b"".join(r.pieces) for r in reader.queue] == [b"", b"hi", b"abc"]
    assert all(r.is_complete for r in reader.queue)
    assert [r.keeps_alive for r in reader.queue] == [True, True, False]
    assert reader.is_last
    assert reader.refusal is None


def test_a_head_is_written_anew() -> None:
    request = fed(STREAM).queue[0]

    assert request.head(b"X-Forwarded-For: 1.2.3.4\r\n") == (
        b"GET /a HTTP/1.1\r\nHost: a.test\r\nAccept: x\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"
    )


def test_the_body_of_an_upload_is_handed_on_as_it_comes() -> None:
    reader = fed(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab")
    request = reader.queue[0]

    assert (request.pieces, request.is_complete) == ([b"ab"], False)
    request.pieces = []
    reader.feed(b"cd")
    assert (request.pieces, request.is_complete) == ([b"cd"], False)
    request.pieces = []
    reader.feed(b"efGET")
    assert (request.pieces, request.is_complete) == ([b"ef"], True)
    assert reader.is_in_head


@pytest.mark.parametrize("framing", [b"Content-Length: 4", b"Transfer-Encoding: chunked"])
def test_no_piece_of_a_body_is_empty(framing: bytes) -> None:
    """An empty chunk would end the body in the eyes of whoever gets it."""
    body = b"abcd" if b"Length" in framing else b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"
    request = b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing
    response = b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing

    for at in range(len(body) + 1):
        reader = fed(request + body[:at])
        reader.feed(body[at:])
        pieces = reader.queue[0].pieces
        assert b"".join(pieces) == b"abcd"
        assert all(pieces), at
        answer = answered(response + body[:at])
        answer.feed(body[at:])
        assert b"".join(answer.pieces) == b"abcd"
        assert all(answer.pieces), at
    assert chunk([]) == chunk([b""]) == b""


def test_bytes_after_an_upgrade_wait_until_it_is_decided() -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    reader = fed(upgrade + b"GET /n")
    reader.feed(b"ext HTTP/1.1\r\nHost: a\r\n\r\n")

    assert (reader.is_held, len(reader.queue)) == (True, 1)
    assert reader.queue[0].upgrade == b"x"
    reader.resume()
    assert [request.target for request in reader.queue] == [b"/", b"/next"]
    assert reader.rest == b""


@pytest.mark.parametrize("piece_bytes", [1, WHOLE])
def test_a_refusal_leaves_the_requests_before_it(piece_bytes: int) -> None:
    reader = fed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n", piece_bytes)

    assert len(reader.queue) == 1
    assert reader.refusal is not None
    assert reader.refusal.status == 400
    assert reader.refusal.text == "the request has no Host field"


def test_a_closed_reader_reads_nothing() -> None:
    reader = fed(b"GET / HTTP/1.1\r\nHo")
    reader.close()
    reader.feed(b"st: a\r\n\r\n")

    assert not reader.queue


@pytest.mark.parametrize(
    ("method", "is_idempotent"),
    [(b"GET", True), (b"PUT", True), (b"POST", False), (b"PATCH", False), (b"PURGE", False)],
)
def test_some_requests_may_be_sent_twice(method: bytes, *, is_idempotent: bool) -> None:
    request = request_of(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")

    assert request.is_idempotent is is_idempotent
    assert not request.is_head


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        (b"shop.test", "shop.test"),
        (b"SHOP.test.:80", "shop.test"),
        (b"[::1]:80", "[::1]"),
        (b"1.2.3.4:", "1.2.3.4"),
    ],
)
def test_a_host_is_compared_in_one_spelling(authority: bytes, host: str) -> None:
    assert host_of(authority) == host


@pytest.mark.parametrize(
    "authority", [b"", b":80", b"a b", b"a/b", b"a@b", b"a:b", b"a:1:2", b"[::1", b"\xff", b"a\x00"]
)
def test_a_malformed_host_is_refused(authority: bytes) -> None:
    with pytest.raises(Refusal):
        host_of(authority)


@pytest.mark.parametrize("value", [b"", b"+1", b"-1", b"1_0", b"0x1", b"1 2", b"\xb2", b"1" * 19])
def test_a_length_is_digits_and_nothing_else(value: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        length_of(value)


def test_our_own_answers_are_short_and_plain() -> None:
    answer = own_response(503, "no group can take the request now", is_head=False, is_last=True)

    assert answer == (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 38\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        b"503 no group can take the request now\n"
    )


def test_our_own_answers_take_fields_and_leave_the_body_to_others_than_head() -> None:
    answer = own_response(404, "no", is_head=True, is_last=False, also=b"Date: x\r\n")

    assert answer == (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 7\r\nDate: x\r\n\r\n"
    )
