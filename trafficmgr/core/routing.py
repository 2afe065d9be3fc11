"""Routing tables: which revision and which group the next client gets.

A table is one endpoint's whole answer to "where may traffic go now". The controller makes it,
workers obey it; both sides read the same rules here:

* `shares` holds what may be reached. Weights are whole per cents and sum to 100, unless there is
  nothing to reach at all. 0 % is exactly none and 100 % exactly all.
* Within a share every target is equal.
* If the chosen share has no usable target, another share with a weight above 0 serves ("spilled").
* A table is never changed; a newer generation replaces it as a whole.
* Who may go anywhere goes in turn: each turn has its point of the unit interval (`point_at`), and
  the share that the point falls into is the turn's. No chance is in it.
* With affinity a client has one of BUCKETS buckets, the same in every worker, and the middle of
  its bucket is its point of the unit interval. The candidate's share comes first, so that as its
  weight rises a client crosses to it once (promise 10).
"""

from hashlib import blake2b
from ipaddress import IPv6Address, ip_address

import msgspec

from trafficmgr.core.dns_policy import DnsPolicy
from trafficmgr.core.model import Affinity, Dial, Publish
from trafficmgr.core.noun import Noun
from trafficmgr.core.traffic import Front, HttpPolicy


class Target(Noun):
    """A group in a table: its id and how it is dialled."""

    group: str
    dial: Dial


class Share(Noun):
    """What one revision gets of the traffic, and the groups that carry it."""

    revision: str
    weight_pct: int
    targets: tuple[Target, ...]


class Table(Noun):
    """An endpoint's routing table; `generation` only grows.

    `is_least_bad` says that no target is ready and these are the least bad (promise 9).
    `preview` is what `preview.<host>` of each host reaches, alone and at full weight: the ready
    groups of the candidate, whatever weight it has (None: there are none). With an `affinity` a
    client's bucket, which `salt` goes into, takes the place of chance (promise 10).
    """

    endpoint: str
    generation: int
    hosts: tuple[str, ...]
    publish: Publish
    ttl_s: int
    shares: tuple[Share, ...] = ()
    is_least_bad: bool = False
    preview: Share | None = None
    affinity: Affinity = Affinity.none
    salt: str = ""
    http: HttpPolicy = HttpPolicy()

    def groups(self) -> frozenset[str]:
        """Return the ids of all groups that can be reached through this table."""
        shares = self.shares if self.preview is None else (*self.shares, self.preview)
        return frozenset(target.group for share in shares for target in share.targets)


BUCKETS = 1000
"""Buckets of clients: ten per cent point, so that every weight is a whole number of them."""

TURNS = 10_000
STRIDE = 6_181
"""After TURNS turns each point was there once, so every share has had exactly its weight.

STRIDE is TURNS by the golden section, made prime to it: successive points are then spread as evenly
as points can be (Knuth, TAOCP 6.4), so that at any time a share is within five requests of its
weight, and waits for at most twice its mean gap. It also keeps a weight true for every kind of
request in traffic that comes in a rhythm. Strict alternation would give all pages to one revision
and all images to the other, and the gates would compare pages with images.
"""

_KEY_BYTES = 64
_NETWORK_BYTES = 8

PREVIEW_PREFIX = "preview."
"""What stands before a host to reach the candidate only."""


class Zone(Noun):
    """A DNS zone that we are authoritative for. Names are lower case, without the last dot.

    `ns` are the name servers; those inside the zone are answered with the advertised addresses.
    """

    name: str
    ns: tuple[str, ...]
    mailbox: str = ""
    negative_ttl_s: int = 5
    ns_ttl_s: int = 300


class Zones(Noun):
    """What a worker must know beside tables: zones, the proxy's public addresses, policies."""

    generation: int
    zones: tuple[Zone, ...]
    advertise: tuple[str, ...]
    front: Front = Front()
    dns: DnsPolicy = DnsPolicy()


def check(table: Table) -> Table:
    """Return the table, or raise AssertionError if it breaks a rule of this page."""
    weights = [share.weight_pct for share in table.shares]
    assert all(weight >= 0 for weight in weights), table  # noqa: S101  an invariant, stays on
    assert not weights or sum(weights) == 100, table  # noqa: S101, PLR2004  per cent
    reachable = [target.group for share in table.shares for target in share.targets]
    assert len(reachable) == len(set(reachable)), table  # noqa: S101  an invariant, stays on
    return table


def pick(shares: tuple[Share, ...], point: float) -> int:
    """Return the index of the share that the point of the unit interval falls into.

    Args:
        shares: Weights that sum to 100.
        point: A number in [0, 1): of a turn, of a client's bucket, or random. As weights rise
            from left to right, it crosses from one share to its neighbour once and never flaps.

    Raises:
        LookupError: There is no share with a weight above 0.
    """
    mark = point * 100
    for index, share in enumerate(shares):
        mark -= share.weight_pct
        if mark < 0:
            return index
    raise LookupError("no share has a weight above 0")


def point_at(turn: int) -> float:
    """Return the point of the unit interval that a turn has, for `pick`."""
    return (turn * STRIDE % TURNS + 0.5) / TURNS


def client_of(address: str) -> bytes:
    """Return what a client is known by: its IPv4 address, or the /64 of its IPv6 address.

    Hosts change the lower half of their IPv6 address as they like (RFC 8981). What is no address
    is its own name.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return address.encode()
    if isinstance(found, IPv6Address):
        mapped = found.ipv4_mapped
        return found.packed[:_NETWORK_BYTES] if mapped is None else mapped.packed
    return found.packed


def bucket_of(client: bytes, salt: str) -> int:
    """Return a client's bucket, in [0, BUCKETS); each salt shuffles the clients anew.

    Args:
        client: What it is known by: its address, or the value of a cookie or a field.
        salt: Of the table. It ends with what tells rollouts apart, so its end is what counts.
    """
    digest = blake2b(client, digest_size=8, key=salt.encode()[-_KEY_BYTES:]).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def point_of(bucket: int) -> float:
    """Return the middle of a bucket in the unit interval, for `pick`."""
    return (bucket + 0.5) / BUCKETS


def encode(table: Table) -> bytes:
    """Return the bytes of a table file."""
    return msgspec.msgpack.encode(table)


def decode(data: bytes) -> Table:
    """Return the table in the bytes of a table file; raises msgspec.DecodeError on garbage."""
    return msgspec.msgpack.decode(data, type=Table)
