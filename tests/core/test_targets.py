"""What is wrong with a list of targets, and what status each of them has."""

import msgspec
import pytest

from trafficmgr.core.methods import (
    EndpointHealth,
    EndpointStatus,
    TargetHealth,
    TargetStatus,
    endpoint_health,
    healths_of,
    target_status,
)
from trafficmgr.core.targets import (
    AddressKind,
    ExternalTarget,
    RoutingMethod,
    TargetPolicy,
    kind_of,
    loops,
    nesting_problems,
    problems,
)

M = RoutingMethod
T = TargetStatus
E = EndpointStatus


def place(name: str, address: str = "192.0.2.1", **more: object) -> ExternalTarget:
    return ExternalTarget(name=name, address=address).but(**more)


def nested(name: str, endpoint: str) -> ExternalTarget:
    return ExternalTarget(name=name, endpoint=endpoint)


def policy(method: RoutingMethod, *targets: ExternalTarget, **more: object) -> TargetPolicy:
    return TargetPolicy(method=method, targets=targets).but(**more)


def near(name: str, region: str, address: str = "192.0.2.1") -> ExternalTarget:
    return place(name, address, region=region)


ROWS = {"eu": {"de": 10.0, "us": 90.0}}
CLIENTS = {"10.0.0.0/8": "eu"}

SOUND = [
    policy(M.weighted, place("a", weight=0), place("b")),
    policy(M.weighted, place("a"), place("b", "2001:db8::1"), nested("c", "shop")),
    policy(M.weighted, place("a", "eu.example.com"), place("b", "us.example.com")),
    policy(M.priority, place("a"), place("b", priority=2)),
    policy(M.priority, place("a"), place("a6", "2001:db8::1"), place("b", priority=2)),
    policy(M.multivalue, place("a"), place("b", "2001:db8::1"), max_answers=10),
    policy(M.subnet, place("a", networks=("10.0.0.0/8",)), place("b")),
    policy(
        M.subnet,
        place("a", networks=("10.0.0.0/8",)),
        place("a6", "2001:db8::1", networks=("10.0.0.0/8",)),
    ),
    policy(M.performance, near("a", "de"), near("b", "us"), latencies=ROWS, client_regions=CLIENTS),
    policy(M.geographic, place("a", places=("DE", "GEO-EU")), place("b", places=("WORLD",))),
]


@pytest.mark.parametrize("sound", SOUND, ids=repr)
def test_a_sound_policy_has_no_problems(sound: TargetPolicy) -> None:
    assert problems(sound) == []


UNSOUND = [
    (policy(M.weighted), "there are no targets"),
    (policy(M.weighted, place("a"), place("a")), 'several targets are named "a"'),
    (policy(M.weighted, place("a"), place("b", "b.example.com")), "RFC 1034"),
    (policy(M.weighted, place("a", weight=0), place("b", weight=0)), "all targets have weight 0"),
    (policy(M.weighted, place("a", weight=1001)), "weight 1001 is not"),
    (policy(M.weighted, place("a", weight=-1)), "weight -1 is not"),
    (policy(M.weighted, place("a"), min_ready_children=0), "min_ready_children is at least 1"),
    (policy(M.weighted, place("a", "")), "either an address or an endpoint"),
    (policy(M.weighted, place("a", endpoint="shop")), "either an address or an endpoint"),
    (policy(M.weighted, nested("a", "shop").but(always_serve=True)), "always_serve is for"),
    (policy(M.weighted, place("a", port=0)), "port 0 does not exist"),
    (policy(M.weighted, place("a", port=65536)), "port 65536 does not exist"),
    (policy(M.weighted, place("a", "10.0.0.300")), "neither an IP address nor a DNS name"),
    (policy(M.weighted, place("a", "-a.example.com")), "neither an IP address nor a DNS name"),
    (policy(M.weighted, place("a", "a" * 64)), "neither an IP address nor a DNS name"),
    (policy(M.weighted, place("a", "a." * 127 + "a")), "neither an IP address nor a DNS name"),
    (policy(M.weighted, place("a", "224.0.0.1")), "no address that a client can connect to"),
    (policy(M.weighted, place("a", "::")), "no address that a client can connect to"),
    (policy(M.weighted, place("a", "fe80::1%eth0")), "no address that a client can connect to"),
    (policy(M.priority, place("a", priority=0)), "priority 0 is not"),
    (policy(M.priority, place("a"), place("b")), 'targets "a" and "b" both have priority 1'),
    (policy(M.multivalue, place("a"), max_answers=11), "max_answers 11 is not"),
    (policy(M.multivalue, place("a"), max_answers=0), "max_answers 0 is not"),
    (policy(M.multivalue, place("a", "a.example.com")), "multivalue needs addresses"),
    (policy(M.subnet, place("a")), "no target has networks"),
    (policy(M.subnet, place("a", networks=("10.0.0.1/8",))), "write 10.0.0.0/8"),
    (policy(M.subnet, place("a", networks=("10.0.0.0/33",))), '"10.0.0.0/33" is no network'),
    (
        policy(
            M.subnet,
            place("a", networks=("2001:db8::/32",)),
            place("b", networks=("2001:DB8:0::/32",)),
        ),
        'network 2001:db8::/32 is given twice, to "a" and to "b"',
    ),
    (policy(M.performance, near("a", "de")), "no networks of clients have a region"),
    (policy(M.performance, place("a"), latencies=ROWS), 'target "a": give it a region'),
    (policy(M.performance, near("a", "mars"), latencies=ROWS), 'region "mars" are known'),
    (policy(M.performance, client_regions={"10.0.0.0/8": "mars"}), 'clients are in region "mars"'),
    (policy(M.performance, client_regions={"10/8": "mars"}), '"10/8" is no network'),
    (policy(M.performance, latencies={"eu": {"de": -1.0}}), "no number of milliseconds"),
    (policy(M.performance, latencies={"eu": {"de": float("nan")}}), "no number of milliseconds"),
    (policy(M.geographic, place("a")), 'target "a": nobody is sent there'),
    (policy(M.geographic, place("a", places=("EUROPE",))), '"EUROPE" is no place'),
    (policy(M.geographic, place("a", places=("GEO-XX",))), '"GEO-XX" is no place'),
]


