"""What a worker knows: swaps are whole, acknowledgements exact, choices by the table's rules."""

import pytest

from trafficmgr.core.model import Publish, Tcp
from trafficmgr.core.routing import Share, Table, Target, Zone, Zones
from trafficmgr.dataplane.book import Book


def table(
    generation: int,
    shares: dict[str, tuple[int, str]],
    endpoint: str = "shop",
    hosts: str = "shop.test",
) -> Table:
    """Return a table of {revision: (weight, "group group")}."""
    return Table(
        endpoint=endpoint,
        generation=generation,
        hosts=tuple(hosts.split()),
        publish=Publish.groups,
        ttl_s=1,
        shares=tuple(
            Share(revision=revision, weight_pct=weight, targets=targets(groups))
            for revision, (weight, groups) in shares.items()
        ),
    )


def targets(groups: str) -> tuple[Target, ...]:
    return tuple(
        Target(group=g, dial=Tcp(address=f"127.77.0.{g[1:]}", port=80)) for g in groups.split()
    )


def chosen(book: Book, point: float, now: float = 0.0) -> str | None:
    upstream = book.by_host["shop.test"].choose(point, now)
    return None if upstream is None else upstream.group


def test_an_older_table_is_ignored() -> None:
    book = Book("0-a")
    assert book.apply(table(2, {"v1": (100, "g1")}))

    assert not book.apply(table(1, {"v0": (100, "g9")}))
    assert not book.apply(table(2, {"v0": (100, "g9")}))
    assert chosen(book, 0.5) == "g1"


def test_targets_of_a_share_take_turns() -> None:
    book = Book("0-a")
    book.apply(table(1, {"v1": (100, "g1 g2 g3")}))

    assert sorted(chosen(book, 0.5) or "" for _ in range(6)) == ["g1", "g1", "g2", "g2", "g3", "g3"]


def test_a_target_that_refused_is_passed_over_for_a_while() -> None:
    book = Book("0-a")
    book.apply(table(1, {"v1": (100, "g1 g2")}))
    refusing = book.by_host["shop.test"].lanes[0].upstreams[0]
    refusing.refused_until = 10.0

    assert {chosen(book, 0.5, now=5.0) for _ in range(4)} == {"g2"}
    assert {chosen(book, 0.5, now=11.0) for _ in range(4)} == {"g1", "g2"}


def test_a_share_without_a_usable_target_spills_and_is_counted() -> None:
    book = Book("0-a")
    book.apply(table(1, {"v2": (10, "g3"), "v1": (90, "")}))

    assert chosen(book, 0.99) == "g3"
    assert book.counts(0.0).endpoints["shop"]["v1"].spilled == 1


def test_if_all_refuse_one_is_tried_all_the_same() -> None:
    book = Book("0-a")
    book.apply(table(1, {"v1": (100, "g1")}))
    book.by_host["shop.test"].lanes[0].upstreams[0].refused_until = 10.0

    assert chosen(book, 0.5, now=5.0) == "g1"


def test_nothing_to_reach_is_nothing() -> None:
    book = Book("0-a")
    book.apply(table(1, {}))

    assert chosen(book, 0.5) is None


def test_withdrawn_groups_are_acknowledged_with_what_they_still_hold() -> None:
    book, withdrawn = Book("0-a"), list[str]()
    book.on_withdrawn.append(lambda upstream: withdrawn.append(upstream.group))
    book.apply(table(1, {"v1": (100, "g1 g2")}))
    g1, g2 = book.by_host["shop.test"].lanes[0].upstreams
    g1.answered_at, g1.requests, g2.tunnels = 5.0, 1, 1

    book.apply(table(2, {"v2": (100, "g3")}))

    assert withdrawn == ["g1", "g2"]
    applied = book.applied("shop")
    assert applied.generation == 2
    assert applied.answered == {"g1": 5.0}
    assert (applied.http_busy, applied.tunnel_busy) == (("g1",), ("g2",))
    g1.requests = g2.tunnels = 0
    assert book.applied("shop").http_busy == book.applied("shop").tunnel_busy == ()


