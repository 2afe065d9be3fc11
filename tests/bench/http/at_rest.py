"""Scenarios without full load: memory at rest, delays at a constant rate, tables that change."""

import select
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from bench.http import load, ours, peers, steady
from bench.http.peers import Peer
from bench.http.processes import BenchError, cpu_s, memory_bytes
from bench.http.report import say, table

from trafficmgr.core.routing import Table
from trafficmgr.wire import frames

IDLE = 5000
ENDPOINTS = 1000
TARGETS = 10
PROBES_PER_S = 1000.0
_SETTLE_S = 1.5
"""Nothing tells when memory has settled: a sweep comes each second, and one must have passed."""
_APPLY_S = 60.0


# -- idle connections -----------------------------------------------------------------------------


def idle(names: list[str], work: Path) -> None:
    """Print what proxies need at rest, and for each connection that had a request and is idle."""
    rows = []
    with peers.origin(work, is_upload=False) as port:
        for name in names:
            with peers.start(name, work, port) as peer:
                time.sleep(_SETTLE_S)
                resident, share = memory_bytes(peer.pid)
                with _idle_connections(peer, IDLE):
                    time.sleep(_SETTLE_S)
                    grown = memory_bytes(peer.pid)[1] - share
            rows.append(
                [name, f"{resident / 1e6:.1f}", f"{share / 1e6:.1f}", f"{grown / IDLE / 1e3:.1f}"]
            )
    say(f"\n### {IDLE:,} idle connections, each after one request\n")
    say(table(["proxy", "at rest, MB resident", "MB proportional", "KB per connection"], rows))
    say("\nAsked of ours: below 60 MB at rest, below 15 KB per connection.")


@contextmanager
def _idle_connections(peer: Peer, count: int) -> Iterator[None]:
    request = load.same()[0]
    with ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", peer.http)))
            sock.settimeout(10.0)
            sock.sendall(request)
            data = b""
            while not data.endswith(steady.END):
                data = sock.recv(65536)
                if not data:
                    raise BenchError(f"{peer.name} closed a connection")
        yield


# -- a constant rate ------------------------------------------------------------------------------


