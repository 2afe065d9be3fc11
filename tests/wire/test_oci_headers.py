"""Challenges, waits and dates in a registry's headers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficmgr.wire.oci_headers import (
    Challenge,
    parse_challenges,
    parse_http_date,
    parse_length,
    parse_retry_after,
)

SCOPE = "repository:team/web:pull,push"


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="basic-realm"', [("basic", {"realm": "basic-realm"})]),
        ("BASIC REALM=plain", [("basic", {"realm": "plain"})]),
        (
            f'Bearer realm="https://auth.test/token",service="a",scope="{SCOPE}"',
            [("bearer", {"realm": "https://auth.test/token", "service": "a", "scope": SCOPE})],
        ),
        (
            'Negotiate, Bearer realm="x, y" , service = "z", Basic realm="\\"q\\""',
            [("negotiate", {}), ("bearer", {"realm": "x, y", "service": "z"}), ("basic", {"realm": '"q"'})],  # noqa: E501  one case a line
        ),
        ('Bearer realm="first", realm="second"', [("bearer", {"realm": "first"})]),
        ('Bearer realm="never closed', [("bearer", {"realm": ""})]),
        ('realm="no scheme"', []),
    ],
)  # fmt: skip
def test_challenges_are_read(header: str, challenges: list[tuple[str, dict[str, str]]]) -> None:
    read = [(challenge.scheme, challenge.params) for challenge in parse_challenges(header)]
    assert read == challenges


@settings(deadline=None, database=None)  # how fast this machine is proves nothing
@given(st.text(alphabet='Ba ="\\,:\t', max_size=60))
def test_any_header_is_read_to_its_end(header: str) -> None:
    assert all(isinstance(found, Challenge) for found in parse_challenges(header))


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("17", 17.0),
        (" 17 ", 17.0),
        ("0", 1.0),
        ("1700000060", 60.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 1.0),
        ("", None),
        ("-5", None),
        ("+5", None),
        ("5.5", None),
        ("1_000", None),
        ("1e3", None),
        ("٣", None),
        ("soon", None),
        ("9" * 400, None),
    ],
)
def test_a_wait_is_seconds_or_a_date(header: str, wait_s: float | None) -> None:
    assert parse_retry_after(header, now=1_700_000_000.0) == wait_s


@pytest.mark.parametrize(
    ("body", "wait_s"),
    [
        ("TOOMANYREQUESTS: retry-after: 880.092µs, allowed: 44000/minute", 1.0),
        ("retry-after: 880.092\N{GREEK SMALL LETTER MU}s", 1.0),
        ("retry-after: 2s", 2.0),
        ("Retry-After: 1m30.5s", 90.5),
        ("retry-after: 1h0m1s", 3601.0),
        ("retry-after: 2500ms", 2.5),
        ("retry-after: later", None),
        ("2s", None),
    ],
)
def test_a_wait_may_stand_in_the_body(body: str, wait_s: float | None) -> None:
    assert parse_retry_after("", body, now=0.0) == wait_s


def test_the_header_comes_before_the_body() -> None:
    assert parse_retry_after("3", "retry-after: 9s", now=0.0) == 3.0


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777.0),
        ("Sun, 31 Feb 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 28:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 CET", None),
        ("Sunday, 06-Nov-94 08:49:37 GMT", None),
        ("", None),
    ],
)
def test_a_date_is_read(text: str, at: float | None) -> None:
    assert parse_http_date(text) == at


@pytest.mark.parametrize(
    ("text", "length"), [("0", 0), ("12", 12), ("", None), ("-1", None), ("+1", None), ("1 ", None)]
)
def test_a_length_is_digits(text: str, length: int | None) -> None:
    assert parse_length(text) == length
