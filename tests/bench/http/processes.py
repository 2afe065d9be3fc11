"""The processes of a bench: started, measured in /proc, ended by their pid.

None is pinned to a core. With the proxy alone on one of two cores the other one has time to sleep,
and waking it costs a proxy most that is slow: 4 µs of 23 for nginx, 12 of 54 for ours.
"""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

START_S = 15.0
STOP_S = 5.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """Something that the bench needs did not come about."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], work: Path, *, pass_fds: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in the folder `work`; what it says goes to `<program>.log` there."""
    home = {"HOME": str(work), "XDG_DATA_HOME": str(work), "XDG_CONFIG_HOME": str(work)}
    with (work / f"{Path(command[0]).name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            env=os.environ | home,
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = START_S) -> None:
    ends_at = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > ends_at:
            raise BenchError(f"{what} did not come about in {deadline_s:.0f} s")
        time.sleep(0.02)


def wait_for_port(port: int, process: subprocess.Popen[bytes], work: Path) -> None:
    """Wait until somebody listens.

    Raises:
        BenchError: The process ended, or nobody listens in time; with what it said.
    """

    def is_open() -> bool:
        if process.poll() is not None:
            logs = "\n".join(log.read_text("utf-8")[-2000:] for log in work.glob("*.log"))
            raise BenchError(f"{process.args!r} ended with {process.returncode}:\n{logs}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return True
        return False

    wait_until(is_open, f"an open port {port}")


def family(pid: int) -> list[int]:
    """Return a process and everything below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text("ascii").split():
            found += family(int(child))
    return found


def cpu_s(pid: int) -> tuple[float, float]:
    """Return the seconds that a process and its children have run: (user, system)."""
    user = system = 0
    for member in family(pid):
        stat = Path(f"/proc/{member}/stat").read_text("ascii")
        fields = stat.rpartition(") ")[2].split()
        user += int(fields[11])
        system += int(fields[12])
    return user / _TICKS_PER_S, system / _TICKS_PER_S


def memory_bytes(pid: int) -> tuple[int, int]:
    """Return the memory of a process and its children: (resident, its share of what is shared)."""
    resident = share = 0
    for member in family(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text("ascii").splitlines():
            name, _, value = line.partition(":")
            if name == "Rss":
                resident += int(value.split()[0]) * 1024
            elif name == "Pss":
                share += int(value.split()[0]) * 1024
    return resident, share
