"""What a static zone answers: one look-up by name and type, and what is to be said about it.

Names are nodes; a name that only has others below it is an empty one (RFC 8020). Below a delegation
there are no nodes, only glue. So the closest existing name decides everything about one that does
not exist: if it is a delegation, the question belongs to that zone; if it has a wildcard, that
answers; otherwise there is nothing. Whatever exists blocks the wildcard, also an empty name, for
itself and for all below it (RFC 4592 section 3.3.1).

Nothing is encoded here and nothing is remembered: a tree never changes, and equal questions get
equal answers, which the caller may keep.

Sources: RFC 1034 section 4.3.2 (the algorithm), 2308 (negative answers), 4592 (wildcards),
3658 section 2.2.1 (DS is asked of the parent), 9471 (glue).
"""

import struct
from collections.abc import Iterable
from enum import StrEnum

from trafficmgr.core.noun import Noun
from trafficmgr.wire import dns
from trafficmgr.wire.zone_records import (
    DS,
    Record,
    RRset,
    ZoneText,
    parents,
    target_of,
)

MAX_LINKS = 16
"""CNAMEs in one answer: as BIND and Unbound follow; longer chains are mistakes."""

_Node = dict[int, tuple[Record, ...]]

_MINIMUM = struct.Struct(">I")  # the last field of an SOA


class Kind(StrEnum):
    """What was found at the end of the name's CNAMEs, if it has any.

    An `answer` may be CNAMEs alone: they go round, are too many, or lead out of the zone, which is
    for the resolver to follow. `nodata` and `nxdomain` are negative answers with the SOA; after
    CNAMEs they speak of the last name (RFC 6604). A `delegation` names the servers to ask.
    """

    ANSWER = "answer"
    DELEGATION = "delegation"
    NODATA = "nodata"
    NXDOMAIN = "nxdomain"


class Found(Noun):
    """An answer to one question, section by section.

    `is_authoritative` is AA, which speaks of the first owner in the answer (RFC 1035 section
    4.1.1): off for a delegation, unless CNAMEs of ours led there. If the additional records of a
    delegation do not fit a message, TC must be set (RFC 9471).
    """

    kind: Kind
    is_authoritative: bool = True
    answer: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()


class ZoneTree:
    """One zone, ready to answer. Never changed, so it may be shared.

    Raises:
        ValueError: The zone has no SOA; `zone_file` lets none of these through.
    """

    __slots__ = ("_addresses", "_cuts", "_negative", "_nodes", "origin")

    def __init__(self, zone: ZoneText) -> None:
        self.origin = zone.origin
        self._negative = (_negative(zone),)
        self._cuts = frozenset(
            owner
            for owner, rrsets in zone.rrsets.items()
            if dns.NS_TYPE in rrsets and owner != zone.origin
        )
        self._addresses: dict[bytes, tuple[Record, ...]] = {}
        self._nodes: dict[bytes, _Node] = {zone.origin: {}}
        for owner, rrsets in zone.rrsets.items():
            self._place(owner, _node(owner, rrsets.items()))

    def find(self, name: bytes, qtype: int) -> Found:
        """Answer a question for a name in the zone.

        ANY is a type like others here, which nothing has: ask `exists` first, and answer as
        RFC 8482 says; find what is to be said about names for which that is False.

        Args:
            name: In wire format and lower case, as `dns_query` gives it.
            qtype: A type's number.

        Raises:
            ValueError: The name is outside of the zone.
        """
        chain: tuple[Record, ...] = ()
        passed = set()
        while True:
            closest, node = self._look(name)
            if closest in self._cuts and not (qtype == DS and name == closest):
                return self._delegation(closest, chain)
            if node is None:
                return Found(kind=Kind.NXDOMAIN, answer=chain, authority=self._negative)
            if records := node.get(qtype):
                return self._answer(qtype, chain + _owned(records, name))
            aliases = node.get(dns.CNAME)
            if not aliases:
                return Found(kind=Kind.NODATA, answer=chain, authority=self._negative)
            if len(chain) == MAX_LINKS:
                return Found(kind=Kind.ANSWER, answer=chain)
            chain += _owned(aliases[:1], name)
            passed.add(name)
            name = aliases[0].rdata.lower()
            if name in passed or self.origin not in dns.suffixes(name):
                return Found(kind=Kind.ANSWER, answer=chain)

    def exists(self, name: bytes) -> bool:
        """Whether the zone has this name: with records, with names below it, or by a wildcard.

        False for what is delegated, and for what is outside of the zone.
        """
        if self.origin not in dns.suffixes(name):
            return False
        closest, node = self._look(name)
        return node is not None and closest not in self._cuts

    def _look(self, name: bytes) -> tuple[bytes, _Node | None]:
        """Return the closest name that exists, and what answers for this one, if anything does."""
        node = self._nodes.get(name)
        if node is not None:
            return name, node
        for closest in dns.suffixes(name):
            if closest in self._nodes:
                return closest, self._nodes.get(b"\x01*" + closest)
        raise ValueError(f"{name!r} is outside of the zone {self.origin!r}")

    def _answer(self, qtype: int, records: tuple[Record, ...]) -> Found:
        """Return records; those of name servers with the addresses that are in the zone."""
        additional = self._glue(records) if qtype == dns.NS_TYPE else ()
        return Found(kind=Kind.ANSWER, answer=records, additional=additional)

    def _delegation(self, cut: bytes, chain: tuple[Record, ...]) -> Found:
        servers = self._nodes[cut][dns.NS_TYPE]
        return Found(
            kind=Kind.DELEGATION,
            is_authoritative=bool(chain),
            answer=chain,
            authority=servers,
            additional=self._glue(servers),
        )

    def _glue(self, servers: tuple[Record, ...]) -> tuple[Record, ...]:
        targets = [target_of(record) or b"" for record in servers]
        return tuple(address for name in targets for address in self._addresses.get(name, ()))

    def _place(self, owner: bytes, node: _Node) -> None:
        """Put a name among the nodes, with those above it, unless it is only glue below a cut."""
        addresses = node.get(dns.A, ()) + node.get(dns.AAAA, ())
        if addresses:
            self._addresses[owner] = addresses
        above = list(parents(owner, self.origin))
        if self._cuts.isdisjoint(above):
            self._nodes[owner] = node
            for name in above:
                self._nodes.setdefault(name, {})


def _node(owner: bytes, rrsets: Iterable[tuple[int, RRset]]) -> _Node:
    return {
        rtype: tuple(Record(owner, rtype, rrset.ttl_s, rdata) for rdata in rrset.rdatas)
        for rtype, rrset in rrsets
    }


def _owned(records: tuple[Record, ...], name: bytes) -> tuple[Record, ...]:
    """Return the records as the name's own; a wildcard's are (RFC 4592 section 3.3.1)."""
    if records[0].owner == name:
        return records
    return tuple(record._replace(owner=name) for record in records)


def _negative(zone: ZoneText) -> Record:
    """Return the SOA as negative answers have it, with how long these may be kept (RFC 2308)."""
    soa = zone.rrsets.get(zone.origin, {}).get(dns.SOA_TYPE)
    if soa is None:
        raise ValueError(f"the zone {zone.origin!r} has no SOA")
    (minimum_s,) = _MINIMUM.unpack(soa.rdatas[0][-_MINIMUM.size :])
    return Record(zone.origin, dns.SOA_TYPE, min(soa.ttl_s, minimum_s), soa.rdatas[0])