def at_half_rate(names: list[str], work: Path, *, runs: int, seconds: int) -> None:
    """Print delays at half of our own rate under full load."""
    requests = load.varying()
    file = work / "requests"
    load.write_requests(requests, file)
    with peers.origin(work, is_upload=False) as port, ExitStack() as stack:
        running = {n: stack.enter_context(peers.start(n, work, port)) for n in names}
        rates = [
            load.run(running["trafficmgr"], file, connections=64, seconds=seconds).per_s
            for _ in range(3)
        ]
        per_s = statistics.median(rates) / 2
        found: dict[str, list[list[float]]] = {name: [] for name in names}
        for _ in range(runs):
            for name, peer in running.items():
                found[name].append(_delays(peer, requests, per_s, seconds))
    rows = [
        [name, *(f"{statistics.median(column):.2f}" for column in zip(*samples, strict=True))]
        for name, samples in found.items()
    ]
    say(f"\n### {per_s:,.0f} requests/s, half of what ours can do, over 64 connections\n")
    say(table(["proxy", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs/request"], rows))
    if "nginx" in found:
        worst = {n: statistics.median(s[1] for s in found[n]) for n in ("trafficmgr", "nginx")}
        over = worst["trafficmgr"] / worst["nginx"]
        say(f"\nOur p99 over nginx's: {over:.2f}; asked: 2.00 at most.")


def _delays(peer: Peer, requests: list[bytes], per_s: float, seconds: int) -> list[float]:
    before = sum(cpu_s(peer.pid))
    delays = steady.run(peer.http, requests, per_s=per_s, seconds=seconds)
    cost = (sum(cpu_s(peer.pid)) - before) * 1e6 / len(delays.delays_s)
    return [*(delays.percentile_ms(share) for share in (50, 99, 99.9)), cost]


# -- tables that change ---------------------------------------------------------------------------


def tables(work: Path, *, runs: int) -> None:
    """Print how long it takes to apply new tables of all endpoints, and whom it delays."""
    rows = []
    with peers.origin(work, is_upload=False) as port, ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(1))
        first = [_table(number, port, 1) for number in range(ENDPOINTS)]
        first.append(ours.table(ours.HOST, [port]))
        listener = stack.enter_context(_link(work))
        peer = stack.enter_context(peers.ours_running(work, port, first))
        worker, _ = listener.accept()
        stack.enter_context(worker)
        reader = _Acks(worker)
        reader.wait_for(len(first), 1, _APPLY_S)
        for generation in range(2, runs + 2):
            reader.drop_until(time.monotonic() + _SETTLE_S)
            rows.append(_apply(pool, peer, reader, port, generation))
    head = ["run", "applied in ms", "CPU ms", "longest delay ms", "before it ms"]
    say(f"\n### New tables for {ENDPOINTS:,} endpoints x {TARGETS} targets\n")
    say(table(head, [[str(n), *row] for n, row in enumerate(rows, 1)]))
    say("\nAsked: below 100 ms in all; no request delayed by more than 10 ms.")


def _table(number: int, port: int, generation: int) -> Table:
    return ours.table(f"endpoint-{number}.test", [port] * TARGETS, generation)


@contextmanager
def _link(work: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(ours.link_path(work)))
        listener.listen()
        listener.settimeout(15.0)
        yield listener
    ours.link_path(work).unlink()


def _apply(
    pool: ProcessPoolExecutor, peer: Peer, reader: "_Acks", port: int, generation: int
) -> list[str]:
    """Send all tables at once in the middle of a quiet second of probes."""
    sent = b"".join(
        frames.encode(frames.TableSent(table=_table(number, port, generation)))
        for number in range(ENDPOINTS)
    )
    probes = pool.submit(
        steady.run, peer.http, load.varying(), per_s=PROBES_PER_S, seconds=3.0, connections=16
    )
    reader.drop_until(time.monotonic() + 1.0)
    before = sum(cpu_s(peer.pid))
    began = time.monotonic()
    reader.send(sent)
    ended = reader.wait_for(ENDPOINTS, generation, _APPLY_S)
    cpu = sum(cpu_s(peer.pid)) - before
    delays = probes.result(_APPLY_S)
    return [
        f"{(ended - began) * 1e3:.0f}",
        f"{cpu * 1e3:.0f}",
        f"{delays.longest_ms(began, ended):.1f}",
        f"{delays.longest_ms(0.0, began - 0.01):.1f}",
    ]


class _Acks:
    """Reads a worker's frames and counts acknowledgements without decoding the rest."""

    def __init__(self, worker: socket.socket) -> None:
        self._worker = worker
        self._rest = bytearray()
        self._generations: dict[str, int] = {}
        worker.setblocking(False)

    def send(self, data: bytes) -> None:
        """Write everything, and read meanwhile: the worker answers while it reads."""
        view = memoryview(data)
        while view:
            _, writable, _ = select.select([], [self._worker], [], 0.0)
            if writable:
                view = view[self._worker.send(view) :]
            self._read(0.001)

    def wait_for(self, count: int, generation: int, deadline_s: float) -> float:
        """Return when so many endpoints had acknowledged a generation."""
        give_up_at = time.monotonic() + deadline_s
        while (found := sum(g >= generation for g in self._generations.values())) < count:
            if time.monotonic() > give_up_at:
                raise BenchError(f"{found} of {count} tables applied in {deadline_s} s")
            self._read(0.01)
        return time.monotonic()

    def drop_until(self, moment: float) -> None:
        while time.monotonic() < moment:
            self._read(0.01)

    def _read(self, timeout_s: float) -> None:
        if not select.select([self._worker], [], [], timeout_s)[0]:
            return
        self._rest += self._worker.recv(1 << 20)
        at = 0
        while at + _LENGTH.size <= len(self._rest):
            (size,) = _LENGTH.unpack_from(self._rest, at)
            if at + _LENGTH.size + size > len(self._rest):
                break
            at += _LENGTH.size
            if b"applied" in self._rest[at : at + 40]:
                said = msgspec.msgpack.decode(self._rest[at : at + size], type=frames.Applied)
                self._generations[said.endpoint] = said.generation
            at += size
        del self._rest[:at]


_LENGTH = struct.Struct(">I")
