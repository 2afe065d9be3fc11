"""Response rate limiting: who is limited, by how much, and what it costs in memory."""

from collections.abc import Iterable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficmgr.core.dns_policy import RateLimits
from trafficmgr.dataplane import dns_rates
from trafficmgr.dataplane.dns_rates import ANSWER, DROP, ERROR, SLIP, Rates, Verdict

NAME = b"\x04shop\x04apps\x04test\0"
SHOP, REFERRAL = dns_rates.positive(NAME), dns_rates.referral(NAME)
BLOG = dns_rates.positive(b"\x04blog\x04apps\x04test\0")
ZONE = b"\x04apps\x04test\0"
NODATA, NXDOMAIN = dns_rates.nodata(ZONE), dns_rates.nxdomain(ZONE)
KINDS = (SHOP, BLOG, NODATA, NXDOMAIN, REFERRAL, ERROR)

LIMITS = RateLimits(responses_per_s=5, nxdomains_per_s=3, errors_per_s=2, window_s=4.0)
BURST = 20  # 5 per second, 4 seconds

FORGED, VICTIM, OTHER = "192.0.2.66", "192.0.2.7", "198.51.100.7"


def judged(
    rates: Rates, times: int, *, client: str = VICTIM, kind: bytes = SHOP, now: float = 1000.0
) -> list[Verdict]:
    """Ask so often at one moment."""
    return [rates.judge(client, kind, now) for _ in range(times)]


def random_clients(seed: int, count: int) -> Iterable[str]:
    """Yield addresses from all over."""
    rand = Random(seed).getrandbits  # noqa: S311  addresses, no secrets
    return (f"{rand(7) + 1}.{rand(8)}.{rand(8)}.{rand(8)}" for _ in range(count))


# -- who is limited -------------------------------------------------------------------------------


def test_a_flood_in_ones_name_is_limited_and_nobody_else_notices() -> None:
    rates = Rates(LIMITS)

    flood = [verdict for ms in range(10_000) for verdict in judged(rates, 1, now=1000 + ms / 1000)]

    assert flood.count(ANSWER) == 69  # the credit, and 5 for each second, the last not yet over
    assert judged(rates, 1, client=FORGED, now=1009.999) != [ANSWER]  # the same network
    assert judged(rates, BURST, client=OTHER, now=1009.999) == [ANSWER] * BURST
    assert judged(rates, BURST, kind=BLOG, now=1009.999) == [ANSWER] * BURST


@pytest.mark.parametrize("kind", KINDS)
def test_steady_traffic_at_the_limit_never_is(kind: bytes) -> None:
    rates = Rates(LIMITS)
    step_s = 1 / {NXDOMAIN: 3, ERROR: 2}.get(kind, 5)

    verdicts = {rates.judge(VICTIM, kind, 1000.0 + turn * step_s) for turn in range(5_000)}

    assert verdicts == {ANSWER}


@pytest.mark.parametrize(
    ("kind", "burst"),
    [(SHOP, 20), (NODATA, 20), (REFERRAL, 20), (NXDOMAIN, 12), (ERROR, 8)],
)
def test_each_kind_has_its_limit_and_its_own_account(kind: bytes, burst: int) -> None:
    rates = Rates(LIMITS)
    for other in KINDS:
        if other != kind:
            judged(rates, 50, kind=other)

    assert len(set(KINDS)) == len(KINDS)
    assert judged(rates, burst + 1, kind=kind) == [ANSWER] * burst + [SLIP]


def test_without_a_limit_all_is_answered() -> None:
    rates = Rates(LIMITS.but(nxdomains_per_s=0))

    assert set(judged(rates, 1_000, kind=NXDOMAIN)) == {ANSWER}
    assert set(judged(rates, 1_000, kind=ERROR)) != {ANSWER}


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("2001:db8:0:1200::1", "2001:db8:0:12ff::9", True),
        ("2001:db8:0:1200::1", "2001:db8:0:1300::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("192.0.2.1", "::ffff:192.0.2.9", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.3.1", False),
        ("192.0.2.1", "::192.0.2.1", False),
    ],
)
def test_a_network_has_one_account(one: str, other: str, *, is_same: bool) -> None:
    rates = Rates(LIMITS)
    judged(rates, BURST, client=one)

    assert (judged(rates, 1, client=other) != [ANSWER]) == is_same


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "one", "other", "is_same"),
    [
        (32, 56, "192.0.2.1", "192.0.2.2", False),
        (20, 56, "192.0.2.1", "192.0.15.2", True),
        (20, 56, "192.0.2.1", "192.0.16.2", False),
        (0, 56, "192.0.2.1", "10.0.0.1", True),
        (0, 56, "192.0.2.1", "2001:db8::1", False),
        (24, 128, "2001:db8::1", "2001:db8::2", False),
        (24, 0, "2001:db8::1", "fd00::2", True),
    ],
)
def test_its_size_is_set(ipv4: int, ipv6: int, one: str, other: str, *, is_same: bool) -> None:
    rates = Rates(LIMITS.but(ipv4_prefix=ipv4, ipv6_prefix=ipv6))
    judged(rates, BURST, client=one)

    assert (judged(rates, 1, client=other) != [ANSWER]) == is_same


