"""No packet makes the answerer raise, and each reply is one that dnspython reads."""

import random
from collections.abc import Iterator

import dns.message
import dns.rcode
import pytest
from support.dns_support import CLIENT, answers, book, opt, packet, shares, table, zones

from trafficmgr.core.model import Publish

COUNT = 4000
SIGNED = packet(
    counts=(1, 0, 0, 1),
    tail=b"\3key\xc0\x16\0\xfa\0\xff\0\0\0\0\0\x1d\4hmac\0" + bytes(8) + b"\0\4mac!" + bytes(6),
)
SEEDS = (
    packet(),
    packet(b"\5proxy\4apps\4test\0", 28),
    packet(b"\4apps\4test\0", 6, flags=0x0120),
    packet(b"\4apps\4test\0", 2, counts=(1, 0, 0, 1), tail=opt()),
    packet(b"\4nope\4apps\4test\0", 255, 255),
    packet(counts=(1, 0, 0, 1), tail=opt(4096, extended=0x8000, options=b"\0\x0a\0\x08deadbeef")),
    packet(counts=(1, 0, 0, 1), tail=opt(options=b"\0\x08\0\x07\0\1\x18\0\xc0\0\2\0\3\0\0")),
    packet(counts=(0, 0, 0, 1), tail=opt(options=b"\0\x0a\0\x08deadbeef"))[:12]
    + opt(options=b"\0\x0a\0\x08deadbeef"),
    dns.message.make_query("shop.apps.test", "A").to_wire(),
    packet(b"\4shop\4apps\4test\0", 16, 3),
    SIGNED,
    packet(counts=(1, 0, 1, 1), tail=b"\xc0\x0c\0\6\0\1\0\0\0\0\0\2hi" + opt(100)),
)


def garbage(rng: random.Random) -> Iterator[bytes]:
    """Yield packets of noise; every other one begins like a query."""
    while True:
        noise = rng.randbytes(rng.randrange(600))
        yield noise
        yield rng.randbytes(2) + packet()[2:12] + noise


def mutants(rng: random.Random) -> Iterator[bytes]:
    """Yield queries with a few bytes changed, removed, doubled, or the end cut off."""
    while True:
        mutant = bytearray(rng.choice(SEEDS))
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(len(mutant))
            match rng.randrange(5):
                case 0:
                    mutant[at] = rng.randrange(256)
                case 1:
                    mutant[at] = rng.choice((0, 1, 0x3F, 0x40, 0x80, 0xC0, 0xFF))
                case 2:
                    mutant[at : at + 2] = b"\xc0" + bytes((rng.randrange(64),))
                case 3:
                    mutant[at:at] = mutant[at : at + rng.randrange(20)]
                case _:
                    del mutant[max(1, at) :]
        yield bytes(mutant)


@pytest.mark.long
@pytest.mark.parametrize("over_tcp", [False, True])
@pytest.mark.parametrize("source", [garbage, mutants])
def test_no_packet_is_too_strange(source: object, *, over_tcp: bool) -> None:
    rng = random.Random(20240607)  # noqa: S311  the same packets each time
    blue = shares({"blue": 50, "green": 50}, {"blue": ["127.77.0.1"], "green": ["::1"]})
    served = book(
        table(shares=blue),
        table("proxy.apps.test", endpoint="proxy", publish=Publish.proxy),
        served=zones(advertise=tuple(f"192.0.2.{n}" for n in range(40))),
    )
    subject = answers(served)
    replies = 0

    assert callable(source)
    for query, _ in zip(source(rng), range(COUNT), strict=False):
        reply = subject.answer(query, CLIENT, over_tcp=over_tcp)

        if reply is None:
            assert len(query) < 12 or query[2] & 0x80, query
            continue
        replies += 1
        if reply[3] & 0xF != dns.rcode.NOTAUTH:  # dnspython wants to know the key
            dns.message.from_wire(reply)
        assert reply[:2] == query[:2]
        assert reply[2] & 0x80
        assert reply[2] & 0x79 == query[2] & 0x79  # opcode and RD
        assert len(reply) <= 1232 or over_tcp

    assert replies > COUNT / 4
