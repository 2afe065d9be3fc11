"""What is answered to whom: zones, hosts, weights, negative answers, EDNS; no sockets."""

import collections

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from support.dns_support import (
    CLIENT,
    Clock,
    addresses,
    answers,
    asker,
    book,
    evenly,
    opt,
    packet,
    shares,
    table,
    target,
    texts,
    zones,
)

from trafficmgr.core.model import Publish, Via
from trafficmgr.core.routing import Share, Zone
from trafficmgr.dataplane.dns_answers import MAX_PLANS
from trafficmgr.dataplane.dns_manners import MAX_MANNERS

NEGATIVE_SOA = "apps.test. 5 IN SOA ns1.apps.test. hostmaster.apps.test. 1 86400 7200 3600000 5"
ONE = shares({"blue": 100}, {"blue": ["127.77.0.1"]})


# -- hosts ----------------------------------------------------------------------------------------


def test_a_host_published_as_groups_is_answered_with_a_groups_address_and_its_ttl() -> None:
    ask = asker(answers(book(table(shares=ONE, ttl_s=7))))

    reply = ask("shop.apps.test")

    assert texts(reply) == ["shop.apps.test. 7 IN A 127.77.0.1"]
    assert (reply.authority, reply.additional) == ([], [])
    assert reply.flags == dns.flags.QR | dns.flags.AA | dns.flags.RD


def test_a_host_published_as_proxy_rotates_through_the_advertised_addresses() -> None:
    served = zones(advertise=("192.0.2.1", "192.0.2.2", "2001:db8::1"))
    ask = asker(answers(book(table(publish=Publish.proxy, shares=ONE), served=served)))

    replies = [addresses(ask("shop.apps.test")) for _ in range(10)]
    sixth = addresses(ask("shop.apps.test", "AAAA"))

    assert collections.Counter(map(tuple, replies)) == {("192.0.2.1",): 5, ("192.0.2.2",): 5}
    assert sixth == ["2001:db8::1"]


def test_a_proxied_host_is_answered_even_when_no_group_can_be_reached() -> None:
    """The proxy says 503 with a reason; DNS has no such words."""
    ask = asker(answers(book(table(publish=Publish.proxy))))

    assert addresses(ask("shop.apps.test")) == ["192.0.2.10"]


@pytest.mark.parametrize("publish", list(Publish))
def test_the_family_that_a_host_does_not_have_is_nodata(publish: Publish) -> None:
    ask = asker(answers(book(table(publish=publish, shares=ONE))))

    reply = ask("shop.apps.test", "AAAA")

    assert reply.rcode() == dns.rcode.NOERROR
    assert reply.answer == []
    assert texts(reply, "authority") == [NEGATIVE_SOA]
    assert reply.flags & dns.flags.AA


def test_groups_of_both_families_are_each_answered_to_those_who_ask_for_them() -> None:
    mixed = shares({"blue": 50, "green": 50}, {"blue": ["127.77.0.1", "::2"], "green": ["::3"]})
    ask = asker(answers(book(table(shares=mixed))))

    by_a = {tuple(addresses(ask("shop.apps.test", "A"))) for _ in range(100)}
    by_aaaa = collections.Counter(addresses(ask("shop.apps.test", "AAAA"))[0] for _ in range(100))

    assert by_a == {("127.77.0.1",)}
    assert by_aaaa == {"::2": 50, "::3": 50}


def test_a_host_with_nothing_to_reach_is_servfail_because_that_is_not_cached() -> None:
    ask = asker(answers(book(table(shares=()))))

    for rdtype in ("A", "AAAA"):
        reply = ask("shop.apps.test", rdtype)
        assert reply.rcode() == dns.rcode.SERVFAIL
        assert (reply.answer, reply.authority) == ([], [])


def test_a_group_without_an_address_of_its_own_is_never_answered() -> None:
    behind = Share(
        revision="blue",
        weight_pct=100,
        targets=(target("pod", Via(path="/run/pod.sock", port=80)), target("127.77.0.1")),
    )
    ask = asker(answers(book(table(shares=(behind,)))))

    assert {tuple(addresses(ask("shop.apps.test"))) for _ in range(10)} == {("127.77.0.1",)}


