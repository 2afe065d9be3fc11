"""What a worker's hot path reads: tables, compiled, and the counts that go with them.

A `Route` is a table or its preview; its `Lane`s are the shares, whose `Upstream`s take turns. A
route lives for one generation and upstreams live on, while a `Seat` leads from a route that may be
old to the newest of its kind. `book` makes all of them.

Choosing is a few steps over plain integers: nothing here logs, waits or allocates per client.
"""

from bisect import bisect_left

from trafficmgr.core.model import Affinity, Dial
from trafficmgr.core.routing import Share, Table, pick
from trafficmgr.wire import frames
from trafficmgr.wire.http_response import signature

ANSWERED_5XX = "5xx"
"""The reason of a failure that the application answered itself."""


class Tally:
    """Cumulative counts of one revision of one endpoint; plain integers (DESIGN 7).

    `preview` counts the clients of `preview.<host>` in the same way (None: there were none).
    `clients` and `failing` are finished and failed requests by client bucket (None: clients are
    not told apart).
    """

    __slots__ = (
        "clients",
        "dns",
        "durations",
        "durations_s",
        "errors_5xx",
        "failing",
        "failures",
        "in_flight",
        "moved",
        "preview",
        "requests",
        "spilled",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.errors_5xx = 0
        self.failures: dict[str, int] = {}
        self.dns = 0
        self.spilled = 0
        self.in_flight = 0
        self.moved = 0
        self.durations = [0] * (len(frames.DURATION_BOUNDS_S) + 1)
        self.durations_s = 0.0
        self.preview: Tally | None = None
        self.clients: dict[int, int] | None = None
        self.failing: dict[int, int] = {}

    def of_preview(self) -> "Tally":
        """Return where the clients of a preview are counted."""
        if self.preview is None:
            self.preview = Tally()
        return self.preview

    def answered(self, after_s: float) -> None:
        """Count an answer by how long it took to begin."""
        self.durations[bisect_left(frames.DURATION_BOUNDS_S, after_s)] += 1
        self.durations_s += after_s

    def fail(self, reason: str) -> None:
        """Count a request that ended badly, by what went wrong first."""
        if reason == ANSWERED_5XX:
            self.errors_5xx += 1
        else:
            self.failures[reason] = self.failures.get(reason, 0) + 1

    def tell_apart(self, *, is_wanted: bool) -> None:
        """Count finished requests by client bucket from now on, or forget that they were."""
        if not is_wanted:
            self.clients, self.failing = None, {}
        elif self.clients is None:
            self.clients = {}

    def finish_for(self, bucket: int, *, is_failed: bool) -> None:
        """Count a finished request of a client by its bucket."""
        if self.clients is not None:
            self.clients[bucket] = self.clients.get(bucket, 0) + 1
            if is_failed:
                self.failing[bucket] = self.failing.get(bucket, 0) + 1

    def frozen(self) -> frames.ShareCounts:
        """Return the counts as they are reported."""
        return frames.ShareCounts(
            requests=self.requests,
            errors_5xx=self.errors_5xx,
            failures=dict(self.failures),
            dns=self.dns,
            spilled=self.spilled,
            in_flight=self.in_flight,
            moved=self.moved,
            durations=tuple(self.durations) if any(self.durations) else (),
            durations_s=self.durations_s,
            preview=self.preview.requests + self.preview.dns if self.preview else 0,
            clients=dict(self.clients or ()),
            failing=dict(self.failing),
        )


class Upstream:
    """A group as this worker knows it, across tables.

    `requests` and `tunnels` are what is under way now; `answered_at` is when a DNS answer last
    carried its address (CLOCK_BOOTTIME, None: never); `refused_until` (loop time) is set when it
    refused a connection; `pool` belongs to the proxy; `is_withdrawn` says that no table has it.
    """

    __slots__ = (
        "answered_at",
        "dial",
        "group",
        "is_withdrawn",
        "pool",
        "refused_until",
        "requests",
        "tally",
        "tunnels",
    )

    def __init__(self, group: str, dial: Dial, tally: Tally) -> None:
        self.group = group
        self.dial = dial
        self.tally = tally
        self.requests = 0
        self.tunnels = 0
        self.answered_at: float | None = None
        self.refused_until = 0.0
        self.is_withdrawn = False
        self.pool: list[object] = []

    def __repr__(self) -> str:
        """Show what a debugger wants to know."""
        state = "withdrawn" if self.is_withdrawn else "in table"
        return f"<Upstream {self.group} {state}, {self.requests} requests, {self.tunnels} tunnels>"


class Lane:
    """One share of a route: its upstreams take turns."""

    __slots__ = ("revision", "tally", "turn", "upstreams", "weight_pct")

    def __init__(self, revision: str, weight_pct: int, tally: Tally) -> None:
        self.revision = revision
        self.weight_pct = weight_pct
        self.tally = tally
        self.upstreams: list[Upstream] = []
        self.turn = 0


class Seat:
    """A place that routes take one after another; who came with an old one finds the newest."""

    __slots__ = ("newest",)

    newest: "Route"


class Route:
    """A table or its preview, compiled. It lives for one generation.

    Attributes:
        seat: Where the route is found that has taken this one's place.
        preview: Counts its clients in place of their revision's tally; None unless it is one.
        salt: What goes into the bucket of a client, which takes the place of chance; None where
            chance decides.
        signature: Field line of a preview's answers that names its revision; empty for others.
        answers: What DNS encoded for it.
    """

    __slots__ = (
        "answers",
        "lanes",
        "misses",
        "preview",
        "salt",
        "seat",
        "shares",
        "signature",
        "table",
    )

    def __init__(
        self,
        table: Table,
        shares: tuple[Share, ...],
        lanes: tuple[Lane, ...],
        *,
        misses: Tally,
        seat: Seat,
        preview: Tally | None = None,
    ) -> None:
        self.table = table
        self.shares = shares
        self.lanes = lanes
        self.misses = misses
        self.seat = seat
        self.preview = preview
        self.salt = table.salt if table.affinity is Affinity.client else None
        self.signature = b"" if preview is None else signature(lanes[0].revision)
        self.answers: dict[object, object] = {}

    def with_lanes(self, lanes: tuple[Lane, ...]) -> "Route":
        """Return the same route with other upstreams in its lanes."""
        return Route(
            self.table,
            self.shares,
            lanes,
            misses=self.misses,
            seat=self.seat,
            preview=self.preview,
        )

    def choose(self, point: float, now: float) -> Upstream | None:
        """Return the upstream for one more client, or None when nothing can be reached.

        The share is drawn by weight. Upstreams that refused a connection lately are passed over
        as long as there is another; a share without any spills to one with a weight above 0.

        Args:
            point: A number in [0, 1): random, or the client's bucket.
            now: Loop time in seconds.
        """
        if not self.lanes:
            return None
        first = pick(self.shares, point)
        lane = self.lanes[first]
        upstream = _next_of(lane, now)
        if upstream is not None:
            return upstream
        for other in self.lanes:
            if other is not lane and other.weight_pct > 0:
                upstream = _next_of(other, now)
                if upstream is not None:
                    lane.tally.spilled += 1
                    return upstream
        return _next_refused(lane) or next(filter(None, map(_next_refused, self.lanes)), None)


def _next_of(lane: Lane, now: float) -> Upstream | None:
    """Return the lane's next upstream that did not refuse lately."""
    upstreams = lane.upstreams
    for _ in upstreams:
        lane.turn = turn = (lane.turn + 1) % len(upstreams)
        if upstreams[turn].refused_until <= now:
            return upstreams[turn]
    return None


def _next_refused(lane: Lane) -> Upstream | None:
    """Return the lane's next upstream even if it refused: better than nothing (promise 9)."""
    if not lane.upstreams or lane.weight_pct == 0:
        return None
    lane.turn = (lane.turn + 1) % len(lane.upstreams)
    return lane.upstreams[lane.turn]
