"""The small rules of the core, each by example."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.story import revision, settings

from trafficmgr.controller.loop import Mind
from trafficmgr.core import fleet
from trafficmgr.core.events import (
    ControllerStarted,
    EndpointRemoved,
    GroupStopped,
    RevisionSeen,
    SettingsApplied,
    WorkerConnected,
)
from trafficmgr.core.evidence import CLIENT_BUCKETS
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.health import Health
from trafficmgr.core.model import Publish, Tcp
from trafficmgr.core.routing import (
    BUCKETS,
    Share,
    Table,
    Target,
    bucket_of,
    check,
    client_of,
    pick,
    point_of,
)
from trafficmgr.core.schedule import capacity_pct
from trafficmgr.core.template import HttpCheck, Probe

PROBE = Probe(check=HttpCheck(port=80), rise=2, fall=3)


def share(weight_pct: int, revision_id: str = "r") -> Share:
    target = Target(group=f"g-{revision_id}", dial=Tcp(address="127.0.0.1", port=80))
    return Share(revision=revision_id, weight_pct=weight_pct, targets=(target,))


# -- routing --------------------------------------------------------------------------------------


@given(st.floats(min_value=0, max_value=1, exclude_max=True))
def test_zero_is_exactly_none_and_a_hundred_exactly_all(point: float) -> None:
    assert pick((share(0), share(100)), point) == 1
    assert pick((share(100), share(0)), point) == 0


@given(st.floats(min_value=0, max_value=1, exclude_max=True), st.integers(0, 99))
def test_a_client_crosses_once_as_the_weight_rises(point: float, weight: int) -> None:
    """Promise 10: whoever was on the candidate at a weight is on it at every higher one."""
    if pick((share(weight), share(100 - weight)), point) == 0:
        assert pick((share(weight + 1), share(99 - weight)), point) == 0


def test_weights_are_hit_exactly_over_evenly_spread_points() -> None:
    hits = [pick((share(10), share(90)), (n + 0.5) / 1000) for n in range(1000)]

    assert hits.count(0) == 100


# -- affinity -------------------------------------------------------------------------------------


@given(st.ip_addresses(), st.text(max_size=100))
def test_a_client_is_in_one_bucket_and_crosses_once(address: object, salt: str) -> None:
    """Promise 10, over all weights of a rollout."""
    point = point_of(bucket_of(client_of(str(address)), salt))

    sides = [pick((share(weight), share(100 - weight)), point) for weight in range(101)]

    assert (sides[0], sides[-1]) == (1, 0)
    assert sides == sorted(sides, reverse=True)


def test_every_weight_is_a_whole_number_of_buckets() -> None:
    points = [point_of(bucket) for bucket in range(BUCKETS)]

    for weight in range(101):
        sides = [pick((share(weight), share(100 - weight)), point) for point in points]
        assert sides == [0] * (weight * 10) + [1] * (1000 - weight * 10)
    assert BUCKETS == CLIENT_BUCKETS == 1000


def test_buckets_never_change() -> None:
    """Workers of two versions must agree, and a worker that restarts must with itself."""
    known = {
        ("192.0.2.7", "shop-r1"): 724,
        ("192.0.2.7", "shop-r2"): 763,
        ("2001:db8::7", "shop-r1"): 998,
        ("unknown", ""): 226,
    }

    assert {key: bucket_of(client_of(key[0]), key[1]) for key in known} == known


def test_clients_are_spread_evenly_and_anew_by_each_salt() -> None:
    """Of 65536 neighbours a tenth is first, within 6 standard deviations of 77, for each salt."""
    clients = [client_of(f"10.1.{number >> 8}.{number & 255}") for number in range(1 << 16)]

    first, second = (
        {client for client in clients if bucket_of(client, salt) < BUCKETS // 10}
        for salt in ("shop-r1", "shop-r2")
    )

    assert all(abs(len(one) - 6553.6) < 6 * 76.8 for one in (first, second))
    assert abs(len(first & second) - 655.36) < 6 * 25.5


def test_a_long_salt_tells_rollouts_apart() -> None:
    """The key of a blake2b holds 64 bytes, and an endpoint's name alone may have as many."""
    salts = [f"{'shop' * 20}-r{number}" for number in range(20)]

    assert len({bucket_of(b"client", salt) for salt in salts}) > 10


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("192.0.2.7", "192.0.2.8", False),
        ("192.0.2.7", "::ffff:192.0.2.7", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1", "fe80::2%eth0", True),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.8", False),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(
    one: str, other: str, *, are_one: bool
) -> None:
    assert (client_of(one) == client_of(other)) is are_one


