"""wire.dns takes queries apart with bounded work, and its answers are what dnspython expects."""

import struct

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.tsig
import dns.tsigkeyring
import pytest
from support.dns_support import opt, packet

from trafficmgr.wire import dns as wire
from trafficmgr.wire import dns_query
from trafficmgr.wire.dns_answer import Answer
from trafficmgr.wire.dns_query import Manner, Options, Subnet

LONG_NAME = b"\x3f" + b"a" * 63


def fault_of(query: bytes) -> bytes | None:
    """Return the reply that a query which can't be answered gets."""
    with pytest.raises(dns_query.QueryError) as caught:
        dns_query.read(query)
    return caught.value.reply


def test_a_query_is_read_in_lower_case_and_without_what_follows_it() -> None:
    query = dns_query.read(packet(b"\4SHOP\4apps\4Test\0", 28, 1, tail=b"rubbish"))

    assert query.name == b"\4shop\4apps\4test\0"
    assert (query.qtype, query.qclass, query.end) == (28, 1, 12 + 16 + 4)
    assert query.manner == Manner(variant=1, limit_bytes=512)


@pytest.mark.parametrize("size", range(12))
def test_less_than_a_header_is_dropped(size: int) -> None:
    assert fault_of(packet()[:size]) is None


def test_a_response_is_dropped_whatever_it_holds() -> None:
    assert fault_of(packet(flags=0x8180)) is None
    assert fault_of(packet(flags=0xA800)[:12]) is None


@pytest.mark.parametrize("opcode", [1, 2, 3, 4, 5, 6, 15])
def test_other_opcodes_are_notimp_and_echoed(opcode: int) -> None:
    reply = fault_of(packet(flags=opcode << 11 | 0x0100))

    assert reply == struct.pack(">HHHHHH", 0x1234, 0x8000 | opcode << 11 | 0x0104, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "query",
    [
        packet(counts=(0, 0, 0, 0)),
        packet(counts=(2, 0, 0, 0), tail=packet()[12:]),
        packet(counts=(65535, 65535, 65535, 65535)),
        packet()[:-1],
        packet()[:12],
        packet(b"\4shop\4apps"),
        packet(b"\xc0\x0c"),
        packet(b"\4shop\xc0\x0c"),
        packet(b"\xc0\x00"),
        packet(b"\xc0\xff"),
        packet(b"\x41" + b"a" * 65 + b"\0"),
        packet(b"\x80" + b"a" * 128 + b"\0"),
        packet(b"\x40\0"),
        packet(LONG_NAME * 4 + b"\0"),
        packet(b"\1a" * 128 + b"\0"),
        packet(counts=(1, 0, 0, 1)),
        packet(counts=(1, 0, 0, 1), tail=opt()[:-1]),
        packet(counts=(1, 0, 0, 1), tail=opt(options=b"\0\x0a\0\x08half")),
        packet(counts=(1, 0, 0, 1), tail=opt(options=b"\0\x0a\0")),
        packet(counts=(1, 0, 0, 1), tail=opt(owner=b"\1x\0")),
        packet(counts=(1, 0, 0, 1), tail=opt(owner=b"\xc0\x0c")),
        packet(counts=(1, 0, 0, 2), tail=opt() + opt()),
        packet(counts=(1, 0, 1, 0), tail=opt()),
        packet(counts=(1, 1, 0, 0), tail=opt()),
    ],
    ids=[
        "no question",
        "two questions",
        "all counts at their most",
        "class cut off",
        "nothing after the header",
        "name cut off",
        "pointer to itself",
        "pointer after a label",
        "pointer into the header",
        "pointer forwards",
        "label of 65",
        "label type 0x80",
        "label type 0x40",
        "name of 257",
        "name of 257 in short labels",
        "promised OPT missing",
        "OPT cut off",
        "option cut off",
        "option header cut off",
        "OPT of another owner",
        "OPT owned by a pointer",
        "two OPT",
        "OPT as authority",
        "OPT as answer",
    ],
)
def test_malformed_queries_get_a_header_with_formerr(query: bytes) -> None:
    assert fault_of(query) == struct.pack(">HHHHHH", 0x1234, 0x8101, 0, 0, 0, 0)


def test_the_longest_name_is_no_fault() -> None:
    name = LONG_NAME * 3 + b"\x3d" + b"a" * 61 + b"\0"
    assert len(name) == 255

    assert dns_query.read(packet(name)).name == name


