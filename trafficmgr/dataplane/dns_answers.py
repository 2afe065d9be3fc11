"""What a worker answers to DNS queries: the book, seen as an authoritative server.

A query is taken apart in two, and each half is looked up: *what* it asks (name, type, class) leads
to a `Plan`, *how* it asks (flags and EDNS) to a `Manner`. Both caches hold only what was found in
full before, so that two dictionary look-ups, a draw and a join of bytes are the whole hot path
(DESIGN 7). Whatever is not in them goes through `wire.dns_query` and is decided at leisure.

Plans die with the tables and zones that they were made from: `Book` says when those change. An
answer that carries a group's address is noted on the `Upstream` in the same synchronous step that
makes it, because the group may not stop before its TTL has passed (promise 1).
"""

from collections.abc import Callable
from typing import Protocol, cast

from trafficmgr.core.model import Publish, Tcp
from trafficmgr.core.routing import PREVIEW_PREFIX, Table, Zones
from trafficmgr.dataplane import dns_tcp
from trafficmgr.dataplane.book import Book
from trafficmgr.dataplane.dns_zones import (
    ANY,
    BADVERS,
    REFUSED,
    SERVFAIL,
    Authority,
    Names,
    advertised,
)
from trafficmgr.dataplane.routes import Lane, Route, Upstream
from trafficmgr.wire import dns, dns_query
from trafficmgr.wire.dns_answer import Answer
from trafficmgr.wire.dns_query import Manner, Query, QueryError

MAX_PLANS = 20_000
"""Some MiB. Only names that exist get in, but of these each type may be asked for."""

MAX_MANNERS = 1_000
"""Clients know a few dozen; beyond are random cookies, and forgetting all is as good as any."""


KEEPALIVE = dns_query.keepalive(dns_tcp.IDLE_S)
"""How long an idle connection is kept, as clients may ask (RFC 7828)."""


class Plan(Protocol):
    """Where the answer to one question comes from."""

    def next(self) -> Answer:
        """Return the answer for one more client."""


class Fixed:
    """The same answer for everybody."""

    __slots__ = ("_answer",)

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def next(self) -> Answer:
        """Return the answer."""
        return self._answer


class Rotating:
    """The proxy's addresses, one at a time and each as often."""

    __slots__ = ("_answers", "_turn")

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        self._answers = answers
        self._turn = 0

    def next(self) -> Answer:
        """Return the next in turn."""
        self._turn = turn = (self._turn + 1) % len(self._answers)
        return self._answers[turn]


class Weighted:
    """The groups of a route, by weight, one per answer; noting who was given away and when."""

    __slots__ = ("_answers", "_clock", "_loop_time", "_rand", "_route")

    def __init__(
        self,
        route: Route,
        answers: dict[Upstream, Answer],
        *,
        rand: Callable[[], float],
        clock: Callable[[], float],
        loop_time: Callable[[], float],
    ) -> None:
        self._route = route
        self._answers = answers
        self._rand = rand
        self._clock = clock
        self._loop_time = loop_time

    def next(self) -> Answer:
        """Choose a group and note that it was answered."""
        upstream = self._route.choose(self._rand(), self._loop_time())
        if upstream is None:
            return SERVFAIL
        upstream.answered_at = self._clock()
        (self._route.preview or upstream.tally).dns += 1
        return self._answers[upstream]


