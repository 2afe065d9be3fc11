"""What must be true of a whole zone before it is served: every breach at once, each with its line.

A zone that breaks one of these rules is one that resolvers read differently from its author, or
differently from each other. So it is refused, not repaired.

Rules, in the order of the functions: names lie in the zone, and a wildcard is their whole first
label · one SOA, at the apex · NS at the apex · a CNAME stands alone and not at the apex · an NS
points to no CNAME · one TTL for each RRset, which fits a message · a delegation's servers can be
reached, and nothing but their addresses is below it.

Sources: RFC 1034 sections 3.6.2 and 4.2.1, 1035 section 5.2, 2181 sections 5.2, 6 and 10, 4592.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

from trafficmgr.wire import dns
from trafficmgr.wire.zone_records import (
    Problem,
    Written,
    is_wildcard,
    labels,
    parents,
    readable,
    target_of,
    type_name,
)

ADDRESS_TYPES = frozenset({dns.A, dns.AAAA})

MAX_RRSET_BYTES = dns.MAX_TCP_BYTES - 1024
"""What an answer may take: a message over TCP less its header, question, SOA and EDNS options."""

_FIXED_BYTES = 12  # of a record: pointer to its owner, type, class, TTL, length

_Names = dict[bytes, list[Written]]


def problems(origin: bytes, written: Sequence[Written]) -> Iterator[Problem]:
    """Yield all that is wrong with a zone.

    Args:
        origin: The apex, in wire format.
        written: Every record of the file, in its order, also such as do not belong there.
    """
    yield from chain.from_iterable(_name(origin, each) for each in written)
    inside = [each for each in written if origin in dns.suffixes(each.record.owner)]
    names: _Names = {}
    for each in inside:
        names.setdefault(each.record.owner, []).append(each)
    yield from _soa(origin, inside)
    yield from _apex_ns(origin, names)
    for owner, here in names.items():
        yield from _alone(origin, owner, here)
        yield from _rrsets(here)
    yield from _aliased_servers(inside, names)
    yield from _cuts(origin, inside, names)


# -- one name -------------------------------------------------------------------------------------


def _name(origin: bytes, each: Written) -> Iterator[Problem]:
    owner, rtype = each.record.owner, each.record.rtype
    if origin not in dns.suffixes(owner):
        yield Problem(
            each.line,
            f"{readable(owner)} is outside of the zone {readable(origin)}; "
            "move it to the file of its own zone, or leave out the last dot if it is relative",
        )
        return
    wild = is_wildcard(owner)
    if any(b"*" in label for label in labels(owner)[wild:]):
        yield Problem(
            each.line,
            f'{readable(owner)} has a "*" that is not the whole first label, where it stands for '
            'nothing; write "*" alone and first, as in *.example.',
        )
    if wild and rtype == dns.NS_TYPE:
        yield Problem(
            each.line,
            f"{readable(owner)} delegates a wildcard, which has no meaning (RFC 4592 section 4.2); "
            "write an NS for each name that is delegated",
        )


def _alone(origin: bytes, owner: bytes, here: list[Written]) -> Iterator[Problem]:
    aliases = [each for each in here if each.record.rtype == dns.CNAME]
    others = sorted({type_name(w.record.rtype) for w in here if w.record.rtype != dns.CNAME})
    if owner == origin:
        for each in aliases:
            yield Problem(
                each.line,
                f"a CNAME at the apex {readable(origin)} would hide its SOA and NS; "
                "write the A and AAAA records of its target",
            )
        return
    for each in aliases[1:]:
        yield Problem(
            each.line,
            f"{readable(owner)} has a second CNAME (the first is on line {aliases[0].line}); "
            "leave one of them",
        )
    if aliases and others:
        yield Problem(
            aliases[0].line,
            f"{readable(owner)} has a CNAME beside {', '.join(others)}; a CNAME stands alone: "
            "remove it, or the others",
        )


def _rrsets(here: list[Written]) -> Iterator[Problem]:
    by_type: dict[int, list[Written]] = {}
    for each in here:
        by_type.setdefault(each.record.rtype, []).append(each)
    for first, *others in by_type.values():
        what = f"the {type_name(first.record.rtype)} records of {readable(first.record.owner)}"
        for each in others:
            if each.record.ttl_s != first.record.ttl_s:
                yield Problem(
                    each.line,
                    f"{what} have different TTLs, {each.record.ttl_s} here and "
                    f"{first.record.ttl_s} on line {first.line}; write the same "
                    "(RFC 2181 section 5.2)",
                )
        size = sum(_FIXED_BYTES + len(w.record.rdata) for w in (first, *others))
        if size > MAX_RRSET_BYTES:
            yield Problem(
                first.line,
                f"{what} take {size} bytes, more than the {MAX_RRSET_BYTES} that an answer has "
                "room for; spread them over several names",
            )


# -- the apex -------------------------------------------------------------------------------------


def _soa(origin: bytes, inside: list[Written]) -> Iterator[Problem]:
    apex = readable(origin)
    found = [each for each in inside if each.record.rtype == dns.SOA_TYPE]
    at_apex = [each for each in found if each.record.owner == origin]
    if not at_apex:
        yield Problem(
            1,
            f"the zone has no SOA at {apex}; write "
            f'"{apex} 3600 IN SOA <first name server> <mailbox> 1 86400 7200 3600000 300"',
        )
    for each in at_apex[1:]:
        yield Problem(
            each.line,
            f"this is another SOA (the first is on line {at_apex[0].line}); remove one: "
            "a zone transfer repeats it at its end, a file does not",
        )
    for each in found:
        if each.record.owner != origin:
            yield Problem(
                each.line,
                f"an SOA at {readable(each.record.owner)}, below the apex {apex}, begins another "
                "zone; move it and what is below it to a file of its own",
            )


def _apex_ns(origin: bytes, names: _Names) -> Iterator[Problem]:
    here = names.get(origin, [])
    if not any(each.record.rtype == dns.NS_TYPE for each in here):
        line = next((w.line for w in here if w.record.rtype == dns.SOA_TYPE), 1)
        apex = readable(origin)
        yield Problem(
            line, f'the zone has no name server; write "{apex} 3600 IN NS <name>" for each'
        )


# -- name servers and delegations -----------------------------------------------------------------


def _aliased_servers(inside: list[Written], names: _Names) -> Iterator[Problem]:
    for each in inside:
        if each.record.rtype == dns.NS_TYPE and (target := target_of(each.record)) is not None:
            for other in names.get(target, []):
                if other.record.rtype == dns.CNAME:
                    yield Problem(
                        each.line,
                        f"the name server {readable(target)} is a CNAME (line {other.line}), which "
                        "resolvers do not follow here (RFC 2181 section 10.3); "
                        "name the server that has the addresses",
                    )


def _cuts(origin: bytes, inside: list[Written], names: _Names) -> Iterator[Problem]:
    servers = [w for w in inside if w.record.rtype == dns.NS_TYPE]
    targets = {target_of(each.record) for each in servers}
    cuts = {w.record.owner: w.line for w in servers if _delegates(origin, w.record.owner)}
    for each in servers:
        if each.record.owner in cuts:
            yield from _glue(each, names)
    for each in inside:
        is_glue = each.record.rtype in ADDRESS_TYPES and each.record.owner in targets
        if not is_glue:
            yield from _occluded(origin, each, cuts)


def _delegates(origin: bytes, owner: bytes) -> bool:
    return owner != origin and not is_wildcard(owner)


def _glue(server: Written, names: _Names) -> Iterator[Problem]:
    """Yield a problem if a server can only be found by asking that server."""
    cut, target = server.record.owner, target_of(server.record)
    if target is None or cut not in dns.suffixes(target):
        return
    if not any(each.record.rtype in ADDRESS_TYPES for each in names.get(target, [])):
        yield Problem(
            server.line,
            f"the name server {readable(target)} is in {readable(cut)}, which it serves itself, so "
            f'nobody finds it; write its glue here: "{readable(target)} IN A <address>"',
        )


def _occluded(origin: bytes, each: Written, cuts: dict[bytes, int]) -> Iterator[Problem]:
    """Yield a problem if a record belongs to whom its name is delegated to."""
    owner, rtype = each.record.owner, each.record.rtype
    above = next((name for name in parents(owner, origin) if name in cuts), None)
    if above is None and owner in cuts and rtype not in {dns.NS_TYPE, dns.CNAME}:
        above = owner
    if above is not None:
        yield Problem(
            each.line,
            f"{type_name(rtype)} of {readable(owner)} is never answered, because line "
            f"{cuts[above]} delegates {readable(above)}; "
            "move it to the file of that zone, or remove the delegation",
        )