@pytest.mark.parametrize(
    ("asked", "granted"), [(0, 512), (511, 512), (600, 600), (1232, 1232), (4096, 1232)]
)
def test_the_reply_may_have_what_the_client_takes_within_bounds(asked: int, granted: int) -> None:
    query = dns_query.read(packet(counts=(1, 0, 0, 1), tail=opt(asked)))

    assert query.manner.limit_bytes == granted


def test_an_opt_is_found_behind_other_records_and_unknown_options_are_ignored() -> None:
    other = b"\xc0\x0c" + struct.pack(">HHIH", 6, 1, 0, 3) + b"abc"
    cookie = b"\0\x0a\0\x08deadbeef" + b"\xff\xff\0\0"

    query = dns_query.read(
        packet(counts=(1, 0, 1, 2), tail=other * 2 + opt(extended=0x8000, options=cookie))
    )

    assert query.manner.variant == 1 | 4
    assert query.manner.opt == opt(extended=0x8000)
    assert query.manner.options == Options(cookie=b"deadbeef")


def option(code: int, value: bytes) -> bytes:
    return struct.pack(">HH", code, len(value)) + value


def asking(options: bytes, *, questions: int = 1) -> bytes:
    """Return a query with options of EDNS."""
    tail = opt(options=options)
    query = packet(counts=(questions, 0, 0, 1), tail=tail)
    return query if questions else query[:12] + tail


@pytest.mark.parametrize(
    ("value", "subnet"),
    [
        (b"\0\1\x18\0\xc0\0\2", Subnet(1, 24, b"\xc0\0\2")),
        (b"\0\1\x14\0\xc0\0\x20", Subnet(1, 20, b"\xc0\0\x20")),
        (b"\0\1\0\0", Subnet(1, 0, b"")),
        (b"\0\2\x38\0\x20\1\x0d\xb8\0\0\0", Subnet(2, 56, b"\x20\1\x0d\xb8\0\0\0")),
    ],
)
def test_a_client_subnet_is_read_and_echoed_with_a_scope(value: bytes, subnet: Subnet) -> None:
    query = dns_query.read(asking(option(8, value)))

    assert query.manner.options.subnet == subnet
    assert subnet.option(17) == option(8, value[:3] + b"\x11" + value[4:])


@pytest.mark.parametrize(
    "value",
    [
        b"\0\3\x18\0\xc0\0\2", b"\0\0\0\0", b"\0\1\x21\0\xc0\0\2\1\1", b"\0\1\x18\1\xc0\0\2",
        b"\0\1\x18\0\xc0\0", b"\0\1\x18\0\xc0\0\2\0", b"\0\1\x14\0\xc0\0\x21", b"\0\1\x18",
    ],
    ids=[
        "unknown family", "no family", "prefix too long", "scope in a query",
        "address cut off", "address too long", "unused bits set", "cut off",
    ],
)  # fmt: skip
def test_a_client_subnet_against_the_rules_is_formerr(value: bytes) -> None:
    assert fault_of(asking(option(8, value))) == struct.pack(">HHHHHH", 0x1234, 0x8101, 0, 0, 0, 0)


def test_nsid_keep_alive_and_the_first_cookie_are_read() -> None:
    options = option(3, b"") + option(11, b"") + option(10, b"first678") + option(10, b"other678")

    found = dns_query.read(asking(options)).manner.options

    assert found == Options(cookie=b"first678", wants_nsid=True, wants_keepalive=True)


def test_a_query_without_a_question_may_ask_for_a_cookie_only() -> None:
    query = dns_query.read(asking(option(10, b"deadbeef"), questions=0))

    assert (query.name, query.end, query.manner.options.cookie) == (b"", 12, b"deadbeef")
    reply = dns.message.from_wire(
        Answer(is_authoritative=False, has_question=False).reply(
            asking(option(10, b"deadbeef"), questions=0), 12, query.manner, 512
        )
    )
    assert (reply.rcode(), reply.question, reply.edns) == (0, [], 0)


def test_options_of_the_reply_are_in_its_opt() -> None:
    query = asking(b"")
    read = dns_query.read(query)

    reply = Answer().reply(query, read.end, read.manner.with_options(option(3, b"node")), 512)

    (nsid,) = dns.message.from_wire(reply).options
    assert (nsid.otype, nsid.to_wire()) == (3, b"node")


