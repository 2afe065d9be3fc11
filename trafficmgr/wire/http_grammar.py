"""How the heads of requests and responses look: the patterns that http_head is given.

A plain pattern has the fields that a proxy understands in the places where most peers put them, and
between them lines whose names begin in a way that no such field's does: what it matches has no
other special field. tests/wire/test_http_fuzz.py holds it against the way that all others go.
"""

import re
from functools import cache

from trafficmgr.wire.http_head import (
    TEXT,
    TOKEN,
    HeadRules,
    MalformedError,
    begun_pattern,
    head_pattern,
)

MAX_RESPONSE_LINE_BYTES = 8 * 1024
MAX_RESPONSE_HEAD_BYTES = 64 * 1024
MAX_RESPONSE_FIELDS = 500
"""Applications of our user are trusted with more than strangers: some set cookies by the dozen."""

_TARGET = rb"[\x21\x22\x24-\x7e]"
_REQUEST_LINE = rb"(%b++) (%b++) HTTP/1\.([01])" % (TOKEN, _TARGET)
_REQUEST_BEGINS = re.compile(rb"%b++(?: |\Z)" % TOKEN)
_REQUEST_NAMES = (
    rb"(?:[ABDGIJLMNOQRSVWYZabdgijlmnoqrsvwyz]|[Cc](?:[A-NP-Za-np-z]|oo|ontent-[A-KM-Za-km-z])"
    rb"|[Uu](?:pgrade-|[A-OQ-Za-oq-z])|[Pp]r[ai]|[Tt]rac|[Xx]-(?:[A-EG-QS-Za-eg-qs-z]|[Rr]equested-))"
)
"""How names begin that REQUEST_SPECIAL does not have. Browsers and libraries send few others."""

_RESPONSE_LINE = rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: (%b*+))?+" % TEXT
_RESPONSE_BEGINS = re.compile(rb"HTTP/1\.|HTTP/1\Z|HTTP/\Z|HTTP\Z|HTT\Z|HT\Z|H\Z")
_RESPONSE_NAMES = (
    rb"(?:[ABDE-JL-OQRSVWYZabde-jl-oqrsvwyz]|[Cc](?:ontent-[A-KM-Za-km-z]|[A-NP-Za-np-z])"
    rb"|[Pp](?:ra|[A-QS-Za-qs-z])|[Xx]-[A-SU-Za-su-z])"
)
"""How names begin that RESPONSE_SPECIAL does not have."""

_WHOLE_REQUEST_LINE = re.compile(_REQUEST_LINE)
_WHOLE_RESPONSE_LINE = re.compile(_RESPONSE_LINE)
_LINE_SHAPE = re.compile(rb"(%b++) (%b++)(?: HTTP/([0-9]++(?:\.[0-9]++)?+))?+" % (TOKEN, _TARGET))


@cache
def request_rules(line_bytes: int, section_bytes: int, fields: int) -> HeadRules:
    """Return what a request's head is held to, by the limits of a `Front`.

    The groups of the pattern are method, target and minor version.
    """
    return HeadRules(
        pattern=head_pattern(_REQUEST_LINE, fields),
        plain=_plain_request(fields),
        begun=begun_pattern(_REQUEST_LINE, fields),
        begins=_REQUEST_BEGINS,
        check=_check_request_line,
        line_bytes=line_bytes,
        section_bytes=section_bytes,
        fields=fields,
        safe_bytes=min(line_bytes, section_bytes),
        skips_empty=True,
    )


def _plain_request(fields: int) -> re.Pattern[bytes]:
    """Return what matches most requests.

    They begin with Host, as it would be written here as well; then they have perhaps Connection
    with what is understood anyway, then perhaps a length. The groups are the head up to where
    Connection may be, in it method, target and host; close, lines, length, lines.
    """
    lines = _plain_lines(_REQUEST_NAMES, fields)
    return re.compile(
        rb"((GET|HEAD|POST|PUT|PATCH|DELETE) (/%b*+) HTTP/1\.1\r\nHost: ([!-+\--~]++)\r\n%b)"
        rb"(?:[Cc]onnection: ?(?:[Kk]eep-[Aa]live|([Cc]lose))\r\n)?+"
        rb"(%b)(?:[Cc]ontent-[Ll]ength: ?([0-9]{1,18}+)\r\n)?+(%b)\r\n"
        % (_TARGET, lines, lines, lines)
    )


def _plain_response() -> re.Pattern[bytes]:
    """Return what matches most responses.

    They say how long they are in one way at most, and of Connection only what is understood anyway.
    The groups are first line with lines, status, lines, length, chunked, lines, lines.
    """
    lines = _plain_lines(_RESPONSE_NAMES, MAX_RESPONSE_FIELDS)
    keeps = rb"(?:[Cc]onnection: ?[Kk]eep-[Aa]live\r\n(?:[Kk]eep-[Aa]live:%b*+\r\n)?+)?+" % TEXT
    return re.compile(
        rb"(HTTP/1\.1 ([2-5][0-9][0-9]) %b++\r\n%b)%b"
        rb"(%b)(?:[Cc]ontent-[Ll]ength: ?([0-9]{1,18}+)\r\n"
        rb"|[Tt]ransfer-[Ee]ncoding: ?(chunked)\r\n)?+(%b)%b(%b)\r\n"
        % (TEXT, lines, keeps, lines, lines, keeps, lines)
    )


def _plain_lines(names: bytes, fields: int) -> bytes:
    """Return an expression for lines in one of the places for them in a plain head."""
    return rb"(?:%b%b*+:%b*+\r\n){0,%d}+" % (names, TOKEN, TEXT, max(0, fields // 4 - 1))


def _check_request_line(line: bytes) -> None:
    """Raise MalformedError for a request line that is not as it should be (11)."""
    if _WHOLE_REQUEST_LINE.fullmatch(line) is not None:
        return
    shape = _LINE_SHAPE.fullmatch(line)
    if shape is None:
        raise MalformedError(400, "the first line is malformed")
    if shape[1] == b"PRI":
        raise MalformedError(505, "HTTP/2 is not spoken here, only HTTP/1.0 and HTTP/1.1")
    raise MalformedError(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")


def _check_response_line(line: bytes) -> None:
    if _WHOLE_RESPONSE_LINE.fullmatch(line) is None:
        raise MalformedError(502, "the first line is malformed")


RESPONSE_RULES = HeadRules(
    pattern=head_pattern(_RESPONSE_LINE, MAX_RESPONSE_FIELDS),
    plain=_plain_response(),
    begun=begun_pattern(_RESPONSE_LINE, MAX_RESPONSE_FIELDS),
    begins=_RESPONSE_BEGINS,
    check=_check_response_line,
    line_bytes=MAX_RESPONSE_LINE_BYTES,
    section_bytes=MAX_RESPONSE_HEAD_BYTES,
    fields=MAX_RESPONSE_FIELDS,
    safe_bytes=MAX_RESPONSE_LINE_BYTES,
)
"""What a response's head is held to; the groups of the pattern are version, status and reason."""
