"""Scenarios under full load: all servers side by side, runs taking turns, medians in a table."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.dns import agree, load, peers, zone
from bench.dns.load import Sample
from bench.dns.peers import Peer
from bench.dns.zone import Host
from bench.http.report import say, table

WARM_UP_S = 1
RATE_OF_GDNSD = 0.75
CPU_OF_GDNSD = 1.5
RATE_OF_DNSLIB = 12.0
_RATES_ASKED = [("gdnsd", RATE_OF_GDNSD), *((name, RATE_OF_DNSLIB) for name in peers.DNSLIB)]
HEAD = ["queries/s", "lowest to highest", "CPU µs/query", "user", "system"]
HEAD_END = ["answered %", "mean ms", "longest ms"]


@dataclass(frozen=True)
class Scenario:
    """What is asked, of which names.

    `is_rate_asked`: whether queries per second are held against gdnsd's and dnslib's; CPU per query
    always is. `is_for_all`: dnslib can serve it too.
    """

    title: str
    hosts: list[Host]
    queries: Callable[[Sequence[Host]], list[bytes]]
    is_tcp: bool = False
    is_rate_asked: bool = True
    is_for_all: bool = True


def known() -> dict[str, Scenario]:
    """Return the scenarios by name."""
    one = zone.hosts(1)
    return {
        "weighted": Scenario("One weighted name, A", one, load.plain),
        "mixed": Scenario(
            "1,000 names; A, AAAA, no such name, no such type, SOA; mixed case, EDNS or not",
            zone.hosts(1000, is_dual=True),
            load.mixed,
            is_rate_asked=False,
        ),
        # dnslib closes a connection after one query, which is another scenario.
        "tcp": Scenario(
            f"One weighted name over {load.CLIENTS} TCP connections",
            one,
            load.plain,
            is_tcp=True,
            is_rate_asked=False,
            is_for_all=False,
        ),
    }


Results = dict[str, list[Sample]]
"""Server -> its runs."""


def measure(
    scenario: Scenario, names: Sequence[str], work: Path, *, runs: int, seconds: int
) -> Results:
    """Run a scenario."""
    queries = scenario.queries(scenario.hosts)
    file = load.write(queries, work / "queries")
    wanted = [name for name in names if scenario.is_for_all or name not in peers.DNSLIB]
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(peers.start(name, work, scenario.hosts)) for name in wanted
        }
        agree.check(list(running.values()), queries)
        for peer in running.values():
            agree.check_weights(peer, scenario.hosts[0])
        turns = {name: (peer, file) for name, peer in running.items()}
        return take_turns(turns, runs=runs, seconds=seconds, is_tcp=scenario.is_tcp)


def take_turns(
    turns: Mapping[str, tuple[Peer, Path]], *, runs: int, seconds: int, is_tcp: bool = False
) -> Results:
    """Load each server with its queries, one after the other; a first run does not count."""
    results: Results = {name: [] for name in turns}
    for seconds_now in [WARM_UP_S] + [seconds] * runs:
        for name, (peer, file) in turns.items():
            results[name].append(load.run(peer, file, seconds=seconds_now, is_tcp=is_tcp))
    return {name: samples[1:] for name, samples in results.items()}


def median(samples: Sequence[Sample], value: Callable[[Sample], float]) -> float:
    return statistics.median(map(value, samples))


def per_s(samples: Sequence[Sample]) -> float:
    return median(samples, lambda sample: sample.per_s)


def cpu_us(samples: Sequence[Sample]) -> float:
    return median(samples, lambda sample: sample.cpu_us)


def row(name: str, samples: Sequence[Sample]) -> list[str]:
    """Return what HEAD and HEAD_END say."""
    rates = [sample.per_s for sample in samples]
    sent = sum(sample.sent for sample in samples)
    return [
        name,
        f"{per_s(samples):,.0f}",
        f"{min(rates):,.0f} to {max(rates):,.0f}",
        f"{cpu_us(samples):.2f}",
        f"{median(samples, lambda s: s.user_us):.2f}",
        f"{median(samples, lambda s: s.system_us):.2f}",
        f"{100 * sum(sample.answered for sample in samples) / sent:.3f}",
        f"{median(samples, lambda s: s.mean_ms):.2f}",
        f"{max(sample.longest_ms for sample in samples):.1f}",
    ]


def reached(what: str, found: str, asked: str, *, is_reached: bool) -> None:
    """Print how a figure stands to what is asked."""
    say(f"\n{what}: {found}; asked: {asked}: {'reached' if is_reached else 'NOT reached'}.")


def show(scenario: Scenario, results: Results) -> None:
    """Print the table of a scenario and how it stands to what is asked."""
    say(f"\n### {scenario.title}\n")
    say(table(["server", *HEAD, *HEAD_END], [row(*each) for each in results.items()]))
    if any(sample.lost for samples in results.values() for sample in samples):
        say("\nQueries were lost; a run waits for them, so that its rate says little.")
    if "trafficmgr" not in results:
        return
    ours = results["trafficmgr"]
    for name, factor in _RATES_ASKED:
        if name in results:
            _show_rate(name, per_s(ours) / per_s(results[name]), factor, scenario)
    if "gdnsd" in results:
        ratio = cpu_us(ours) / cpu_us(results["gdnsd"])
        reached(
            "Our CPU per query over gdnsd's",
            f"{ratio:.2f}",
            f"{CPU_OF_GDNSD} at most",
            is_reached=ratio <= CPU_OF_GDNSD,
        )


def _show_rate(name: str, ratio: float, factor: float, scenario: Scenario) -> None:
    what = f"Our queries per second over {name}'s"
    if scenario.is_rate_asked:
        reached(what, f"{ratio:.2f}", f"at least {factor}", is_reached=ratio >= factor)
    else:
        say(f"\n{what}: {ratio:.2f}.")