def test_a_host_outside_all_zones_is_refused() -> None:
    ask = asker(answers(book(table("shop.example.org", shares=ONE))))

    reply = ask("shop.example.org")

    assert reply.rcode() == dns.rcode.REFUSED
    assert not reply.flags & dns.flags.AA


# -- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("green", [0, 1, 10, 50, 99, 100])
def test_answers_are_split_exactly_by_weight(green: int) -> None:
    weighted = shares(
        {"blue": 100 - green, "green": green},
        {"blue": ["127.77.0.1", "127.77.0.2"], "green": ["127.77.0.3"]},
    )
    ask = asker(answers(book(table(shares=weighted)), rand=evenly(100)))

    given = collections.Counter(addresses(ask("shop.apps.test"))[0] for _ in range(1000))

    assert given["127.77.0.3"] == green * 10
    assert given["127.77.0.1"] == given["127.77.0.2"] == (100 - green) * 5


def test_an_answer_is_noted_on_the_group_when_it_is_made() -> None:
    served, clock = book(table(shares=ONE)), Clock(1234.5)
    ask = asker(answers(served, clock=clock))
    (upstream,) = served.by_endpoint["shop"].lanes[0].upstreams

    ask("shop.apps.test", "AAAA")
    ask("shop.apps.test", "ANY")
    assert (upstream.answered_at, upstream.tally.dns) == (None, 0)
    ask("shop.apps.test")
    clock.now = 1240.0
    ask("shop.apps.test")

    assert (upstream.answered_at, upstream.tally.dns) == (1240.0, 2)


def test_a_swapped_table_is_obeyed_by_the_very_next_answer() -> None:
    clock = Clock(10.0)
    served = book(table(shares=shares({"blue": 100}, {"blue": ["127.77.0.1", "127.77.0.2"]})))
    ask = asker(answers(served, clock=clock))
    assert {addresses(ask("shop.apps.test"))[0] for _ in range(9)} == {"127.77.0.1", "127.77.0.2"}

    served.apply(
        table(generation=2, ttl_s=3, shares=shares({"blue": 100}, {"blue": ["127.77.0.2"]}))
    )
    clock.now = 20.0
    after = {tuple(texts(ask("shop.apps.test"))) for _ in range(100)}

    assert after == {("shop.apps.test. 3 IN A 127.77.0.2",)}
    assert served.applied("shop").answered == {"group-127.77.0.1": 10.0}


def test_a_wildcard_answers_for_one_label_that_no_name_has() -> None:
    nine = shares({"nine": 100}, {"nine": ["127.77.0.9"]})
    wild = table("*.apps.test", endpoint="wild", shares=nine)
    ask = asker(answers(book(wild, table("a.shop.apps.test", shares=ONE))))

    assert texts(ask("any.apps.test")) == ["any.apps.test. 7 IN A 127.77.0.9"]
    assert ask("two.labels.apps.test").rcode() == dns.rcode.NXDOMAIN
    assert addresses(ask("a.shop.apps.test")) == ["127.77.0.1"]
    assert ask("shop.apps.test").rcode() == dns.rcode.NOERROR  # a name is below it: no wildcard
    assert addresses(ask("shop.apps.test")) == []


def test_a_table_changes_the_answers_of_its_own_hosts_only() -> None:
    """A name of ten thousand must not make all others be decided anew."""
    green = shares({"green": 100}, {"green": ["127.77.0.2"]})
    served = book(table(shares=ONE), table("other.apps.test", endpoint="other", shares=green))
    source = answers(served)
    ask = asker(source)
    ask("shop.apps.test")
    ask("other.apps.test")
    kept = set(source._plans)

    served.apply(table(shares=green, generation=2))

    assert len(kept) == 2
    assert [key[:5] for key in source._plans] == [b"\5othe"]
    assert addresses(ask("shop.apps.test")) == ["127.77.0.2"]


