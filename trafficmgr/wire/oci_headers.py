"""What a registry says in its headers: how to authenticate, and how long to stay away.

Numbers are ASCII digits and nothing else: no sign, no underscore, no exponent.

Sources: RFC 9110 sections 10.2.3 (Retry-After) and 11.6.1 (WWW-Authenticate), 5.6.7 (dates); the
token specification of distribution; GHCR's habit to write the wait into the body.
"""

import re
from datetime import UTC, datetime

from trafficmgr.core.noun import Noun

MIN_WAIT_S = 1.0
"""GHCR asks to wait 880 microseconds; coming back that fast is what it complains about."""

_MAX_HEADER = 8192
_EPOCH_S = 1_000_000_000
"""Docker Hub has sent a point in time where seconds belong; no one waits for 30 years."""

_MAX_WAIT_DIGITS = 12


class Challenge(Noun):
    """One way to authenticate; the scheme and the names of parameters are in lower case."""

    scheme: str
    params: dict[str, str] = {}


_CHALLENGE_PART = re.compile(
    r"""[\s,]*(?P<name>[A-Za-z0-9!#$%&'*+.^_`|~-]+)
        (?P<value>\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]*)))?""",
    re.VERBOSE | re.DOTALL,
)


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Read WWW-Authenticate; several such headers may be joined by commas.

    What can't be read ends the list; what stood before it counts.
    """
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while part := _CHALLENGE_PART.match(header, at, _MAX_HEADER):
        at = part.end()
        if part["value"] is None:
            found.append((part["name"].lower(), {}))
        elif found:
            quoted, plain = part["quoted"], part["plain"]
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found[-1][1].setdefault(part["name"].lower(), value)
    return tuple(Challenge(scheme=scheme, params=params) for scheme, params in found)


_GO_UNIT_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "\u00b5s": 1e-6,  # Go writes the micro sign
    "\u03bcs": 1e-6,  # and reads the Greek mu as well
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_GO_PART = rf"([0-9]{{1,12}}(?:\.[0-9]{{1,12}})?)({'|'.join(_GO_UNIT_S)})"
_GO_DURATION = re.compile(rf"retry-after:\s*((?:{_GO_PART})+)", re.IGNORECASE)


def parse_retry_after(header: str, body: str = "", *, now: float) -> float | None:
    """Return how many seconds to stay away, at least 1; None if the registry does not say.

    Args:
        header: Retry-After, in seconds or as a date; empty if there was none.
        body: The start of the answer's text, in which GHCR writes a Go duration.
        now: Wall clock in seconds since the epoch, best the one in the answer's own Date.
    """
    wait_s = _wait_in_header(header.strip(), now)
    if wait_s is None:
        wait_s = _wait_in_body(body)
    return None if wait_s is None else max(MIN_WAIT_S, wait_s)


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HTTP_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4})"
    r" ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)


def parse_http_date(text: str) -> float | None:
    """Return an HTTP date in seconds since the epoch; None if it is none (RFC 9110 5.6.7).

    The two obsolete forms are not read: nobody has sent them to us, and a wait is only a hint.
    """
    found = _HTTP_DATE.fullmatch(text.strip())
    if found is None or found[2] not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(found[index]) for index in (1, 3, 4, 5, 6))
    month = _MONTHS.index(found[2]) + 1
    try:
        return datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC).timestamp()
    except ValueError:
        return None


def parse_length(text: str) -> int | None:
    """Return Content-Length, or None if it is missing or no number."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _wait_in_header(header: str, now: float) -> float | None:
    if re.fullmatch(rf"[0-9]{{1,{_MAX_WAIT_DIGITS}}}", header):
        seconds = float(header)
        return seconds - now if seconds >= _EPOCH_S else seconds
    date = parse_http_date(header)
    return None if date is None else date - now


def _wait_in_body(body: str) -> float | None:
    found = _GO_DURATION.search(body)
    if found is None:
        return None
    parts = re.findall(_GO_PART, found[1], re.IGNORECASE)
    return sum(float(number) * _GO_UNIT_S[unit.lower()] for number, unit in parts)
