"""What a server says of itself, cookies, and who gets how much: DNS policy as clients see it."""

from collections import Counter

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from support.dns_support import answers, asker, book, packet, shares, table, texts, zones

from trafficmgr.core.dns_policy import ChaosNames, CookiePolicy, DnsPolicy, RateLimits
from trafficmgr.core.model import Publish
from trafficmgr.core.routing import Zones
from trafficmgr.dataplane.book import Book
from trafficmgr.dataplane.dns_answers import Answers

ONE = shares({"blue": 100}, {"blue": ["127.77.0.1"]})
STRANGER, NEIGHBOUR, OTHER = "192.0.2.1", "192.0.2.200", "198.51.100.7"


def policed(policy: DnsPolicy) -> Zones:
    """Return the zones of most tests, under a policy."""
    return Zones(generation=2, zones=zones().zones, advertise=("192.0.2.10",), dns=policy)


def under(policy: DnsPolicy) -> Book:
    return book(table(shares=ONE), served=policed(policy))


# -- what a server says of itself -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("version.bind", '"trafficmgr"'),
        ("VERSION.server", '"trafficmgr"'),
        ("hostname.bind", '"node-1"'),
        ("id.server", '"7"'),
    ],
)
@pytest.mark.parametrize("rdtype", ["TXT", "ANY"])
def test_a_server_that_may_says_what_it_is(name: str, text: str, rdtype: str) -> None:
    names = ChaosNames(version="trafficmgr", hostname="node-1", id="7")
    ask = asker(answers(under(DnsPolicy(chaos=names))))

    reply = ask(name, rdtype, rdclass="CH")

    assert texts(reply) == [f"{name} 0 CH TXT {text}".replace(f"{name} ", f"{name}. ")]


@pytest.mark.parametrize(
    ("name", "rdtype"),
    [("version.bind", "A"), ("shop.apps.test", "TXT"), ("id.server", "TXT"), ("bind", "TXT")],
)
def test_nothing_else_is_of_that_class(name: str, rdtype: str) -> None:
    ask = asker(answers(under(DnsPolicy(chaos=ChaosNames(version="trafficmgr")))))

    reply = ask(name, rdtype, rdclass="CH")

    assert (reply.rcode(), reply.answer) == (dns.rcode.REFUSED, [])


def test_a_server_gives_its_name_to_those_who_ask_for_it() -> None:
    wish = dns.edns.GenericOption(dns.edns.OptionType.NSID, b"")
    named, nameless = (asker(answers(under(DnsPolicy(nsid=name)))) for name in ("node-1", ""))

    for _ in range(2):  # decided, and from the cache
        told = named("shop.apps.test", edns=0, options=[wish]).options
        assert [(o.otype, o.to_wire()) for o in told] == [(dns.edns.OptionType.NSID, b"node-1")]
    assert named("shop.apps.test", edns=0).options == ()
    assert nameless("shop.apps.test", edns=0, options=[wish]).options == ()


# -- cookies --------------------------------------------------------------------------------------


def shown(source: Answers, cookie: bytes, client: str, *, name: str = "shop.apps.test") -> bytes:
    """Return the cookie of the reply to a query with one; both are without the option's head."""
    option = dns.edns.CookieOption(cookie[:8], cookie[8:])
    query = dns.message.make_query(name, "A", options=[option])
    reply = source.answer(query.to_wire(), client)
    (found,) = dns.message.from_wire(reply or b"").options
    assert isinstance(found, dns.edns.CookieOption)
    return found.client + found.server


SECRET = DnsPolicy(cookie_secret=b"a secret of ours", rates=None)


def test_a_cookie_comes_back_with_ours_which_is_of_one_address() -> None:
    source, other = answers(under(SECRET)), answers(under(SECRET))

    first = shown(source, b"client-1", STRANGER)

    assert (first[:8], len(first)) == (b"client-1", 24)
    assert shown(source, b"client-1", STRANGER) == first
    assert shown(other, first, STRANGER) == first  # any worker knows it
    assert shown(source, b"client-1", OTHER) != first
    assert shown(source, first, OTHER) != first
    assert shown(source, b"client-1", f"::ffff:{STRANGER}") == first


def test_without_a_secret_or_a_wish_there_are_no_cookies() -> None:
    option = dns.edns.CookieOption(b"client-1", b"")
    off = DnsPolicy(cookies=CookiePolicy(is_on=False), cookie_secret=b"a secret")
    for policy in (off, DnsPolicy()):
        ask = asker(answers(under(policy)))
        assert ask("shop.apps.test", edns=0, options=[option]).options == ()
    assert asker(answers(under(SECRET)))("shop.apps.test", edns=0).options == ()


