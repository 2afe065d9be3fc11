"""The request side of the list in docs/http.md: raw bytes in, raw bytes or a refusal out.

The number of each case is its line in the list.
"""

import pytest
from support.http_support import WHOLE, fed, request_of, sent, verdict

from trafficmgr.core.traffic import Front
from trafficmgr.wire.http import Refusal, host_of
from trafficmgr.wire.http_fields import cookie_finder, field_finder

HOST = b"POST / HTTP/1.1\r\nHost: a\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n\r\n"
SENT_CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = [
    (1, HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (1, HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    (2, HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    (2, HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    (2, HOST + b"Content-Length: 5\r\nA: b\r\ncontent-length: 5\r\n\r\nhello", 400),
    (2, HOST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    (3, HOST + b"Content-Length: +5\r\n\r\nhello", 400),
    (3, HOST + b"Content-Length: -1\r\n\r\n", 400),
    (3, HOST + b"Content-Length: 5_0\r\n\r\n", 400),
    (3, HOST + b"Content-Length: 0x5\r\n\r\n", 400),
    (3, HOST + b"Content-Length: 5 5\r\n\r\n", 400),
    (3, HOST + b"Content-Length: \xb2\r\n\r\n", 400),
    (3, HOST + b"Content-Length: \r\n\r\n", 400),
    (3, HOST + b"Content-Length: 9999999999999999999\r\n\r\n", 400),
    (4, HOST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    (4, HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
    (4, HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    (4, HOST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    (4, HOST + b"Transfer-Encoding: identity\r\n\r\n", 400),
    (4, HOST + b"Transfer-Encoding: chunked, chunked\r\n\r\n", 400),
    (4, HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (4, HOST + b"Transfer-Encoding: xchunked\r\n\r\n", 400),
    (4, HOST + b'Transfer-Encoding: "chunked"\r\n\r\n', 400),
    (4, HOST + b"Transfer-Encoding: chunked;a=b\r\n\r\n", 400),
    (4, HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
    (4, HOST + b"Transfer-Encoding: chunked\x00\r\n\r\n", 400),
    (4, HOST + b"Transfer-Encoding: chun\r\n ked\r\n\r\n", 400),
    (4, HOST + b"Transfer-Encoding: \xa0chunked\r\n\r\n", 400),
    (4, HOST + b"Transfer-Encoding:\r\n\r\n", 400),
    (4, b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (5, CHUNKED + b"0x1\r\na\r\n0\r\n\r\n", 400),
    (5, CHUNKED + b"+1\r\na\r\n0\r\n\r\n", 400),
    (5, CHUNKED + b"1_0\r\na\r\n0\r\n\r\n", 400),
    (5, CHUNKED + b" 1\r\na\r\n0\r\n\r\n", 400),
    (5, CHUNKED + b"1 \r\na\r\n0\r\n\r\n", 400),
    (5, CHUNKED + b"\r\n", 400),
    (5, CHUNKED + b"g\r\n", 400),
    (5, CHUNKED + b"00000000000000001\r\na\r\n0\r\n\r\n", 400),
    (5, CHUNKED + b"1\na\r\n0\r\n\r\n", 400),
    (5, CHUNKED + b"1\ra\r\n0\r\n\r\n", 400),
    (5, CHUNKED + b"1\r\nab\r\n0\r\n\r\n", 400),
    (5, CHUNKED + b"1\r\na\n0\r\n\r\n", 400),
    (5, CHUNKED + b"1\r\na0\r\n\r\n", 400),
    (5, CHUNKED + b"1;\r\na\r\n0\r\n\r\n", 400),
    (5, CHUNKED + b"1;a=\r\na\r\n0\r\n\r\n", 400),
    (5, CHUNKED + b"1;a =b\r\na\r\n0\r\n\r\n", 400),
    (5, CHUNKED + b"1;a\n\r\na\r\n0\r\n\r\n", 400),
    (5, CHUNKED + b'1;a="\r\n"\r\na\r\n0\r\n\r\n', 400),
    (5, CHUNKED + b'1;a="b\r\na\r\n0\r\n\r\n', 400),
    (5, CHUNKED + b'1;a="b"c\r\na\r\n0\r\n\r\n', 400),
    (5, CHUNKED + b"1;" + b"a" * 5000 + b"\r\na\r\n0\r\n\r\n", 400),
    (5, CHUNKED + (b"1;" + b"a" * 4000 + b"\r\na\r\n") * 5 + b"0\r\n\r\n", 400),
    (6, CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", 400),
    (6, CHUNKED + b"0\r\nA: b\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    (6, CHUNKED + b"0\r\nHost: b\r\n\r\n", 400),
    (6, CHUNKED + b"0\r\nAuthorization: b\r\n\r\n", 400),
    (6, CHUNKED + b"0\r\nA : b\r\n\r\n", 400),
    (6, CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n", 400),
    (6, CHUNKED + b"0\r\nA: b\n\r\n", 400),
    (6, CHUNKED + b"0\r\n" + b"A: b\r\n" * 101 + b"\r\n", 400),
    (6, CHUNKED + b"0\r\nA: " + b"b" * 40_000 + b"\r\n\r\n", 400),
    (8, GET + b"A: b\rc\r\n\r\n", 400),
    (8, GET + b"A: b\x00c\r\n\r\n", 400),
    (8, GET + b"A: b\x7f\r\n\r\n", 400),
    (8, GET + b"A: b\x0bc\r\n\r\n", 400),
    (8, GET + b"A\x00: b\r\n\r\n", 400),
    (8, GET + b"A: b\nC: d\r\n\r\n", 400),
    (8, GET + b"A: b\r\r\n\r\n", 400),
    (8, b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (9, GET + b"A : b\r\n\r\n", 400),
    (9, GET + b"A\t: b\r\n\r\n", 400),
    (9, GET + b"A: b\r\n c\r\n\r\n", 400),
    (9, GET + b"A: b\r\n\tc: d\r\n\r\n", 400),
    (9, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    (10, GET + b": b\r\n\r\n", 400),
    (10, GET + b"A(b): c\r\n\r\n", 400),
    (10, GET + b"A\xe4: c\r\n\r\n", 400),
    (10, GET + b"A\r\n\r\n", 400),
    (11, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (11, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    (11, b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (11, b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (11, b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (11, b"GET / a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (11, b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    (11, b"GET / HTTP/1.1\nHost: a\n\n", 400),
    (11, b"GET\r\n\r\n", 400),
    (11, b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (11, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    (11, b"GET / HTTP/1.32\r\nHost: a\r\n\r\n", 505),
    (11, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    (11, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    (11, b"GET / HTTP/11.1\r\nHost: a\r\n\r\n", 505),
    (11, b"GET / HTTP/3\r\nHost: a\r\n\r\n", 505),
    (11, b"GET /\r\n", 505),
    (11, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 505),
    (11, b"FROB / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    (12, b"GET /" + b"a" * 8179 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    (12, b"GET /" + b"a" * 90_000, 414),
    (12, GET + b"A: " + b"b" * 32_755 + b"\r\n\r\n", 431),
    (12, GET + b"A: " + b"b" * 90_000, 431),
    (12, GET + b"A: b\r\n" * 100 + b"\r\n", 431),
    (13, b"GET / HTTP/1.1\r\n\r\n", 400),
    (13, b"GET / HTTP/1.1\r\nA: b\r\n\r\n", 400),
    (13, GET + b"Host: a\r\n\r\n", 400),
    (13, GET + b"A: b\r\nhost: b\r\n\r\n", 400),
    (13, b"GET http://a/ HTTP/1.1\r\nHost: b\r\nHost: c\r\n\r\n", 400),
    (13, b"GET http://a/ HTTP/1.1\r\nHost: b/c\r\n\r\n", 400),
    (14, b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (14, b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (15, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
    (15, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (16, b"GET /#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (16, b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (18, b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", 501),
    (18, b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: +1\r\n\r\n", 400),
    (18, b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\nMax-Forwards: 2\r\n\r\n", 400),
    (18, b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", 200),
    (18, b"TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na", 400),
    (23, GET + b"Expect: 200-maybe\r\n\r\n", 417),
    (23, GET + b"Expect: 100-continue, b\r\n\r\n", 417),
]

SENT = [
    (3, HOST + b"Content-Length: \t 5 \t\r\n\r\nhello", HOST + b"Content-Length: 5\r\n\r\nhello"),
    (3, HOST + b"content-length: 005\r\n\r\nhello", HOST + b"Content-Length: 5\r\n\r\nhello"),
    (3, HOST + b"Content-Length: 0\r\n\r\n", HOST + b"Content-Length: 0\r\n\r\n"),
    (4, HOST + b"transfer-encoding: \tChunked \r\n\r\n0\r\n\r\n", SENT_CHUNKED + b"0\r\n\r\n"),
    (5, CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n", SENT_CHUNKED + b"a\r\n0123456789\r\n0\r\n\r\n"),
    (5, CHUNKED + b"01\r\na\r\n02\r\nbc\r\n00\r\n\r\n", SENT_CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"),
    (5, CHUNKED + b"000000000000000\r\n\r\n", SENT_CHUNKED + b"0\r\n\r\n"),
    (5, CHUNKED + b"1;a;b=c\r\na\r\n0;d\r\n\r\n", SENT_CHUNKED + b"1\r\na\r\n0\r\n\r\n"),
    (5, CHUNKED + b'1;a="\\";b=\xe4"\r\na\r\n0\r\n\r\n', SENT_CHUNKED + b"1\r\na\r\n0\r\n\r\n"),
    (6, CHUNKED + b"0\r\nA: b\r\nC: d\r\n\r\n", SENT_CHUNKED + b"0\r\n\r\n"),
    (7, HOST + b"\r\n", HOST + b"Content-Length: 0\r\n\r\n"),
    (7, b"GET / HTTP/1.1\r\nA: b\r\nHOST:\ta \r\nC: d\r\n\r\n", GET + b"A: b\r\nC: d\r\n\r\n"),
    (8, GET + b"A: \xe4\tb  \r\nC:\r\n\r\n", GET + b"A: \xe4\tb  \r\nC:\r\n\r\n"),
    (
        10,
        GET + b"A_B: c\r\n!#$%&'*+-.^_`|~: d\r\n\r\n",
        GET + b"A_B: c\r\n!#$%&'*+-.^_`|~: d\r\n\r\n",
    ),
    (10, GET + b"Content_Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n", GET + b"\r\n"),
    (10, GET + b"X_Forwarded-For: b\r\nx-forwarded_for: b\r\nX_Real_IP: b\r\n\r\n", GET + b"\r\n"),
    (11, b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", GET + b"\r\n"),
    (12, GET + b"A: b\r\n" * 99 + b"\r\n", GET + b"A: b\r\n" * 99 + b"\r\n"),
    (12, GET + b"A: " + b"b" * 32_754 + b"\r\n\r\n", GET + b"A: " + b"b" * 32_754 + b"\r\n\r\n"),
    (13, b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: \r\n\r\n"),
    (14, b"GET http://a/b?c HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /b?c HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        14,
        b"GET HTTPS://a?b=/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /?b=/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (14, b"GET http://a HTTP/1.1\r\nHost:\r\n\r\n", GET + b"\r\n"),
    (15, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
    (15, b"OPTIONS http://a HTTP/1.1\r\nHost: b\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        16,
        b"GET /b/../%2e//c;d?e=|{f} HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /b/../%2e//c;d?e=|{f} HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (17, GET + b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n", GET + b"\r\n"),
    (
        17,
        GET + b"A: 1\r\nConnection: B , c\r\nb: 2\r\nC: 3\r\nD: 4\r\n\r\n",
        GET + b"A: 1\r\nD: 4\r\n\r\n",
    ),
    (17, GET + b"Connection: b\r\nB: 1\r\nConnection: c\r\nB: 2\r\nC: 3\r\n\r\n", GET + b"\r\n"),
    (
        17,
        GET + b"Proxy-Connection: a\r\nProxy-Authorization: b\r\nTE: trailers\r\n\r\n",
        GET + b"\r\n",
    ),
    (17, GET + b"Trailer: b\r\nUpgrade: c\r\nProxy-Authenticate: d\r\n\r\n", GET + b"\r\n"),
    (
        17,
        HOST + b"Connection: host, content-length, cookie, authorization, x-forwarded-for\r\n"
        b"Cookie: a\r\nAuthorization: b\r\nContent-Length: 1\r\n\r\nc",
        HOST + b"Cookie: a\r\nAuthorization: b\r\nContent-Length: 1\r\n\r\nc",
    ),
    (17, GET + b"Connection: a.c, [^:\r\nABC: 1\r\n\r\n", GET + b"ABC: 1\r\n\r\n"),
    (
        18,
        b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 10\r\nA: b\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: a\r\nA: b\r\nMax-Forwards: 9\r\n\r\n",
    ),
    (18, GET + b"Max-Forwards: x\r\n\r\n", GET + b"Max-Forwards: x\r\n\r\n"),
    (
        19,
        GET + b"X-Forwarded-For: b\r\nx-forwarded-proto: c\r\nForwarded: d\r\n\r\n",
        GET + b"\r\n",
    ),
    (
        19,
        GET + b"X-Forwarded-Host: b\r\nX-Forwarded-Port: c\r\nX-Real-IP: d\r\n\r\n",
        GET + b"\r\n",
    ),
    (19, GET + b"X-Forwarded-Server: b\r\nX-Request-ID: c\r\n\r\n", GET + b"\r\n"),
    (21, GET + b"Content-Length: 1\r\n\r\na", GET + b"Content-Length: 1\r\n\r\na"),
    (
        22,
        HOST + b"expect: 100-Continue\r\nContent-Length: 1\r\n\r\na",
        HOST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\na",
    ),
    (22, b"GET / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", GET + b"\r\n"),
    (
        25,
        GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ),
    (
        25,
        GET + b"Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: b\r\n\r\n",
        GET + b"\r\n",
    ),
    (25, GET + b"Connection: close, upgrade\r\nUpgrade: b\r\n\r\n", GET + b"\r\n"),
    (
        25,
        HOST + b"Connection: upgrade\r\nUpgrade: b\r\nContent-Length: 1\r\n\r\nc",
        HOST + b"Content-Length: 1\r\n\r\nc",
    ),
    (
        25,
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade, keep-alive\r\nUpgrade: b\r\n\r\n",
        GET + b"\r\n",
    ),
]


@pytest.mark.parametrize("piece_bytes", [1, 7, WHOLE])
@pytest.mark.parametrize(("line", "stream", "status"), REFUSED)
def test_what_breaks_a_rule_is_refused(
    line: int, stream: bytes, status: int, piece_bytes: int
) -> None:
    good = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n"
    reader = fed(good + stream, piece_bytes)
    reader.feed(good)

    assert reader.refusal is not None, line
    assert reader.refusal.status == status, (line, reader.refusal)
    assert [sent(request) for request in reader.queue if request.is_complete] == [good], line
    assert not reader.is_in_head


@pytest.mark.parametrize("piece_bytes", [1, 7, WHOLE])
@pytest.mark.parametrize(("line", "stream", "expected"), SENT)
def test_what_obeys_the_rules_is_sent_on_in_our_words(
    line: int, stream: bytes, expected: bytes, piece_bytes: int
) -> None:
    reader = fed(stream, piece_bytes)

    assert reader.refusal is None, (line, reader.refusal)
    assert [sent(request) for request in reader.queue] == [expected], line


@pytest.mark.parametrize(
    "authority", [b"", b":1", b"a b", b"a/b", b"a@b", b"a:b", b"a:1:2", b"[::1"]
)
def test_a_request_for_no_host_has_no_place(authority: bytes) -> None:
    request = request_of(b"GET / HTTP/1.1\r\nHost: " + authority + b"\r\n\r\n")

    with pytest.raises(Refusal, match="Host") as refusal:
        host_of(request.authority)
    assert refusal.value.status == 400


def test_limits_are_those_of_the_front() -> None:
    front = Front(request_line_bytes=20, head_bytes=30, fields=2)

    def status(stream: bytes) -> int:
        return verdict(fed(stream, front=front))[1]

    assert status(b"GET /aaaaaa HTTP/1.1\r\nHost: a\r\n\r\n") == 0
    assert status(b"GET /aaaaaaa HTTP/1.1\r\nHost: a\r\n\r\n") == 414
    assert status(GET + b"A: " + b"b" * 16 + b"\r\n\r\n") == 0
    assert status(GET + b"A: " + b"b" * 17 + b"\r\n\r\n") == 431
    assert status(GET + b"A: b\r\n\r\n") == 0
    assert status(GET + b"A: b\r\nC: d\r\n\r\n") == 431


def test_a_body_of_known_length_is_measured_before_anything_is_sent() -> None:
    request = fed(HOST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n").queue[0]

    request.limit_body(None)
    request.limit_body(5)
    with pytest.raises(Refusal) as refusal:
        request.limit_body(4)
    assert refusal.value.status == 413


@pytest.mark.parametrize("piece_bytes", [1, WHOLE])
def test_a_body_in_chunks_is_measured_as_it_comes(piece_bytes: int) -> None:
    reader = fed(CHUNKED + b"3\r\nabc\r\n")
    request = reader.queue[0]

    request.limit_body(5)
    with pytest.raises(Refusal):
        request.limit_body(2)
    request.limit_body(5)
    rest = b"2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"
    for start in range(0, len(rest), piece_bytes):
        reader.feed(rest[start : start + piece_bytes])

    assert reader.refusal is not None
    assert reader.refusal.status == 413
    assert b"".join(request.pieces) == b"abcde"
    assert not request.is_complete


def test_what_a_client_says_of_itself_is_kept_apart() -> None:
    request = request_of(
        GET + b"X-Forwarded-For: b\r\nA: c\r\nx-forwarded-for: d \r\nX-Request-Id: e\r\n"
        b"X_Real_IP: f\r\nConnection: x-forwarded-for\r\n\r\n"
    )

    assert request.claims == {b"x-forwarded-for": b"b, d", b"x-request-id": b"e"}
    assert request_of(GET + b"\r\n").claims == {}


def test_the_name_of_a_request_is_passed_on_if_we_give_it_none() -> None:
    stream = GET + b"A: b\r\nX-Request-ID: c\r\n\r\n"
    request = fed(stream, front=Front(names_requests=False)).queue[0]

    assert sent(request) == GET + b"A: b\r\nX-Request-Id: c\r\n\r\n"
    assert request.claims == {}


@pytest.mark.parametrize(
    ("head", "keeps_alive"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nHost: a\r\nProxy-Connection: keep-alive\r\n\r\n", False),
    ],
)
def test_a_client_says_whether_another_request_follows(head: bytes, *, keeps_alive: bool) -> None:
    """Line 27; what follows the last request is not read."""
    reader = fed(head + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")

    assert reader.queue[0].keeps_alive is keeps_alive
    assert reader.is_last is not keeps_alive
    assert len(reader.queue) == 1 + keeps_alive


@pytest.mark.parametrize(
    ("head", "value"),
    [
        (b"X-Canary: a\r\n", b"a"),
        (b"A: X-Canary: b\r\nx-canary:  c \r\nX-Canary: d\r\n", b"c"),
        (b"X-Canary:\r\n", b""),
        (b"X-Canary2: a\r\n", None),
    ],
)
def test_a_field_is_found_by_its_name(head: bytes, value: bytes | None) -> None:
    for special in (b"", b"Connection: close\r\n", b"TE: trailers\r\n"):
        request = request_of(GET + head + special + b"\r\n")
        assert request.find(field_finder(b"X-Canary")) == value


@pytest.mark.parametrize(
    ("cookies", "value"),
    [
        (b"Cookie: id=1\r\n", b"1"),
        (b"cookie: xid=0; id=2; id=3\r\n", b"2"),
        (b'Cookie: a="x;y"; id="4"\r\n', b"4"),
        (b"Cookie: a=b\r\nCookie: c=d;id=5\r\n", b"5"),
        (b"Cookie: ID=1; idd=2; id2=3\r\nA: id=4\r\n", None),
        (b"Cookie: id=; id=2\r\n", b""),
    ],
)
def test_a_cookie_is_found_by_its_name(cookies: bytes, value: bytes | None) -> None:
    assert request_of(GET + cookies + b"\r\n").find(cookie_finder(b"id")) == value


def test_a_peer_that_will_never_make_sense_is_not_waited_for() -> None:
    """None of these streams has the end of a head in it."""
    for start in (b"\x16\x03", b"GET / HTTP/1.1\n", b"GET /\r\n", b"\n", b"\r\r", b"{", b"GET\x00"):
        assert verdict(fed(start))[1] in {400, 505}, start
    for start in (b"G", b"GET /a HT", b"\r\n\r", b"GET / HTTP/1.1\r\nHost: a\r\n\r"):
        assert verdict(fed(start))[1] == 0, start


def test_a_head_that_has_begun_is_noticed() -> None:
    """The timer for slow heads goes by it; empty lines begin nothing."""
    reader = fed(b"\r\n\r\n")
    seen = [reader.is_in_head]
    for piece in (b"\r\nGE", b"T / HTTP/1.1\r\nHost: a\r\n", b"\r\n"):
        reader.feed(piece)
        seen.append(reader.is_in_head)

    assert seen == [False, True, True, False]
    assert len(reader.queue) == 1
