"""wire.zone_tree answers as RFC 1034 section 4.3.2 says, and as dnspython's own zone has it."""

import dns.name
import dns.rdatatype
import dns.zone
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficmgr.wire import zone_file
from trafficmgr.wire.dns import wire_name
from trafficmgr.wire.zone_records import RRset, ZoneText, readable, type_name
from trafficmgr.wire.zone_tree import Found, Kind, ZoneTree

ZONE = """\
$TTL 300
@        SOA    ns1 host 7 86400 7200 3600000 60
@        NS     ns1
@        NS     ns.other.test.
@        MX     10 mail
ns1      A      192.0.2.1
ns1      AAAA   2001:db8::1
WWW      A      192.0.2.2
www      A      192.0.2.3
mail     CNAME  www
far      CNAME  www.test.
gone     CNAME  missing
empty    CNAME  b
nodata   CNAME  ns1
round    CNAME  about
about    CNAME  Round
a.b      TXT    "below an empty name"
*.wild   A      192.0.2.4
*.wild   MX     10 www
x.wild   TXT    "blocks"
c.d.wild TXT    "blocks, and d does"
u.v.w    TXT    "below two empty names"
*.alias  CNAME  www
*.spin   CNAME  x.y.spin
into     CNAME  host.sub
sub      NS     ns.sub
sub      NS     ns1
sub      NS     ns.kin
sub      NS     ns.other.test.
ns.sub   A      192.0.2.5
kin      NS     kin
kin      NS     ns.kin
kin      A      192.0.2.6
ns.kin   AAAA   2001:db8::6
*        TXT    "for all others"
"""
ORIGIN = wire_name("example")
LABELS = [
    "a",
    "b",
    "c",
    "d",
    "www",
    "ns",
    "ns1",
    "mail",
    "wild",
    "x",
    "sub",
    "kin",
    "alias",
    "spin",
    "round",
    "*",
    "host",
]


def read(text: str) -> ZoneTree:
    return ZoneTree(zone_file.read(text, name="example.zone", origin="example"))


TREE = read(ZONE)


def named(name: str) -> bytes:
    return wire_name(f"{name}.example" if name != "@" else "example")


def ask(name: str, qtype: str, tree: ZoneTree = TREE) -> Found:
    return tree.find(named(name), int(dns.rdatatype.from_text(qtype)))


def sections(found: Found) -> list[str]:
    """Return answer, authority, additional, each as `owner type` with the zone's name left out."""
    return [
        ", ".join(
            f"{readable(r.owner).removesuffix('example.').removesuffix('.') or '@'} "
            f"{type_name(r.rtype)}"
            for r in section
        )
        for section in (found.answer, found.authority, found.additional)
    ]


GLUE = "ns.sub A, ns1 A, ns1 AAAA, ns.kin AAAA"
SUB = ["", "sub NS, sub NS, sub NS, sub NS", GLUE]
KIN = ["", "kin NS, kin NS", "kin A, ns.kin AAAA"]

