"""Load: the queries that are sent, and dnsperf that sends them.

Queries go to dnsperf as they are on the wire (`-B`), because a line of text can't say how a name is
spelt or whether one query has EDNS and the next has not.
"""

import random
import re
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.dns import zone
from bench.dns.peers import Peer
from bench.dns.zone import Host
from bench.http.processes import BenchError

OUTSTANDING = 160
"""Enough that no server waits for dnsperf: from 64 to 1,000, CPU per query hardly depends on it.
Few enough that a receive buffer of the usual size holds them all: it takes some 190."""

CLIENTS = 16
QUERIES = 20_000
TIMEOUT_S = 2
_GRACE_S = 20.0

A, SOA, TXT, AAAA, HTTPS, OPT = 1, 6, 16, 28, 65, 41
NO_EDNS = b""


def edns(*, is_dnssec: bool) -> bytes:
    """Return an OPT record as resolvers send it."""
    return b"\0" + struct.pack(">HHIH", OPT, 1232, 0x8000 if is_dnssec else 0, 0)


def query(name: str, qtype: int, opt: bytes = NO_EDNS) -> bytes:
    """Return a query without recursion; its id is 0, dnsperf puts one in."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    header = struct.pack(">6H", 0, 0, 1, 0, 0, 1 if opt else 0)
    return header + labels + b"\0" + struct.pack(">HH", qtype, 1) + opt


def plain(hosts: Sequence[Host]) -> list[bytes]:
    """Return A queries for all names, in no order; many, so that dnsperf rarely has to rewind."""
    rand = random.Random(6)  # noqa: S311  the same queries for everybody, every time
    asked = [hosts[number % len(hosts)].name for number in range(QUERIES)]
    rand.shuffle(asked)
    return [query(name, A) for name in asked]


def mixed(hosts: Sequence[Host]) -> list[bytes]:
    """Return what resolvers ask an authoritative server for.

    Half of them A; AAAA, which half of the names have; HTTPS and TXT, which none has; the SOA; a
    tenth for names that don't exist, each another. Two thirds have EDNS, a third of the names are
    spelt in mixed case.
    """
    rand = random.Random(6)  # noqa: S311  as above
    kinds = [A] * 50 + [AAAA] * 25 + [HTTPS] * 6 + [TXT] * 4 + [SOA] * 5 + [0] * 10
    opts = [NO_EDNS, edns(is_dnssec=False), edns(is_dnssec=True)]
    queries = []
    for _ in range(QUERIES):
        kind = rand.choice(kinds)
        name = rand.choice(hosts).name
        if kind == SOA:
            name = zone.APEX
        elif kind == 0:
            name = f"no-{rand.randrange(16**8):08x}.{zone.APEX}"
        if rand.randrange(3) == 0:
            name = "".join(rand.choice((c.lower(), c.upper())) for c in name)
        queries.append(query(name, kind or A, rand.choice(opts)))
    return queries


def write(queries: Sequence[bytes], file: Path) -> Path:
    file.write_bytes(b"".join(struct.pack(">H", len(each)) + each for each in queries))
    return file


@dataclass
class Sample:
    """One run: what was sent and answered, and what that cost the server."""

    sent: int
    answered: int
    lost: int
    per_s: float
    mean_ms: float
    longest_ms: float
    user_us: float
    system_us: float

    @property
    def cpu_us(self) -> float:
        return self.user_us + self.system_us

    @property
    def answered_pct(self) -> float:
        return 100 * self.answered / self.sent


@contextmanager
def dnsperf(
    peer: Peer, queries: Path, *, seconds: int, is_tcp: bool = False, is_once: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Run dnsperf for so many seconds; it is gone afterwards, whatever happens."""
    command = [
        *("dnsperf", "-B", "-d", str(queries), "-s", "127.0.0.1", "-p", str(peer.port)),
        *("-m", "tcp" if is_tcp else "udp", "-l", str(seconds), "-t", str(TIMEOUT_S), "-W"),
        *("-q", str(OUTSTANDING), "-c", str(CLIENTS), "-T", "1", "-O", "suppress=timeouts"),
        *(("-n", "1") if is_once else ()),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(
    peer: Peer, queries: Path, *, seconds: int, is_tcp: bool = False, is_once: bool = False
) -> Sample:
    """Load a server with as much as it takes.

    Args:
        peer: The server.
        queries: The file of them.
        seconds: When to end.
        is_tcp: Over connections, one for each of CLIENTS.
        is_once: End earlier if each query was sent once.

    Raises:
        BenchError: dnsperf failed, or no query was answered.
    """
    before = peer.cpu_s()
    with dnsperf(peer, queries, seconds=seconds, is_tcp=is_tcp, is_once=is_once) as process:
        return finish(process, peer, before, seconds=seconds)


def finish(
    process: subprocess.Popen[str], peer: Peer, before: tuple[float, float], *, seconds: int
) -> Sample:
    """Wait for dnsperf to end, and return what it found.

    Raises:
        BenchError: It failed, or no query was answered.
    """
    said, _ = process.communicate(timeout=seconds + _GRACE_S)
    after = peer.cpu_s()
    if process.returncode:
        raise BenchError(f"dnsperf on {peer.name}: {said[-2000:]}")
    return sample(said, after[0] - before[0], after[1] - before[1])


def sample(said: str, user_s: float, system_s: float) -> Sample:
    """Read dnsperf's report.

    Raises:
        BenchError: It is none, or nothing was answered.
    """
    answered = int(_number(said, r"Queries completed: +(\d+)"))
    if not answered:
        raise BenchError(f"no query was answered: {said[-2000:]}")
    return Sample(
        sent=int(_number(said, r"Queries sent: +(\d+)")),
        answered=answered,
        lost=int(_number(said, r"Queries lost: +(\d+)")),
        per_s=_number(said, r"Queries per second: +([\d.]+)"),
        mean_ms=_number(said, r"Average Latency \(s\): +([\d.]+)") * 1e3,
        longest_ms=_number(said, r"Average Latency .* max ([\d.]+)\)") * 1e3,
        user_us=user_s * 1e6 / answered,
        system_us=system_s * 1e6 / answered,
    )


def _number(said: str, pattern: str) -> float:
    found = re.search(pattern, said)
    if found is None:
        raise BenchError(f"dnsperf said nothing like {pattern!r}: {said[-2000:]}")
    return float(found[1])
