"""Whom a client gets, by each routing method, and how far around the client that holds."""

from collections import Counter
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficmgr.core.methods import Choice, Chooser, TargetStatus, usable
from trafficmgr.core.regions import ClientPlace, NetworkTable, place_of
from trafficmgr.core.routing import TURNS, point_at
from trafficmgr.core.targets import AddressKind, ExternalTarget, RoutingMethod, TargetPolicy

M = RoutingMethod
T = TargetStatus
SOMEBODY = place_of("198.51.100.7")
unhurried = settings(deadline=None)


def target(name: str, **more: object) -> ExternalTarget:
    return ExternalTarget(name=name, address="192.0.2.1").but(**more)


def policy(method: RoutingMethod, *targets: ExternalTarget, **more: object) -> TargetPolicy:
    return TargetPolicy(method=method, targets=targets).but(**more)


def chosen(
    of: TargetPolicy,
    client: ClientPlace = SOMEBODY,
    *,
    without: str = "",
    point: float = 0.0,
    turn: int = 0,
) -> Choice:
    """Return the choice among the policy's targets but those named in `without`."""
    left = tuple(t for t in of.targets if t.name not in without.split())
    return Chooser(of).choose(left, client, point=point, turn=turn)


def names(choice: Choice) -> str:
    return " ".join(found.name for found in choice.targets)


# -- who may be served ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "served"),
    [
        ({"a": T.online, "b": T.degraded, "c": T.checking_endpoint}, "a c"),
        ({"a": T.degraded, "b": T.degraded, "c": T.stopped}, "a b"),
        ({"a": T.degraded, "b": T.stopped, "c": T.disabled}, "a"),
        ({"a": T.inactive, "b": T.inactive, "c": T.inactive}, ""),
        ({"a": T.stopped, "b": T.disabled, "c": T.stopped}, ""),
        ({"a": T.degraded, "b": T.degraded}, "c"),
    ],
)
def test_who_may_be_served(statuses: dict[str, TargetStatus], served: str) -> None:
    of = policy(M.weighted, target("a"), target("b"), target("c"))

    assert " ".join(t.name for t in usable(of, statuses)) == served


def test_all_degraded_is_said_of_those_that_could_answer() -> None:
    """The IPv6 targets are well, which is no help to who asks for an A record."""
    of = policy(M.weighted, target("four"), target("six", address="2001:db8::1"))
    statuses = {"four": T.degraded, "six": T.online}

    assert usable(of, statuses) == of.targets[1:]
    assert usable(of, statuses, {AddressKind.ipv4}) == of.targets[:1]


TARGETS = st.builds(
    target,
    name=st.sampled_from("abcdefgh"),
    weight=st.integers(0, 3),
    priority=st.integers(1, 3),
    networks=st.sampled_from([(), ("198.51.100.0/24",), ("0.0.0.0/0",)]),
    region=st.sampled_from(["", "de", "us"]),
    places=st.sampled_from([(), ("DE",), ("WORLD",)]),
    is_enabled=st.booleans(),
)
POLICIES = st.builds(
    lambda method, targets: policy(
        method,
        *targets,
        latencies={"eu": {"de": 1.0, "us": 2.0}},
        client_regions={"198.51.0.0/16": "eu"},
    ),
    st.sampled_from(RoutingMethod),
    st.lists(TARGETS, max_size=6, unique_by=lambda t: t.name),
)
POINTS = st.floats(0, 1, exclude_max=True)


@pytest.mark.long
@unhurried
@given(POLICIES, st.data(), POINTS, st.integers(0, 99))
def test_only_usable_targets_are_chosen_and_disabled_ones_never(
    of: TargetPolicy, data: st.DataObject, point: float, turn: int
) -> None:
    statuses = {t.name: data.draw(st.sampled_from(TargetStatus)) for t in of.targets}
    left = usable(of, statuses)
    client = SOMEBODY.but(country="DE", continent="EU")

    choice = Chooser(of).choose(left, client, point=point, turn=turn)

    assert {*choice.targets} <= {*left}
    assert all(t.is_enabled for t in choice.targets)
    assert len({*choice.targets}) == len(choice.targets)
    assert 0 <= choice.point < 1


@unhurried
@given(POLICIES)
def test_if_all_are_degraded_all_that_are_enabled_are_served(of: TargetPolicy) -> None:
    left = usable(of, {t.name: T.degraded for t in of.targets})

    assert left == tuple(t for t in of.targets if t.is_enabled)


