"""The bench of the HTTP data plane, as a command; tests/bench/README.md says what it measures."""

import argparse
import os
import platform
import tempfile
from pathlib import Path

from bench.http import at_rest, hot, peers, scenarios
from bench.http.report import say

AT_REST = ["idle", "half", "tables"]
ALL = [*scenarios.SCENARIOS, *AT_REST]
QUICK = ["trafficmgr", "nginx", "haproxy", "caddy"]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/http/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two minutes in all")
    parser.add_argument("--profile", action="store_true", help="where our worker's time goes")
    parser.add_argument("--scenario", action="append", choices=ALL, help="only these")
    parser.add_argument("--proxy", action="append", help="only these (ours is trafficmgr)")
    parser.add_argument("--runs", type=int, help="runs of each proxy (5; quick: 3)")
    parser.add_argument("--seconds", type=int, help="of one run (4; quick: 1)")
    given = parser.parse_args()
    given.runs = given.runs or (3 if given.quick else 5)
    given.seconds = given.seconds or (1 if given.quick else 4)
    return given


def main() -> None:
    given = parse()
    known = peers.known()
    wanted = given.proxy or (QUICK if given.quick else [*known])
    names = [name for name in known if name in wanted]
    say(machine())
    for name in names:
        say(f"{name}: {known[name]}")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        work = Path(folder)
        peers.prepare(work)
        if given.profile:
            hot.profile(work, seconds=given.seconds * 3)
            return
        for key in given.scenario or ALL:
            run(key, names, work, given)


def run(key: str, names: list[str], work: Path, given: argparse.Namespace) -> None:
    """Run one scenario and print its table."""
    match key:
        case "idle":
            at_rest.idle(names, work)
        case "half":
            at_rest.at_half_rate(names, work, runs=given.runs, seconds=given.seconds)
        case "tables":
            at_rest.tables(work, runs=given.runs)
        case _:
            scenario = scenarios.SCENARIOS[key]
            found = scenarios.measure(scenario, names, work, runs=given.runs, seconds=given.seconds)
            scenarios.show(scenario, found)


def machine() -> str:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text("ascii").splitlines()
        if line.startswith("model name")
    ]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{models[0] if models else platform.machine()}, {len(models)} cores, "
        f"Linux {platform.release()}, Python {platform.python_version()}, load before: {load}"
    )


if __name__ == "__main__":
    main()