def test_a_host_that_two_tables_have_is_decided_anew_with_either() -> None:
    """As it moves: the table that gives it away may come last."""
    green = shares({"green": 100}, {"green": ["127.77.0.2"]})
    served = book(table(shares=ONE), table(endpoint="heir", shares=green))
    ask = asker(answers(served))
    assert addresses(ask("shop.apps.test")) == ["127.77.0.2"]

    served.apply(table(shares=ONE, generation=2))

    assert addresses(ask("shop.apps.test")) == ["127.77.0.1"]


def test_hosts_come_and_go_with_tables() -> None:
    served = book(table("old.apps.test", shares=ONE))
    ask = asker(answers(served))
    assert ask("old.apps.test").rcode() == dns.rcode.NOERROR
    assert ask("new.apps.test").rcode() == dns.rcode.NXDOMAIN

    served.apply(table("new.apps.test", generation=2, shares=ONE))

    assert ask("old.apps.test").rcode() == dns.rcode.NXDOMAIN
    assert addresses(ask("new.apps.test")) == ["127.77.0.1"]


def test_zones_come_and_go() -> None:
    served = book(table(publish=Publish.proxy))
    ask = asker(answers(served))
    assert addresses(ask("shop.apps.test")) == ["192.0.2.10"]

    served.apply_zones(zones(2, advertise=("192.0.2.77",)))
    assert addresses(ask("shop.apps.test")) == ["192.0.2.77"]
    assert "1.apps.test. hostmaster.apps.test. 2 " in texts(ask("apps.test", "SOA"))[0]

    served.apply_zones(zones(3, zone=()))
    assert ask("shop.apps.test").rcode() == dns.rcode.REFUSED


# -- zones ----------------------------------------------------------------------------------------


def test_the_apex_answers_soa_and_ns_with_glue_for_its_own_servers() -> None:
    ask = asker(answers(book(served=zones(7, advertise=("192.0.2.10", "2001:db8::10")))))

    soa = ask("apps.test", "SOA")
    ns = ask("apps.test", "NS")

    assert texts(soa) == [
        "apps.test. 300 IN SOA ns1.apps.test. hostmaster.apps.test. 7 86400 7200 3600000 5"
    ]
    assert texts(ns) == [
        "apps.test. 300 IN NS ns1.apps.test.",
        "apps.test. 300 IN NS ns.elsewhere.test.",
    ]
    assert texts(ns, "additional") == [
        "ns1.apps.test. 300 IN A 192.0.2.10",
        "ns1.apps.test. 300 IN AAAA 2001:db8::10",
    ]


def test_a_name_server_in_the_zone_answers_with_all_advertised_addresses() -> None:
    ask = asker(answers(book(served=zones(advertise=("192.0.2.10", "192.0.2.11")))))

    assert addresses(ask("ns1.apps.test")) == ["192.0.2.10", "192.0.2.11"]
    assert ask("ns1.apps.test", "AAAA").rcode() == dns.rcode.NOERROR
    assert ask("ns1.apps.test", "AAAA").answer == []


def test_the_apex_can_be_a_host() -> None:
    ask = asker(answers(book(table("apps.test", shares=ONE))))

    assert addresses(ask("apps.test")) == ["127.77.0.1"]
    assert len(texts(ask("apps.test", "NS"))) == 2


@pytest.mark.parametrize("name", ["nobody.apps.test", "x.shop.apps.test", "shop.x.apps.test"])
def test_an_unknown_name_is_nxdomain_with_the_zones_soa(name: str) -> None:
    reply = asker(answers(book(table(shares=ONE))))(name, "TXT")

    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert texts(reply, "authority") == [NEGATIVE_SOA]
    assert reply.flags & dns.flags.AA


@pytest.mark.parametrize("rdtype", ["TXT", "MX", "DS", "TYPE666", "TYPE0", "OPT", "SOA", "NS"])
def test_another_type_of_a_host_is_nodata(rdtype: str) -> None:
    reply = asker(answers(book(table(shares=ONE))))("shop.apps.test", rdtype)

    assert reply.rcode() == dns.rcode.NOERROR
    assert (reply.answer, texts(reply, "authority")) == ([], [NEGATIVE_SOA])