def test_a_signed_query_is_told_that_the_key_is_unknown() -> None:
    """RFC 8945 section 5.2.1: NOTAUTH, with a TSIG record that is not signed and says BADKEY."""
    query = dns.message.make_query("shop.apps.test", "A")
    query.use_tsig(dns.tsigkeyring.from_text({"key.test.": "c2VjcmV0"}), original_id=query.id)

    reply = fault_of(query.to_wire())

    assert reply is not None
    assert struct.unpack_from(">HHHHH", reply, 2)[0] & 0xF == dns.rcode.NOTAUTH
    with pytest.raises(dns.tsig.PeerBadKey):
        dns.message.from_wire(reply, keyring=query.keyring, request_mac=query.mac)


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_signature_that_is_cut_off_is_formerr(cut: int) -> None:
    query = dns.message.make_query("shop.apps.test", "A")
    query.use_tsig(dns.tsigkeyring.from_text({"key.test.": "c2VjcmV0"}), original_id=query.id)

    reply = fault_of(query.to_wire()[:-cut])

    assert reply is not None
    assert (len(reply), reply[3] & 0xF) == (12, dns.rcode.FORMERR)


def test_an_unknown_version_of_edns_is_noticed() -> None:
    query = dns_query.read(packet(counts=(1, 0, 0, 1), tail=opt(extended=1 << 16)))

    assert query.manner.is_bad_version


@pytest.mark.parametrize("flags", [0, 0x0100, 0x0010, 0x0110, 0x07F0])
@pytest.mark.parametrize("tail", [b"", opt(), opt(extended=0xFFFF)], ids=["none", "opt", "do"])
def test_each_variant_copies_rd_cd_and_do_and_nothing_else(flags: int, tail: bytes) -> None:
    query = packet(flags=flags, counts=(1, 0, 0, 1 if tail else 0), tail=tail)
    record = wire.address_record(wire.ASKED, 60, "192.0.2.1")
    answer = Answer(answers=(record,))

    read = dns_query.read(query)
    reply = dns.message.from_wire(answer.reply(query, read.end, read.manner, 512))

    assert int(reply.flags) == 0x8400 | flags & 0x0110
    assert reply.answer[0].to_text() == "shop.apps.test. 60 IN A 192.0.2.1"
    assert reply.edns == (0 if tail else -1)
    assert int(reply.ednsflags) & 0xFFFF == (0x8000 if tail == opt(extended=0xFFFF) else 0)
    assert reply.payload == (1232 if tail else 0)


def test_an_extended_rcode_is_split_between_header_and_opt() -> None:
    query = packet(counts=(1, 0, 0, 1), tail=opt(extended=1 << 16))
    read = dns_query.read(query)

    reply = Answer(wire.BADVERS).reply(query, read.end, read.manner, 512)

    assert dns.message.from_wire(reply).rcode() == dns.rcode.BADVERS
    assert reply[3] & 0xF == 0


def test_what_is_too_large_is_cut_down_to_the_question() -> None:
    query = packet(counts=(1, 0, 0, 1), tail=opt(512))
    read = dns_query.read(query)
    answer = Answer(
        answers=tuple(wire.address_record(wire.ASKED, 1, f"192.0.2.{n}") for n in range(60))
    )

    cut = dns.message.from_wire(answer.reply(query, read.end, read.manner, 512))
    whole = dns.message.from_wire(answer.reply(query, read.end, read.manner, 65535))

    assert cut.flags & dns.flags.TC
    assert cut.flags & dns.flags.AA
    assert (len(cut.question), cut.answer, cut.edns) == (1, [], 0)
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == 60


@pytest.mark.parametrize("name", ["", "test", "Shop.Apps.test.", "a.b.c.d", "x" * 63 + ".test"])
def test_names_are_written_as_dnspython_writes_them(name: str) -> None:
    assert wire.wire_name(name) == dns.name.from_text(name.lower()).to_wire()


@pytest.mark.parametrize("name", ["a..b", "x" * 64, ".".join(["abcdefg"] * 32), "bücher.test"])
def test_a_name_that_no_query_can_carry_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        wire.wire_name(name)


@pytest.mark.parametrize(
    ("mailbox", "written"),
    [
        ("ops@apps.test", "ops.apps.test."),
        ("first.last@apps.test", r"first\.last.apps.test."),
        ("ops.apps.test", "ops.apps.test."),
    ],
)
def test_a_mailbox_keeps_its_local_part_together(mailbox: str, written: str) -> None:
    name, _ = dns.name.from_wire(wire.mailbox_name(mailbox), 0)

    assert name.to_text() == written


def test_suffixes_end_with_the_root() -> None:
    assert list(wire.suffixes(b"\1a\1b\0")) == [b"\1a\1b\0", b"\1b\0", b"\0"]


def test_ttls_stay_below_their_sign_bit() -> None:
    record = wire.address_record(wire.ASKED, 2**32, "192.0.2.1")

    assert struct.unpack_from(">I", record, 6)[0] == 2**31 - 1
