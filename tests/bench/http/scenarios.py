"""Scenarios under full load: all proxies side by side, runs taking turns, medians in a table."""

import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.http import load, peers
from bench.http.load import Sample
from bench.http.processes import BenchError
from bench.http.report import say, table

WARM_UP_S = 1


@dataclass(frozen=True)
class Scenario:
    """What is sent, over how many connections, and what ours may cost at most.

    `limit` is CPU per request over that of the better of nginx and HAProxy; None is no demand.
    """

    title: str
    requests: Callable[[], list[bytes]]
    connections: int = 64
    is_tls: bool = False
    is_upload: bool = False
    limit: float | None = 1.5


SCENARIOS = {
    "varying": Scenario(
        "64 keep-alive connections, small GETs; path, Referer and Cookie vary",
        load.varying,
        limit=1.4,
    ),
    "same": Scenario("64 keep-alive connections, small GETs, the same bytes", load.same),
    "thousand": Scenario("1,000 keep-alive connections, varying GETs", load.varying, 1000),
    "large": Scenario("64 keep-alive connections, answers of 64 KiB", load.large_answers),
    "upload": Scenario(
        "16 keep-alive connections, chunked uploads of 1 MiB", load.uploads, 16, is_upload=True
    ),
    "new": Scenario("64 at a time, a new connection per request", load.new_connections, limit=2.5),
    "tls": Scenario(
        "64 keep-alive TLS connections, varying GETs", load.varying, is_tls=True, limit=None
    ),
}

Results = dict[str, list[Sample]]
"""Proxy -> its runs."""


def measure(
    scenario: Scenario, names: list[str], work: Path, *, runs: int, seconds: int
) -> Results:
    """Run a scenario; a proxy that can't serve it is told and left out."""
    requests = work / "requests"
    load.write_requests(scenario.requests(), requests)
    results: Results = {name: [] for name in names}
    with ExitStack() as stack:
        port = stack.enter_context(peers.origin(work, is_upload=scenario.is_upload))
        running = {name: stack.enter_context(peers.start(name, work, port)) for name in names}

        def once(name: str, seconds: int) -> Sample:
            return load.run(
                running[name],
                requests,
                connections=scenario.connections,
                seconds=seconds,
                is_tls=scenario.is_tls,
            )

        for name in names:
            try:
                once(name, WARM_UP_S)
            except BenchError as error:
                say(f"{name}: left out: {str(error).strip().splitlines()[-1]}")
                del results[name]
        for _ in range(runs):
            for name, samples in results.items():
                samples.append(once(name, seconds))
    return results


def median(samples: list[Sample], value: Callable[[Sample], float]) -> float:
    return statistics.median(map(value, samples))


def cpu_us(samples: list[Sample]) -> float:
    return median(samples, lambda sample: sample.cpu_us)


def ratio(results: Mapping[str, list[Sample]], *rivals: str) -> float | None:
    """Return our CPU per request over the best rival's; None if there is no such pair."""
    costs = [cpu_us(results[name]) for name in rivals if name in results]
    if "trafficmgr" not in results or not costs:
        return None
    return cpu_us(results["trafficmgr"]) / min(costs)


def show(scenario: Scenario, results: Results) -> None:
    """Print the table of a scenario and how it stands to what is asked."""
    rows = [_row(name, samples) for name, samples in results.items()]
    head = ["proxy", "CPU µs/request", "lowest to highest", "user", "system"]
    say(f"\n### {scenario.title}\n")
    say(table([*head, "requests/s", "p50 ms", "p99 ms", "errors"], rows))
    if any(sample.errors for samples in results.values() for sample in samples):
        say("\nThere were errors: figures of that proxy are not worth comparing.")
    for rivals, limit in ((("nginx", "haproxy"), scenario.limit), (("caddy",), 1 / 3)):
        found = ratio(results, *rivals)
        if found is None:
            continue
        asked = ""
        if limit is not None:
            asked = (
                f"; asked: {limit:.2f} at most: {'reached' if found <= limit else 'NOT reached'}"
            )
        name = "the better of nginx and HAProxy" if len(rivals) > 1 else "Caddy"
        say(f"\nOurs over {name}: {found:.2f}{asked}.")


def _row(name: str, samples: list[Sample]) -> list[str]:
    costs = [sample.cpu_us for sample in samples]
    return [
        name,
        f"{cpu_us(samples):.1f}",
        f"{min(costs):.1f} to {max(costs):.1f}",
        f"{median(samples, lambda s: s.user_us):.1f}",
        f"{median(samples, lambda s: s.system_us):.1f}",
        f"{median(samples, lambda s: s.per_s):,.0f}",
        f"{median(samples, lambda s: s.p50_ms):.2f}",
        f"{median(samples, lambda s: s.p99_ms):.2f}",
        str(sum(sample.errors for sample in samples)),
    ]