@unhurried
@given(POLICIES, POINTS)
def test_who_can_go_anywhere_always_gets_somebody(of: TargetPolicy, point: float) -> None:
    mapped = of.method in {M.subnet, M.geographic}

    choice = chosen(of, point=point)

    assert mapped or bool(choice.targets) == bool(of.targets)


# -- weighted -------------------------------------------------------------------------------------


def shares(of: TargetPolicy, points: list[float]) -> Counter[str]:
    chooser = Chooser(of)
    found = (chooser.choose(of.targets, SOMEBODY, point=point, turn=0) for point in points)
    return Counter(names(choice) for choice in found)


@pytest.mark.long
@unhurried
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8).filter(any))
def test_over_a_full_set_of_points_each_gets_exactly_its_weight(weights: list[int]) -> None:
    of = policy(M.weighted, *(target(str(n), weight=w) for n, w in enumerate(weights)))
    total = sum(weights)

    found = shares(of, [(step + 0.5) / total for step in range(total)])

    assert found == Counter({str(n): w for n, w in enumerate(weights) if w})


def test_per_cents_are_exact_over_all_turns() -> None:
    of = policy(M.weighted, *(target(str(w), weight=w) for w in (0, 1, 99)))

    found = shares(of, [point_at(turn) for turn in range(TURNS)])

    assert found == {"1": TURNS // 100, "99": TURNS * 99 // 100}


@pytest.mark.parametrize("point", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("weights", [(0, 1000, 0), (0, 1, 0), (0, 7, 0)])
def test_nothing_and_everything_are_exact(weights: tuple[int, ...], point: float) -> None:
    of = policy(M.weighted, *(target(f"w{n}", weight=w) for n, w in enumerate(weights)))

    assert names(chosen(of, point=point)) == "w1"


@unhurried
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=1000))
def test_the_last_point_is_still_somebodys(weights: list[int]) -> None:
    of = policy(M.weighted, *(target(str(n), weight=w) for n, w in enumerate(weights)))

    choice = chosen(of, point=1 - 2**-53)

    assert choice.targets == of.targets[-1:]
    assert 0 <= choice.point < 1


def test_drained_targets_alone_are_equals() -> None:
    of = policy(M.weighted, target("a", weight=0), target("b", weight=0))

    assert shares(of, [0.0, 0.49, 0.5, 0.99]) == {"a": 2, "b": 2}


def test_a_nested_endpoint_has_the_whole_unit_interval_to_itself() -> None:
    """With the parent's own point the inner 50 : 50 would be all or nothing."""
    halves = policy(M.weighted, target("a"), target("b"))
    found = Counter[str]()

    for step in range(100):
        outer = chosen(halves, point=(step + 0.5) / 100)
        found[names(outer) + names(chosen(halves, point=outer.point))] += 1

    assert found == {"aa": 25, "ab": 25, "ba": 25, "bb": 25}


# -- priority and multivalue ----------------------------------------------------------------------

RANKED = policy(M.priority, target("last", priority=9), target("first"), target("next", priority=2))


@pytest.mark.parametrize(
    ("without", "who"),
    [("", "first"), ("first", "next"), ("first next", "last"), ("first next last", "")],
)
def test_the_first_by_number_is_served(without: str, who: str) -> None:
    assert names(chosen(RANKED, without=without, point=0.9)) == who


def test_a_drained_first_makes_way_for_the_next() -> None:
    drained = policy(M.priority, target("first", weight=0), target("next", priority=2))

    assert names(chosen(drained)) == "next"
    assert names(chosen(drained, without="next")) == "first"


ABC = policy(M.multivalue, target("a"), target("b"), target("c"), max_answers=2)


@pytest.mark.parametrize(("turn", "who"), [(0, "a b"), (1, "b c"), (2, "c a"), (3, "a b")])
def test_many_answers_go_round(turn: int, who: str) -> None:
    assert names(chosen(ABC, turn=turn)) == who


def test_there_are_never_more_answers_than_targets() -> None:
    assert names(chosen(ABC.but(max_answers=8))) == "a b c"
    assert names(chosen(ABC, without="a b c", turn=5)) == ""


def test_drained_targets_are_not_among_many_answers() -> None:
    of = policy(M.multivalue, target("a", weight=0), target("b"), target("c"))

    assert names(chosen(of)) == "b c"


@unhurried
@given(st.integers(1, 6), st.integers(1, 8))
def test_each_is_first_equally_often(count: int, most: int) -> None:
    of = policy(M.multivalue, *(target(str(n)) for n in range(count)), max_answers=most)

    firsts = Counter(chosen(of, turn=turn).targets[0].name for turn in range(3 * count))

    assert {*firsts.values()} == {3}


