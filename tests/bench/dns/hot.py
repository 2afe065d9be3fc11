"""Where our worker spends its time, by function: under one weighted name, or under many.

py-spy looks at the worker's stack 500 times a second, Python and C, and a function's part is its
share of the samples in which it is the innermost in Python. Samples in system calls share the
system time per query (measured without py-spy) and all others the user time. A worker that waits
for a core where it was pushed off counts as at work; mostly that is in epoll_pwait, so that figure
says more of the machine than of the call. `bench.http.hot` does the same for requests.
"""

import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

from bench.dns import load, peers, zone
from bench.http.processes import BenchError
from bench.http.report import say, table

SAMPLES_PER_S = 500
ROWS = 20
_LIBC = " (libc.so.6)"
_CALLS = ("recvfrom", "sendto", "recvmsg", "sendmsg", "epoll_pwait", "epoll_wait", "read", "write")
_LOOP = "uvloop and libuv"
_LOOPS_CALLERS = ("(worker.py)", "(runners.py)", "(__init__.py)")


def profile(work: Path, names: int, *, seconds: int) -> None:
    """Print the functions that cost most by themselves, with so many names."""
    spy = _spy(work)
    hosts = zone.hosts(names)
    file = load.write(load.plain(hosts), work / "queries")
    with peers.ours_running(work, hosts) as peer:
        runs = [load.run(peer, file, seconds=2) for _ in range(5)]
        user_us = statistics.median(run.user_us for run in runs)
        system_us = statistics.median(run.system_us for run in runs)
        stacks = work / "stacks"
        command = [
            *(str(spy), "record", "--native", "--rate", str(SAMPLES_PER_S)),
            *("--duration", str(seconds), "--format", "raw"),
            *("--output", str(stacks), "--pid", str(peer.pids[0])),
        ]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as spying:
            try:
                load.run(peer, file, seconds=seconds)
                if spying.wait(30.0):
                    raise BenchError(f"py-spy failed with {spying.returncode}")
            finally:
                spying.kill()
    where = f"{user_us:.1f} µs user and {system_us:.1f} µs system time"
    say(f"\n### Where {where} per query go; names: {names:,}\n")
    _show(_counted(stacks.read_text("utf-8")), user_us, system_us)


def _spy(work: Path) -> Path:
    """Return py-spy, installed for this run only."""
    options = ("--quiet", "--disable-pip-version-check", "--no-input", "--target")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, str(work / "spy"), "py-spy"],
        check=True,
        timeout=120,
    )
    return work / "spy" / "bin" / "py-spy"


def _counted(stacks: str) -> Counter[str]:
    """Return samples by system call, or else by the innermost function in Python."""
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        found[_place(stack.split(";"))] += int(count)
    return found


def _place(frames: list[str]) -> str:
    if frames[-1].endswith(_LIBC):
        call = frames[-1].removesuffix(_LIBC).lstrip("_")
        if call in _CALLS:
            return call
    names = (_name(frame) for frame in reversed(frames) if ".py:" in frame)
    name = next(names, _LOOP)
    return _LOOP if name.endswith(_LOOPS_CALLERS) else name


def _name(frame: str) -> str:
    """Return function and file of a frame, without its line."""
    function, _, place = frame.partition(" (")
    return f"{function} ({Path(place.rstrip(')').partition(':')[0]).name})"


def _show(found: Counter[str], user_us: float, system_us: float) -> None:
    waited = sum(found[name] for name in _CALLS)
    worked = found.total() - waited
    parts = {
        name: system_us * count / waited if name in _CALLS else user_us * count / worked
        for name, count in found.items()
    }
    rows = [
        [name, "system" if name in _CALLS else "user", f"{parts[name]:.2f}"]
        for name in sorted(parts, key=parts.__getitem__, reverse=True)[:ROWS]
    ]
    say(table(["function", "time", "µs/query"], rows))