@pytest.mark.parametrize(
    ("network", "client", "is_exempt"),
    [
        ("127.0.0.0/8", "127.1.2.3", True),
        ("127.0.0.0/8", "128.0.0.1", False),
        ("127.0.0.0/8", "::ffff:127.0.0.1", True),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("192.0.2.9/24", "192.0.2.200", True),
        ("::1/128", "::1", True),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("0.0.0.0/0", "192.0.2.7", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("::/0", "2001:db8::1", True),
        ("::/0", "192.0.2.7", False),
    ],
)
def test_an_exempt_network_is_never_limited(network: str, client: str, *, is_exempt: bool) -> None:
    rates = Rates(LIMITS.but(exempt_networks=("203.0.113.0/24", network)))

    verdicts = set(judged(rates, BURST + 5, client=client))

    assert (verdicts == {ANSWER}) == is_exempt
    assert (len(rates) == 0) == is_exempt


# -- what becomes of the others -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slip", "pattern", "slipped", "dropped"),
    [
        (0, [DROP] * 6, 0, 6),
        (1, [SLIP] * 6, 6, 0),
        (2, [SLIP, DROP] * 3, 3, 3),
        (3, [SLIP, DROP, DROP] * 2, 2, 4),
    ],
)
def test_every_slipth_answer_beyond_the_limit_is_truncated(
    slip: int, pattern: list[Verdict], slipped: int, dropped: int
) -> None:
    rates = Rates(LIMITS.but(slip=slip))

    assert judged(rates, BURST + 6) == [ANSWER] * BURST + pattern
    assert (rates.slipped, rates.dropped) == (slipped, dropped)


def test_accounts_take_turns_of_their_own() -> None:
    """With one turn for all, two floods in step would leave one network without any answer."""
    rates = Rates(LIMITS)
    for client in (VICTIM, OTHER):
        judged(rates, BURST, client=client)

    both = [(*judged(rates, 1), *judged(rates, 1, client=OTHER)) for _ in range(4)]

    assert both == [(SLIP, SLIP), (DROP, DROP)] * 2


# -- credit ---------------------------------------------------------------------------------------


def test_credit_returns_with_time_and_not_beyond_the_window() -> None:
    rates = Rates(LIMITS)
    judged(rates, BURST + 100)  # what is asked beyond the credit costs nothing

    assert judged(rates, 1, now=1000.19) != [ANSWER]
    assert judged(rates, 2, now=1000.2).count(ANSWER) == 1
    assert judged(rates, 20, now=1002.2).count(ANSWER) == 10
    assert judged(rates, 50, now=9000.0).count(ANSWER) == BURST


@given(
    asked=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.001, 0.05, 0.2, 0.5, 1.0, 3.0, 60.0]),
            st.sampled_from([VICTIM, FORGED, OTHER]),
            st.sampled_from([SHOP, NXDOMAIN]),
        ),
        max_size=150,
    ),
    limit=st.integers(1, 7),
    window_s=st.sampled_from([1.0, 1.5, 4.0]),
    started_at=st.sampled_from([0.0, 1e3, 1e6]),
)
def test_never_more_than_the_limit_allows(
    asked: list[tuple[float, str, bytes]], limit: int, window_s: float, started_at: float
) -> None:
    """Limit x (window + elapsed) answers between any two, and no refusal while credit is left."""
    rates = Rates(RateLimits(responses_per_s=limit, nxdomains_per_s=limit, window_s=window_s))
    answered_at: dict[tuple[bool, bytes], list[float]] = {}
    now = started_at
    for passed_s, client, kind in asked:
        now += passed_s
        times = answered_at.setdefault((client == OTHER, kind), [])
        if rates.judge(client, kind, now) is ANSWER:
            times.append(now)
        else:
            assert _is_spent(times, now, limit, window_s)

    for times in answered_at.values():
        for first in range(len(times)):
            for last in range(first, len(times)):
                elapsed_s = times[last] - times[first]
                assert last - first + 1 <= limit * (window_s + elapsed_s) + 1e-4


def _is_spent(times: list[float], now: float, limit: int, window_s: float) -> bool:
    """Whether a bucket of limit x window tokens, filled as slowly as that, has not a whole one."""
    tokens = limit * window_s
    for before, after in pairwise([*times, now]):
        tokens = min(tokens - 1 + (after - before) * limit, limit * window_s)
    return tokens < 1 + 1e-4


# -- memory ---------------------------------------------------------------------------------------


def test_memory_is_bounded_whoever_asks() -> None:
    """Forged addresses from all over: neither accounts nor anything beside them grow on."""
    rates = Rates(LIMITS.but(window_s=1.0, responses_per_s=1), max_entries=1_000)
    most = turns = addresses = 0

    for client in random_clients(1, 60_000):
        rates.judge(client, SHOP, 1000.0)
        rates.judge(client, SHOP, 1000.0)
        most, turns = max(most, len(rates)), max(turns, len(rates._over))
        addresses = max(addresses, len(rates._networks))

    assert 900 < most <= 1_000
    assert 0 < turns <= 500
    assert addresses == dns_rates.MAX_CLIENTS


def test_who_floods_is_not_forgotten_among_others() -> None:
    """A flood of forged addresses must not buy new credit for an account that is in use."""
    rates = Rates(LIMITS, max_entries=1_000)
    judged(rates, BURST)

    verdicts = []
    for number, client in enumerate(random_clients(2, 20_000)):
        rates.judge(client, SHOP, 1000.0)
        if number % 400 == 0:
            verdicts += judged(rates, 1)

    assert ANSWER not in verdicts
    assert SLIP in verdicts


def test_who_has_not_asked_for_long_is_forgotten() -> None:
    rates = Rates(LIMITS, max_entries=1_000)
    judged(rates, BURST)

    for client in random_clients(3, 5_000):
        rates.judge(client, SHOP, 1000.0)

    assert judged(rates, 1) == [ANSWER]


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits",
    [
        LIMITS.but(responses_per_s=1, window_s=0.5),
        LIMITS.but(errors_per_s=1, window_s=0.5),
        LIMITS.but(exempt_networks=("nonsense",)),
    ],
)
def test_what_can_not_be_meant_is_refused(limits: RateLimits) -> None:
    with pytest.raises(ValueError, match=r"are not even one|nonsense"):
        Rates(limits)
