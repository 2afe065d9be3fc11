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

from trafficmgr.core.dns_policy import DnsPolicy
from trafficmgr.core.model import Publish, Tcp
from trafficmgr.core.routing import PREVIEW_PREFIX, Table, Zones
from trafficmgr.dataplane import dns_rates
from trafficmgr.dataplane.book import Book
from trafficmgr.dataplane.dns_manners import Manners
from trafficmgr.dataplane.dns_rates import ANSWER, DROP, Verdict
from trafficmgr.dataplane.dns_zones import (
    ANY,
    BADVERS,
    BADVERS_TO_NOTHING,
    EMPTY,
    NOTHING,
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

MAX_PLANS = 50_000
"""Some 15 MiB. Only names that exist get in, but of these each type may be asked for. Ten thousand
names that are asked for A and AAAA must not drive each other out."""


class Plan(Protocol):
    """Where the answer to one question comes from; `kind` is what rate limits count it as."""

    kind: bytes

    def next(self) -> Answer:
        """Return the answer for one more client."""


class Fixed:
    """The same answer for everybody."""

    __slots__ = ("_answer", "kind")

    def __init__(self, answer: Answer, kind: bytes) -> None:
        self._answer = answer
        self.kind = kind

    def next(self) -> Answer:
        """Return the answer."""
        return self._answer


class Rotating:
    """The proxy's addresses, one at a time and each as often."""

    __slots__ = ("_answers", "_turn", "kind")

    def __init__(self, answers: tuple[Answer, ...], kind: bytes) -> None:
        self._answers = answers
        self.kind = kind
        self._turn = 0

    def next(self) -> Answer:
        """Return the next in turn."""
        self._turn = turn = (self._turn + 1) % len(self._answers)
        return self._answers[turn]


class Weighted:
    """The groups of a route, by weight, one per answer; noting who was given away and when."""

    __slots__ = ("_answers", "_clock", "_loop_time", "_rand", "_route", "kind")

    def __init__(
        self,
        route: Route,
        answers: dict[Upstream, Answer],
        kind: bytes,
        *,
        rand: Callable[[], float],
        clock: Callable[[], float],
        loop_time: Callable[[], float],
    ) -> None:
        self._route = route
        self._answers = answers
        self.kind = kind
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
        wall: Seconds since 1970, which are in cookies.
    """

    def __init__(
        self,
        book: Book,
        *,
        rand: Callable[[], float],
        clock: Callable[[], float],
        loop_time: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._book = book
        self._wall = wall
        self._rand = rand
        self._clock = clock
        self._loop_time = loop_time
        self._plans: dict[bytes, Plan] = {}
        self._questions: dict[str, list[bytes]] = {}  # those that plans of a host are kept under
        self._names: Names | None = None
        self._named = {name: _named(route.table) for name, route in book.by_endpoint.items()}
        self._take_policy(book.zones.dns)
        book.on_table.append(self._table_changed)
        book.on_zones.append(self._zones_changed)

    def answer(self, packet: bytes, client: str, *, over_tcp: bool = False) -> bytes | None:
        """Return the reply to a client's packet, None if it deserves none.

        The name is taken up to the first zero byte. A name that holds a zero inside a label is
        cut there, so that it is in no cache, and is read properly below.
        """
        end = packet.find(0, dns.HEADER_BYTES) + 5
        plan = self._plans.get(packet[12 : end - 4].lower() + packet[end - 4 : end])
        if plan is not None:
            manner = self._manners.find(packet[2:12] + packet[end:], client)
            if manner is not None:
                if over_tcp:
                    return plan.next().reply(packet, end, manner, dns.MAX_TCP_BYTES)
                rates = self._rates
                if rates is not None and not manner.is_proven:
                    verdict = rates.judge(client, plan.kind, self._loop_time())
                    if verdict is not ANSWER:
                        return _less(verdict, plan, packet, end, manner)
                return plan.next().reply(packet, end, manner, manner.limit_bytes)
        return self._read_and_answer(packet, client, over_tcp=over_tcp)

    def sweep(self) -> None:
        """Renew what must not grow old, once a minute."""
        self._manners.sweep()

    def _read_and_answer(self, packet: bytes, client: str, *, over_tcp: bool) -> bytes | None:
        try:
            query = dns_query.read(packet)
        except QueryError as bad:
            return self._error(bad.reply, client, over_tcp=over_tcp)
        end, manner = query.end, query.manner
        if manner.is_bad_version:
            plan: Plan = Fixed(BADVERS if query.name else BADVERS_TO_NOTHING, dns_rates.ERROR)
        else:
            said = packet[2:12] + packet[end:]
            mannered = self._manners.of(query, said, client, over_tcp=over_tcp)
            if mannered is None or not (query.name or self._manners.has_cookies):
                formerr = dns_query.refusal(packet, dns.FORMERR)
                return self._error(formerr, client, over_tcp=over_tcp)
            manner = mannered
            plan = self._plan(packet, query) if query.name else Fixed(NOTHING, dns_rates.ERROR)
        limit = dns.MAX_TCP_BYTES if over_tcp else manner.limit_bytes
        if self._rates is not None and not (over_tcp or manner.is_proven):
            verdict = self._rates.judge(client, plan.kind, self._loop_time())
            if verdict is not ANSWER:
                return _less(verdict, plan, packet, end, manner)
        return plan.next().reply(packet, end, manner, limit)

    def _error(self, reply: bytes | None, client: str, *, over_tcp: bool) -> bytes | None:
        """Return an error, unless the client's network has had enough of them."""
        if reply is None or over_tcp or self._rates is None:
            return reply
        verdict = self._rates.judge(client, dns_rates.ERROR, self._loop_time())
        return None if verdict is DROP else reply

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
        if query.qclass == dns.CLASS_CH:
            return self._chaos_plan(query)
        zone = names.authority(query.name)
        if zone is None or query.qclass not in (dns.CLASS_IN, dns.CLASS_ANY):
            return Fixed(REFUSED, dns_rates.ERROR)
        if query.qtype in (dns.AXFR, dns.IXFR):
            return Fixed(REFUSED, dns_rates.ERROR)
        if not names.exists(query.name):
            return Fixed(zone.nxdomain, dns_rates.nxdomain(zone.apex))
        return self._known_plan(query, zone, host)

    def _known_plan(self, query: Query, zone: Authority, host: str | None) -> Plan:
        """Return the plan for a name that exists."""
        route = None if host is None else self._book.route_of(host)
        if route is not None and query.qtype in (dns.A, dns.AAAA):
            return self._host_plan(route, zone, query)
        kind = dns_rates.positive(query.name)
        fixed = zone.fixed(query.name, query.qtype)
        if fixed is not None:
            return Fixed(fixed, kind)
        has_records = host is not None or query.name in (zone.apex, *zone.servers)
        if query.qtype == dns.ANY and has_records:
            return Fixed(ANY, kind)
        return Fixed(zone.nodata, dns_rates.nodata(zone.apex))

    def _chaos_plan(self, query: Query) -> Plan:
        """Return what this server says of itself; nothing else is of this class (RFC 4892)."""
        text = self._chaos.get(query.name)
        if not text or query.qtype not in (dns.TXT, dns.ANY):
            return Fixed(REFUSED, dns_rates.ERROR)
        record = dns.text_record(dns.ASKED, 0, text, dns.CLASS_CH)
        return Fixed(Answer(answers=(record,)), dns_rates.positive(query.name))

    def _host_plan(self, route: Route, zone: Authority, query: Query) -> Plan:
        kind, qtype = dns_rates.positive(query.name), query.qtype
        if route.table.publish is Publish.groups:
            return self._groups_plan(route, zone, qtype, kind)
        zones, ttl_s = self._book.zones, route.table.ttl_s
        answers = tuple(_of_address(ttl_s, address) for address in advertised(zones, qtype))
        if not answers:
            if not zones.advertise:
                return Fixed(SERVFAIL, dns_rates.ERROR)
            return Fixed(zone.nodata, dns_rates.nodata(zone.apex))
        return Fixed(answers[0], kind) if len(answers) == 1 else Rotating(answers, kind)

    def _groups_plan(self, route: Route, zone: Authority, qtype: int, kind: bytes) -> Plan:
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
            return Fixed(zone.nodata, dns_rates.nodata(zone.apex))
        plan = route.answers[qtype] = Weighted(
            family,
            answers,
            kind,
            rand=self._rand,
            clock=self._clock,
            loop_time=self._loop_time,
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

    def _zones_changed(self, zones: Zones) -> None:
        self._names = None
        self._forget_all()
        if zones.dns != self._policy:
            self._take_policy(zones.dns)

    def _take_policy(self, policy: DnsPolicy) -> None:
        self._policy = policy
        self._manners = Manners(policy, self._wall)
        self._rates = None if policy.rates is None else dns_rates.Rates(policy.rates)
        chaos = policy.chaos
        self._chaos = {
            dns.wire_name("version.bind"): chaos.version,
            dns.wire_name("version.server"): chaos.version,
            dns.wire_name("hostname.bind"): chaos.hostname,
            dns.wire_name("id.server"): chaos.id,
        }

    def _forget_all(self) -> None:
        self._plans.clear()
        self._questions.clear()


def _less(verdict: Verdict, plan: Plan, packet: bytes, end: int, manner: Manner) -> bytes | None:
    """Return what a client gets in place of an answer beyond its rate limit."""
    if verdict is DROP:
        return None
    if plan.kind == dns_rates.ERROR:
        return plan.next().reply(packet, end, manner, manner.limit_bytes)
    return EMPTY.cut(packet, end, manner)


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
