"""Where a request goes: which group was chosen for it, how it is counted, what it waits for.

The rules that a client can notice:

* Choosing a group and counting the request in flight is one synchronous step (`_choose`), so that
  no table swap can come in between. On every path it is given back exactly once (`_end`), in one
  step with how the request ended: what is not in flight is counted, as one failure at most.
* The newest table decides, each time. A pin goes before affinity (`marks`), affinity before whose
  turn it is; with affinity the client's bucket takes the place of its turn's point.
* A request that was sent goes once more to a group of the same revision only: a revision must not
  look good because another one repairs what it breaks.
* While the endpoint is held, and when every group of the share is full, it waits (`waiting`).
"""

from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from trafficmgr.core.model import Affinity
from trafficmgr.core.routing import point_at, point_of
from trafficmgr.core.traffic import PinTo
from trafficmgr.dataplane import balance
from trafficmgr.dataplane.marks import Marks, bucket_at, new_client
from trafficmgr.dataplane.routes import Route, Upstream
from trafficmgr.dataplane.tallies import Tally
from trafficmgr.dataplane.waiting import Gate, Line
from trafficmgr.wire.http_request import Request

if TYPE_CHECKING:
    from trafficmgr.dataplane.client import ClientConnection


class Placement:
    """The half of an exchange that chooses and counts; the other half speaks HTTP.

    Attributes:
        route: The newest one when a group was chosen.
        upstream: The group that was chosen; None before.
        failure: Why the request failed, as it is counted; empty if it did not.
        is_over: Nothing more happens to it.
        since: When the request came, or had waited long enough (monotonic seconds; the loop's time
            moves in milliseconds).
    """

    __slots__ = (
        "_bucket",
        "_client",
        "_cookie",
        "_gate",
        "_line",
        "_pin",
        "_tally",
        "_turn",
        "_until",
        "failure",
        "is_over",
        "request",
        "route",
        "since",
        "upstream",
    )

    _until: float

    def _begin(self, client: "ClientConnection", request: Request, route: Route) -> None:
        """Set it up, in place of a constructor: calling that of a base class takes longer."""
        seat = route.seat
        seat.turn = turn = seat.turn + 1
        self._client = client
        self.request = request
        self.route = route
        self._tally: Tally = route.misses
        self._turn = turn
        self.upstream: Upstream | None = None
        self.failure = ""
        self.is_over = False
        self._pin: PinTo | None = None
        self._bucket: int | None = None
        self._cookie = b""
        self._line: Line | None = None
        self._gate: Gate | None = None
        self.since = monotonic()

    # -- what the other half does -----------------------------------------------------------------

    def _connect(self, now: float) -> None:
        """Send the request to the group that was chosen."""
        raise NotImplementedError

    def _fail(self, status: int, text: str, reason: str = "") -> None:
        """Answer in the group's stead, and count the reason if it is a failure."""
        raise NotImplementedError

    # -- choosing ---------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Choose a group and send the request, or wait, or say that there is no group."""
        if self.route.is_held:
            self._hold()
        elif self._choose(now):
            self._connect(now)
        else:
            self._stay()

    def _choose(self, now: float, left: Upstream | None = None) -> bool:
        """Choose a group and count the request in flight; no other code may run in between.

        The newest route has it, and only that of the client's own kind: a preview that is gone
        by now is served by nobody, never by those who carry the endpoint.

        Args:
            now: Loop time.
            left: The group that was tried before; choosing it again would change nothing.
        """
        self.route = route = self.route.seat.newest
        only = route.only
        if only is not None:
            upstream = only.next(only, now) or route.instead(only, now)
        else:
            if route.marks is not None:
                self._read(route.marks)
            upstream = route.choose(self._point(), now, self._pin)
        if upstream is None or upstream is left:
            return False
        tally = route.preview or upstream.tally
        if self._pin is not None:
            tally = route.tally_of(upstream, self._pin)
        if left is not None:
            self._leave(left, tally)
        if tally is not self._tally:
            self._tally = tally
            tally.requests += 1
        tally.in_flight += 1
        upstream.requests += 1
        self.upstream = upstream
        if left is not None and left.line is not None:
            left.line.advance()
        return True

    def _choose_another(self, left: Upstream) -> bool:
        """Choose another group of the same revision, after one broke off; as `_choose` does.

        Only if the revision is in no table any more, the newest one decides.
        """
        now = self._client.server.now()
        newest = self.route.seat.newest
        lane = left.lane and newest.lane_of(left.lane.revision)
        if lane is None:
            return self._choose(now, left)
        other = balance.another(lane, left, now)
        if other is None:
            return False
        left.requests -= 1
        other.requests += 1
        self.upstream = other
        if left.line is not None:
            left.line.advance()
        return True

    def _read(self, marks: Marks) -> None:
        """Look for what the request carries that decides: a pin, or who its client is."""
        self._pin = marks.pin_of(self.request) if marks.has_pins else None
        if self._pin is not None or marks.affinity is Affinity.none:
            self._bucket = None
            return
        if marks.affinity is Affinity.client:
            bucket = self._client.bucket(marks.salt)
        else:
            bucket = self._bucket_of_mark(marks)
        self._bucket = bucket

    def _point(self) -> float:
        """Return the point of the unit interval that decides: of the client, or of the turn."""
        return point_at(self._turn) if self._bucket is None else point_of(self._bucket)

    def _bucket_of_mark(self, marks: Marks) -> int:
        client = marks.client_of(self.request)
        if not client and marks.affinity is Affinity.cookie:
            client = self._cookie.partition(b"=")[2].partition(b";")[0] or new_client()
            self._cookie = marks.cookie_for(client)
        return marks.bucket_of(client) if client else bucket_at(point_at(self._turn))

    def _leave(self, left: Upstream, tally: Tally) -> None:
        """Give the count back to a group that another one repairs: that is no failure."""
        left.requests -= 1
        self._tally.in_flight -= 1
        if tally is not self._tally:
            self._tally.moved += 1

    def _end(self) -> None:
        """Count the request as finished and how it ended, and give back what is in flight."""
        self.is_over = True
        tally, failure = self._tally, self.failure
        upstream = self.upstream
        if upstream is not None:
            upstream.requests -= 1
            tally.in_flight -= 1
        if failure:
            tally.fail(failure)
        if self._bucket is not None:
            tally.finish_for(self._bucket, is_failed=bool(failure))
        if self._line is not None:
            self._line.leave(self)
        if upstream is not None and upstream.line is not None:
            upstream.line.advance()
        if self._gate is not None:
            self._gate.passed()

    # -- waiting ----------------------------------------------------------------------------------

    def proceed(self) -> bool:
        """Go to a group after waiting, or return False if none can take the request now."""
        now = self._client.server.now()
        if not self._choose(now):
            return False
        self._line = None
        self._connect(now)
        self.since = monotonic()
        self._client.await_answer()
        self._client.on_congestion()
        return True

    def resume(self, gate: Gate | None) -> None:
        """Start again after waiting; the place in the next line is sure."""
        self._gate = gate or self._gate
        self.route = self.route.seat.newest
        if self.route.is_held:
            self._hold()
        elif not self.proceed():
            self._stay()

    def give_up(self, text: str, reason: str) -> None:
        """Answer 503: it can't be waited for any longer."""
        self._line = None
        self._miss(text, reason)

    def _hold(self) -> None:
        """Wait until the endpoint is released."""
        http = self.route.table.http
        self._wait(self.route.seat.gate, http.hold_limit, http.hold_s)

    def _stay(self) -> None:
        """Wait for room, or say that there is no group."""
        if not self._queue():
            self._miss("no group can take the request now", "no_target")

    def _queue(self) -> bool:
        """Wait for room, if that is what is lacking; returns False if it is not."""
        route = self.route
        line = route.line_for(self._point(), self._client.server.now(), self._pin)
        if line is None:
            return False
        if self.upstream is not None:
            self._give_back()
        http = route.table.http
        self._wait(line, http.queue_limit, http.queue_s)
        return True

    def _give_back(self) -> None:
        """Be chosen for nobody any more, which for its revision is as if it had gone elsewhere."""
        if self.upstream is not None:
            self._leave(self.upstream, self.route.misses)
            self.upstream, self._tally = None, self.route.misses

    def _wait(self, line: Line, limit: int, for_s: float) -> None:
        """Join a line, or answer 503 if it is full; who was in one before is not counted again."""
        before = self._line
        if before is None and len(line) >= limit:
            self._miss(f"{limit} requests wait already", line.full)
            return
        if before is None or isinstance(before, Gate) or isinstance(line, Gate):
            self._until = self._client.server.now() + for_s
        self._line = line
        self._client.deadline = inf  # the line has one of its own
        if not line.join(self, self._until):
            self.give_up("the proxy is about to end", "closing")

    def _miss(self, text: str, reason: str) -> None:
        """Answer 503; the failure is the endpoint's and no revision's."""
        self._tally.requests += 1
        self._fail(503, text, reason)
