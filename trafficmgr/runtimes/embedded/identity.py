"""Who a process is: boot id, pid and start time together, never a pid alone (DESIGN 3).

A pid is reused; a pid and the tick in which it started is not, within one boot. Signals go through
a pidfd that was checked after it was opened, so there is no moment in which the number could have
passed to another process.

Source: proc(5), field 22 of /proc/PID/stat; pidfd_open(2).
"""

import os
import signal
from pathlib import Path

from trafficmgr.core.noun import Noun

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STATE, _START = 0, 19
"""Fields of /proc/PID/stat, counted from the state on (proc(5) counts it as the third)."""


class ProcessId(Noun):
    """A process of one boot: its pid, and the clock tick since boot in which it started."""

    pid: int
    start_ticks: int


class Identity(Noun):
    """The content of identity.json: a container's shim and application.

    `started_at` is seconds since the epoch, for display.
    """

    boot_id: str
    shim: ProcessId
    app: ProcessId
    started_at: float | None = None

    @property
    def is_of_this_boot(self) -> bool:
        """Whether the pids mean anything at all."""
        return self.boot_id == boot_id()


def boot_id() -> str:
    """Return the kernel's name for the time since it was started."""
    return _BOOT_ID.read_text().strip()


def of(pid: int) -> ProcessId | None:
    """Return who has the pid now; None if nobody runs with it."""
    fields = _stat(pid)
    if fields is None or not _runs(fields):
        return None
    return ProcessId(pid=pid, start_ticks=int(fields[_START]))


def is_alive(process: ProcessId) -> bool:
    """Whether this very process runs. A zombie does not."""
    fields = _stat(process.pid)
    return fields is not None and _runs(fields) and int(fields[_START]) == process.start_ticks


def open_pidfd(process: ProcessId) -> int | None:
    """Return a descriptor of this very process, or None if it is gone. The caller closes it."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if is_alive(process):
        return pidfd
    os.close(pidfd)
    return None


def send(process: ProcessId, number: int) -> bool:
    """Send a signal to this very process; False if it is gone."""
    pidfd = open_pidfd(process)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def send_group(leader: ProcessId, number: int) -> bool:
    """Send a signal to the process group that the process leads; False if the leader is gone.

    While the leader lives its number is the group's, so this reaches no other group.
    """
    if not is_alive(leader):
        return False
    try:
        os.killpg(leader.pid, number)
    except ProcessLookupError:
        return False
    return True


def marked(mark: str) -> tuple[ProcessId, ...]:
    """Return the processes that were started with this text in their environment.

    That is how descendants are found whose shim was killed, wherever they went since. A process
    that overwrote its environment is not found; one of another user can't be read.
    """
    needle = mark.encode()
    found = []
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if needle in environment.split(b"\0"):
            found.append(of(pid))
    return tuple(one for one in found if one is not None)


def _stat(pid: int) -> list[bytes] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(b")")[2].split()


def _runs(fields: list[bytes]) -> bool:
    return fields[_STATE] not in {b"Z", b"X"}
