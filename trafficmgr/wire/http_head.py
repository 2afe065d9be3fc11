"""How the head of a message, or its trailer section, is found in a byte stream.

Three ways lead to the same verdict, each for what the one before leaves over:

* Most heads have nothing special about them. One match, in C, holds such a head to the grammar and
  takes it apart (`HeadRules.plain`).
* One match holds any head that arrived in one piece to the grammar (`HeadRules.pattern`); its
  special fields are then looked for (http_fields).
* A `HeadBuffer` keeps a head that has not arrived whole, looks at it line by line, and says what is
  wrong with one that never will be right as soon as that is known: a peer that speaks TLS or ends
  its lines with LF alone would otherwise be waited for.

What they say depends on the bytes only, never on how they were cut (tests/wire/test_http_fuzz.py).

The rules (list in docs/http.md, 8 to 12): lines end with CRLF; no other control character but tab;
a field is a token, a colon and its value; no line is folded; sizes and numbers have limits.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
"""One character of a token (RFC 9110 section 5.6.2)."""

TEXT = rb"[\t\x20-\x7e\x80-\xff]"
"""One character of a field's value (RFC 9110 section 5.5)."""

_CRLF = b"\r\n"
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FIELD = re.compile(TOKEN + rb"++:")


class MalformedError(ValueError):
    """Bytes that are no HTTP/1.1. `status` is what a client would be answered."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class HeadRules(NamedTuple):
    """What a head is held to. Sizes in bytes.

    Attributes:
        pattern: Matches a whole head that obeys all rules but those of size.
        plain: Matches most of those, and takes them apart.
        begun: Matches what obeys all rules but those of size as far as it got, behind the first
            line. It serves most heads that come in two pieces.
        begins: Matches where a first line begins that can still become right; None for trailers,
            which have no first line.
        check: Raises MalformedError for a first line, without its CRLF, that is wrong.
        line_bytes: Size of the first line, without CRLF.
        section_bytes: Size of all field lines, with theirs.
        fields: Number of field lines.
        safe_bytes: Size up to which a whole head can't be too large.
        skips_empty: Empty lines before the first line are passed over (RFC 9112 section 2.2).
    """

    pattern: re.Pattern[bytes]
    plain: re.Pattern[bytes]
    begun: re.Pattern[bytes]
    begins: re.Pattern[bytes] | None
    check: Callable[[bytes], None]
    line_bytes: int
    section_bytes: int
    fields: int
    safe_bytes: int
    skips_empty: bool = False


@cache
def head_pattern(first_line: bytes, fields: int) -> re.Pattern[bytes]:
    """Return what matches a head with at most so many fields; `first_line` is without CRLF.

    Every repetition is possessive: a head that does not match is given up without a way back, so
    that the work stays proportional to its length.
    """
    return re.compile(_lines(first_line, fields) + rb"\r\n")


@cache
def begun_pattern(first_line: bytes, fields: int) -> re.Pattern[bytes]:
    """Return what matches a head that can still become whole, if the first line is there."""
    lines = _lines(first_line, fields)
    return re.compile(lines + rb"(?:%b++(?::%b*+)?+)?+\r?+\Z" % (TOKEN, TEXT))


def _lines(first_line: bytes, fields: int) -> bytes:
    field = rb"%b++:%b*+\r\n" % (TOKEN, TEXT)
    return rb"%b\r\n(?:%b){0,%d}+" % (first_line, field, fields)


class HeadBuffer:
    """A head that has not arrived whole.

    Attributes:
        data: What arrived since its first byte.
        end: Once it is whole: where in `data` it ends, behind the empty line.
    """

    __slots__ = ("_fields", "_is_unread", "_line_at", "_rules", "_section_at", "data", "end")

    def __init__(self, rules: HeadRules) -> None:
        self._rules = rules
        self._fields = 0
        self._is_unread = False
        self._line_at = 0
        self._section_at = -1 if rules.begins is not None else 0
        self.data = bytearray()
        self.end = 0

    def feed(self, data: bytes) -> bool:
        """Take what arrived; returns whether the head is whole.

        Raises:
            MalformedError: It never will be.
        """
        buffer = self.data
        seen = max(len(buffer) - 1, 0)  # the last byte can be half a line end
        is_first = not buffer
        buffer += data
        if is_first and self._is_as_begun():
            return False
        if self._is_unread:
            self._is_unread = False
            if self._is_whole():
                return True
            seen = 0
        if self._section_at < 0 and not self._has_begun(seen):
            return False
        while True:
            at = self._line_at
            seen = max(at, seen)
            end = buffer.find(_CRLF, seen)
            is_whole = end >= 0
            if not is_whole:
                end = len(buffer) - buffer.endswith(b"\r")
            self._check_size(at, seen, end)
            if not is_whole:
                return False
            self._line_at = end + 2
            if self._section_at < 0:
                self._rules.check(bytes(buffer[at:end]))
                self._section_at = end + 2
            elif at == end:
                self.end = end + 2
                return True
            else:
                self._take_field(at)

    def _is_as_begun(self) -> bool:
        """Whether one look is enough to know that the first piece breaks no rule."""
        rules = self._rules
        if rules.begins is None or len(self.data) > rules.safe_bytes:
            return False
        self._is_unread = rules.begun.match(self.data) is not None
        return self._is_unread

    def _is_whole(self) -> bool:
        """Whether one look is enough to know that the first two pieces are all."""
        whole = self._rules.pattern.match(self.data)
        if whole is None or whole.end() > self._rules.safe_bytes:
            return False
        self.end = whole.end()
        return True

    def _has_begun(self, seen: int) -> bool:
        """Pass over empty lines; whether the first line has begun, and not in a wrong way."""
        buffer = self.data
        if self._rules.skips_empty and not seen:
            while buffer.startswith(_CRLF):
                del buffer[:2]
            if not buffer.removeprefix(b"\r"):
                return False
        begins = self._rules.begins
        if begins is not None and buffer and begins.match(buffer) is None:
            raise MalformedError(400, "the first line is malformed")
        return bool(buffer)

    def _check_size(self, at: int, seen: int, end: int) -> None:
        """Check the characters and the size of a line, of which only the end may be missing."""
        is_first = self._section_at < 0
        section_end = self._section_at + self._rules.section_bytes - 2
        limit = at + self._rules.line_bytes if is_first else section_end
        if _CONTROL.search(self.data, seen, min(end, limit)):
            raise MalformedError(400, "a control character, a bare CR or a bare LF")
        if end > max(limit, at):
            raise too_long(self._rules) if is_first else too_large(self._rules)

    def _take_field(self, at: int) -> None:
        if _FIELD.match(self.data, at) is None:
            raise MalformedError(
                400, "a field line is malformed: folded, no token, or space before the colon"
            )
        self._fields += 1
        if self._fields > self._rules.fields:
            raise MalformedError(431, f"more than {self._rules.fields} fields")


def check_sizes(rules: HeadRules, *, line_bytes: int, section_bytes: int) -> None:
    """Raise MalformedError for a head that is too large; both sizes are with the line ends."""
    if line_bytes - 2 > rules.line_bytes:
        raise too_long(rules)
    if section_bytes - 2 > rules.section_bytes:
        raise too_large(rules)


def too_long(rules: HeadRules) -> MalformedError:
    """Return what to raise for a first line beyond its limit."""
    return MalformedError(414, f"the first line is longer than {rules.line_bytes} bytes")


def too_large(rules: HeadRules) -> MalformedError:
    """Return what to raise for field lines beyond their limit."""
    return MalformedError(431, f"the fields are larger than {rules.section_bytes} bytes")
