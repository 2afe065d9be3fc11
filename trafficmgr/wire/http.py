"""HTTP/1.1 as a proxy sees it: what both directions need, and the answers that we make ourselves.

Bytes in, bytes out. `http_request` and `http_response` read messages: `http_head` finds heads by
the patterns in `http_grammar`, `http_fields` and `http_semantics` say what they mean, `http_chunks`
reads bodies. The rules are RFC 9110 and 9112; docs/http.md has them as a list with their tests, and
the numbers in brackets in all these pages are the lines of that list.

A message is never passed on raw: its framing and its connection fields are written anew (7), so
that what we understood and what the next hop understands can't differ.
"""

import re
from http import HTTPStatus

UNTIL_CLOSE = -2
"""Framing of a response that ends with its connection (26)."""

CHUNKED = -1
"""Framing of a body in chunks; 0 and more is a length in bytes."""

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


def chunk(pieces: list[bytes]) -> bytes:
    """Return some bytes of a body as one chunk; none are none, and not the last chunk."""
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if not body:
        return b""
    return b"%x\r\n%b\r\n" % (len(body), body)


def status_line(status: int, reason: bytes = b"") -> bytes:
    """Return the first line of a response; a reason that is given is kept."""
    if not reason:
        known = _STATUS_LINES.get(status)
        if known is not None:
            return known
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


def own_response(
    status: int, text: str, *, is_head: bool, is_last: bool, also: bytes = b""
) -> bytes:
    """Return an answer that the proxy makes itself: short, plain, and it says which.

    Args:
        status: The status code.
        text: What happened, without the code.
        is_head: The request was HEAD: no body.
        is_last: The connection is closed after it.
        also: Field lines that the caller adds, such as Date (20).
    """
    body = f"{status} {text}\n".encode("ascii", "backslashreplace")
    head = [
        status_line(status),
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n" % len(body),
        also,
    ]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        head.append(b"Retry-After: 1\r\n")
    if is_last:
        head.append(b"Connection: close\r\n")
    head.append(b"\r\n")
    if not is_head:
        head.append(body)
    return b"".join(head)