def table(*shares: Share) -> Table:
    return Table(
        endpoint="shop", generation=1, hosts=(), publish=Publish.proxy, ttl_s=1, shares=shares
    )


@pytest.mark.parametrize(
    "wrong",
    [
        table(share(10, "a"), share(80, "b")),
        table(share(110, "a"), share(-10, "b")),
        table(share(50, "a"), share(50, "a")),
    ],
)
def test_a_table_that_breaks_a_rule_is_never_published(wrong: Table) -> None:
    with pytest.raises(AssertionError):
        check(wrong)


# -- health ---------------------------------------------------------------------------------------


def after(health: Health, results: str) -> Health:
    for result in results:
        health = health.after(passed=result == "+", probe=PROBE)
    return health


@pytest.mark.parametrize(
    ("results", "is_ready"),
    [
        ("+", False),
        ("++", True),
        ("+-+", False),
        ("++--", True),
        ("++---", False),
        ("++--+--", True),
    ],
)
def test_rise_and_fall_count_in_a_row(results: str, *, is_ready: bool) -> None:
    assert after(Health(), results).is_ready is is_ready


# -- schedule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ready", "replicas", "pct"), [(0, 3, 0), (2, 3, 66), (3, 3, 100), (4, 3, 100)]
)
def test_capacity_is_what_ready_groups_can_carry(ready: int, replicas: int, pct: int) -> None:
    assert capacity_pct(ready, replicas) == pct


# -- fleet ----------------------------------------------------------------------------------------


def two_endpoints(pool: str) -> Fleet:
    state = fleet.evolve(
        Fleet(), ControllerStarted(at=0.0, boot_id="b", slots=1, address_pool=pool)
    )
    for name in ("shop", "api"):
        wanted = settings(replicas="2").but(name=name)
        state = fleet.evolve(state, SettingsApplied(at=0.0, endpoint=name, settings=wanted))
        state = fleet.evolve(state, RevisionSeen(at=0.0, endpoint=name, revision=revision("v1")))
    return state


def addresses(state: Fleet) -> list[str]:
    return [g.address for endpoint in state.endpoints.values() for g in endpoint.groups]


def test_no_two_groups_share_an_address() -> None:
    given_out = addresses(two_endpoints("127.77.0.0/24"))

    assert sorted(given_out) == ["127.77.0.1", "127.77.0.2", "127.77.0.3", "127.77.0.4"]


def test_an_address_rests_as_long_as_the_pool_allows() -> None:
    """The pool is walked round: the place after the last one given out comes next."""
    state = two_endpoints("127.77.0.0/24").but(cursor=252)
    state = fleet.evolve(
        state,
        SettingsApplied(at=1.0, endpoint="api", settings=settings(replicas="4").but(name="api")),
    )

    assert addresses(state)[4:] == ["127.77.0.253", "127.77.0.5"]


def test_a_group_that_waits_gets_the_address_that_another_endpoint_frees() -> None:
    state = two_endpoints("127.77.0.0/30")
    (waiting,) = {n for n, e in state.endpoints.items() for g in e.groups if not g.address}
    (other,) = state.endpoints.keys() - {waiting}

    state = fleet.evolve(state, EndpointRemoved(at=1.0, endpoint=other))
    state = fleet.evolve(state, WorkerConnected(at=1.0, slot=0, start_id="0-a"))
    for group in state.endpoints[other].groups:
        state = fleet.evolve(state, GroupStopped(at=2.0, endpoint=other, group=group.id))

    assert all(group.address for group in state.endpoints[waiting].groups)


def test_a_group_without_an_address_waits() -> None:
    state = two_endpoints("127.77.0.0/30")

    waiting = [g for e in state.endpoints.values() for g in e.groups if not g.address]
    started = {command.key for command in Mind(state).wanted()}

    assert len(waiting) == 2
    assert not started & {f"start {group.id}" for group in waiting}


def test_the_gateway_of_a_container_engine_is_given_to_nobody() -> None:
    state = two_endpoints("127.77.0.0/29").but(cursor=5)
    state = fleet.evolve(
        state,
        SettingsApplied(at=1.0, endpoint="api", settings=settings(replicas="4").but(name="api")),
    )

    assert addresses(state)[4:] == ["127.77.0.7", "127.77.0.5"]