@pytest.mark.parametrize("rdtype", ["A", "ANY"])
def test_a_name_with_nothing_but_names_below_is_nodata(rdtype: str) -> None:
    reply = asker(answers(book(table("a.b.c.apps.test", shares=ONE))))("c.apps.test", rdtype)

    assert reply.rcode() == dns.rcode.NOERROR
    assert (reply.answer, texts(reply, "authority")) == ([], [NEGATIVE_SOA])


def test_a_name_belongs_to_the_closest_zone() -> None:
    both = (Zone(name="test", ns=("ns1.apps.test",)), Zone(name="apps.test", ns=("ns.test",)))
    ask = asker(answers(book(served=zones(zone=both))))

    assert texts(ask("x.apps.test"), "authority")[0].startswith("apps.test. 5 IN SOA ns.test.")
    assert texts(ask("x.test"), "authority")[0].startswith("test. 5 IN SOA ns1.apps.test.")
    assert addresses(ask("ns1.apps.test")) == ["192.0.2.10"]


def test_a_short_soa_ttl_limits_negative_answers() -> None:
    brief = Zone(name="apps.test", ns=(), ns_ttl_s=2, negative_ttl_s=60, mailbox="me@apps.test")
    ask = asker(answers(book(served=zones(zone=(brief,)))))

    assert texts(ask("x.apps.test"), "authority")[0].startswith(
        "apps.test. 2 IN SOA apps.test. me.apps.test. "
    )
    assert ask("apps.test", "NS").answer == []


@pytest.mark.parametrize("name", ["example.org", ".", "test", "xapps.test"])
def test_names_outside_the_zones_are_refused(name: str) -> None:
    reply = asker(answers(book(table(shares=ONE))))(name)

    assert reply.rcode() == dns.rcode.REFUSED
    assert (reply.answer, reply.authority, reply.additional) == ([], [], [])
    assert not reply.flags & dns.flags.AA


# -- the protocol ---------------------------------------------------------------------------------


def test_any_gets_a_hinfo_that_amplifies_nothing() -> None:
    ask = asker(answers(book(table(shares=ONE))))

    for name in ("shop.apps.test", "apps.test", "ns1.apps.test"):
        assert texts(ask(name, "ANY")) == [f'{name}. 3600 IN HINFO "RFC8482" ""']
    assert ask("nobody.apps.test", "ANY").rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize("rdtype", ["AXFR", "IXFR"])
def test_zone_transfers_are_refused(rdtype: str) -> None:
    source = answers(book(table(shares=ONE)))
    query = dns.message.make_query("apps.test", rdtype)

    reply = source.answer(query.to_wire(), CLIENT, over_tcp=True)

    assert reply is not None
    assert dns.message.from_wire(reply).rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize(
    ("rdclass", "rcode"),
    [
        ("IN", dns.rcode.NOERROR),
        ("ANY", dns.rcode.NOERROR),
        ("CH", dns.rcode.REFUSED),
        ("HS", dns.rcode.REFUSED),
        ("NONE", dns.rcode.REFUSED),
    ],
)
def test_only_the_internet_class_is_answered(rdclass: str, rcode: dns.rcode.Rcode) -> None:
    ask = asker(answers(book(table(shares=ONE))))

    assert ask("shop.apps.test", rdclass=rdclass).rcode() == rcode
    assert ask("version.bind", "TXT", rdclass="CH").rcode() == dns.rcode.REFUSED


def test_the_question_comes_back_byte_for_byte() -> None:
    """Resolvers check the case that they chose at random (0x20)."""
    source = answers(book(table(shares=ONE)))
    query = packet(b"\4sHoP\4ApPs\4tESt\0")

    first = source.answer(query, CLIENT)
    cached = source.answer(query, CLIENT)

    assert first == cached
    assert first is not None
    assert first[12 : len(query)] == query[12:]
    assert dns.message.from_wire(first).answer[0].to_text() == "sHoP.ApPs.tESt. 7 IN A 127.77.0.1"


