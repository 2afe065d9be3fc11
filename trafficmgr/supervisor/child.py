"""A seat and the child that sits in it: starting, reaping, and when to start again."""

import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from trafficmgr.supervisor.identity import identity_of
from trafficmgr.supervisor.spec import boottime, say
from trafficmgr.supervisor.state import Record

LONG_LIFE_S = 5.0
"""A child that lived this long was fine: it is started again at once, its past forgotten."""

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 5.0
"""Doubling in between. Longer would leave connections waiting past most clients' patience."""


@dataclass(frozen=True)
class Child:
    """A process of ours that has not been reaped."""

    process: subprocess.Popen[bytes]
    started_at: float
    record: Record


@dataclass(frozen=True)
class Ended:
    """How a child ended. `at` is when it was reaped."""

    record: Record
    at: float
    how: str


class Seat:
    """The place of one child: a worker's slot, or the controller's (`slot` is None).

    `start_at` is when an empty seat is due.
    """

    def __init__(self, role: str, slot: int | None, start_at: float) -> None:
        self.role = role
        self.slot = slot
        self.child: Child | None = None
        self.start_at = start_at
        self._quick_deaths = 0
        """How many short lives in a row."""

    def start(self, argv: Sequence[str], *, fds: Sequence[int], start_id: str) -> Child:
        """Seat a child that inherits these descriptors and nothing else.

        It gets a process group of its own, so that Ctrl-C reaches the supervisor only, which then
        ends everybody in order.

        Raises:
            OSError: The program can't be started; `postpone` the seat.
        """
        now = boottime()
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, pass_fds=fds, close_fds=True, process_group=0
        )
        self.child = Child(process, now, _record(self.role, self.slot, start_id, process.pid))
        return self.child

    def postpone(self) -> None:
        """Count a start that failed like a child that ended at once."""
        self._empty(lived_s=0.0, now=boottime())

    def reap(self) -> Ended | None:
        """Return how the child ended, if it just did; the seat is then due again."""
        if self.child is None or (code := self.child.process.poll()) is None:
            return None
        ended, now = self.child, boottime()
        self.child = None
        self._empty(lived_s=now - ended.started_at, now=now)
        return Ended(ended.record, now, _how(code))

    def send(self, signum: signal.Signals) -> None:
        """Signal the child, if there is one; it can't be a stranger, since only we reap it."""
        if self.child is not None:
            self.child.process.send_signal(signum)

    def say(self, what: str, **pairs: object) -> None:
        """Say that something happened to this seat's child: `worker_ended slot=0 ...`."""
        place = {} if self.slot is None else {"slot": self.slot}
        say(f"{self.role}_{what}", **place, **pairs)

    def _empty(self, *, lived_s: float, now: float) -> None:
        self._quick_deaths = 0 if lived_s >= LONG_LIFE_S else self._quick_deaths + 1
        self.start_at = now + restart_delay_s(self._quick_deaths)


def _record(role: str, slot: int | None, start_id: str, pid: int) -> Record:
    identity = identity_of(pid)
    assert identity is not None  # noqa: S101  a child keeps its pid until it is reaped
    return Record(
        role=role,
        slot=slot,
        start_id=start_id,
        pid=pid,
        starttime=identity.starttime,
        boot_id=identity.boot_id,
    )


def restart_delay_s(quick_deaths: int) -> float:
    """Return how long to wait after so many short lives in a row.

    The first costs nothing: a worker killed once must not keep its clients waiting.
    """
    if quick_deaths <= 1:
        return 0.0
    return min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(quick_deaths - 2, 16))


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-code}"