def test_endpoints_nested_in_many_answers_go_round_by_themselves() -> None:
    """With the parent's own turn each of two would always begin with the same one."""
    of = policy(M.multivalue, target("a"), target("b"))
    found = Counter[str]()

    for turn in range(8):
        outer = chosen(of, turn=turn)
        inner = chosen(of, turn=outer.turn)
        found[outer.targets[0].name + inner.targets[0].name] += 1

    assert found == {"aa": 2, "ab": 2, "ba": 2, "bb": 2}


# -- subnet ---------------------------------------------------------------------------------------

BY_NETWORK = policy(
    M.subnet,
    target("wide", networks=("10.0.0.0/8", "2001:db8::/32")),
    target("narrow", networks=("10.1.2.0/24",)),
    target("rest"),
)


@pytest.mark.parametrize(
    ("address", "prefix_len", "without", "who", "scope"),
    [
        ("10.9.9.9", 32, "", "wide", 13),
        ("10.1.3.1", 32, "", "wide", 24),
        ("10.1.2.1", 32, "", "narrow", 24),
        ("10.1.2.1", 32, "narrow", "", 24),
        ("10.1.2.1", 32, "wide", "narrow", 24),
        ("192.0.2.1", 32, "", "rest", 1),
        ("192.0.2.1", 32, "rest", "", 1),
        ("10.1.0.0", 16, "", "wide", 24),
        ("10.9.9.0", 24, "", "wide", 13),
        ("2001:db8::1", 56, "", "wide", 32),
        ("2001:db9::1", 56, "", "rest", 32),
        ("::ffff:10.1.2.1", 128, "", "narrow", 24),
    ],
)
def test_the_most_specific_network_decides(
    address: str, prefix_len: int, without: str, who: str, scope: int
) -> None:
    choice = chosen(BY_NETWORK, place_of(address, prefix_len), without=without)

    assert (names(choice), choice.scope) == (who, scope)


def test_a_client_of_no_network_without_a_fallback_gets_nobody() -> None:
    of = policy(M.subnet, *BY_NETWORK.targets[:2])

    assert chosen(of, place_of("192.0.2.1")) == Choice(scope=1)


def test_a_disabled_target_keeps_its_network() -> None:
    of = BY_NETWORK.but(
        targets=(BY_NETWORK.targets[0], BY_NETWORK.targets[1].but(is_enabled=False))
    )

    choice = Chooser(of).choose(usable(of, {}), place_of("10.1.2.1"), point=0.0, turn=0)

    assert choice.targets == ()


def test_both_stacks_of_a_place_share_its_network() -> None:
    of = policy(
        M.subnet,
        target("four", networks=("10.0.0.0/8",)),
        target("six", networks=("10.0.0.0/8",), address="2001:db8::1"),
    )

    assert names(chosen(of, place_of("10.1.1.1"), without="four")) == "six"
    assert names(chosen(of, place_of("10.1.1.1"), without="six")) == "four"


# -- performance ----------------------------------------------------------------------------------

NEAREST = policy(
    M.performance,
    target("berlin", region="de"),
    target("bonn", region="de", weight=3),
    target("boston", region="us"),
    target("perth", region="au"),
    latencies={"eu": {"de": 10.0, "us": 90.0}, "na": {"us": 8.0, "de": 90.0}},
    client_regions={"10.0.0.0/8": "eu", "10.1.0.0/16": "na", "10.2.0.0/16": "nowhere"},
)


@pytest.mark.parametrize(
    ("address", "without", "point", "who", "scope"),
    [
        ("10.9.9.9", "", 0.24, "berlin", 13),
        ("10.9.9.9", "", 0.26, "bonn", 13),
        ("10.9.9.9", "berlin bonn", 0.5, "boston", 13),
        ("10.9.9.9", "berlin bonn boston", 0.5, "perth", 13),
        ("10.1.9.9", "", 0.5, "boston", 16),
        ("10.2.9.9", "", 0.99, "perth", 16),
        ("192.0.2.1", "", 0.0, "berlin", 1),
        ("192.0.2.1", "", 0.99, "perth", 1),
        ("10.9.9.9", "berlin bonn boston perth", 0.0, "", 13),
    ],
)
def test_the_nearest_usable_target_is_served(
    address: str, without: str, point: float, who: str, scope: int
) -> None:
    choice = chosen(NEAREST, place_of(address), without=without, point=point)

    assert (names(choice), choice.scope) == (who, scope)


