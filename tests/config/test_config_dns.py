"""`dns`: what its keys mean, and what they can't be."""

from pathlib import Path

import pytest
from support.config_support import GOOD, loaded, only_problem, pointed_at

from trafficmgr.core.dns_policy import ChaosNames, CookiePolicy, DnsPolicy, RateLimits

EVERY_KEY = """\
dns:
  cookies: false
  nsid: node-1
  chaos: {version: a, hostname: b, id: c}
  rate_limit: {responses: 1, nxdomains: 2, errors: 3, window: 4s, slip: 5, exempt: [10.0.0.0/8]}
"""


def test_every_key_reaches_the_core(tmp_path: Path) -> None:
    """Each value differs from its default, so that a forgotten or crossed key shows."""
    assert loaded(tmp_path, EVERY_KEY + GOOD).dns == DnsPolicy(
        chaos=ChaosNames(version="a", hostname="b", id="c"),
        nsid="node-1",
        cookies=CookiePolicy(is_on=False),
        rates=RateLimits(
            responses_per_s=1,
            nxdomains_per_s=2,
            errors_per_s=3,
            window_s=4,
            slip=5,
            exempt_networks=("10.0.0.0/8",),
        ),
    )


def test_what_is_left_out_is_what_the_core_says(tmp_path: Path) -> None:
    assert loaded(tmp_path, GOOD).dns == DnsPolicy()
    assert loaded(tmp_path, "dns: {rate_limit: true}\n" + GOOD).dns == DnsPolicy()


def test_rate_limits_may_be_switched_off(tmp_path: Path) -> None:
    assert loaded(tmp_path, "dns: {rate_limit: false}\n" + GOOD).dns.rates is None


@pytest.mark.parametrize(
    ("dns", "pointed", "sentence", "hint"),
    [
        ("nsid: 7", "7", "is not a text", "such as node-1"),
        (f"nsid: {'x' * 256}", "x" * 256, "is no string of a TXT record", "at most 255"),
        ("chaos: {version: bücher}", "bücher", "is no string of a TXT record", "such as node-1"),
        ("cookies: maybe", "maybe", "is neither true nor false", "true or false"),
        ("rate_limit: {slip: 11}", "11", "is too large", "10"),
        ("rate_limit: {responses: -1}", "-1", "is too small", "the smallest is 0"),
        ("rate_limit: {window: 10ms}", "10ms", "not even one of its nxdomains", "20ms or more"),
        ("rate_limit: {exempt: [10.1.0.0/8]}", "10.1.0.0/8", "inside a network", "10.0.0.0/8"),
        ("limit: 5", "limit", "unknown key", ""),
    ],
)
def test_what_dns_cannot_be_says_what_to_write(
    tmp_path: Path, dns: str, pointed: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, f"dns: {{{dns}}}\n{GOOD}")

    assert sentence in problem.text
    assert pointed_at(problem) == pointed
    assert hint in problem.hint
