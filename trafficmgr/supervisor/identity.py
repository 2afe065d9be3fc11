"""Who a process is, so that a reused pid is never mistaken for it, and how to end it.

A pid alone names whoever has it now. Boot id, pid and start time (field 22 of /proc/PID/stat, in
clock ticks since boot; see proc(5)) name one process for ever. A pidfd, opened before the identity
is compared, keeps naming that process while it is signalled.
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trafficmgr.supervisor.spec import boottime

_STARTTIME_AFTER_COMM = 19
"""Index of field 22 among the fields after the ")" that closes the command name (field 2)."""


@dataclass(frozen=True)
class Identity:
    """One process of one boot."""

    boot_id: str
    pid: int
    starttime: int


def boot_id() -> str:
    """Return the kernel's random id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identity_of(pid: int) -> Identity | None:
    """Return the identity of the process that has this pid now, or None if nobody has it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    starttime = stat.rpartition(b")")[2].split()[_STARTTIME_AFTER_COMM]
    return Identity(boot_id=boot_id(), pid=pid, starttime=int(starttime))


def end_all(identities: Iterable[Identity], *, grace_s: float, kill_s: float) -> set[Identity]:
    """End these processes (SIGTERM, `grace_s`, SIGKILL, at most `kill_s`); return who is left.

    A process that is not exactly who it was recorded to be is never signalled. Those of another
    user stay, and are returned.
    """
    with contextlib.ExitStack() as opened:
        alive: dict[int, Identity] = {}
        for identity in identities:
            pidfd = _pidfd(identity)
            if pidfd is not None:
                opened.callback(os.close, pidfd)
                alive[pidfd] = identity
        for signum, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, kill_s)):
            for pidfd in alive:
                _send(pidfd, signum)
            _await_end(alive, wait_s)
        return set(alive.values())


def _pidfd(identity: Identity) -> int | None:
    """Return a pidfd of exactly this process, or None if it is gone."""
    try:
        pidfd = os.pidfd_open(identity.pid)
    except (OSError, OverflowError):  # ESRCH; EINVAL and overflow: no pid at all
        return None
    if identity_of(identity.pid) == identity:
        return pidfd
    os.close(pidfd)
    return None


def _send(pidfd: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(pidfd, signum)


def _await_end(alive: dict[int, Identity], wait_s: float) -> None:
    """Remove from `alive` who ended within `wait_s` seconds: its pidfd became readable."""
    poller = select.poll()
    for pidfd in alive:
        poller.register(pidfd, select.POLLIN)
    deadline = boottime() + wait_s
    while alive and (left_s := deadline - boottime()) > 0:
        for pidfd, _ in poller.poll(left_s * 1000):
            poller.unregister(pidfd)
            del alive[pidfd]
