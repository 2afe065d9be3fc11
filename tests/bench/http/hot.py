"""Where our worker spends its time under varying requests, by function.

py-spy looks at the worker's stack 500 times a second, Python and C, and a function's part is its
share of the samples in which it is the innermost in Python. It goes by the clock on the wall and
takes a worker that was pushed off its core in a system call for one at work; so samples in system
calls share the system time per request (measured without py-spy) and all others the user time.
"""

import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

from bench.http import load, peers
from bench.http.processes import BenchError
from bench.http.report import say, table

SAMPLES_PER_S = 500
ROWS = 25
_LIBC = " (libc.so.6)"
_CALLS = ("read", "write", "writev", "epoll_pwait")
SYSTEM_CALLS = {name + _LIBC for name in _CALLS}
_LOOP = "uvloop and libuv"
_LOOPS_CALLERS = ("(worker.py)", "(runners.py)", "(__init__.py)")


def profile(work: Path, *, seconds: int) -> None:
    """Print the functions that cost most, by themselves and with all they call."""
    spy = _spy(work)
    file = work / "requests"
    load.write_requests(load.varying(), file)
    with peers.origin(work, is_upload=False) as port, peers.start("trafficmgr", work, port) as peer:
        runs = [load.run(peer, file, connections=64, seconds=2) for _ in range(5)]
        user, system = (
            statistics.median(costs)
            for costs in zip(*((run.user_us, run.system_us) for run in runs), strict=True)
        )
        stacks = work / "stacks"
        command = [
            *(str(spy), "record", "--native", "--rate", str(SAMPLES_PER_S)),
            *("--duration", str(seconds), "--format", "raw"),
            *("--output", str(stacks), "--pid", str(peer.pid)),
        ]
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as spying:
            load.run(peer, file, connections=64, seconds=seconds)
            if spying.wait(30.0):
                raise BenchError(f"py-spy failed with {spying.returncode}")
    own = _counted(stacks.read_text("utf-8"))
    say(f"\n### Where {user:.1f} µs user and {system:.1f} µs system time per request go\n")
    _show(own, user, system)


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
    """Return samples by system call, or else by the innermost function in Python.

    What C does for a function (a method of bytes, the parser between two callbacks) is part of it.
    """
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if frames[-1] in SYSTEM_CALLS:
            found[frames[-1].removesuffix(_LIBC)] += int(count)
        else:
            names = (_name(frame) for frame in reversed(frames) if ".py:" in frame)
            name = next(names, _LOOP)
            found[_LOOP if name.endswith(_LOOPS_CALLERS) else name] += int(count)
    return found


def _name(frame: str) -> str:
    """Return function and file of a frame, without its line."""
    function, _, place = frame.partition(" (")
    return f"{function} ({Path(place.rstrip(')').partition(':')[0]).name})"


def _show(own: Counter[str], user_us: float, system_us: float) -> None:
    calls = own.keys() & set(_CALLS)
    waited = sum(own[name] for name in calls)
    worked = own.total() - waited
    parts = {
        name: system_us * count / waited if name in calls else user_us * count / worked
        for name, count in own.items()
    }
    rows = [
        [name, "system" if name in calls else "user", f"{parts[name]:.2f}"]
        for name in sorted(parts, key=parts.__getitem__, reverse=True)[:ROWS]
    ]
    say(table(["function", "time", "µs/request"], rows))