def test_a_drained_nearest_makes_way() -> None:
    drained = NEAREST.but(
        targets=tuple(t.but(weight=0) if t.region == "de" else t for t in NEAREST.targets)
    )

    assert names(chosen(drained, place_of("10.9.9.9"))) == "boston"


# -- geographic -----------------------------------------------------------------------------------

BY_PLACE = policy(
    M.geographic,
    target("de", places=("DE", "AT")),
    target("eu", places=("GEO-EU",)),
    target("namibia", places=("NA",)),
    target("all", places=("WORLD",)),
)


@pytest.mark.parametrize(
    ("country", "continent", "without", "who"),
    [
        ("DE", "EU", "", "de"),
        ("AT", "EU", "", "de"),
        ("FR", "EU", "", "eu"),
        ("", "EU", "", "eu"),
        ("US", "NA", "", "all"),
        ("NA", "AF", "", "namibia"),
        ("", "", "", "all"),
        ("DE", "EU", "de", ""),
        ("US", "NA", "all", ""),
    ],
)
def test_the_smallest_place_decides(country: str, continent: str, without: str, who: str) -> None:
    client = SOMEBODY.but(country=country, continent=continent)

    assert names(chosen(BY_PLACE, client, without=without)) == who


def test_a_client_of_no_place_gets_nobody_if_nobody_serves_the_world() -> None:
    of = BY_PLACE.but(targets=BY_PLACE.targets[:2])

    assert names(chosen(of, SOMEBODY.but(country="JP", continent="AS"))) == ""


@pytest.mark.parametrize(("place_len", "scope"), [(0, 24), (16, 16), (28, 28)])
def test_a_place_holds_as_far_as_is_known(place_len: int, scope: int) -> None:
    client = place_of("198.51.100.0", 24, country="DE").but(place_len=place_len)

    assert chosen(BY_PLACE, client).scope == scope


@pytest.mark.parametrize("of", [ABC, RANKED, ABC.but(method=M.weighted)])
def test_who_does_not_look_at_clients_answers_for_all_of_them(of: TargetPolicy) -> None:
    assert chosen(of).scope == 0


# -- networks -------------------------------------------------------------------------------------

Network = IPv4Network | IPv6Network

FIRST = int(IPv4Address("10.0.0.0"))
SMALL = st.builds(  # networks of a handful of addresses, so that they nest and touch
    lambda low, length: IPv4Network((FIRST + low, length), strict=False),
    st.integers(0, 63),
    st.integers(26, 32),
)
ANY = st.one_of(
    st.builds(
        lambda number, length: IPv4Network((number, length), strict=False),
        st.integers(0, 2**32 - 1),
        st.integers(0, 32),
    ),
    st.builds(
        lambda number, length: IPv6Network((number, length), strict=False),
        st.integers(0, 2**128 - 1),
        st.integers(0, 128),
    ),
)
VALUES = st.sampled_from("xyz")


def table_of(networks: dict[Network, str]) -> NetworkTable[str]:
    return NetworkTable((str(network), value) for network, value in networks.items())


def by_hand(networks: dict[Network, str], address: int, version: int) -> str | None:
    """Return what the longest network that holds an address stands for."""
    kind = IPv4Network if version == 4 else IPv6Network
    holding = [
        network
        for network in networks
        if isinstance(network, kind)
        and int(network.network_address) <= address <= int(network.broadcast_address)
    ]
    return networks[max(holding, key=lambda network: network.prefixlen)] if holding else None