@pytest.mark.parametrize(("unsound", "said"), UNSOUND, ids=[said for _, said in UNSOUND])
def test_what_is_wrong_is_said(unsound: TargetPolicy, said: str) -> None:
    assert any(said in problem for problem in problems(unsound)), problems(unsound)


def test_all_problems_are_said_at_once() -> None:
    bad = policy(M.priority, place("a", port=0, weight=-1), place("a", "x y"))

    assert len(problems(bad)) == 6


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (place("a", "192.0.2.1"), AddressKind.ipv4),
        (place("a", "2001:db8::1"), AddressKind.ipv6),
        (place("a", "eu.example.com"), AddressKind.name),
        (nested("a", "shop"), AddressKind.nested),
    ],
)
def test_a_target_is_answered_by_what_its_address_is(
    target: ExternalTarget, kind: AddressKind
) -> None:
    assert kind_of(target) is kind


# -- endpoints within endpoints -------------------------------------------------------------------


def tree(**nests: str) -> dict[str, TargetPolicy]:
    """Return policies: `a="b c"` nests endpoints b and c in endpoint a."""
    return {
        name: policy(M.weighted, *(nested(child, child) for child in inner.split()))
        for name, inner in nests.items()
    }


@pytest.mark.parametrize(
    ("policies", "found"),
    [
        (tree(), []),
        (tree(a="b c", b="d", c="d"), []),
        (tree(a="a"), [("a",)]),
        (tree(c="a", b="c", a="b"), [("a", "b", "c")]),
        (tree(a="b", b="a", x="y", y="x a"), [("a", "b"), ("x", "y")]),
    ],
)
def test_each_circle_of_nesting_is_found(
    policies: dict[str, TargetPolicy], found: list[tuple[str, ...]]
) -> None:
    assert loops(policies) == found


def chain(length: int) -> dict[str, TargetPolicy]:
    """Return so many policies, each of which nests the next one; the last has an address."""
    inner = {f"e{n}": policy(M.weighted, nested("t", f"e{n + 1}")) for n in range(1, length)}
    return {**inner, f"e{length}": policy(M.weighted, place("t"))}


def test_ten_levels_are_enough() -> None:
    assert nesting_problems(chain(10), ()) == []
    assert nesting_problems(chain(11), ()) == ['endpoint "e1": nests more than 10 levels']


def test_a_very_long_chain_is_measured_as_well() -> None:
    assert len(nesting_problems(chain(3000), ())) == 2990


def test_endpoints_with_groups_can_be_nested_and_unknown_ones_not() -> None:
    policies = tree(a="shop stop")

    assert nesting_problems(policies, {"shop"}) == [
        'endpoint "a", target "stop": there is no endpoint "stop"'
    ]


def test_a_circle_is_said_with_its_way() -> None:
    [said] = nesting_problems(tree(a="b", b="a"), ())

    assert said.endswith("a -> b -> a")


def test_more_ready_children_than_there_are_is_a_problem() -> None:
    policies = {**tree(a="b"), "b": policy(M.weighted, place("x"))}
    wants_two = {**policies, "a": policies["a"].but(min_ready_children=2)}

    assert nesting_problems(policies, ()) == []
    assert "can never have 2 ready" in nesting_problems(wants_two, ())[0]


