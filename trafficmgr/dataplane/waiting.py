"""Requests that wait their turn: for room at a group, or for an endpoint that is held.

A `Line` is for the groups of one revision: when a request of theirs ends, the first in line is
sent. A `Gate` is for a whole endpoint: it is shut while the endpoint is held, and when it opens,
those that waited pass in their order, PASSING at a time, so that they don't fall upon groups that
have just come up. Who comes after that is not held, and does not wait for them.

Nobody waits for ever: the sweep sends away who has waited for too long, and a worker that ends
sends everybody away. Both answer 503 with Retry-After: nothing was sent to any group, so that a
client may always ask again (504 would say that somebody was asked and did not answer).

Nothing here starts a task or sets a timer. What waits has read at most its head and
exchange.PENDING_LIMIT_BYTES of its body; then its client is not read any further.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from trafficmgr.dataplane.tallies import Tally

PASSING = 64
"""Requests of one gate under way at a time after it opened. Below the accept queue of about every
server (nginx 511, node 511, gunicorn 2048, Python's socketserver 5 to 128)."""


class Waiter(Protocol):
    """A request that can wait."""

    @property
    def since(self) -> float:
        """Return when it came, on any clock that all of them share."""

    def proceed(self) -> bool:
        """Go to a group now, or return False: there is still no room."""

    def resume(self, gate: "Gate | None") -> None:
        """Start again, as one that has waited; tell the gate when it is over."""

    def give_up(self, text: str, reason: str) -> None:
        """Answer 503."""


class Lines:
    """All lines of a worker, of which it knows those where anybody waits."""

    def __init__(self) -> None:
        self.busy: set[Line] = set()
        self.is_closed = False

    def sweep(self, now: float) -> None:
        """Send away who has waited for too long, and look again for room (loop time)."""
        for line in list(self.busy):
            line.expire(now)
            line.advance()

    def close(self) -> None:
        """Send everybody away, and let nobody wait any more: this worker ends."""
        self.is_closed = True
        for line in list(self.busy):
            for waiter in line.empty():
                waiter.give_up("the proxy is about to end", "closing")


class Line:
    """Requests in the order in which they came.

    Args:
        lines: Where it is known while anybody waits in it.
        tally: Where those that wait are counted.
    """

    __slots__ = ("_deadlines", "_is_serving", "_lines", "_tally")

    full = "queue_full"
    late = ("no group had room in time", "queue_timeout")
    """How those are counted that can't wait any more, or have waited for too long."""

    def __init__(self, lines: Lines, tally: "Tally") -> None:
        self._lines = lines
        self._tally = tally
        self._deadlines: OrderedDict[Waiter, float] = OrderedDict()
        self._is_serving = False

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._deadlines)

    def __bool__(self) -> bool:
        """A line is a line, also if nobody waits in it."""
        return True

    @property
    def is_owed(self) -> bool:
        """Whether somebody is before a newcomer."""
        return bool(self._deadlines) and not self._is_serving

    def join(self, waiter: Waiter, until: float) -> bool:
        """Wait at the end of the line; returns False if the worker ends.

        Args:
            waiter: Who waits.
            until: Loop time at which it is sent away.
        """
        if self._lines.is_closed:
            return False
        self._deadlines[waiter] = until
        self._tally.waiting += 1
        self._lines.busy.add(self)
        return True

    def leave(self, waiter: Waiter) -> None:
        """Wait no longer; who does not wait is no matter."""
        if self._deadlines.pop(waiter, None) is None:
            return
        self._tally.waiting -= 1
        if not self._deadlines:
            self._lines.busy.discard(self)

    def empty(self) -> list[Waiter]:
        """Return all that wait, in their order, and forget them."""
        waiters = list(self._deadlines)
        for waiter in waiters:
            self.leave(waiter)
        return waiters

    def advance(self) -> None:
        """Let the first in line go to a group, and the next, as long as there is room."""
        if self._is_serving or not self._deadlines:
            return
        self._is_serving = True
        try:
            while self._deadlines:
                first = next(iter(self._deadlines))
                if not first.proceed():
                    break
                self.leave(first)
        finally:
            self._is_serving = False

    def expire(self, now: float) -> None:
        """Send away who has waited for too long (loop time)."""
        late = [waiter for waiter, until in self._deadlines.items() if until <= now]
        for waiter in late:
            self.leave(waiter)
            waiter.give_up(*self.late)


class Gate(Line):
    """Requests of an endpoint that is held, and those that pass since it is not.

    Attributes:
        passing_s: How long those may still wait that can't pass at once, in seconds.
    """

    __slots__ = ("_is_open", "_passing", "_passing_until", "passing_s")

    full = "hold_full"
    late = ("the endpoint is held", "hold_timeout")

    def __init__(self, lines: Lines, tally: "Tally") -> None:
        super().__init__(lines, tally)
        self.passing_s = 0.0
        self._is_open = True
        self._passing = 0
        self._passing_until: float | None = None

    def turn(self, *, is_open: bool) -> None:
        """Let requests pass from now on, or hold them."""
        if is_open != self._is_open:
            self._is_open = is_open
            self._passing_until = None
        self.advance()

    def advance(self) -> None:
        """Let as many pass as may be under way at a time."""
        if self._is_serving:
            return
        self._is_serving = True
        try:
            while self._is_open and self._deadlines and self._passing < PASSING:
                first = next(iter(self._deadlines))
                self.leave(first)
                self._passing += 1
                first.resume(self)
        finally:
            self._is_serving = False

    def passed(self) -> None:
        """Note that a request which passed is over."""
        self._passing -= 1
        self.advance()

    def expire(self, now: float) -> None:
        """Send away who has waited for too long; anew for all, once they may pass."""
        if not self._is_open:
            super().expire(now)
            return
        if self._passing_until is None:
            self._passing_until = now + self.passing_s
        if self._passing_until <= now:
            super().expire(float("inf"))
