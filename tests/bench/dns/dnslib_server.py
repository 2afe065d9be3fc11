"""A weighted server as one writes it with dnslib.

    python -m bench.dns.dnslib_server PORT HOSTS [single]

HOSTS is a file of JSON: name -> [IPv4 addresses, IPv6 addresses]. dnslib starts a thread for each
query; with `single` it answers in the thread that reads, which makes it four times as fast.
"""

import json
import random
import socketserver
import sys
from pathlib import Path

from bench.dns import zone
from dnslib import AAAA, EDNS0, NS, QTYPE, RCODE, RR, SOA, A, DNSRecord
from dnslib.server import DNSHandler, DNSLogger, DNSServer

_Addresses = list[A] | list[AAAA]


class Resolver:
    """Picks one address at random, by weight."""

    def __init__(self, hosts: dict[str, tuple[list[str], list[str]]]) -> None:
        self._hosts: dict[str, dict[int, _Addresses]] = {
            name: {QTYPE.A: [A(text) for text in v4], QTYPE.AAAA: [AAAA(text) for text in v6]}
            for name, (v4, v6) in hosts.items()
        }
        self._hosts[zone.APEX] = {}
        times = (1, 3600, 600, 86400, zone.NEGATIVE_TTL_S)
        self._soa = SOA(zone.SERVER, f"hostmaster.{zone.APEX}", times)

    def resolve(self, request: DNSRecord, _handler: DNSHandler) -> DNSRecord:
        """Return the reply to a query."""
        reply = request.reply(ra=0)
        asked, qtype = request.q.qname, request.q.qtype
        name = str(asked).rstrip(".").lower()
        found = self._hosts.get(name)
        addresses = found.get(qtype) if found else None
        if addresses:
            chosen = random.choices(addresses, zone.WEIGHTS)[0]  # noqa: S311  shares, not secrets
            reply.add_answer(RR(asked, qtype, rdata=chosen, ttl=zone.TTL_S))
        elif name == zone.APEX and qtype == QTYPE.SOA:
            reply.add_answer(self._authority())
        elif name == zone.APEX and qtype == QTYPE.NS:
            reply.add_answer(RR(zone.APEX, QTYPE.NS, rdata=NS(zone.SERVER), ttl=300))
        else:
            reply.header.rcode = RCODE.NXDOMAIN if found is None else RCODE.NOERROR
            reply.add_auth(self._authority())
        if any(record.rtype == QTYPE.OPT for record in request.ar):
            reply.add_ar(EDNS0(udp_len=1232))
        return reply

    def _authority(self) -> RR:
        return RR(zone.APEX, QTYPE.SOA, rdata=self._soa, ttl=zone.NEGATIVE_TTL_S)


class _Single(socketserver.UDPServer):
    """dnslib's own without its threads."""

    allow_reuse_address = True


def main(port: int, hosts: Path, *, is_single: bool) -> None:
    """Serve until a signal ends the process."""
    resolver = Resolver(json.loads(hosts.read_bytes()))
    logger = DNSLogger(log="-request,-reply,-truncated,-error")
    options = {"address": "127.0.0.1", "port": port, "logger": logger}
    server = DNSServer(resolver, server=_Single if is_single else None, **options)
    DNSServer(resolver, tcp=True, **options).start_thread()  # who waits for the port asks it
    server.start()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), is_single="single" in sys.argv[3:])