@pytest.mark.long
@unhurried
@given(st.dictionaries(ANY, VALUES, max_size=12), st.data())
def test_lookups_agree_with_a_search_by_hand(
    networks: dict[Network, str], data: st.DataObject
) -> None:
    table = table_of(networks)
    version = data.draw(st.sampled_from([4, 6]))
    bits = 32 if version == 4 else 128
    edges = [int(n[0]) for n in networks] + [int(n[-1]) for n in networks]
    near = st.builds(
        lambda edge, by: (edge + by) % 2**bits, st.sampled_from(edges or [0]), st.integers(-1, 1)
    )
    number = data.draw(near | st.integers(0, 2**bits - 1))
    address = number.to_bytes(bits // 8, "big")

    value, scope = table.find(address, bits)

    assert table.get(address) == value == by_hand(networks, number, version)
    block = ip_network((address, scope), strict=False)
    for inside in (int(block[0]), int(block[-1]), *edges):
        if int(block[0]) <= inside <= int(block[-1]):
            assert by_hand(networks, inside, version) == value


@pytest.mark.long
@unhurried
@given(st.dictionaries(SMALL, VALUES, max_size=12), st.integers(0, 63), st.integers(20, 32))
def test_within_the_scope_everybody_gets_the_same(
    networks: dict[Network, str], low: int, prefix_len: int
) -> None:
    """For each address of the client's network; all of 10.0.0.0/25 is searched by hand."""
    table = table_of(networks)
    truth = {n: by_hand(networks, n, 4) for n in range(FIRST - 64, FIRST + 128)}
    known = IPv4Network((FIRST + low, prefix_len), strict=False)

    value, scope = table.find((FIRST + low).to_bytes(4, "big"), prefix_len)

    assert value == truth.get(int(known[0]))
    for number in truth:
        if IPv4Address(number) in known:
            block = IPv4Network((number, scope), strict=False)
            assert len({truth.get(int(a)) for a in (block[0], block[-1])}) == 1
            assert len({v for n, v in truth.items() if IPv4Address(n) in block}) == 1


@unhurried
@given(st.dictionaries(SMALL, VALUES, max_size=12), st.integers(0, 63))
def test_a_scope_is_no_longer_than_it_must_be(networks: dict[Network, str], low: int) -> None:
    value, scope = table_of(networks).find((FIRST + low).to_bytes(4, "big"), 32)

    if scope:
        wider = IPv4Network((FIRST + low, scope - 1), strict=False)
        edges = [wider[0], wider[-1], *(ip_address(FIRST + n) for n in range(-1, 65))]
        assert {by_hand(networks, int(a), 4) for a in edges if a in wider} != {value}
    else:
        assert {by_hand(networks, FIRST + n, 4) for n in range(-1, 65)} == {value}


@pytest.mark.long
@unhurried
@given(st.dictionaries(SMALL, VALUES, max_size=12), st.integers(0, 63), st.integers(0, 63))
def test_scopes_of_whole_addresses_never_overlap(
    networks: dict[Network, str], one: int, other: int
) -> None:
    """RFC 7871 section 7.2.1: else the order of queries decides what a cache gives to whom."""
    table = table_of(networks)
    first, second = (
        IPv4Network(
            (FIRST + low, table.find((FIRST + low).to_bytes(4, "big"), 32)[1]), strict=False
        )
        for low in (one, other)
    )

    assert first == second or not first.overlaps(second)


@pytest.mark.parametrize(
    ("networks", "address", "prefix_len", "found"),
    [
        ([], "10.0.0.1", 32, (None, 0)),
        ([("0.0.0.0/0", "x")], "10.0.0.1", 32, ("x", 0)),
        ([("0.0.0.0/0", "x")], "2001:db8::1", 128, (None, 0)),
        ([("10.0.0.0/9", "x"), ("10.128.0.0/9", "x")], "10.1.1.1", 32, ("x", 8)),
        ([("10.0.0.0/8", "x"), ("10.1.0.0/16", "x")], "10.1.1.1", 32, ("x", 8)),
        ([("10.0.0.0/8", "x"), ("10.0.0.1/8", "y")], "10.1.1.1", 32, ("y", 8)),
        ([("10.0.0.16/28", "x")], "10.0.0.0", 24, (None, 28)),
        ([("10.0.0.0/28", "x"), ("10.0.0.65", "y")], "10.0.0.0", 24, ("x", 32)),
        ([("255.255.255.255", "x")], "255.255.255.255", 32, ("x", 32)),
        ([("::/0", "x"), ("ffff::/16", "y")], "8000::", 0, ("x", 16)),
    ],
)
def test_what_a_network_table_finds(
    networks: list[tuple[str, str]],
    address: str,
    prefix_len: int,
    found: tuple[str | None, int],
) -> None:
    assert NetworkTable(networks).find(ip_address(address).packed, prefix_len) == found


def test_what_is_no_network_or_address_is_refused() -> None:
    with pytest.raises(ValueError, match="10/8"):
        NetworkTable([("10/8", "x")])
    with pytest.raises(KeyError):
        NetworkTable([("10.0.0.0/8", "x")]).get(b"\x0a")


def test_a_table_says_how_large_it_is() -> None:
    found = repr(NetworkTable([("10.0.0.0/8", "x")]))

    assert found == "NetworkTable(3 intervals of IPv4, 1 of IPv6)"


def test_half_a_mapped_address_is_no_ipv4_client() -> None:
    """Of the network ::/64 nobody can say that it is one IPv4 address."""
    assert place_of("::ffff:192.0.2.1", 64).prefix_len == 64
    assert place_of("::ffff:192.0.2.1", 120) == place_of("192.0.2.1", 24)
