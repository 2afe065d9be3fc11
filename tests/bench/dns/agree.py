"""Whether all servers do the same work: the same kind of answer to the same queries.

Asked before anything is measured, because dnsperf takes every reply with the right id for one.
"""

import socket
from collections import Counter
from collections.abc import Sequence

from bench.dns import load, zone
from bench.dns.peers import Peer
from bench.dns.zone import Host
from bench.http.processes import BenchError
from dnslib import DNSRecord

_ASKED = 200
_DRAWN = 1_000
_NEAR_PCT = 5.0
"""How far from its weight the candidate may be in _DRAWN draws: five standard deviations."""

Kind = tuple[int, int, tuple[int, ...], tuple[int, ...], bool]
"""Code, authoritative, types of answers, types of authorities, whether there is an OPT."""


def check(peers: Sequence[Peer], queries: Sequence[bytes]) -> None:
    """Ask all servers some of the queries.

    Raises:
        BenchError: One of them answers differently, or not at all.
    """
    for asked in queries[:: max(len(queries) // _ASKED, 1)]:
        kinds = {peer.name: _kind(_ask(peer, asked)) for peer in peers}
        if len(set(kinds.values())) > 1:
            raise BenchError(f"{DNSRecord.parse(asked).q} is answered differently: {kinds}")


def check_weights(peer: Peer, host: Host) -> None:
    """Draw a name's addresses many times.

    Raises:
        BenchError: The candidate's share is not what it should be, or an address is not the name's.
    """
    asked = load.query(host.name, load.A)
    drawn: Counter[str] = Counter()
    for _ in range(_DRAWN):
        drawn.update(str(record.rdata) for record in _ask(peer, asked).rr)
    share_pct = 100 * drawn[host.v4[-1]] / _DRAWN
    if set(drawn) != set(host.v4) or abs(share_pct - zone.CANDIDATE_PCT) > _NEAR_PCT:
        raise BenchError(f"{peer.name} draws {dict(drawn)}")


def _ask(peer: Peer, asked: bytes) -> DNSRecord:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(load.TIMEOUT_S)
        sock.sendto(asked, ("127.0.0.1", peer.port))
        try:
            return DNSRecord.parse(sock.recv(4096))
        except OSError as error:
            raise BenchError(f"{peer.name} does not answer {asked!r}: {error}") from error


def _kind(reply: DNSRecord) -> Kind:
    return (
        int(reply.header.rcode),
        int(reply.header.aa),
        tuple(sorted(int(record.rtype) for record in reply.rr)),
        tuple(sorted(int(record.rtype) for record in reply.auth)),
        any(record.rtype == load.OPT for record in reply.ar),
    )
