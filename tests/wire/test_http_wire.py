"""Reading and writing HTTP/1.1 without a socket. What goes over sockets: tests/dataplane."""

import pytest

from trafficmgr.wire.http import (
    CHUNKED,
    UNTIL_CLOSE,
    BadResponseError,
    Refusal,
    host_of,
    length_of,
    own_response,
)
from trafficmgr.wire.http_request import RequestReader
from trafficmgr.wire.http_response import REVISION_FIELD, ResponseReader, signature

STREAM = (
    b"GET /a HTTP/1.1\r\nHost: a.test\r\nAccept: x\r\n\r\n"
    b"POST /b HTTP/1.1\r\nHost: b.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    b"PUT /c HTTP/1.1\r\nHost: c.test\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
    b"GET /never HTTP/1.1\r\nHost: d.test\r\n\r\n"
)


def fed(data: bytes, piece_bytes: int = 1 << 20) -> RequestReader:
    reader = RequestReader()
    for start in range(0, len(data), piece_bytes):
        reader.feed(data[start : start + piece_bytes])
    return reader


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 17, 1 << 20])
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
        b"GET /a HTTP/1.1\r\nHost: a.test\r\nAccept: x\r\n"
        b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: a.test\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("target", "authority", "sent"),
    [
        (b"http://x.test/p?q", b"x.test", b"/p?q"),
        (b"HTTPS://x.test:1?q=/", b"x.test:1", b"/?q=/"),
        (b"http://x.test", b"x.test", b"/"),
    ],
)
def test_an_absolute_target_replaces_the_host(target: bytes, authority: bytes, sent: bytes) -> None:
    request = fed(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n").queue[0]

    assert (request.authority, request.target) == (authority, sent)


@pytest.mark.parametrize("target", [b"*", b"http://a"])
def test_options_may_ask_about_the_whole_server(target: bytes) -> None:
    reader = fed(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")

    assert reader.queue[0].target == b"*"


def test_bytes_after_an_upgrade_wait_until_it_is_decided() -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    reader = fed(upgrade + b"GET /n")
    reader.feed(b"ext HTTP/1.1\r\nHost: a\r\n\r\n")

    assert (reader.is_held, len(reader.queue)) == (True, 1)
    assert reader.queue[0].upgrade == b"x"
    reader.resume()
    assert [request.target for request in reader.queue] == [b"/", b"/next"]
    assert reader.rest == b""


@pytest.mark.parametrize("piece_bytes", [1, 1 << 20])
def test_a_refusal_leaves_the_requests_before_it(piece_bytes: int) -> None:
    reader = fed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n", piece_bytes)

    assert len(reader.queue) == 1
    assert reader.refusal is not None
    assert reader.refusal.status == 400
    assert reader.refusal.text == "the request has no Host field"


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


def answered(data: bytes, *, is_bodyless: bool = False) -> ResponseReader:
    reader = ResponseReader()
    reader.begin(is_bodyless=is_bodyless, is_switch_asked=False)
    reader.feed(data)
    return reader


@pytest.mark.parametrize(
    ("head", "body", "is_complete", "is_reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, True, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", 1, False, False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", CHUNKED, True, True),
        (b"HTTP/1.1 200 OK\r\n\r\n", UNTIL_CLOSE, False, False),
        (b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", None, True, True),
        (b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", None, True, True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 0, True, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 0, True, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHT", 0, True, False),
        (b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, True, True),
    ],
)
def test_a_response_says_where_it_ends(
    head: bytes, body: int | None, *, is_complete: bool, is_reusable: bool
) -> None:
    reader = answered(head)

    assert (reader.body, reader.is_complete, reader.is_reusable) == (body, is_complete, is_reusable)


def test_one_reader_reads_many_responses_also_after_head() -> None:
    reader = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", is_bodyless=True)
    assert (reader.is_complete, reader.is_reusable) == (True, True)

    reader.begin(is_bodyless=False, is_switch_asked=False)
    reader.feed(b"HTTP/1.1 404 Gone\r\nX: y\r\nContent-Length: 1\r\n\r\nz")

    assert (reader.status, reader.fields, reader.pieces) == (404, [b"X: y\r\n"], [b"z"])


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"nonsense\r\n",
    ],
)
def test_what_is_no_response_is_said_so(data: bytes) -> None:
    with pytest.raises(BadResponseError):
        answered(data)


def test_the_end_of_the_stream_completes_only_what_has_no_other_end() -> None:
    assert answered(b"HTTP/1.1 200 OK\r\n\r\nhalf").feed_eof() is True
    assert answered(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").feed_eof() is False
    assert answered(b"HTTP/1.1 200 OK\r\n").feed_eof() is False


def test_our_own_answers_are_short_and_plain() -> None:
    answer = own_response(503, "no group can take the request now", is_head=False, is_last=True)

    assert answer == (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 38\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        b"503 no group can take the request now\n"
    )


@pytest.mark.parametrize("name", [REVISION_FIELD, REVISION_FIELD.lower(), REVISION_FIELD.upper()])
def test_only_we_say_which_revision_answered(name: bytes) -> None:
    reader = answered(b"HTTP/1.1 200 OK\r\n%b: r7\r\nA: b\r\nContent-Length: 0\r\n\r\n" % name)
    request = fed(STREAM).queue[0]

    assert reader.head(request, is_last=False) == (
        b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 0\r\n\r\n"
    )
    assert reader.head(request, is_last=False, also=signature("r1")) == (
        b"HTTP/1.1 200 OK\r\nA: b\r\nX-Trafficmgr-Revision: r1\r\nContent-Length: 0\r\n\r\n"
    )
