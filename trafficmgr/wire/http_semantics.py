"""What the head of a request asks for: where it goes, how long its body is, how far it may go.

Each function takes what a head says, which is well-formed by now, and returns what it means, or
raises the Refusal with which the request ends. The numbers in brackets are lines of docs/http.md.
"""

import re
from http import HTTPStatus

from trafficmgr.wire.http import CHUNKED, Refusal, host_of
from trafficmgr.wire.http_fields import Special, length_of, tokens
from trafficmgr.wire.http_head import TOKEN

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""Methods that may be sent twice (RFC 9110 section 9.2.2)."""

LIMITED = frozenset({b"TRACE", b"OPTIONS"})
"""Methods whose way Max-Forwards limits (RFC 9110 section 7.6.2)."""

_METHODS = IDEMPOTENT | frozenset(
    b"ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK LOCK M-SEARCH MERGE MKACTIVITY"
    b" MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE NOTIFY ORDERPATCH PATCH POST PROPFIND"
    b" PROPPATCH PURGE QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE UNBIND UNCHECKOUT UNLINK UNLOCK"
    b" UNSUBSCRIBE UPDATE UPDATEREDIRECTREF VERSION-CONTROL".split()
)
"""IANA's registry without CONNECT and PRI, and five that are in use without being in it."""

_ABSOLUTE = re.compile(rb"(?i:http(s?))://([^/?]*+)(.*+)")
_CODINGS = re.compile(rb"(?:%b++[ \t]*+,[ \t]*+)++chunked" % TOKEN, re.IGNORECASE)
_MAX_FORWARDS = re.compile(rb"\n(?i:max-forwards):[ \t]*+([^\r]*+)\r")


def check_method(method: bytes) -> None:
    """Raise Refusal for a method that goes no further (15)."""
    if method not in _METHODS:
        if method == b"CONNECT":
            raise Refusal(501, "CONNECT is not served here")
        raise Refusal(501, "the method is not known here")


def place_of(
    method: bytes, target: bytes, host: bytes | None, *, is_http10: bool
) -> tuple[bytes, bytes, bool]:
    """Return authority, target to pass on, and whether it says https, of a request (13 to 16)."""
    if host is None:
        if not is_http10:
            raise Refusal(400, "the request has no Host field")
        host = b""
    elif b", " in host:
        raise Refusal(400, "the request has more than one Host field, or a malformed one")
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return host, target, False
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise Refusal(400, "the request target is malformed")
    if host:
        host_of(host)  # it is replaced, but a malformed one is refused all the same
    path = absolute[3]
    if not path and method == b"OPTIONS":
        path = b"*"
    return absolute[2], path if path[:1] in {b"/", b"*"} else b"/" + path, bool(absolute[1])


def body_of(special: Special, *, is_http10: bool) -> int:
    """Return the length of the body in bytes, or CHUNKED (1 to 4)."""
    coding = special.get(b"transfer-encoding")
    length = special.get(b"content-length")
    if coding is not None:
        _check_coding(coding, is_alone=length is None, is_http10=is_http10)
        return CHUNKED
    if length is None:
        return 0
    try:
        return length_of(length)
    except ValueError:
        raise Refusal(400, "Content-Length is malformed") from None


def _check_coding(coding: bytes, *, is_alone: bool, is_http10: bool) -> None:
    if is_http10:
        raise Refusal(400, "Transfer-Encoding does not exist in HTTP/1.0")
    if not is_alone:
        raise Refusal(400, "Transfer-Encoding and Content-Length exclude each other")
    if coding.lower() == b"chunked":
        return
    if _CODINGS.fullmatch(coding) and tokens(coding).count(b"chunked") == 1:
        raise Refusal(501, "of transfer codings, only chunked is known here")
    raise Refusal(400, "Transfer-Encoding is not exactly chunked")


def check_expectation(value: bytes) -> None:
    """Raise Refusal for an expectation that can't be met (23)."""
    if value.lower() != b"100-continue":
        raise Refusal(417, "the only expectation that can be met is 100-continue")


def with_hop_counted(method: bytes, kept: list[bytes], body: int) -> list[bytes]:
    r"""Return the fields of a request whose way is limited, with one hop less to go (18).

    Args:
        method: Of any other than TRACE and OPTIONS the field is passed on as it is.
        kept: Pieces of field lines behind a `\n`.
        body: How long the body is; TRACE has none.
    """
    if method not in LIMITED:
        return kept
    if method == b"TRACE" and body:
        raise Refusal(400, "TRACE has no body")
    fields = b"".join(kept)
    values = _MAX_FORWARDS.findall(fields)
    if not values:
        return kept
    try:
        hops = length_of(b", ".join(values).rstrip(b" \t"))
    except ValueError:
        raise Refusal(400, "Max-Forwards is malformed") from None
    if hops == 0:
        raise _arrived(method)
    return [_MAX_FORWARDS.sub(b"", fields), b"Max-Forwards: %d\r\n" % (hops - 1)]


def _arrived(method: bytes) -> Refusal:
    """Return our answer as the last one to whom the request may go."""
    if method == b"OPTIONS":
        return Refusal(HTTPStatus.OK, "this is the proxy at which Max-Forwards ends the request")
    return Refusal(HTTPStatus.NOT_IMPLEMENTED, "TRACE is not answered by this proxy itself")
