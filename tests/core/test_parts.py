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
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.health import Health
from trafficmgr.core.model import Publish, Tcp
from trafficmgr.core.routing import Share, Table, Target, check, pick
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
