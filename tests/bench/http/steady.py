"""A constant rate of requests: each is due at a fixed moment and its delay counts from that moment.

So a proxy that stalls can't hide it: what was due meanwhile is late (wrk would just wait). One
thread, epoll, at most one request at a time per connection; a due request takes the connection that
has been free for longest and waits for one if none is.
"""

import gc
import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench.http.processes import BenchError

END = b'"}\n'
"""How every answer ends that the origin gives to a small request."""

_PATIENCE_S = 30.0


@dataclass
class Delays:
    """When each request was due (CLOCK_MONOTONIC), and how long after that it was answered."""

    due_at: list[float] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)

    def percentile_ms(self, per_cent: float) -> float:
        delays = sorted(self.delays_s)
        return delays[min(int(len(delays) * per_cent / 100), len(delays) - 1)] * 1e3

    def longest_ms(self, since: float, until: float) -> float:
        """Return the longest delay of what was under way in a span of time."""
        found = [
            delay
            for due, delay in zip(self.due_at, self.delays_s, strict=True)
            if due <= until and due + delay >= since
        ]
        return max(found, default=0.0) * 1e3


class _Load:
    def __init__(self, sockets: dict[int, socket.socket], requests: list[bytes]) -> None:
        self._sockets = sockets
        self._free = deque(sockets)
        self._due: dict[int, float] = {}
        self._waiting: deque[float] = deque()
        self._requests = requests
        self._turn = 0
        self._epoll = select.epoll()
        for number in sockets:
            self._epoll.register(number, select.EPOLLIN)
        self.delays = Delays()

    @property
    def missing(self) -> int:
        return len(self._due) + len(self._waiting)

    def ask(self, due: float) -> None:
        if not self._free:
            self._waiting.append(due)
            return
        number = self._free.popleft()
        self._due[number] = due
        self._turn = (self._turn + 1) % len(self._requests)
        self._sockets[number].sendall(self._requests[self._turn])

    def take(self, timeout_s: float) -> None:
        """Take answers, waiting for at most so long; epoll alone would wait in milliseconds."""
        if not select.select([self._epoll], [], [], max(timeout_s, 0.0))[0]:
            return
        for number, _ in self._epoll.poll(0):
            data = self._sockets[number].recv(65536)
            if not data:
                raise BenchError("the proxy closed a connection")
            if data.startswith(b"HTTP/") and not data.startswith(b"HTTP/1.1 200 "):
                raise BenchError(f"the proxy answered {data[:200]!r}")
            if data.endswith(END):
                self._answered(number)

    def _answered(self, number: int) -> None:
        due = self._due.pop(number)
        self.delays.due_at.append(due)
        self.delays.delays_s.append(time.monotonic() - due)
        self._free.append(number)
        if self._waiting:
            self.ask(self._waiting.popleft())


@contextmanager
def _connected(port: int, connections: int) -> Iterator[dict[int, socket.socket]]:
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            for _ in range(connections)
        ]
        for sock in sockets:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield {sock.fileno(): sock for sock in sockets}


def run(
    port: int, requests: list[bytes], *, per_s: float, seconds: float, connections: int = 64
) -> Delays:
    """Send at a constant rate; returns the delay of every request.

    Raises:
        BenchError: Answers are missing long after the last request was due.
    """
    gc.disable()  # this process's own pauses would count as the proxy's
    try:
        with _connected(port, connections) as sockets:
            load = _Load(sockets, requests)
            start = time.monotonic()
            for number in range(int(per_s * seconds)):
                due = start + number / per_s
                while (left := due - time.monotonic()) > 0:
                    load.take(left)
                load.ask(due)
            give_up_at = time.monotonic() + _PATIENCE_S
            while load.missing:
                if time.monotonic() > give_up_at:
                    raise BenchError(f"{load.missing} answers did not come")
                load.take(0.01)
            return load.delays
    finally:
        gc.enable()