ANSWERS = [
    # Exact names, as the file has them.
    ("www", "A", Kind.ANSWER, ["www A, www A", "", ""]),
    ("@", "SOA", Kind.ANSWER, ["@ SOA", "", ""]),
    ("@", "MX", Kind.ANSWER, ["@ MX", "", ""]),
    ("@", "NS", Kind.ANSWER, ["@ NS, @ NS", "", "ns1 A, ns1 AAAA"]),
    ("mail", "CNAME", Kind.ANSWER, ["mail CNAME", "", ""]),
    ("www", "AAAA", Kind.NODATA, ["", "@ SOA", ""]),
    ("www", "ANY", Kind.NODATA, ["", "@ SOA", ""]),
    ("*.wild", "A", Kind.ANSWER, ["*.wild A", "", ""]),
    # Aliases.
    ("mail", "A", Kind.ANSWER, ["mail CNAME, www A, www A", "", ""]),
    ("far", "A", Kind.ANSWER, ["far CNAME", "", ""]),
    ("nodata", "TXT", Kind.NODATA, ["nodata CNAME", "@ SOA", ""]),
    ("empty", "A", Kind.NODATA, ["empty CNAME", "@ SOA", ""]),
    ("gone", "TXT", Kind.ANSWER, ["gone CNAME, missing TXT", "", ""]),
    ("round", "A", Kind.ANSWER, ["round CNAME, about CNAME", "", ""]),
    ("into", "A", Kind.DELEGATION, ["into CNAME", *SUB[1:]]),
    # Empty names.
    ("b", "TXT", Kind.NODATA, ["", "@ SOA", ""]),
    ("v.w", "TXT", Kind.NODATA, ["", "@ SOA", ""]),
    ("w", "TXT", Kind.NODATA, ["", "@ SOA", ""]),
    ("d.wild", "A", Kind.NODATA, ["", "@ SOA", ""]),
    ("wild", "A", Kind.NODATA, ["", "@ SOA", ""]),
    # Wildcards, and what blocks them.
    ("y.wild", "A", Kind.ANSWER, ["y.wild A", "", ""]),
    ("y.z.wild", "MX", Kind.ANSWER, ["y.z.wild MX", "", ""]),
    ("y.wild", "AAAA", Kind.NODATA, ["", "@ SOA", ""]),
    ("x.wild", "A", Kind.NODATA, ["", "@ SOA", ""]),
    ("y.x.wild", "A", Kind.NXDOMAIN, ["", "@ SOA", ""]),
    ("y.d.wild", "A", Kind.NXDOMAIN, ["", "@ SOA", ""]),
    ("y.b", "TXT", Kind.NXDOMAIN, ["", "@ SOA", ""]),
    ("y.*.wild", "A", Kind.NXDOMAIN, ["", "@ SOA", ""]),
    ("y", "TXT", Kind.ANSWER, ["y TXT", "", ""]),
    ("y.alias", "A", Kind.ANSWER, ["y.alias CNAME, www A, www A", "", ""]),
    ("q.spin", "A", Kind.ANSWER, ["q.spin CNAME, x.y.spin CNAME", "", ""]),
    # Delegations.
    ("sub", "A", Kind.DELEGATION, SUB),
    ("sub", "NS", Kind.DELEGATION, SUB),
    ("sub", "DS", Kind.NODATA, ["", "@ SOA", ""]),
    ("host.sub", "DS", Kind.DELEGATION, SUB),
    ("deep.host.sub", "TXT", Kind.DELEGATION, SUB),
    ("ns.sub", "A", Kind.DELEGATION, SUB),
    ("*.sub", "TXT", Kind.DELEGATION, SUB),
    ("kin", "A", Kind.DELEGATION, KIN),
    ("x.ns.kin", "AAAA", Kind.DELEGATION, KIN),
]


@pytest.mark.parametrize(("name", "qtype", "kind", "expected"), ANSWERS)
def test_a_question_is_answered(name: str, qtype: str, kind: Kind, expected: list[str]) -> None:
    found = ask(name, qtype)

    assert (found.kind, sections(found)) == (kind, expected)


def test_without_a_wildcard_a_name_is_missing_also_behind_aliases() -> None:
    tree = read(ZONE.replace("*        TXT", "other    TXT"))

    assert ask("missing", "TXT", tree).kind == Kind.NXDOMAIN
    assert ask("gone", "A", tree).kind == Kind.NXDOMAIN
    assert sections(ask("gone", "A", tree)) == ["gone CNAME", "@ SOA", ""]


def test_only_a_bare_delegation_is_not_authoritative() -> None:
    assert not ask("host.sub", "A").is_authoritative
    assert ask("into", "A").is_authoritative
    assert ask("sub", "DS").is_authoritative
    assert ask("b", "A").is_authoritative


@pytest.mark.parametrize(("ttl_s", "minimum_s"), [(300, 60), (60, 300)])
def test_negative_answers_live_as_long_as_the_shorter_of_both(ttl_s: int, minimum_s: int) -> None:
    tree = read(f"@ {ttl_s} SOA a b 1 2 3 4 {minimum_s}\n@ NS a.test.\n")

    assert ask("x", "A", tree).authority[0].ttl_s == 60
    assert ask("@", "A", tree).authority[0].ttl_s == 60
    assert ask("@", "SOA", tree).answer[0].ttl_s == ttl_s


