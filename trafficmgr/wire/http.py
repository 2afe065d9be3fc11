"""HTTP/1.1 as a proxy sees it: what fields mean, who may be named, how a message is framed anew.

Bytes in, bytes out. `http_request` and `http_response` read messages with llhttp (httptools) and
our own strictness on top; this page holds what both need. The rules are RFC 9110 and 9112, as the
list in field notes section 2b; the number in brackets is the line of that list.

A message is never passed on raw: its framing and its connection fields are written anew (7), so
that what we understood and what the next hop understands can't differ.
"""

import re
from http import HTTPStatus

MAX_HEAD_BYTES = 32 * 1024
"""Precedents for a whole request head: nginx 32 KiB (4 x 8 KiB), HAProxy 16 KiB, Envoy 60 KiB."""

MAX_RESPONSE_HEAD_BYTES = 64 * 1024
"""Applications of our user are trusted with more than strangers: some set cookies by the dozen."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields that end at the next hop (17); `te: trailers` goes too, because we drop trailers (6)."""

FRAMING = frozenset({b"content-length", b"transfer-encoding"})

FORWARDING = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-real-ip",
    }
)
"""What only proxies may say about a client; a stranger's claims are dropped (19)."""

UNDERSCORED = frozenset(
    name.replace(b"-", b"_") for name in FORWARDING | FRAMING | {b"host"} if b"-" in name
)
"""The same names as CGI and WSGI would read them (`X_Forwarded_For`); dropped likewise (10)."""

NEVER_HOP_BY_HOP = FORWARDING | FRAMING | frozenset({b"host", b"authorization", b"cookie"})
"""Fields that `Connection` must not remove: hop-by-hop abuse (17)."""

NOT_REMOVED = NEVER_HOP_BY_HOP | HOP_BY_HOP | frozenset({b"close"})
"""Options of `Connection` for which no field line has to be looked for."""

UNTIL_CLOSE = -2
"""Framing of a response that ends with its connection (26)."""

CHUNKED = -1
"""Framing of a body in chunks; 0 and more is a length in bytes."""

_MAX_LENGTH_DIGITS = 18
"""Below 2**63, as every peer expects."""

LAST_CHUNK = b"0\r\n\r\n"

_AUTHORITY = re.compile(
    rb"([a-z0-9._~!$&'()*+,;=%-]+|\[[0-9a-f:.]+\])(?::[0-9]{0,5})?", re.IGNORECASE
)
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Refusal(Exception):  # noqa: N818  it is an answer, not a defect
    """A request that is answered by us and goes no further; what follows it is not read."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class BadResponseError(ValueError):
    """An application sent something that is not an HTTP/1.1 response to our request."""


def host_of(authority: bytes) -> str:
    """Return the host that an authority names: lower case, without port and last dot.

    Raises:
        Refusal: The authority is not `host [":" port]` (13).
    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise Refusal(400, "the Host field is not a host name")
    return match[1].decode("ascii").lower().removesuffix(".")


def length_of(value: bytes) -> int:
    """Return the bytes that a Content-Length announces; the value is 1*DIGIT (3).

    Raises:
        ValueError: It is anything else, or more than 18 digits.
    """
    digits = value.strip(b" \t")
    if not digits.isdigit() or len(digits) > _MAX_LENGTH_DIGITS:
        raise ValueError("malformed Content-Length")
    return int(digits)


def tokens(value: bytes) -> list[bytes]:
    """Return the members of a comma separated list, lower case, without empty ones."""
    return [token for part in value.lower().split(b",") if (token := part.strip(b" \t"))]


def without_named(fields: list[bytes], options: list[bytes]) -> list[bytes]:
    """Return the field lines without those that `Connection` names, as far as it may (17)."""
    named = set(options) - NOT_REMOVED
    if not named:
        return fields
    return [line for line in fields if line.partition(b":")[0].lower() not in named]


def chunk(pieces: list[bytes]) -> bytes:
    """Return some bytes of a body as one chunk."""
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return b"%x\r\n%b\r\n" % (len(body), body)


def status_line(status: int, reason: bytes = b"") -> bytes:
    """Return the first line of a response; a reason that is given is kept."""
    if not reason:
        known = _STATUS_LINES.get(status)
        if known is not None:
            return known
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


def own_response(status: int, text: str, *, is_head: bool, is_last: bool) -> bytes:
    """Return an answer that the proxy makes itself: short, plain, and it says which.

    Args:
        status: The status code.
        text: What happened, without the code.
        is_head: The request was HEAD: no body.
        is_last: The connection is closed after it.
    """
    body = f"{status} {text}\n".encode("ascii", "backslashreplace")
    head = [
        status_line(status),
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n" % len(body),
    ]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        head.append(b"Retry-After: 1\r\n")
    if is_last:
        head.append(b"Connection: close\r\n")
    head.append(b"\r\n")
    if not is_head:
        head.append(body)
    return b"".join(head)