class Answers:
    """Answers queries out of a book.

    Args:
        book: Read on each question that is new, and listened to.
        rand: Numbers in [0, 1), for the choice by weight.
        clock: CLOCK_BOOTTIME in seconds, for `Upstream.answered_at`.
        loop_time: The loop's clock in seconds, by which upstreams are passed over for a while.
    """

    def __init__(
        self,
        book: Book,
        *,
        rand: Callable[[], float],
        clock: Callable[[], float],
        loop_time: Callable[[], float],
    ) -> None:
        self._book = book
        self._rand = rand
        self._clock = clock
        self._loop_time = loop_time
        self._plans: dict[bytes, Plan] = {}
        self._questions: dict[str, list[bytes]] = {}  # those that plans of a host are kept under
        self._manners: dict[bytes, Manner] = {}
        self._names: Names | None = None
        self._named = {name: _named(route.table) for name, route in book.by_endpoint.items()}
        book.on_table.append(self._table_changed)
        book.on_zones.append(self._zones_changed)

    def answer(self, packet: bytes, *, over_tcp: bool = False) -> bytes | None:
        """Return the reply to a packet, None if it deserves none.

        The name is taken up to the first zero byte. A name that holds a zero inside a label is
        cut there, so that it is in no cache, and is read properly below.
        """
        end = packet.find(0, dns.HEADER_BYTES) + 5
        plan = self._plans.get(packet[12 : end - 4].lower() + packet[end - 4 : end])
        if plan is not None:
            manner = self._manners.get(packet[2:12] + packet[end:])
            if manner is not None:
                limit = dns.MAX_TCP_BYTES if over_tcp else manner.limit_bytes
                return plan.next().reply(packet, end, manner, limit)
        return self._read_and_answer(packet, over_tcp=over_tcp)

    def _read_and_answer(self, packet: bytes, *, over_tcp: bool) -> bytes | None:
        try:
            query = dns_query.read(packet)
        except QueryError as bad:
            return bad.reply
        if not query.name:
            return dns_query.refusal(packet, dns.FORMERR)  # cookies are not given out
        if query.manner.is_bad_version:
            manner, answer = query.manner, BADVERS
        else:
            manner = self._manner(packet, query, over_tcp=over_tcp)
            answer = self._plan(packet, query).next()
        limit = dns.MAX_TCP_BYTES if over_tcp else manner.limit_bytes
        return answer.reply(packet, query.end, manner, limit)

    def _manner(self, packet: bytes, query: Query, *, over_tcp: bool) -> Manner:
        """Return how the reply looks, with its options, and keep it for queries that are alike."""
        options, manner = query.manner.options, query.manner
        told = b""
        if options.subnet is not None:
            told += options.subnet.option(0)  # everybody gets the same
        if options.wants_keepalive and over_tcp:
            told += KEEPALIVE
        if told:
            manner = manner.with_options(told)
        if not options.wants_keepalive:
            if len(self._manners) >= MAX_MANNERS:
                self._manners.clear()
            self._manners[packet[2:12] + packet[query.end :]] = manner
        return manner

    def _plan(self, packet: bytes, query: Query) -> Plan:
        """Return the plan for a question, and keep it if the name exists."""
        key = query.name + packet[query.end - 4 : query.end]
        plan = self._plans.get(key)
        if plan is None:
            names = self._existing()
            host = names.host(query.name)
            plan = self._decide(query, names, host)
            if names.exists(query.name):
                if len(self._plans) >= MAX_PLANS:
                    self._forget_all()
                self._plans[key] = plan
                if host is not None:
                    self._questions.setdefault(host, []).append(key)
        return plan

    def _decide(self, query: Query, names: Names, host: str | None) -> Plan:
        zone = names.authority(query.name)
        if zone is None or query.qclass not in (dns.CLASS_IN, dns.CLASS_ANY):
            return Fixed(REFUSED)
        if query.qtype in (dns.AXFR, dns.IXFR):
            return Fixed(REFUSED)
        if not names.exists(query.name):
            return Fixed(zone.nxdomain)
        route = None if host is None else self._book.route_of(host)
        if route is not None and query.qtype in (dns.A, dns.AAAA):
            return self._host_plan(route, zone, query.qtype)
        fixed = zone.fixed(query.name, query.qtype)
        if fixed is not None:
            return Fixed(fixed)
        has_records = host is not None or query.name in (zone.apex, *zone.servers)
        return Fixed(ANY if query.qtype == dns.ANY and has_records else zone.nodata)

    def _host_plan(self, route: Route, zone: Authority, qtype: int) -> Plan:
        if route.table.publish is Publish.groups:
            return self._groups_plan(route, zone, qtype)
        zones, ttl_s = self._book.zones, route.table.ttl_s
        answers = tuple(_of_address(ttl_s, address) for address in advertised(zones, qtype))
        if not answers:
            return Fixed(zone.nodata if zones.advertise else SERVFAIL)
        return Fixed(answers[0]) if len(answers) == 1 else Rotating(answers)

    def _groups_plan(self, route: Route, zone: Authority, qtype: int) -> Plan:
        """Return the choice among a route's groups of one family; the route keeps it."""
        kept = route.answers.get(qtype)
        if kept is not None:
            return cast("Plan", kept)
        family = _only_of(route, qtype)
        answers = {
            upstream: _of_address(route.table.ttl_s, cast("Tcp", upstream.dial).address)
            for lane in family.lanes
            for upstream in lane.upstreams
        }
        if not _is_reachable(family) and _is_reachable(route):
            return Fixed(zone.nodata)
        plan = route.answers[qtype] = Weighted(
            family, answers, rand=self._rand, clock=self._clock, loop_time=self._loop_time
        )
        return plan

    def _existing(self) -> Names:
        if self._names is None:
            self._names = Names(self._book.zones, self._book.hosts())
        return self._names

    def _table_changed(self, route: Route) -> None:
        """Forget what was decided of its hosts; all of it if names came or went.

        A rollout does so twice, when its first group is ready and when its last step begins: then
        there are the names of a preview, or no more.
        """
        table = route.table
        named = _named(table)
        if self._named.get(table.endpoint) != named:
            self._named[table.endpoint] = named
            self._names = None
            self._forget_all()
        for host in table.hosts:
            for name in (host, PREVIEW_PREFIX + host):
                for question in self._questions.pop(name, ()):
                    del self._plans[question]

    def _zones_changed(self, _zones: Zones) -> None:
        self._names = None
        self._forget_all()

    def _forget_all(self) -> None:
        self._plans.clear()
        self._questions.clear()


def _named(table: Table) -> tuple[tuple[str, ...], bool]:
    """Return what names a table gives."""
    return table.hosts, table.preview is not None


def _of_address(ttl_s: int, address: str) -> Answer:
    return Answer(answers=(dns.address_record(dns.ASKED, ttl_s, address),))


def _only_of(route: Route, qtype: int) -> Route:
    """Return the route with only those upstreams that an A or AAAA record can name.

    Weights stay as they are: a share without one of the family spills to another, as ever.
    """
    lanes = []
    for lane in route.lanes:
        fitting = Lane(lane.revision, lane.weight_pct, lane.tally)
        fitting.upstreams = [u for u in lane.upstreams if _type_of(u) == qtype]
        lanes.append(fitting)
    return route.with_lanes(tuple(lanes))


def _type_of(upstream: Upstream) -> int | None:
    """Return A or AAAA, None for what has no address of its own."""
    if not isinstance(upstream.dial, Tcp):
        return None
    try:
        return dns.address_type(upstream.dial.address)
    except ValueError:
        return None


def _is_reachable(route: Route) -> bool:
    return any(lane.weight_pct > 0 and lane.upstreams for lane in route.lanes)
