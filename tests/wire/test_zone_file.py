"""wire.zone_file reads what RFC 1035 allows, and says all that is wrong with the rest at once."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficmgr.wire import zone_file
from trafficmgr.wire.dns import wire_name
from trafficmgr.wire.zone_records import Problem, RRset, ZoneFileError, ZoneText, readable

HEAD = """\
$TTL 300
@ SOA ns1 host 7 86400 7200 3600000 60
@ NS ns1
ns1 A 192.0.2.1
"""
"""Four lines; what a test adds begins on line 5."""

NAME = b"\1a\7example\0"


def read(text: str, origin: str = "example") -> ZoneText:
    return zone_file.read(text, name="example.zone", origin=origin)


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ZoneFileError) as caught:
        read(text)
    return caught.value.problems


def only(text: str, rtype: int) -> RRset:
    """Return the RRset of the name `a` that was added to a zone."""
    rrsets = read(HEAD + text).rrsets[NAME]
    assert list(rrsets) == [rtype]
    return rrsets[rtype]


# -- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "rtype", "rdata"),
    [
        ("a NS ns.Other.", 2, b"\2ns\5Other\0"),
        ("a A 192.0.2.7", 1, bytes((192, 0, 2, 7))),
        ("a AAAA 2001:db8::1", 28, bytes.fromhex("20010db8" + "00" * 11 + "01")),
        ("a CNAME b", 5, b"\1b\7example\0"),
        ("a MX 10 b", 15, b"\0\x0a\1b\7example\0"),
        ("a MX 0 .", 15, b"\0\0\0"),
        ('a TXT "one two" three', 16, b"\7one two\5three"),
        ("a SRV 1 2 443 b", 33, b"\0\1\0\2\1\xbb\1b\7example\0"),
        ('a CAA 0 issue "ca.test"', 257, b"\0\5issueca.test"),
        ("a PTR b.test.", 12, b"\1b\4test\0"),
        (r"a TYPE65280 \# 3 010203", 65280, b"\1\2\3"),
        (r"a A \# 4 c0000207", 1, bytes((192, 0, 2, 7))),
    ],
)
def test_every_type_is_read_into_wire_format(line: str, rtype: int, rdata: bytes) -> None:
    assert only(line, rtype) == RRset(ttl_s=300, rdatas=(rdata,))


@pytest.mark.parametrize(
    ("text", "ttl_s"),
    [
        ("a A 192.0.2.7", 300),
        ("a 60 IN A 192.0.2.7", 60),
        ("a IN 1m30s A 192.0.2.7", 90),
        ("$TTL 5\na A 192.0.2.7", 5),
        ("a 2147483647 A 192.0.2.7", 2147483647),
        ("a 0 A 192.0.2.7", 0),
        ("A.EXAMPLE. A 192.0.2.7\r\n", 300),
        ("$ORIGIN sub\n$ORIGIN example.\na A 192.0.2.7", 300),
        ("a A 192.0.2.7 ; seven\n  \n  A (\n 192.0.2.7 )", 300),
    ],
)
def test_ttls_classes_and_continuations_are_read(text: str, ttl_s: int) -> None:
    assert only(text, 1) == RRset(ttl_s=ttl_s, rdatas=(bytes((192, 0, 2, 7)),))


def test_records_of_a_kind_keep_their_order() -> None:
    """Also a byte order mark, as some editors write one, is no part of the first name."""
    rrset = read(f"\ufeff{HEAD}a A 192.0.2.9\nb A 192.0.2.1\na A 192.0.2.7\n").rrsets[NAME][1]

    assert rrset.rdatas == (bytes((192, 0, 2, 9)), bytes((192, 0, 2, 7)))


def test_a_zone_survives_the_control_link() -> None:
    zone = read(HEAD)

    assert zone.origin == wire_name("example")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(zone), type=ZoneText) == zone


def test_a_first_record_without_a_name_is_the_apex() -> None:
    assert read(HEAD.replace("@ SOA", "  SOA")) == read(HEAD)


def test_the_root_can_be_a_zone() -> None:
    assert read(". 60 SOA a. b. 1 2 3 4 5\n. NS a.\nx.y. A 192.0.2.1\n", ".").origin == b"\0"


def test_an_origin_that_is_no_name_is_no_problem_of_the_file() -> None:
    with pytest.raises(ValueError, match="1 to 63 bytes"):
        read(HEAD, "a..b")


def test_names_are_shown_as_a_zone_file_has_them() -> None:
    assert readable(b"\5a.b;\xff\7example\0") == r"a\.b\;\255.example."


# -- what is refused ------------------------------------------------------------------------------

SIG = "A 8 2 300 20300101000000 20200101000000 1 example. AAAA"
NINES = "9" * 5000  # more digits than int() takes
LONG = "x" * 250
CUT = "sub NS ns.sub\nns.sub A 192.0.2.5\n"

REFUSED: list[tuple[str, list[tuple[int, str]]]] = [
    # What stops the reader. It says why, and we what to write.
    ("a A 192.0.2", [(5, "A record: Text input is malformed; write it as: <name> 3600 IN A 192.")]),
    ("\n\na MX x b", [(7, "can't read this MX record: expecting an integer; write it as: ")]),
    ('a TXT "x', [(5, 'write it as: <name> 3600 IN TXT "any text"')]),
    ("a TXT (\n x", [(5, "unbalanced parentheses")]),
    ("a..b A 192.0.2.7", [(5, "A DNS label is empty")]),
    ("a", [(5, "can't read this resource record")]),
    ("a NOTYPE x", [(5, 'no type "NOTYPE"; write a type\'s name, or TYPE<number> \\#')]),
    (r"a TYPE65280 \# 3 01", [(5, "wrong length")]),
    ("a 4294967296 A 192.0.2.7", [(5, "a TTL of 4294967296 is over 2147483647")]),
    (f"a {NINES} A 192.0.2.7", [(5, f"a TTL of {NINES[:40]}... is over 2147483647")]),
    (f"$TTL {NINES}", [(5, "can't read this $TTL")]),
    ("a LOC 1 1 1 N 1 1 1 E 9999999999m", [(5, "can't read this LOC record")]),
    (
        "a xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx y",
        [(5, 'there is no type "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..."; write')],
    ),
    ("$TTL soon", [(5, "can't read this $TTL: DNS TTL value is not well-formed; write it")]),
    ("$INCLUDE other.zone", [(5, "$INCLUDE is not read; a zone is one file: write the")]),
    (
        "$GENERATE 1-9 h$ A 192.0.2.$",
        [(5, "$GENERATE is not read; it is no part of RFC 1035: write")],
    ),
    ("$UNICODE 2008", [(5, "$UNICODE is not read; remove it")]),
    # Classes and types.
    ("a CH TXT x", [(5, "class CH is not served, only IN")]),
    ("a 60 HS A 192.0.2.7", [(5, "class HS is not served, only IN")]),
    (" CLASS77 A 192.0.2.7", [(5, "class CLASS77 is not served, only IN")]),
    ("a OPT x", [(5, "OPT belongs to messages and is no record of a zone; remove it")]),
    (" OPT x", [(5, "OPT belongs to messages")]),
    (" 60 CH TXT x", [(5, "class CH is not served, only IN")]),
    ("a TSIG x", [(5, "TSIG belongs to messages")]),
    ("a IN AXFR", [(5, "AXFR belongs to messages")]),
    ("a ANY x", [(5, "ANY belongs to messages")]),
    (r"a TYPE0 \# 0", [(5, "TYPE0 belongs to messages")]),
    (r"a TYPE251 \# 0", [(5, "IXFR belongs to messages")]),
    (f"a RRSIG {SIG}\nb RRSIG {SIG}", [(5, "RRSIG is for signed zones, and nothing is")]),
    ("a DNSKEY 256 3 8 AAAA", [(5, "DNSKEY is for signed zones")]),
    ("a NSEC b A", [(5, "NSEC is for signed zones")]),
    ("a NSEC3PARAM 1 0 0 -", [(5, "NSEC3PARAM is for signed zones")]),
    (f"a DS 1 8 2 {'00' * 32}", [(5, "DS is for signed zones")]),
    ("a DNAME b", [(5, "DNAME is not synthesised here; write a CNAME for each name")]),
    # Records.
    ("a 2147483648 A 192.0.2.7", [(5, "a TTL of 2147483648 is over 2147483647 (RFC 2181")]),
    ("a MX 10 192.0.2.7", [(5, "MX points to the address 192.0.2.7, but wants a name; write the")]),
    ("a SRV 1 2 3 192.0.2.7.", [(5, "SRV points to the address 192.0.2.7., but wants a name")]),
    ("a NS 2001:db8::1 ; no glue", [(5, "NS points to the address 2001:db8::1, but wants")]),
    ("a CNAME 192.0.2.7", [(5, "CNAME points to the address 192.0.2.7, but wants a name")]),
    ("a.test. A 192.0.2.7", [(5, "a.test. is outside of the zone example.; move it")]),
    ("badexample. A 192.0.2.7", [(5, "badexample. is outside of the zone example.")]),
    ("a.*.b A 192.0.2.7", [(5, 'a.*.b.example. has a "*" that is not the whole first label')]),
    ("*a A 192.0.2.7", [(5, '*a.example. has a "*" that is not the whole first label')]),
    ("*.*.a A 192.0.2.7", [(5, '*.*.a.example. has a "*" that is not the whole first label')]),
    ("x.test. SOA a b 1 2 3 4 5\nx.test. 60 SOA a b 1 2 3 4 5", [(5, "outside"), (6, "outside")]),
    ("*.a NS b.test.\n*.a TXT x", [(5, "*.a.example. delegates a wildcard, which has no meaning")]),
    # RRsets and aliases.
    (
        "a A 192.0.2.7\nb A 192.0.2.7\na 60 A 192.0.2.8",
        [(7, "the A records of a.example. have different TTLs, 60 here and 300 on line 5; write")],
    ),
    (
        "".join(f"a TXT {n} {LONG} {LONG} {LONG} {LONG}\n" for n in range(65)),
        [(5, "the TXT records of a.example. take 66225 bytes, more than the 64511 that an")],
    ),
    ("a A 192.0.2.7\na 60 A 192.0.2.7", [(6, "have different TTLs, 60 here and 300 on line 5")]),
    ("@ CNAME b", [(5, "a CNAME at the apex example. would hide its SOA and NS; write the A")]),
    ("a CNAME b\na TXT x", [(5, "a.example. has a CNAME beside TXT; a CNAME stands alone")]),
    ("a TXT x\nA CNAME b", [(6, "a.example. has a CNAME beside TXT; a CNAME stands alone")]),
    ("a CNAME b\na CNAME c", [(6, "a.example. has a second CNAME (the first is on line 5)")]),
    ("sub NS a\na CNAME b", [(5, "the name server a.example. is a CNAME (line 6), which")]),
    ("@ NS A\na CNAME b", [(5, "the name server a.example. is a CNAME (line 6)")]),
    # Apex and delegations.
    ("@ SOA a b 1 2 3 4 5", [(5, "this is another SOA (the first is on line 2); remove one")]),
    ("@ SOA ns1 host 7 86400 7200 3600000 60", [(5, "this is another SOA")]),
    ("a SOA a b 1 2 3 4 5", [(5, "an SOA at a.example., below the apex example., begins another")]),
    ("sub NS ns.sub", [(5, "is in sub.example., which it serves itself, so nobody finds it")]),
    ("sub NS sub", [(5, 'write its glue here: "sub.example. IN A <address>"')]),
    (CUT + "x.sub A 192.0.2.7", [(7, "A of x.sub.example. is never answered, because line 5")]),
    (CUT + "ns.sub TXT x", [(7, "TXT of ns.sub.example. is never answered")]),
    (CUT + "*.sub A 192.0.2.7", [(7, "A of *.sub.example. is never answered")]),
    (CUT + "x.sub NS ns.sub", [(7, "NS of x.sub.example. is never answered, because line 5 dele")]),
    (CUT + "sub MX 10 ns1", [(7, "MX of sub.example. is never answered, because line 5 dele")]),
    (CUT + "sub A 192.0.2.7", [(7, "A of sub.example. is never answered")]),
    # All at once, in the order of the file, also what came before the reader stopped.
    (
        "a CNAME b\na TXT x\nb.test. A 192.0.2.7\nc MX 1 192.0.2.7\n@ CNAME c",
        [(5, "CNAME beside TXT"), (7, "outside of"), (8, "MX points"), (9, "at the apex")],
    ),
    ("a MX 1 192.0.2.7\nb A x\nc MX 1 192.0.2.7", [(5, "MX points"), (6, "can't read this A")]),
]


@pytest.mark.parametrize(("added", "expected"), REFUSED)
def test_what_is_wrong_is_said_with_its_line(added: str, expected: list[tuple[int, str]]) -> None:
    found = problems(HEAD + added)

    assert len(found) == len(expected), found
    for problem, (line, text) in zip(found, expected, strict=True):
        assert problem.startswith(f"example.zone:{line}: ")
        assert text in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "",
            ["1: the zone has no SOA at example.; write", "1: the zone has no name server; write"],
        ),
        (
            "\n@ 60 SOA a b 1 2 3 4 5",
            ['2: the zone has no name server; write "example. 3600 IN NS'],
        ),
        ("@ 60 NS ns1.test.", ["1: the zone has no SOA at example.; write"]),
        ("\n@ NS ns1", ['2: the record has no TTL, and none came before; write "$TTL 3600" at']),
    ],
)
def test_what_is_missing_is_said(text: str, expected: list[str]) -> None:
    found = problems(text)

    assert len(found) == len(expected), found
    assert all(f"example.zone:{part}" in text for text, part in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "added",
    [
        "a A 192.0.2.7\na A 192.0.2.7",  # the same again
        "a CNAME b\nA CNAME B",
        "*.a A 192.0.2.7\n* TXT x\n*.b CNAME a",
        CUT,
        "sub NS sub\nsub AAAA 2001:db8::1",
        CUT + "other NS ns.sub",  # glue for a sibling
        "sub NS ns1\nother NS ns.test.",
        "*.a MX 10 b\n1.2.3.4 A 192.0.2.7",
    ],
)
def test_what_is_right_is_let_through(added: str) -> None:
    assert len(read(HEAD + added).rrsets) > 2


def test_problems_come_once_and_from_the_top() -> None:
    error = ZoneFileError("z", [Problem(10, "b"), Problem(9, "a"), Problem(10, "b")])

    assert str(error) == "z:9: a\nz:10: b"


SCRAPS = """
@ * *.a a.*.b a ns.sub sub www.test. . .. IN CH ANY CLASS0 0 300 1h 3000000000 1.2.3.4 ::1 é ²
A AAAA NS CNAME MX TXT SRV CAA SOA PTR RRSIG OPT TYPE0 TYPE65280 HIP LOC SVCB
$TTL $ORIGIN $INCLUDE $ \\# \\300 \\ " ( ) ;
"""


@pytest.mark.long
@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from([*SCRAPS.split(), "\n", "\na", "\r", "\t", "\0", "x" * 64]), max_size=15
    ),
    st.booleans(),
)
def test_no_text_does_more_than_be_refused(words: list[str], is_headed: bool) -> None:
    try:
        zone = read(HEAD * is_headed + " ".join(words))
    except ZoneFileError as refused:
        said = refused.problems
    else:
        said = tuple(f"example.zone: {readable(owner)}" for owner in zone.rrsets)

    assert said
    assert all(each.startswith("example.zone:") for each in said)
