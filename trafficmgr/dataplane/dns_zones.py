"""The zones of a worker, compiled: which name belongs where, and the answers that never vary.

A name is in wire format and lower case, as `wire.dns_query` gives it. What exists in a zone is its
apex, its name servers, the hosts of all tables, and every name between one of these and the apex
(an empty non-terminal: NODATA, never NXDOMAIN, RFC 8020).

Answers here live as long as one `Zones`; those of hosts, which come and go with tables, are made
in `dns_answers`.
"""

from collections.abc import Iterable

from trafficmgr.core.routing import Zone, Zones
from trafficmgr.wire import dns
from trafficmgr.wire.dns_answer import Answer

REFUSED = Answer(dns.REFUSED, is_authoritative=False)
NOTHING = Answer(is_authoritative=False, has_question=False)
"""To a query that asks for nothing but a cookie."""
BADVERS_TO_NOTHING = Answer(dns.BADVERS, is_authoritative=False, has_question=False)
EMPTY = Answer()
"""It is only ever sent truncated."""
BADVERS = Answer(dns.BADVERS, is_authoritative=False)
ANY = Answer(answers=(dns.hinfo_record(),))
SERVFAIL = Answer(dns.SERVFAIL, is_authoritative=False)
"""For a host with nothing to reach. Any other answer would be a negative one, which resolvers keep
for `negative_ttl_s`; after this one they try again at once, or at another of our workers."""


class Authority:
    """One zone and its fixed answers.

    Raises:
        ValueError: The zone carries a name or an address that DNS has no form for.
    """

    __slots__ = ("_fixed", "apex", "nodata", "nxdomain", "servers")

    def __init__(self, zone: Zone, zones: Zones) -> None:
        self.apex = dns.wire_name(zone.name)
        self.servers = self._inside(name for each in zones.zones for name in each.ns)
        negative = _soa(zone, zones, self.apex, min(zone.ns_ttl_s, zone.negative_ttl_s))
        self.nodata = Answer(authorities=(negative,))
        self.nxdomain = Answer(dns.NXDOMAIN, authorities=(negative,))
        self._fixed = self._addresses(zone, zones)
        soa = _soa(zone, zones, dns.ASKED, zone.ns_ttl_s)
        self._fixed[self.apex, dns.SOA_TYPE] = Answer(answers=(soa,))
        if zone.ns:
            self._fixed[self.apex, dns.NS_TYPE] = self._ns(zone, zones)

    def fixed(self, name: bytes, qtype: int) -> Answer | None:
        """Return what the apex or a name server answers, None if there is nothing of the kind."""
        return self._fixed.get((name, qtype))

    def _inside(self, names: Iterable[str]) -> tuple[bytes, ...]:
        """Return those of the names that are in the zone."""
        wire = dict.fromkeys(map(dns.wire_name, names))
        return tuple(name for name in wire if self.apex in dns.suffixes(name))

    def _addresses(self, zone: Zone, zones: Zones) -> dict[tuple[bytes, int], Answer]:
        """Return what name servers in the zone answer: all advertised addresses of a kind.

        Those of our other zones too, since we are the only one who could answer for them.
        """
        answers = {}
        for qtype in (dns.A, dns.AAAA):
            records = tuple(
                dns.address_record(dns.ASKED, zone.ns_ttl_s, address)
                for address in advertised(zones, qtype)
            )
            if records:
                answer = Answer(answers=records)
                answers.update({(name, qtype): answer for name in self.servers})
        return answers

    def _ns(self, zone: Zone, zones: Zones) -> Answer:
        """Return the apex' name servers, with glue for those that are inside."""
        servers = map(dns.wire_name, zone.ns)
        return Answer(
            answers=tuple(dns.ns_record(dns.ASKED, zone.ns_ttl_s, name) for name in servers),
            additionals=tuple(
                dns.address_record(name, zone.ns_ttl_s, address)
                for name in self._inside(zone.ns)
                for address in zones.advertise
            ),
        )


class Names:
    """All names that exist, and the zones that they may exist in.

    Args:
        zones: What we are authoritative for.
        hosts: The hosts of all tables, as text; those outside the zones are not ours to answer.
    """

    def __init__(self, zones: Zones, hosts: Iterable[str]) -> None:
        self._authorities = {
            authority.apex: authority
            for authority in (Authority(zone, zones) for zone in zones.zones)
        }
        self._hosts = dict(_named(hosts))
        self._wild = {_parent(name): host for name, host in self._hosts.items() if _is_wild(name)}
        self._existing: set[bytes] = set()
        for authority in self._authorities.values():
            self._existing.update(dns.suffixes(authority.apex))
            for server in authority.servers:
                self._existing.update(dns.suffixes(server))
        for host in self._hosts:
            self._existing.update(dns.suffixes(host))

    def authority(self, name: bytes) -> Authority | None:
        """Return the closest zone around the name, None if it is outside of all."""
        for suffix in dns.suffixes(name):
            authority = self._authorities.get(suffix)
            if authority is not None:
                return authority
        return None

    def host(self, name: bytes) -> str | None:
        """Return the host of this name as tables write it; a name goes before a wildcard."""
        if name in self._existing:
            return self._hosts.get(name)
        return self._wild.get(_parent(name))

    def exists(self, name: bytes) -> bool:
        """Whether there is anything at or below the name, or a wildcard for its first label."""
        return name in self._existing or _parent(name) in self._wild


def _parent(name: bytes) -> bytes:
    """Return the name without its first label; the root's is the root."""
    return name[1 + name[0] :] if name[0] else name


def _is_wild(name: bytes) -> bool:
    return name.startswith(b"\x01*")


def advertised(zones: Zones, qtype: int) -> tuple[str, ...]:
    """Return the proxy's own addresses of the kind that A or AAAA asks for."""
    return tuple(a for a in zones.advertise if dns.address_type(a) == qtype)


def _named(hosts: Iterable[str]) -> Iterable[tuple[bytes, str]]:
    """Yield wire name and text of each host; one that no query can name is left to the proxy."""
    for host in hosts:
        try:
            yield dns.wire_name(host), host
        except ValueError:
            continue


def _soa(zone: Zone, zones: Zones, owner: bytes, ttl_s: int) -> bytes:
    """Return the zone's SOA; its serial grows with the zones, not with weights (RFC 1982)."""
    return dns.soa_record(
        owner,
        ttl_s,
        server=dns.wire_name(zone.ns[0] if zone.ns else zone.name),
        mailbox=dns.mailbox_name(zone.mailbox or f"hostmaster@{zone.name}"),
        serial=zones.generation,
        negative_ttl_s=zone.negative_ttl_s,
    )
