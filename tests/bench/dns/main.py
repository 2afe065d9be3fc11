"""The bench of the DNS data plane, as a command; tests/bench/README.md says what it measures."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from bench.dns import hot, load, peers, scenarios, special
from bench.http.main import machine
from bench.http.peers import version_of
from bench.http.report import say

SCENARIOS = scenarios.known()
SERVERS = ["trafficmgr", "gdnsd", *peers.DNSLIB]
ALL = [*SCENARIOS, "names", "change", "workers"]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/dns/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two minutes in all")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="where our worker's time goes; with --scenario names: under 10,000 names",
    )
    parser.add_argument("--scenario", action="append", choices=ALL, help="only these")
    parser.add_argument("--server", action="append", choices=SERVERS, help="only these")
    parser.add_argument("--runs", type=int, help="runs of each server (5; quick: 3)")
    parser.add_argument("--seconds", type=int, help="of one run (4; quick: 1)")
    given = parser.parse_args()
    given.runs = given.runs or (3 if given.quick else 5)
    given.seconds = given.seconds or (1 if given.quick else 4)
    return given


def main() -> None:
    signal.signal(signal.SIGTERM, _end)
    given = parse()
    known = peers.known()
    names = [name for name in known if name in (given.server or known)]
    say(machine())
    for name in names:
        say(f"{name}: {known[name]}")
    say(
        f"dnsperf: {version_of('dnsperf', '-h')}, {load.OUTSTANDING} queries under way "
        f"from {load.CLIENTS} sockets"
    )
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        work = Path(folder)
        if given.profile:
            names_asked = special.MANY if "names" in (given.scenario or ()) else 1
            hot.profile(work, names_asked, seconds=given.seconds * 3)
            return
        for key in given.scenario or ALL:
            run(key, names, work, given)


def run(key: str, names: list[str], work: Path, given: argparse.Namespace) -> None:
    """Run one scenario and print its table; of ours alone, only if ours is wanted."""
    much = {"runs": given.runs, "seconds": given.seconds}
    if key == "names":
        special.names(names, work, **much)
    elif key in SCENARIOS:
        scenarios.show(SCENARIOS[key], scenarios.measure(SCENARIOS[key], names, work, **much))
    elif "trafficmgr" in names:
        (special.change if key == "change" else special.workers)(work, **much)


def _end(number: int, _frame: FrameType | None) -> None:
    """End as after Ctrl-C: what was started is stopped on the way out."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
