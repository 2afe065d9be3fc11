"""The loop: signals and the controller's lines in, children started, told about and ended.

One pass: wait for a signal, a line or the next deadline; reap; go on with a stop that is under
way; start what is due; record. Reaping comes first and asks every child, so that no pass depends
on having seen a particular SIGCHLD.
"""

import contextlib
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from enum import StrEnum
from typing import Any

from trafficmgr.supervisor import signals
from trafficmgr.supervisor.child import Child, Ended, Seat
from trafficmgr.supervisor.link import Link, ignore
from trafficmgr.supervisor.sockets import Slot, check_addresses, open_slots
from trafficmgr.supervisor.spec import CannotStart, Spec, boottime, say
from trafficmgr.supervisor.state import ChildrenFile, Record, is_fresh, locked

WORKERS_GRACE_S = 15.0
CONTROLLER_GRACE_S = 10.0
"""How long each may take to end before SIGKILL. docker stop gives 10 s, systemd 90 s."""

REMEMBERED_ENDS = 256
"""How many ended workers a new controller is told about. It needs those of its longest TTL."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def run(spec: Spec) -> int:
    """Run until told to stop; returns the exit code.

    Call it from the main thread: it catches signals. What stands in the way of a start is said in
    one sentence on stderr, and the exit code is 1.
    """
    try:
        if is_fresh(spec.state_dir):
            check_addresses(spec)  # so that a port in use leaves no folder behind
        with signals.caught() as inbox, locked(spec.state_dir):
            children = ChildrenFile(spec.state_dir)
            former = children.end_former()
            with contextlib.ExitStack() as opened:
                slots = open_slots(spec)
                for slot in slots:
                    opened.callback(slot.close)
                supervisor = Supervisor(spec, slots, children, inbox)
                supervisor.remember(former)
                return supervisor.run()
    except CannotStart as refusal:
        print(f"trafficmgr can't start: {refusal}.", file=sys.stderr)  # noqa: T201  the one sentence
        return 1


class Phase(StrEnum):
    """Where the supervisor is in its life."""

    running = "running"
    ending_workers = "ending_workers"
    ending_controller = "ending_controller"


class Supervisor:
    """Seats, their children, and the link to the controller."""

    def __init__(
        self, spec: Spec, slots: tuple[Slot, ...], children: ChildrenFile, inbox: socket.socket
    ) -> None:
        now = boottime()
        self._spec = spec
        self._slots = slots
        self._children = children
        self._inbox = inbox
        self._workers = [Seat("worker", slot.number, start_at=now) for slot in slots]
        self._controller = Seat("controller", None, start_at=now)
        self._ends: deque[dict[str, Any]] = deque(maxlen=REMEMBERED_ENDS)
        self._link: Link | None = None
        self._selector = selectors.DefaultSelector()
        self._must_record = False
        self._phase = Phase.running
        self._kill_at = math.inf
        self._stop_signals = 0
        self._exit_code = 0

    def remember(self, former: list[Record]) -> None:
        """Take over the ends of a killed supervisor's workers, so that controllers hear of them."""
        now = boottime()
        for record in former:
            if record.role == "worker":
                self._ends.append(_ended_line(Ended(record, now, "ended by the next run")))

    def run(self) -> int:
        """Run until every child ended in order; returns the exit code."""
        self._say_started()
        self._selector.register(self._inbox, selectors.EVENT_READ, self._on_signals)
        with self._selector:
            while not self._is_done():
                for key, _ in self._selector.select(self._wait_s()):
                    key.data()
                self._reap()
                self._go_on_stopping()
                self._start_due()
                self._record()
            self._drop_link()
        self._children.remove()
        say("supervisor_stopped", exit_code=self._exit_code)
        return self._exit_code

    def _say_started(self) -> None:
        say(
            "supervisor_started",
            pid=os.getpid(),
            slots=len(self._slots),
            dns=",".join(self._slots[0].addresses("dns-udp")),
            http=",".join(self._slots[0].addresses("http")),
            https=",".join(self._slots[0].addresses("https")),
            state_dir=self._spec.state_dir,
        )

    # -- what comes in -----------------------------------------------------------------------

    def _wait_s(self) -> float | None:
        """Return how long nothing will be due; also asks for exactly the link's events."""
        if self._link is not None:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE * self._link.wants_write)
            self._selector.modify(self._link.sock, events, self._on_link)
        due = [self._kill_at]
        if self._phase is Phase.running:
            due += [seat.start_at for seat in self._seats() if seat.child is None]
        first = min(due)
        return None if first == math.inf else max(0.0, first - boottime())

    def _on_signals(self) -> None:
        for signum in signals.pending(self._inbox):
            if signum == signal.SIGHUP:
                self._controller.send(signal.SIGHUP)
            elif signum in (signal.SIGTERM, signal.SIGINT):
                self._stop_signals += 1
                if self._stop_signals == 1:
                    self._stop(signal.Signals(signum).name)
                else:
                    self._kill_all(signum)

    def _on_link(self) -> None:
        if self._link is None:  # dropped earlier in this pass
            return
        self._link.flush()
        for message in self._link.receive():
            self._obey(message)
        if not self._link.is_open:
            self._drop_link()

    def _obey(self, message: dict[str, Any]) -> None:
        match message:
            case {"do": "restart_worker", "start_id": str(start_id)}:
                self._restart_worker(start_id)
            case {"do": "stop"}:
                self._stop("controller")
            case _:
                ignore(message)

    def _restart_worker(self, start_id: str) -> None:
        """Kill this worker; one that is gone already, or a successor, is left alone."""
        for seat in self._workers:
            if seat.child is not None and seat.child.record.start_id == start_id:
                seat.say("killed", start_id=start_id, by="controller")
                seat.send(signal.SIGKILL)

    # -- children ------------------------------------------------------------------------------

    def _seats(self) -> tuple[Seat, ...]:
        return (*self._workers, self._controller)

    def _reap(self) -> None:
        for seat in self._seats():
            ended = seat.reap()
            if ended is None:
                continue
            self._must_record = True
            pairs: dict[str, object] = {}
            if self._phase is Phase.running:
                pairs["restart_in_s"] = round(seat.start_at - ended.at, 3)
            seat.say("ended", pid=ended.record.pid, how=ended.how, **pairs)
            if seat is self._controller:
                self._on_link()  # what it said last
                self._drop_link()
            else:
                self._ends.append(_ended_line(ended))
                self._tell(self._ends[-1])

    def _start_due(self) -> None:
        """Start what is due. Workers first: a new controller is then told of all at once."""
        if self._phase is not Phase.running:
            return
        for seat in self._seats():
            if seat.child is not None or seat.start_at > boottime():
                continue
            try:
                self._start(seat)
            except OSError as error:
                seat.postpone()
                retry_in_s = round(seat.start_at - boottime(), 3)
                seat.say("not_started", error=error, retry_in_s=retry_in_s)
            else:
                self._must_record = True

    def _start(self, seat: Seat) -> None:
        if seat.slot is None:
            self._start_controller()
        else:
            self._start_worker(seat, self._slots[seat.slot])

    def _start_worker(self, seat: Seat, slot: Slot) -> None:
        start_id = _start_id(slot.number)
        argv = [
            *self._spec.worker_argv,
            *("--slot", str(slot.number)),
            *("--start-id", start_id),
            *("--sockets", slot.as_json()),
            *("--backlog", str(self._spec.backlog)),
        ]
        child = seat.start(argv, fds=slot.fds(), start_id=start_id)
        seat.say("started", pid=child.record.pid, start_id=start_id)
        self._tell(_started_line(child))

    def _start_controller(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            argv = [*self._spec.controller_argv, "--supervisor-fd", str(theirs.fileno())]
            try:
                child = self._controller.start(argv, fds=[theirs.fileno()], start_id=_start_id("c"))
            except OSError:
                ours.close()
                raise
        self._link = Link(ours)
        self._selector.register(ours, selectors.EVENT_READ, self._on_link)
        self._controller.say("started", pid=child.record.pid)
        self._greet()

    def _record(self) -> None:
        if self._must_record:
            self._must_record = False
            self._children.write([seat.child.record for seat in self._seats() if seat.child])

    # -- what the controller is told -------------------------------------------------------------

    def _greet(self) -> None:
        """Tell a new controller everything that its predecessor knew, or may have missed."""
        first = self._slots[0]
        kinds = {"dns": "dns-udp", "http": "http", "https": "https"}
        listen = {key: first.addresses(kind) for key, kind in kinds.items()}
        self._tell({"is": "hello", "slots": len(self._slots), "pid": os.getpid(), "listen": listen})
        for line in self._ends:
            self._tell(line)
        for seat in self._workers:
            if seat.child is not None:
                self._tell(_started_line(seat.child))
        self._tell({"is": "caught_up"})

    def _tell(self, line: dict[str, Any]) -> None:
        if self._link is None:
            return
        self._link.send(line)
        if self._link.is_overfull:
            self._controller.say("killed", why="it reads nothing of what it is told")
            self._controller.send(signal.SIGKILL)
            self._drop_link()

    def _drop_link(self) -> None:
        if self._link is not None:
            self._selector.unregister(self._link.sock)
            self._link.close()
            self._link = None

    # -- the end ---------------------------------------------------------------------------------

    def _stop(self, by: str) -> None:
        """Begin the orderly end: workers, then the controller. The groups run on.

        Our own listening sockets go first: when a worker closes its copies, clients are refused
        at once, instead of waiting in a queue that nobody will serve.
        """
        if self._phase is not Phase.running:
            return
        say("supervisor_stopping", by=by)
        self._phase = Phase.ending_workers
        self._kill_at = boottime() + WORKERS_GRACE_S
        for slot in self._slots:
            slot.close()
        for seat in self._workers:
            seat.send(signal.SIGTERM)

    def _go_on_stopping(self) -> None:
        if self._phase is Phase.ending_workers and not any(seat.child for seat in self._workers):
            self._phase = Phase.ending_controller
            self._kill_at = boottime() + CONTROLLER_GRACE_S
            self._controller.send(signal.SIGTERM)
        if boottime() >= self._kill_at:
            self._kill_at = math.inf
            seats = self._workers if self._phase is Phase.ending_workers else [self._controller]
            for seat in seats:
                if seat.child is not None:
                    seat.say("overdue", pid=seat.child.record.pid)
                    seat.send(signal.SIGKILL)

    def _kill_all(self, signum: int) -> None:
        """End everybody now; who stopped us twice does not want to wait."""
        self._exit_code = 128 + signum
        for seat in self._seats():
            seat.send(signal.SIGKILL)

    def _is_done(self) -> bool:
        return self._phase is Phase.ending_controller and self._controller.child is None


def _start_id(seat: int | str) -> str:
    """Return an id that no other start of this boot has: the seat and the nanosecond, base 36."""
    left, digits = time.clock_gettime_ns(time.CLOCK_BOOTTIME), ""
    while left:
        left, digit = divmod(left, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return f"{seat}-{digits}"


def _started_line(child: Child) -> dict[str, Any]:
    record = child.record
    return {
        "is": "worker_started",
        "slot": record.slot,
        "start_id": record.start_id,
        "pid": record.pid,
        "at": child.started_at,
    }


def _ended_line(ended: Ended) -> dict[str, Any]:
    record = ended.record
    return {
        "is": "worker_ended",
        "slot": record.slot,
        "start_id": record.start_id,
        "at": ended.at,
        "how": ended.how,
    }