def test_a_zero_inside_a_label_is_not_the_end_of_the_name() -> None:
    source = answers(book(table(shares=ONE)))
    source.answer(packet(), CLIENT)

    reply = source.answer(packet(b"\7\4shop\0x\4apps\4test\0"), CLIENT)
    dotted = source.answer(packet(b"\x09shop.apps\4test\0"), CLIENT)

    assert reply is not None
    assert dns.message.from_wire(reply).rcode() == dns.rcode.NXDOMAIN
    assert dotted is not None
    assert dns.message.from_wire(dotted).rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("edns", [-1, 0])
@pytest.mark.parametrize("rdtype", ["A", "AAAA", "NS", "TYPE666"])
def test_the_reply_has_an_opt_if_and_only_if_the_query_had_one(rdtype: str, edns: int) -> None:
    ask = asker(answers(book(table(shares=ONE))))

    for name in ("shop.apps.test", "nobody.apps.test", "example.org"):
        assert ask(name, rdtype, edns=edns).edns == edns


def test_a_new_version_of_edns_is_badvers_without_an_answer() -> None:
    source = answers(book(table(shares=ONE)))
    for _ in range(2):
        reply = asker(source)("shop.apps.test", edns=1)

        assert reply.rcode() == dns.rcode.BADVERS
        assert (reply.edns, reply.answer) == (0, [])


@pytest.mark.parametrize("subnet", ["192.0.2.0/24", "2001:db8::/56", "0.0.0.0/0"])
def test_a_client_subnet_comes_back_with_a_scope_for_everybody(subnet: str) -> None:
    """It depends on no client, and a resolver may give it to all (RFC 7871 section 7.2.1)."""
    ask = asker(answers(book(table(shares=ONE))))
    address, _, bits = subnet.partition("/")
    sent = dns.edns.ECSOption(address, int(bits))

    for _ in range(2):  # decided, and from the cache
        (found,) = ask("shop.apps.test", edns=0, options=[sent]).options
        assert isinstance(found, dns.edns.ECSOption)
        assert (found.address, found.srclen, found.scopelen) == (sent.address, sent.srclen, 0)
    assert ask("shop.apps.test", edns=0).options == ()


def test_how_long_a_connection_is_kept_is_said_over_tcp_only() -> None:
    source = answers(book(table(shares=ONE)))
    keepalive = dns.edns.GenericOption(dns.edns.OptionType.make(11), b"")
    query = dns.message.make_query("shop.apps.test", "A", options=[keepalive]).to_wire()

    for _ in range(2):
        over_tcp = dns.message.from_wire(source.answer(query, CLIENT, over_tcp=True) or b"")
        over_udp = dns.message.from_wire(source.answer(query, CLIENT) or b"")

        assert [(o.otype, o.to_wire()) for o in over_tcp.options] == [(11, b"\0\x64")]
        assert over_udp.options == ()


def test_what_is_too_large_for_udp_says_so_and_is_whole_over_tcp() -> None:
    many = tuple(f"192.0.2.{n}" for n in range(100))
    source = answers(book(served=zones(advertise=many)))
    query = dns.message.make_query("ns1.apps.test", "A", use_edns=0, payload=65535).to_wire()

    for _ in range(2):
        over_udp = dns.message.from_wire(source.answer(query, CLIENT) or b"")
        over_tcp = dns.message.from_wire(source.answer(query, CLIENT, over_tcp=True) or b"")

        assert over_udp.flags & dns.flags.TC
        assert over_udp.answer == []
        assert not over_tcp.flags & dns.flags.TC
        assert len(texts(over_tcp)) == 100


def test_the_caches_are_bounded_whatever_is_asked() -> None:
    source = answers(book(table(shares=ONE)))

    for number in range(MAX_MANNERS + 10):
        options = b"\0\x0a\0\x08" + number.to_bytes(8)
        source.answer(packet(counts=(1, 0, 0, 1), tail=opt(options=options)), CLIENT)
        source.answer(packet(b"\4shop%c%c\4test\0" % (number >> 8, number & 0xFF)), CLIENT)
    for qtype in range(MAX_PLANS + 10):
        source.answer(packet(qtype=qtype % 65536), CLIENT)

    assert len(source._manners) <= MAX_MANNERS
    assert len(source._plans) <= MAX_PLANS
    assert source.answer(packet(), CLIENT) is not None
