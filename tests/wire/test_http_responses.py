"""The response side of the list in docs/http.md: raw bytes in, raw bytes or an error out.

The number of each case is its line in the list.
"""

import pytest
from support.http_support import GET, GET_10, WHOLE, answered, request_of, told

from trafficmgr.wire.http import CHUNKED, UNTIL_CLOSE, BadResponseError
from trafficmgr.wire.http_fields import RESPONSE_SPECIAL
from trafficmgr.wire.http_response import REVISION_FIELD, signature

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"
SENT_CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

BAD = [
    (1, OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (1, OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    (2, OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na"),
    (2, OK + b"Content-Length: 1, 1\r\n\r\na"),
    (2, OK + b"Content-Length: 1\r\nA: b\r\nContent-Length: 2\r\n\r\na"),
    (3, OK + b"Content-Length: +1\r\n\r\na"),
    (3, OK + b"Content-Length: 0x1\r\n\r\na"),
    (3, OK + b"Content-Length: 1_0\r\n\r\na"),
    (3, OK + b"Content-Length:\r\n\r\n"),
    (3, OK + b"Content-Length: 9999999999999999999\r\n\r\n"),
    (4, OK + b"Transfer-Encoding: identity\r\n\r\n"),
    (4, OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    (4, OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (4, OK + b"Transfer-Encoding: xchunked\r\n\r\n"),
    (4, b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (5, SENT_CHUNKED + b"0x1\r\na\r\n0\r\n\r\n"),
    (5, SENT_CHUNKED + b"1 \r\na\r\n0\r\n\r\n"),
    (5, SENT_CHUNKED + b"1\na\n0\n\n"),
    (5, SENT_CHUNKED + b"1\r\nab\r\n0\r\n\r\n"),
    (6, SENT_CHUNKED + b"0\r\nContent-Length: 1\r\n\r\n"),
    (6, SENT_CHUNKED + b"0\r\nA : b\r\n\r\n"),
    (8, OK + b"A: b\rc\r\n\r\n"),
    (8, OK + b"A: b\x00c\r\n\r\n"),
    (8, OK + b"A: b\nC: d\r\n\r\n"),
    (8, b"HTTP/1.1 200 O\x01K\r\n\r\n"),
    (9, OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n"),
    (9, OK + b"A : b\r\nContent-Length: 0\r\n\r\n"),
    (9, OK + b" A: b\r\nContent-Length: 0\r\n\r\n"),
    (10, OK + b": b\r\nContent-Length: 0\r\n\r\n"),
    (10, OK + b"A(b): c\r\nContent-Length: 0\r\n\r\n"),
    (11, b"HTTP/2 200 OK\r\n\r\n"),
    (11, b"HTTP/1.2 200 OK\r\n\r\n"),
    (11, b"HTTP/1.1 2000 OK\r\n\r\n"),
    (11, b"HTTP/1.1 20 OK\r\n\r\n"),
    (11, b"HTTP/1.1 020 OK\r\n\r\n"),
    (11, b"HTTP/1.1  200 OK\r\n\r\n"),
    (11, b"HTTP/1.1 200 OK\n"),
    (11, b"\r\nHTTP/1.1 200 OK\r\n\r\n"),
    (11, b"ICY 200 OK\r\n"),
    (11, b"<html>"),
    (12, OK + b"A: " + b"b" * 70_000),
    (12, b"HTTP/1.1 200 " + b"a" * 9000),
    (12, OK + b"A: b\r\n" * 501 + b"\r\n"),
    (22, b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\n" * 3000),
    (25, b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n"),
]

TOLD = [
    (3, OK + b"content-length: \t02 \r\n\r\nok", OK + b"Content-Length: 2\r\n\r\nok"),
    (4, OK + b"transfer-encoding: Chunked\r\n\r\n0\r\n\r\n", SENT_CHUNKED + b"0\r\n\r\n"),
    (5, SENT_CHUNKED + b'2;a="b"\r\nok\r\n0;c\r\n\r\n', SENT_CHUNKED + b"2\r\nok\r\n0\r\n\r\n"),
    (6, SENT_CHUNKED + b"0\r\nA: b\r\n\r\n", SENT_CHUNKED + b"0\r\n\r\n"),
    (7, b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", OK + b"Content-Length: 1\r\n\r\na"),
    (
        8,
        OK + b"A:\xe4\t \r\nContent-Length: 0\r\n\r\n",
        OK + b"A:\xe4\t \r\nContent-Length: 0\r\n\r\n",
    ),
    (10, OK + b"A_B: c\r\nContent-Length: 0\r\n\r\n", OK + b"A_B: c\r\nContent-Length: 0\r\n\r\n"),
    (11, b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", OK + b"Content-Length: 0\r\n\r\n"),
    (
        11,
        b"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n",
    ),
    (
        11,
        b"HTTP/1.1 404 Nicht \xfc\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Nicht \xfc\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        17,
        OK + b"A: 1\r\nConnection: keep-alive, B\r\nB: 2\r\nKeep-Alive: c\r\n" + EMPTY,
        OK + b"A: 1\r\n" + EMPTY,
    ),
    (
        17,
        OK + b"Proxy-Authenticate: a\r\nTrailer: b\r\nUpgrade: h2c\r\nTE: c\r\n" + EMPTY,
        OK + EMPTY,
    ),
    (
        17,
        OK
        + b"Connection: content-length, set-cookie\r\nSet-Cookie: a\r\nContent-Length: 0\r\n\r\n",
        OK + b"Content-Length: 0\r\n\r\n",
    ),
    (
        20,
        OK + b"Date: a\r\nServer: b\r\nContent-Length: 0\r\n\r\n",
        OK + b"Date: a\r\nServer: b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        21,
        b"HTTP/1.1 204 No\r\nA: b\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 204 No\r\nA: b\r\n\r\n",
    ),
    (21, b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 204 No\r\n\r\n"),
    (
        21,
        b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n",
    ),
    (21, b"HTTP/1.1 205 Reset\r\n\r\n", b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n"),
    (
        21,
        b"HTTP/1.1 205 Reset\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        22,
        b"HTTP/1.1 103 A\r\nB: c\r\nContent-Length: 5\r\n\r\nHTTP/1.1 100\r\n\r\n" + OK + EMPTY,
        b"HTTP/1.1 103 A\r\nB: c\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK + EMPTY,
    ),
    (26, OK + b"\r\nhalf", SENT_CHUNKED + b"4\r\nhalf\r\n"),
    (26, OK + b"Content-Length: 9\r\n\r\nhalf", OK + b"Content-Length: 9\r\n\r\nhalf"),
    (26, SENT_CHUNKED + b"4\r\nhalf\r\n", SENT_CHUNKED + b"4\r\nhalf\r\n"),
]


@pytest.mark.parametrize("piece_bytes", [1, 7, WHOLE])
@pytest.mark.parametrize(("line", "stream"), BAD)
def test_what_breaks_a_rule_ends_the_answer(line: int, stream: bytes, piece_bytes: int) -> None:
    with pytest.raises(BadResponseError):
        pytest.fail(f"{line}: {told(answered(stream, piece_bytes))!r}")


@pytest.mark.parametrize("piece_bytes", [1, 7, WHOLE])
@pytest.mark.parametrize(("line", "stream", "expected"), TOLD)
def test_what_obeys_the_rules_is_told_in_our_words(
    line: int, stream: bytes, expected: bytes, piece_bytes: int
) -> None:
    assert told(answered(stream, piece_bytes)) == expected, line


@pytest.mark.parametrize("piece_bytes", [1, WHOLE])
@pytest.mark.parametrize(
    ("head", "body", "is_complete", "is_reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, True, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", 1, False, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", CHUNKED, True, True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 0, True, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 0, True, False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", 0, True, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHT", 0, True, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", 1, True, False),
        (SENT_CHUNKED + b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", CHUNKED, True, False),
        (b"HTTP/1.1 204 No\r\n\r\n", None, True, True),
        (b"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", None, True, True),
        (b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", None, True, False),
        (b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", None, True, False),
        (b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", None, True, True),
        (b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\nhello", None, True, False),
        (b"HTTP/1.1 205 No\r\nContent-Length: 0\r\n\r\n", 0, True, True),
        (b"HTTP/1.1 205 No\r\nContent-Length: 1\r\n\r\n", 0, True, False),
        (b"HTTP/1.1 205 No\r\nTransfer-Encoding: chunked\r\n\r\n", 0, True, False),
        (b"HTTP/1.1 205 No\r\n\r\n", 0, True, False),
        (b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, True, True),
    ],
)
def test_a_response_says_where_it_ends_and_what_its_connection_is_good_for(
    head: bytes, body: int | None, piece_bytes: int, *, is_complete: bool, is_reusable: bool
) -> None:
    """Lines 21, 26 and 27."""
    reader = answered(head, piece_bytes)

    assert (reader.body, reader.is_complete) == (body, is_complete)
    assert reader.is_reusable is is_reusable


@pytest.mark.parametrize(
    "length", [b"", b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n"]
)
def test_the_answer_to_head_ends_with_its_head(length: bytes) -> None:
    reader = answered(OK + length + b"\r\n", is_bodyless=True)
    assert (reader.body, reader.is_complete, reader.is_reusable) == (None, True, True)

    reader = answered(OK + length + b"\r\nbody", is_bodyless=True)
    assert (reader.is_complete, reader.is_reusable) == (True, False)
    assert told(reader) == OK + (length if length.startswith(b"C") else b"") + b"\r\n"


def test_one_reader_reads_many_responses() -> None:
    reader = answered(OK + b"Content-Length: 9\r\n\r\n", is_bodyless=True)

    for _ in range(2):
        reader.begin(is_bodyless=False, is_switch_asked=False)
        reader.feed(b"HTTP/1.1 404 Gone\r\nX: y\r\nContent-")
        reader.feed(b"Length: 1\r\n\r\nz")
        assert (reader.status, reader.is_complete, reader.is_reusable) == (404, True, True)
        assert told(reader) == b"HTTP/1.1 404 Gone\r\nX: y\r\nContent-Length: 1\r\n\r\nz"
        assert reader.take_body(GET) == [b"z"]


def test_the_end_of_the_stream_completes_only_what_has_no_other_end() -> None:
    """Line 26: a truncated answer never looks complete."""
    reader = answered(OK + b"\r\nhalf")
    assert reader.body == UNTIL_CLOSE
    assert reader.feed_eof() is True
    assert told(reader) == SENT_CHUNKED + b"4\r\nhalf\r\n0\r\n\r\n"

    assert answered(OK + b"Content-Length: 9\r\n\r\nhalf").feed_eof() is False
    assert answered(SENT_CHUNKED + b"4\r\nhalf\r\n").feed_eof() is False
    assert answered(SENT_CHUNKED + b"4\r\nhalf\r\n0\r\n").feed_eof() is False
    assert answered(OK).feed_eof() is False
    assert answered(b"HTTP/1.1 103 Early\r\n\r\n").feed_eof() is False


def test_a_client_of_http_10_gets_no_chunks_and_hears_of_keep_alive() -> None:
    chunked = answered(SENT_CHUNKED + b"2\r\nok\r\n0\r\n\r\n")
    assert b"".join(chunked.take_body(GET_10)) == b"ok"
    assert b"".join(chunked.head(GET_10, is_last=True)) == OK + b"Connection: close\r\n\r\n"

    known = answered(OK + b"Content-Length: 2\r\n\r\nok")
    assert b"".join(known.head(GET_10, is_last=False)) == (
        OK + b"Content-Length: 2\r\nConnection: keep-alive\r\n\r\n"
    )
    assert (
        b"".join(known.head(GET, is_last=True))
        == OK + b"Content-Length: 2\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize("piece_bytes", [1, WHOLE])
def test_a_switch_that_was_asked_for_keeps_what_came_with_it(piece_bytes: int) -> None:
    """Line 25."""
    switch = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nA: b\r\n\r\n"

    reader = answered(switch + b"\x81\x00\r\n\r\n", piece_bytes, is_switch_asked=True)

    assert (reader.status, reader.rest) == (101, b"\x81\x00\r\n\r\n")
    assert reader.switch_head(also=signature("r1")) == (
        b"HTTP/1.1 101 Switching\r\nA: b\r\nX-Trafficmgr-Revision: r1\r\n"
        b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    )


@pytest.mark.parametrize("fields", [b"", b"Upgrade: a\r\n", b"Connection: upgrade\r\n"])
def test_a_switch_to_nothing_is_none(fields: bytes) -> None:
    with pytest.raises(BadResponseError, match="switched"):
        answered(b"HTTP/1.1 101 Switching\r\n" + fields + b"\r\n", is_switch_asked=True)


@pytest.mark.parametrize("special", [b"", b"Connection: close\r\n"])
def test_an_answer_without_a_date_is_noticed(special: bytes) -> None:
    """Line 20: the proxy has a clock, this page has not."""
    for field, is_dated in ((b"date: x\r\n", True), (b"X-Date: x\r\n", False), (b"", False)):
        for head in (field + b"A: date:\r\n", b"A: b\r\n" + field):
            reader = answered(OK + special + head + b"Content-Length: 0\r\n\r\n")
            assert reader.is_dated is is_dated, head


@pytest.mark.parametrize("name", [REVISION_FIELD, REVISION_FIELD.lower(), REVISION_FIELD.upper()])
def test_only_we_say_which_revision_answered(name: bytes) -> None:
    reader = answered(OK + b"%b: r7\r\nA: b\r\nContent-Length: 0\r\n\r\n" % name)

    assert RESPONSE_SPECIAL.search(b"\n%b: r7\r" % name)
    assert b"".join(reader.head(GET, is_last=False)) == OK + b"A: b\r\nContent-Length: 0\r\n\r\n"
    assert b"".join(reader.head(GET, is_last=False, also=signature("r1"))) == (
        OK + b"A: b\r\nX-Trafficmgr-Revision: r1\r\nContent-Length: 0\r\n\r\n"
    )


def test_interim_answers_are_passed_on_before_the_final_one() -> None:
    """Line 22: also those that come in one piece with half a final head."""
    request = request_of(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n")
    reader = answered(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2")

    assert (reader.status, reader.interim) == (0, [b"HTTP/1.1 100 Continue\r\n\r\n"])
    reader.interim.clear()
    reader.feed(b"01 Made\r\nContent-Length: 0\r\n\r\n")
    assert told(reader, request) == b"HTTP/1.1 201 Made\r\nContent-Length: 0\r\n\r\n"
