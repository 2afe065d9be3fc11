"""What fields mean: which end at this hop, which only proxies may write, how values are read.

A head is searched once, in C, for the fields that a proxy has to understand; all others are passed
on as the bytes they were. `sorted_out` is that search. It takes the field lines behind the line
feed of the line before, because that is where a field's name can be found without a look at each
line: what it keeps begins with that line feed, too.

The rules are those of RFC 9110, as the list in docs/http.md; the numbers in brackets are its lines.
"""

import re

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

REQUEST_ID = b"x-request-id"

NEVER_HOP_BY_HOP = FORWARDING | FRAMING | frozenset({b"host", b"authorization", b"cookie"})
"""Fields that `Connection` must not remove: hop-by-hop abuse (17)."""

_NOT_REMOVED = NEVER_HOP_BY_HOP | HOP_BY_HOP | frozenset({b"close"})
"""Options of `Connection` for which no field line has to be looked for."""

_MAX_LENGTH_DIGITS = 18
"""Below 2**63, as every peer expects."""

Special = dict[bytes, bytes]
"""Fields that we understand, by lower-case name; repeated ones are joined by a comma (RFC 9110
section 5.2), which no Host and no Content-Length survives."""


def special_pattern(names: bytes) -> re.Pattern[bytes]:
    """Return what `sorted_out` looks for: fields of these names, an expression without groups."""
    return re.compile(rb"\n(%b):[ \t]*+([^\r]*+)\r" % names)


REQUEST_SPECIAL = special_pattern(
    rb"[Cc](?i:on(?:nection|tent[-_]length))|[Ee](?i:xpect)|[Ff](?i:orwarded)|[Hh](?i:ost)"
    rb"|[Kk](?i:eep-alive)|[Pp](?i:roxy-(?:connection|auth(?:enticate|orization)))"
    rb"|[Tt](?i:e|r(?:ailer|ansfer[-_]encoding))|[Uu](?i:pgrade)"
    rb"|[Xx](?i:[-_](?:forwarded[-_](?:for|host|port|proto|server)|re(?:al[-_]ip|quest[-_]id)))"
)
"""Also the names as CGI and WSGI would read them (`X_Forwarded_For`), which are dropped (10)."""

RESPONSE_SPECIAL = special_pattern(
    rb"[Cc](?i:on(?:nection|tent-length))|[Kk](?i:eep-alive)"
    rb"|[Pp](?i:roxy-(?:connection|auth(?:enticate|orization)))"
    rb"|[Tt](?i:e|r(?:ailer|ansfer-encoding))|[Uu](?i:pgrade)|[Xx](?i:-trafficmgr-revision)"
)


def sorted_out(section: bytes, pattern: re.Pattern[bytes]) -> tuple[list[bytes], Special]:
    r"""Return what is passed on of field lines, in pieces, and the fields that we understand.

    Args:
        section: `\n`, and the field lines with their ends. It obeys the grammar already.
        pattern: Which fields they are.

    Returns:
        Pieces that together are again `\n` and field lines; and the special fields.
    """
    parts = pattern.split(section)
    special: Special = {}
    for at in range(1, len(parts), 3):
        name = parts[at].lower()
        value = parts[at + 1].rstrip()  # of space and tab: nothing else is in there
        special[name] = b"%b, %b" % (special[name], value) if name in special else value
    return parts[::3], special


def without_named(kept: list[bytes], options: list[bytes]) -> list[bytes]:
    r"""Return what is passed on without the fields that `Connection` names, as far as it may (17).

    Args:
        kept: Pieces of field lines behind a `\n`, as `sorted_out` returns them.
        options: Members of Connection, lower case.
    """
    named = set(options) - _NOT_REMOVED
    if not named:
        return kept
    lines = b"".join(kept)[1:].split(b"\r\n")[:-1]
    others = [b"%b\r\n" % line for line in lines if line.partition(b":")[0].lower() not in named]
    return [b"\n", *others]


def tokens(value: bytes) -> list[bytes]:
    """Return the members of a comma separated list, lower case, without empty ones."""
    return [token for part in value.lower().split(b",") if (token := part.strip(b" \t"))]


def length_of(value: bytes) -> int:
    """Return the bytes that a Content-Length announces; the value is 1*DIGIT (3).

    Raises:
        ValueError: It is anything else, or more than 18 digits.
    """
    if not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
        raise ValueError("malformed Content-Length")
    return int(value)


def field_finder(name: bytes) -> re.Pattern[bytes]:
    """Return what finds a field of this name, and in group 1 its value, in a request's section."""
    return re.compile(rb"\n(?i:%b):[ \t]*+([^\r]*)" % re.escape(name))


def cookie_finder(name: bytes) -> re.Pattern[bytes]:
    """Return what finds a cookie of this name, and in group 1 its value, in a request's section.

    Names of cookies are compared as they are written (RFC 6265 section 5.4).
    """
    return re.compile(rb'\n(?i:cookie):(?:[^\r]*?;)??[ \t]*%b=[ \t]*"?([^;"\r]*)' % re.escape(name))