def test_a_group_that_returns_keeps_its_books() -> None:
    book = Book("0-a")
    book.apply(table(1, {"v1": (100, "g1")}))
    g1 = book.by_host["shop.test"].lanes[0].upstreams[0]
    g1.answered_at = 5.0
    book.apply(table(2, {}))
    book.apply(table(3, {"v1": (100, "g1")}))

    assert book.by_host["shop.test"].lanes[0].upstreams[0] is g1
    assert book.applied("shop").answered == {}
    assert book.bye().answered == {"shop": {"g1": 5.0}}


def test_a_host_that_moved_to_another_endpoint_stays_there() -> None:
    """Whichever of the two tables comes first."""
    book = Book("0-a")
    book.apply(table(1, {"v1": (100, "g1")}, hosts="shop.test old.test"))
    book.apply(table(1, {"v1": (100, "g2")}, endpoint="api", hosts="old.test"))

    book.apply(table(2, {"v1": (100, "g1")}, hosts="shop.test"))

    assert book.by_host["old.test"].table.endpoint == "api"


@pytest.mark.parametrize("is_removed_first", [True, False])
def test_an_endpoint_with_nothing_to_reach_takes_no_host_from_another(
    *, is_removed_first: bool
) -> None:
    """An endpoint that was removed and its successor under another name, in any order."""
    book = Book("0-a")
    both = [
        table(9, {}, endpoint="old"),
        table(1, {"v1": (100, "g2")}, endpoint="new"),
    ]

    for one in both if is_removed_first else both[::-1]:
        book.apply(one)

    assert book.by_host["shop.test"].table.endpoint == "new"


def test_an_endpoint_that_was_removed_is_known_and_has_nothing_to_reach() -> None:
    book = Book("0-a")
    book.apply(table(1, {"v1": (100, "g1")}))

    book.apply(table(2, {}))

    assert chosen(book, 0.5) is None
    assert book.generations() == {"shop": 2}
    assert book.applied("shop").generation == 2


def test_a_table_that_gives_a_group_another_address_is_refused_whole() -> None:
    """An address belongs to one group for life (promise 13); the table before is served on."""
    book = Book("0-a")
    book.apply(table(1, {"v1": (100, "g1 g2")}))
    wrong = table(2, {"v2": (100, "g3 g1")})
    (share,) = wrong.shares
    moved = share.targets[1].but(dial=Tcp(address="127.77.0.9", port=80))
    wrong = wrong.but(shares=(share.but(targets=(share.targets[0], moved)),))

    with pytest.raises(AssertionError, match=r"g1 .* was at .*127\.77\.0\.1"):
        book.apply(wrong)

    assert book.generations() == {"shop": 1}
    assert {chosen(book, 0.5) for _ in range(4)} == {"g1", "g2"}


def test_a_group_that_is_fronted_at_another_port_keeps_its_books() -> None:
    book, dropped = Book("0-a"), list[str]()
    book.on_withdrawn.append(lambda upstream: dropped.append(upstream.group))
    book.apply(table(1, {"v1": (100, "g1")}))
    g1 = book.by_host["shop.test"].lanes[0].upstreams[0]
    g1.requests = 1
    other = table(2, {"v1": (100, "g1")})
    (share,) = other.shares
    dial = Tcp(address="127.77.0.1", port=81)

    book.apply(other.but(shares=(share.but(targets=(Target(group="g1", dial=dial),)),)))

    assert book.by_host["shop.test"].lanes[0].upstreams == [g1]
    assert (g1.dial, g1.is_withdrawn) == (dial, False)
    assert dropped == ["g1"]  # its idle connections, which lead to the port of before
    book.apply(table(3, {}))
    assert book.applied("shop").http_busy == ("g1",)


def test_zones_only_move_forward() -> None:
    book = Book("0-a")
    book.apply_zones(Zones(generation=2, zones=(), advertise=("192.0.2.1",)))
    book.apply_zones(
        Zones(generation=1, zones=(Zone(name="old.test", ns=("ns.old.test",)),), advertise=())
    )

    assert book.zones.advertise == ("192.0.2.1",)