# -- statuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "is_endpoint_enabled", "health", "status"),
    [
        (place("a"), True, TargetHealth.up, T.online),
        (place("a"), True, TargetHealth.down, T.degraded),
        (place("a"), True, TargetHealth.checking, T.checking_endpoint),
        (place("a"), False, TargetHealth.up, T.inactive),
        (place("a", is_enabled=False), True, TargetHealth.up, T.disabled),
        (place("a", is_enabled=False), False, TargetHealth.up, T.disabled),
        (place("a", always_serve=True), True, TargetHealth.down, T.online),
        (place("a", always_serve=True), False, TargetHealth.up, T.inactive),
        (place("a", always_serve=True, is_enabled=False), True, TargetHealth.up, T.disabled),
        (nested("a", "shop"), False, TargetHealth.up, T.inactive),
        (nested("a", "shop"), True, TargetHealth.down, T.checking_endpoint),
    ],
)
def test_status_of_a_target(
    target: ExternalTarget, is_endpoint_enabled: bool, health: TargetHealth, status: TargetStatus
) -> None:
    assert target_status(target, health, is_endpoint_enabled=is_endpoint_enabled) is status


@pytest.mark.parametrize(
    ("child", "least", "status"),
    [
        (EndpointHealth(status=E.disabled, online=2), 1, T.stopped),
        (EndpointHealth(status=E.inactive), 1, T.stopped),
        (EndpointHealth(status=E.online, online=1), 1, T.online),
        (EndpointHealth(status=E.degraded, online=1), 1, T.online),
        (EndpointHealth(status=E.degraded, online=1), 2, T.degraded),
        (EndpointHealth(status=E.degraded, online=1, checking=1), 2, T.checking_endpoint),
        (EndpointHealth(status=E.online, online=1, checking=1), 3, T.degraded),
        (EndpointHealth(status=E.checking_endpoints, checking=1), 1, T.checking_endpoint),
        (EndpointHealth(status=E.degraded), 1, T.degraded),
    ],
)
def test_status_of_a_nested_target(child: EndpointHealth, least: int, status: TargetStatus) -> None:
    found = target_status(nested("a", "shop"), child=child, min_ready_children=least)

    assert found is status


@pytest.mark.parametrize(
    ("targets", "is_enabled", "status"),
    [
        ([T.online, T.degraded], False, E.disabled),
        ([], False, E.disabled),
        ([T.online, T.degraded, T.checking_endpoint], True, E.degraded),
        ([T.online, T.checking_endpoint, T.stopped], True, E.online),
        ([T.checking_endpoint, T.disabled], True, E.checking_endpoints),
        ([T.stopped, T.disabled], True, E.inactive),
        ([], True, E.inactive),
    ],
)
def test_status_of_an_endpoint(
    targets: list[TargetStatus], is_enabled: bool, status: EndpointStatus
) -> None:
    statuses = {str(number): target for number, target in enumerate(targets)}

    assert endpoint_health(statuses, is_enabled=is_enabled).status is status


def test_an_endpoint_counts_what_its_parent_must_know() -> None:
    found = endpoint_health({"a": T.online, "b": T.online, "c": T.checking_endpoint})

    assert (found.online, found.checking) == (2, 1)


def test_statuses_rise_through_the_levels() -> None:
    """Written outermost first; the middle's only target is another endpoint."""
    policies = {
        "world": policy(M.priority, nested("eu", "eu"), place("backup", priority=2)),
        "eu": policy(M.weighted, nested("shop", "shop"), nested("own", "own")),
        "shop": policy(M.weighted, place("one"), place("two")),
    }
    down = dict.fromkeys(("one", "two", "backup"), TargetHealth.down)
    observed = dict.fromkeys(policies, down)
    own = {"own": EndpointHealth(status=E.inactive)}

    alive = healths_of(policies, {**observed, "shop": {"one": TargetHealth.up}}, others=own)
    dead = healths_of(policies, observed, others=own)
    off = healths_of(policies, observed, others=own, disabled={"shop"})

    assert [*alive] == [*policies]
    assert alive["world"].targets == {"eu": T.online, "backup": T.degraded}
    assert alive["shop"].targets == {"one": T.online, "two": T.checking_endpoint}
    assert dead["eu"].targets == {"shop": T.degraded, "own": T.stopped}
    assert dead["world"].targets == {"eu": T.degraded, "backup": T.degraded}
    assert off["shop"].targets == {"one": T.inactive, "two": T.inactive}
    assert off["eu"].status is E.inactive
    assert off["world"].targets["eu"] is T.stopped


def test_statuses_of_a_circle_are_refused() -> None:
    with pytest.raises(ValueError, match="cycle"):
        healths_of(tree(a="b", b="a"), {})


@pytest.mark.parametrize("sound", SOUND, ids=repr)
def test_a_policy_arrives_as_it_was_sent(sound: TargetPolicy) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(sound), type=TargetPolicy) == sound
