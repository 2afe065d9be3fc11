"""Scenarios with a question of their own: many names, tables that change, two workers."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.dns import load, ours, peers, zone
from bench.dns.load import Sample
from bench.dns.peers import Peer
from bench.dns.scenarios import (
    HEAD,
    HEAD_END,
    WARM_UP_S,
    Results,
    cpu_us,
    per_s,
    reached,
    row,
    take_turns,
)
from bench.http.processes import BenchError, wait_until
from bench.http.report import say, table

MANY = 10_000
MANY_MB = 100.0
MANY_SLOWER_PCT = 10.0
_FIRST_S = 15
"""At most, for the first 20,000 queries: what is found once is found faster from then on."""

CHANGES_PER_S = 50
_CANDIDATE_PCTS = (10, 25, 50, 75)

TWO_OVER_ONE = 1.6
_CORES_NEEDED = 4
"""Two for the workers and two for dnsperf, of which one thread sends and another receives."""


# -- many names -----------------------------------------------------------------------------------


def names(wanted: Sequence[str], work: Path, *, runs: int, seconds: int) -> None:
    """Print what 10,000 names cost over one: memory, and time per query."""
    servers = [name for name in wanted if name not in peers.DNSLIB]  # a dict is no news
    loads = {count: _names_load(count, work) for count in (1, MANY)}
    with ExitStack() as stack:
        turns = {
            _label(name, count): (
                stack.enter_context(peers.start(name, work, zone.hosts(count))),
                loads[count],
            )
            for name in servers
            for count in loads
        }
        fresh_mb = _memory_mb(turns)
        first = {
            label: load.run(peer, file, seconds=_FIRST_S, is_once=True)
            for label, (peer, file) in turns.items()
        }
        results = take_turns(turns, runs=runs, seconds=seconds)
        memory_mb = _memory_mb(turns)
    rows = [
        [*row(label, samples), f"{fresh_mb[label]:.1f}", f"{memory_mb[label]:.1f}"]
        for label, samples in results.items()
    ]
    say(f"\n### {MANY:,} weighted names with addresses of their own, beside one (memory: Pss)\n")
    say(table(["server", *HEAD, *HEAD_END, "MB before", "MB after"], rows))
    for name in servers:
        sample = first[_label(name, MANY)]
        say(
            f"\n{name} was asked for its {MANY:,} names for the first time at "
            f"{sample.per_s:,.0f} queries/s, {sample.cpu_us:.1f} µs CPU each; longest delay "
            f"{sample.longest_ms:.0f} ms."
        )
        _show_names(name, results, memory_mb)


def _names_load(count: int, work: Path) -> Path:
    return load.write(load.plain(zone.hosts(count)), work / f"queries-{count}")


def _memory_mb(turns: Mapping[str, tuple[Peer, Path]]) -> dict[str, float]:
    return {label: peer.memory_bytes() / 1e6 for label, (peer, _) in turns.items()}


def _label(name: str, count: int) -> str:
    return f"{name}, {count:,} name{'s' if count > 1 else ''}"


def _show_names(name: str, results: Results, memory_mb: dict[str, float]) -> None:
    few, many = _label(name, 1), _label(name, MANY)
    more_mb = memory_mb[many] - memory_mb[few]
    slower_pct = 100 * (1 - per_s(results[many]) / per_s(results[few]))
    dearer_pct = 100 * (cpu_us(results[many]) / cpu_us(results[few]) - 1)
    if name != "trafficmgr":
        say(
            f"\n{name}'s {MANY:,} names: {more_mb:.1f} MB more, {slower_pct:.1f} % fewer queries "
            f"per second, {dearer_pct:.1f} % more CPU per query."
        )
        return
    reached(
        f"Our {MANY:,} names over one, memory",
        f"{more_mb:.1f} MB",
        f"below {MANY_MB:.0f} MB",
        is_reached=more_mb < MANY_MB,
    )
    reached(
        f"Our {MANY:,} names over one, slow-down",
        f"{slower_pct:.1f} % fewer queries per second, {dearer_pct:.1f} % more CPU per query",
        f"{MANY_SLOWER_PCT:.0f} % at most",
        is_reached=max(slower_pct, dearer_pct) <= MANY_SLOWER_PCT,
    )


# -- tables that change ---------------------------------------------------------------------------


def change(work: Path, *, runs: int, seconds: int) -> None:
    """Print whether queries are lost while a new table arrives 50 times a second."""
    hosts = zone.hosts(1)
    file = load.write(load.plain(hosts), work / "queries")
    quiet: list[Sample] = []
    changing: list[Sample] = []
    with peers.ours_running(work, hosts) as peer:
        load.run(peer, file, seconds=WARM_UP_S)
        sender = _Changes(peer)
        for _ in range(runs):
            quiet.append(load.run(peer, file, seconds=seconds))
            changing.append(sender.run(file, seconds=seconds))
        sender.wait_for_the_last()
    lost = sum(sample.lost for sample in changing)
    sent = sum(sample.sent for sample in changing)
    say(f"\n### One weighted name, {CHANGES_PER_S} new tables per second under full load\n")
    rows = [row("no new table", quiet), row(f"{sender.sent:,} new tables", changing)]
    say(table(["trafficmgr", *HEAD, *HEAD_END], rows))
    reached(
        f"Queries lost of {sent:,}, with {sender.sent:,} tables sent and all acknowledged",
        str(lost),
        "0",
        is_reached=lost == 0,
    )


class _Changes:
    """Sends one table after the other while dnsperf runs; `sent` counts them."""

    def __init__(self, peer: Peer) -> None:
        if peer.controller is None:
            raise BenchError(f"{peer.name} has no controller")
        self.sent = 0
        self._peer = peer
        self._controller = peer.controller
        self._host = zone.hosts(1)[0]

    def run(self, file: Path, *, seconds: int) -> Sample:
        before = self._peer.cpu_s()
        with load.dnsperf(self._peer, file, seconds=seconds) as process:
            due = time.monotonic()
            while process.poll() is None:
                self._send()
                due += 1 / CHANGES_PER_S
                time.sleep(max(due - time.monotonic(), 0.0))
            return load.finish(process, self._peer, before, seconds=seconds)

    def wait_for_the_last(self) -> None:
        """Wait until all are acknowledged.

        Raises:
            BenchError: They are not.
        """
        wait_until(lambda: self._controller.applied == self.sent, f"{self.sent} tables")

    def _send(self) -> None:
        self.sent += 1
        weight_pct = _CANDIDATE_PCTS[self.sent % len(_CANDIDATE_PCTS)]
        self._controller.send(ours.table(self._host, 1 + self.sent, weight_pct))


# -- two workers ----------------------------------------------------------------------------------


def workers(work: Path, *, runs: int, seconds: int) -> None:
    """Print what a second worker on the same port is worth."""
    hosts = zone.hosts(1)
    file = load.write(load.plain(hosts), work / "queries")
    with (
        peers.ours_running(work, hosts) as one,
        peers.ours_running(work, hosts, slots=2) as two,
    ):
        turns = {"one worker": (one, file), "two workers": (two, file)}
        results = take_turns(turns, runs=runs, seconds=seconds)
    say("\n### One weighted name, two workers that share a port\n")
    say(table(["trafficmgr", *HEAD, *HEAD_END], [row(*each) for each in results.items()]))
    factor = per_s(results["two workers"]) / per_s(results["one worker"])
    what = "Queries per second of two workers over one"
    cores = len(os.sched_getaffinity(0))
    if cores >= _CORES_NEEDED:
        is_reached = factor >= TWO_OVER_ONE
        reached(what, f"{factor:.2f}", f"at least {TWO_OVER_ONE}", is_reached=is_reached)
        return
    say(
        f"\n{what}: {factor:.2f}; asked: at least {TWO_OVER_ONE} where both have a core to "
        f"themselves. There are {cores} cores here and dnsperf needs one or two itself, so this "
        "machine can't tell: the figure is bound by that."
    )
