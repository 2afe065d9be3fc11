"""Hypothesis strategies for HTTP/1.1 messages: good ones, unusual ones, and damaged ones."""

from hypothesis import strategies as st

_NAMES = [
    b"Accept", b"Cookie", b"User-Agent", b"Upgrade-Insecure-Requests", b"Priority", b"X-Csrf",
    b"X-Requested-With", b"Content-Type", b"Cache-Control", b"Traceparent", b"Etag", b"Set-Cookie",
    b"Date", b"Host2", b"Connect", b"Tea", b"Content-Len", b"X-Forwarded", b"a", b"!x", b"Via",
]  # fmt: skip
_SPECIAL = [
    b"Connection: close", b"Connection: keep-alive", b"connection: Accept, x", b"Upgrade: a",
    b"Connection: upgrade", b"Keep-Alive: timeout=5", b"TE: trailers", b"Trailer: x",
    b"Connection: upgrade, x", b"Upgrade: h2c",
    b"X-Forwarded-For: 1.2.3.4", b"x_forwarded_for: x", b"Content_Length: 7", b"Forwarded: for=x",
    b"X-Request-Id: x", b"Max-Forwards: 1", b"Proxy-Connection: x", b"X-Trafficmgr-Revision: x",
    b"Expect: 100-continue",
]  # fmt: skip
_CONFLICTING = [
    b"Host: b", b"Expect: x", b"Content-Length: 3", b"Content-Length: 0", b"Max-Forwards: x",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked",
]  # fmt: skip
_TEXT = b"abcXYZ019 \t\x80\xff,;=:\"'/*"
_DAMAGE = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b";", b",", b'"', b"0", b"f",
    b"\x0b", b"\x7f", b"\x85", b"\xff", b"HTTP/1.1", b"chunked", b"Host: x\r\n", b"\r\n ",
]  # fmt: skip

values = st.lists(st.sampled_from(list(_TEXT)), max_size=12).map(lambda codes: bytes(codes).strip())
_plain = st.tuples(st.sampled_from(_NAMES), st.sampled_from([b":", b": ", b":\t"]), values).map(
    b"".join
)
_special = st.sampled_from(_SPECIAL)
_kinds = [_plain] * 12 + [_special, _special, _special, _special.map(bytes.lower)]
fields = st.sampled_from([*_kinds, st.sampled_from(_CONFLICTING)]).flatmap(lambda kind: kind)
"""Field lines without their end."""


def _lines(lines: list[bytes]) -> bytes:
    return b"".join(b"%b\r\n" % line for line in lines)


_extensions = st.sampled_from([b"", b";a", b";a=b", b';a="\\";x"', b";a;b=c"])
_data = st.binary(max_size=30)


@st.composite
def chunked_bodies(draw: st.DrawFn) -> bytes:
    """Return a body in chunks, with all that goes with it."""
    parts = []
    for data in draw(st.lists(_data.filter(bool), max_size=3)):
        size = draw(st.sampled_from([b"%x", b"%X", b"0%x"])) % len(data)
        parts.append(b"%b%b\r\n%b\r\n" % (size, draw(_extensions), data))
    trailers = draw(st.lists(st.sampled_from([b"A: b", b"X-Sum:1", b"Host: b"]), max_size=2))
    return b"".join((*parts, b"0", draw(_extensions), b"\r\n", _lines(trailers), b"\r\n"))


_bodies = st.one_of(
    st.just((b"", b"")),
    _data.map(lambda data: (b"Content-Length: %d\r\n" % len(data), data)),
    chunked_bodies().map(lambda body: (b"Transfer-Encoding: chunked\r\n", body)),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Return a request; most are good ones."""
    method = draw(st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"TRACE", b"PUT"]))
    target = draw(
        st.sampled_from([b"/", b"/", b"/a?b=c", b"/%00/../x|y", b"http://b/c", b"*", b"http://b"])
    )
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    framing, body = draw(_bodies)
    some = st.lists(fields, max_size=4).map(_lines)
    head = [b"%b %b HTTP/%b\r\n" % (method, target, version), draw(some), b"Host: a\r\n"]
    return b"".join((*head, draw(some), framing, draw(some), b"\r\n", body))


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """Return a response; most are good ones."""
    interim = draw(st.sampled_from([b"", b"", b"HTTP/1.1 103 A\r\nLink: a\r\n\r\n"]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    status = draw(st.sampled_from([b"200 OK", b"404 ", b"500", b"204 No", b"304 No", b"205 Reset"]))
    framing, body = draw(_bodies)
    some = st.lists(fields, max_size=4).map(_lines)
    head = [interim, b"HTTP/%b %b\r\n" % (version, status), draw(some)]
    return b"".join((*head, framing, draw(some), b"\r\n", body))


@st.composite
def damaged(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """Return up to three messages with up to three places damaged."""
    stream = bytearray(b"".join(draw(st.lists(messages, min_size=1, max_size=3))))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3]))):
        at = draw(st.integers(0, len(stream)))
        match draw(st.integers(0, 2)):
            case 0:
                stream[at : at + 1] = draw(st.sampled_from(_DAMAGE))
            case 1:
                del stream[at : at + draw(st.integers(1, 5))]
            case _:
                stream[at:at] = draw(st.sampled_from(_DAMAGE))
    return bytes(stream)


cuts = st.lists(st.integers(1, 40), max_size=12)
"""Sizes of the pieces that a stream comes in; the last piece is the rest."""


def pieces_of(stream: bytes, sizes: list[int]) -> list[bytes]:
    """Return a stream in pieces of these sizes."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(stream[at : at + size])
        at += size
    return [piece for piece in (*pieces, stream[at:]) if piece]