def test_a_chain_ends_after_sixteen_links() -> None:
    head = "@ 60 SOA a b 1 2 3 4 5\n@ NS a.test.\n"
    links = "".join(f"n{n} CNAME n{n + 1}\n" for n in range(17))
    tree = read(f"{head}{links}n17 A 192.0.2.1\n")

    too_long, just_right = ask("n0", "A", tree), ask("n1", "A", tree)

    assert [r.rtype for r in too_long.answer] == [5] * 16
    assert [r.rtype for r in just_right.answer] == [5] * 16 + [1]


def test_what_a_wildcard_makes_differs_by_its_owner_only() -> None:
    (made,), (written,) = ask("y.wild", "A").answer, ask("*.wild", "A").answer

    assert made == written._replace(owner=named("y.wild"))


@pytest.mark.parametrize(
    ("name", "exists"),
    [
        *[("www", True), ("@", True), ("b", True), ("y.wild", True), ("mail", True), ("y", True)],
        *[("y.x.wild", False), ("y.b", False), ("sub", False), ("ns.sub", False)],
    ],
)
def test_whether_a_name_exists_can_be_asked(name: str, exists: bool) -> None:
    assert TREE.exists(named(name)) is exists


@pytest.mark.parametrize("name", ["", "test", "badexample", "example.test"])
def test_a_name_outside_is_none_of_its_business(name: str) -> None:
    assert not TREE.exists(wire_name(name))
    with pytest.raises(ValueError, match="outside of the zone"):
        TREE.find(wire_name(name), 1)


def test_bytes_that_only_end_like_the_zone_are_outside() -> None:
    """The nine bytes are one label."""
    with pytest.raises(ValueError, match="outside of the zone"):
        TREE.find(b"\x09x\7example\0", 1)


def test_a_zone_without_soa_is_no_tree() -> None:
    rrsets = {ORIGIN: {1: RRset(ttl_s=1, rdatas=(b"\1\2\3\4",))}}

    with pytest.raises(ValueError, match="no SOA"):
        ZoneTree(ZoneText(origin=ORIGIN, rrsets=rrsets))


# -- properties -----------------------------------------------------------------------------------

relative = st.lists(st.sampled_from(LABELS), max_size=4).map(".".join)
reference = dns.zone.from_text(ZONE, "example.", relativize=False)
wire_label = st.binary(min_size=1, max_size=63).map(lambda b: bytes((len(b),)) + b.lower())


def is_ours(name: str) -> bool:
    """Whether a name is answered by this zone: not at or below one of its delegations."""
    return not {"sub", "kin"} & set(name.split(".")[-1:])


@pytest.mark.long
@settings(max_examples=400, deadline=None)
@given(relative.filter(is_ours), st.sampled_from(["A", "AAAA", "NS", "CNAME", "MX", "TXT", "SOA"]))
def test_what_is_written_is_answered_as_dnspython_has_it(name: str, qtype: str) -> None:
    owner = dns.name.from_text(f"{name}.example." if name else "example.")
    rdataset = reference.get_rdataset(owner, qtype)

    found = ask(name or "@", qtype)

    if rdataset is not None:
        assert found.kind == Kind.ANSWER
        assert {(r.owner, r.ttl_s, r.rdata) for r in found.answer} == {
            (owner.to_wire(), rdataset.ttl, rdata.to_wire()) for rdata in rdataset
        }
    elif reference.get_node(owner) is not None:
        assert found.kind == Kind.NODATA or found.answer[0].rtype == int(dns.rdatatype.CNAME)


@pytest.mark.long
@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(wire_label, st.sampled_from(LABELS).map(wire_name).map(lambda n: n[:-1]))),
    st.integers(min_value=0, max_value=65535) | st.sampled_from([1, 2, 5, 6, 16, 43, 255]),
)
def test_every_name_in_the_zone_gets_an_answer(labels: list[bytes], qtype: int) -> None:
    name = b"".join(labels) + ORIGIN
    if len(name) > 255:
        name = ORIGIN

    found = TREE.find(name, qtype)

    assert found.kind == Kind.ANSWER or found.authority
    assert all(len(record) == 4 for record in found.answer + found.authority)
    assert not (found.kind == Kind.NXDOMAIN and TREE.exists(name))