@pytest.mark.parametrize("size", [1, 7, 9, 15, 41])
def test_a_cookie_of_a_wrong_length_is_formerr(size: int) -> None:
    option = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"x" * size)
    query = dns.message.make_query("shop.apps.test", "A", options=[option]).to_wire()

    for _ in range(2):
        reply = answers(under(SECRET)).answer(query, STRANGER)
        assert reply is not None
        assert (len(reply), reply[3] & 0xF) == (12, dns.rcode.FORMERR)


def test_a_query_may_ask_for_nothing_but_a_cookie() -> None:
    option = b"\0\x0a\0\x08client-1"
    query = packet(counts=(0, 0, 0, 1))[:12] + b"\0\0\x29\x04\xd0\0\0\0\0\0\x0c" + option

    given = dns.message.from_wire(answers(under(SECRET)).answer(query, STRANGER) or b"")
    refused = dns.message.from_wire(answers(under(DnsPolicy())).answer(query, STRANGER) or b"")

    (cookie,) = given.options
    assert (given.rcode(), given.question, len(cookie.to_wire())) == (0, [], 24)
    assert refused.rcode() == dns.rcode.FORMERR


# -- rate limits ----------------------------------------------------------------------------------

LIMITS = DnsPolicy(
    cookie_secret=b"a secret of ours",
    rates=RateLimits(
        responses_per_s=5, nxdomains_per_s=2, errors_per_s=3, window_s=2.0, exempt_networks=("::1",)
    ),
)


def outcomes(source: Answers, query: bytes, client: str, times: int) -> Counter[str]:
    """Return how often a query was answered in full, cut short, or not at all."""
    found: Counter[str] = Counter()
    for _ in range(times):
        reply = source.answer(query, client)
        if reply is None:
            found["dropped"] += 1
        else:
            found["cut" if reply[2] & 0x02 else "whole"] += 1
    return found


def test_a_flood_from_one_network_is_limited_while_another_is_served() -> None:
    source, query = answers(under(LIMITS)), packet()

    flood = outcomes(source, query, STRANGER, 50) + outcomes(source, query, NEIGHBOUR, 50)

    assert flood == {"whole": 10, "cut": 45, "dropped": 45}
    assert outcomes(source, query, OTHER, 10) == {"whole": 10}
    assert outcomes(source, query, "::1", 100) == {"whole": 100}


@pytest.mark.parametrize(
    ("query", "whole"),
    [
        (packet(b"\4nope\4apps\4test\0"), 4),
        (packet(b"\4shop\4else\4test\0"), 6),
        (packet(qtype=16), 10),
        (packet(flags=0x2900), 6),
        (packet(b"\xc0\x0c"), 6),
    ],
    ids=["no such name", "refused", "no such type", "another opcode", "malformed"],
)
def test_each_kind_of_answer_has_its_limit(query: bytes, whole: int) -> None:
    found = outcomes(answers(under(LIMITS)), query, STRANGER, 40)

    errors = found["whole"] - whole  # an error can't be said truncated: it slips as it is
    assert found["dropped"] > 0
    assert errors in (0, found.total() - whole - found["dropped"])


def test_a_host_with_nothing_to_answer_is_limited_as_an_error() -> None:
    """SERVFAIL over TCP would be no better, so it is never said truncated."""
    proxied = table(publish=Publish.proxy, shares=ONE)
    nowhere = Zones(generation=2, zones=zones().zones, advertise=(), dns=LIMITS)

    found = outcomes(answers(book(proxied, served=nowhere)), packet(), STRANGER, 40)

    assert found["cut"] == 0
    assert found["dropped"] > 0


def test_names_that_are_made_up_have_one_limit_together() -> None:
    source = answers(under(LIMITS))
    queries = [packet(b"\4x%03d\4apps\4test\0" % number) for number in range(40)]

    found = sum((outcomes(source, query, STRANGER, 1) for query in queries), Counter())

    assert found["whole"] == 4


def test_an_answer_that_is_not_given_is_not_noted() -> None:
    """A group must not wait for clients that never heard of it."""
    served = under(LIMITS)
    tally = served.by_endpoint["shop"].lanes[0].tally

    outcomes(answers(served), packet(), STRANGER, 50)

    assert tally.dns == 10


def test_who_shows_a_cookie_or_comes_over_tcp_has_no_limit() -> None:
    source = answers(under(LIMITS))
    cookie = shown(source, b"client-1", STRANGER)
    outcomes(source, packet(), STRANGER, 50)

    proven = [shown(source, cookie, STRANGER) for _ in range(50)]
    over_tcp = [source.answer(packet(), STRANGER, over_tcp=True) for _ in range(50)]

    assert set(proven) == {cookie}
    assert None not in over_tcp


def test_a_policy_comes_and_goes_with_zones() -> None:
    served = under(LIMITS)
    source = answers(served)
    outcomes(source, packet(), STRANGER, 50)

    served.apply_zones(
        Zones(generation=3, zones=zones().zones, advertise=(), dns=DnsPolicy(rates=None))
    )

    assert outcomes(source, packet(), STRANGER, 50) == {"whole": 50}
