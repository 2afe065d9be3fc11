"""What a worker's hot path reads: tables, compiled, and the counts that go with them.

A `Route` is a table or its preview; its `Lane`s are the shares, whose `Upstream`s take turns. A
route lives for one generation and upstreams live on, while a `Seat` leads from a route that may be
old to the newest of its kind. `book` makes all of them.

Requests take their turns at the seat, so that weights hold across tables: one that comes with
the same weights, or with other groups, changes nothing of whose turn it is.

Choosing is a few steps over plain integers: nothing here logs, waits or allocates per client.
"""

from trafficmgr.core.model import Affinity, Dial
from trafficmgr.core.routing import Share, Table, pick
from trafficmgr.core.traffic import Balance, HttpPolicy, PinTo
from trafficmgr.dataplane import balance
from trafficmgr.dataplane.budget import Budget
from trafficmgr.dataplane.marks import Marks
from trafficmgr.dataplane.tallies import Tally
from trafficmgr.dataplane.waiting import Gate, Line
from trafficmgr.wire.http_response import signature

UNLIMITED = 1 << 60
"""Requests that a group may have where nothing says how many."""

_USUAL = HttpPolicy()


class Upstream:
    """A group as this worker knows it, across tables.

    `requests` and `tunnels` are what is under way now; `answered_at` is when a DNS answer last
    carried its address (CLOCK_BOOTTIME, None: never); `pool` belongs to the proxy; `is_withdrawn`
    says that no table has it.

    `refused_until` (loop time) is set when it refused a connection, `spared_until` when others of
    its share shall go before it. `failures` are those in a row, `ejections` how often it was
    ejected since it last succeeded, `ejected_until` when that ends. `lane`, `line` and `http` are
    the newest table's: the share that has it, who waits for it, how it is served.
    """

    __slots__ = (
        "answered_at",
        "dial",
        "ejected_until",
        "ejections",
        "failures",
        "group",
        "http",
        "is_withdrawn",
        "lane",
        "line",
        "pool",
        "refused_until",
        "requests",
        "spared_until",
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
        self.spared_until = 0.0
        self.ejected_until = 0.0
        self.ejections = 0
        self.failures = 0
        self.is_withdrawn = False
        self.lane: Lane | None = None
        self.line: Line | None = None
        self.http = _USUAL
        self.pool: list[object] = []

    def __repr__(self) -> str:
        """Show what a debugger wants to know."""
        state = "withdrawn" if self.is_withdrawn else "in table"
        return f"<Upstream {self.group} {state}, {self.requests} requests, {self.tunnels} tunnels>"


class Lane:
    """One share of a route: its upstreams take turns.

    Attributes:
        order: Whose turn it is, by the policy.
        next: The same, and with a limit whose turn it is to have room.
        most: Requests that each upstream may have.
        line: Who waits for room; None without a limit.
    """

    __slots__ = (
        "http",
        "line",
        "most",
        "next",
        "order",
        "revision",
        "tally",
        "turn",
        "upstreams",
        "weight_pct",
    )

    def __init__(
        self,
        revision: str,
        weight_pct: int,
        tally: Tally,
        *,
        http: HttpPolicy = _USUAL,
        line: Line | None = None,
    ) -> None:
        self.revision = revision
        self.weight_pct = weight_pct
        self.tally = tally
        self.http = http
        self.line = line
        self.most = http.max_requests or UNLIMITED
        is_least = http.balance is Balance.least_requests
        self.order: balance.Order = balance.least_requests if is_least else balance.in_turn
        self.next: balance.Order = self.order if line is None else balance.with_room
        self.upstreams: list[Upstream] = []
        self.turn = 0

    @property
    def is_owed(self) -> bool:
        """Whether a newcomer is behind others that wait."""
        return self.line is not None and self.line.is_owed


class Seat:
    """A place that routes take one after another; who came with an old one finds the newest.

    Attributes:
        turn: Of the request that came last; it only grows, by one with each (`point_at`).
        budget: Of requests that are sent again.
        gate: Where requests wait while the endpoint is held.
    """

    __slots__ = ("budget", "gate", "newest", "turn")

    newest: "Route"

    def __init__(self, gate: Gate, turn: int = 0) -> None:
        self.turn = turn
        self.budget = Budget(turn)
        self.gate = gate


class Route:
    """A table or its preview, compiled. It lives for one generation.

    Attributes:
        seat: Where the route is found that has taken this one's place.
        preview: Counts its clients in place of their revision's tally; None unless it is one.
        candidate: Where requests go that are pinned to the candidate; None if there is none.
        only: The one lane, if neither turn nor client nor pin decides anything; None otherwise.
        marks: How to read what requests carry that decides; None where only their turn does.
        is_held: Requests wait.
        signature: Field line of a preview's answers that names its revision; empty for others.
        answers: What DNS encoded for it.
    """

    __slots__ = (
        "answers",
        "candidate",
        "is_held",
        "lanes",
        "marks",
        "misses",
        "only",
        "preview",
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
        candidate: Lane | None = None,
    ) -> None:
        self.table = table
        self.shares = shares
        self.lanes = lanes
        self.misses = misses
        self.seat = seat
        self.preview = preview
        self.candidate = candidate
        has_marks = table.affinity is not Affinity.none or bool(table.http.pins)
        self.marks = Marks(table) if has_marks and preview is None else None
        self.only = lanes[0] if len(lanes) == 1 and self.marks is None else None
        self.is_held = table.http.is_held and preview is None
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

    def choose(self, point: float, now: float, pin: PinTo | None = None) -> Upstream | None:
        """Return the upstream for one more client, or None if nothing can take it now.

        The share is the pin's or that of the point. Upstreams that refused a connection lately are
        passed over as long as there is another; a share without any spills to one with a weight
        above 0. With a limit, a share that is full lets nobody go elsewhere (`line_for`).

        Args:
            point: A number in [0, 1): of a turn, of the client's bucket, or random.
            now: Loop time in seconds.
            pin: Whom the request is pinned to.
        """
        lane = self._lane(point, pin)
        if lane is None:
            return None
        return lane.next(lane, now) or self.instead(lane, now)

    def line_for(self, point: float, now: float, pin: PinTo | None) -> Line | None:
        """Return where to wait, after nothing could be chosen; None if room is not what is lacking.

        Args:
            point: As for `choose`.
            now: As for `choose`.
            pin: As for `choose`.
        """
        lane = self._lane(point, pin)
        others = (other for other in self.lanes if other.weight_pct > 0)
        for one in others if lane is None else (lane, *others):
            if any(upstream.refused_until <= now for upstream in one.upstreams):
                return one.line
        return None

    def lane_of(self, revision: str) -> Lane | None:
        """Return the lane of a revision."""
        return next((lane for lane in self.lanes if lane.revision == revision), None)

    def tally_of(self, upstream: Upstream, pin: PinTo | None) -> Tally:
        """Return where a request to this upstream is counted.

        Who is pinned to the candidate chose it, as the clients of a preview did, and says as
        little of how weights work out. Who is pinned to stable is one client of stable's more.
        """
        if self.preview is not None:
            return self.preview
        candidate = self.candidate if pin is PinTo.candidate else None
        if candidate is not None and upstream in candidate.upstreams:
            return candidate.tally
        return upstream.tally

    def _lane(self, point: float, pin: PinTo | None) -> Lane | None:
        lanes = self.lanes
        if pin is None and len(lanes) > 1:
            return lanes[pick(self.shares, point)]
        if pin is PinTo.candidate and self.candidate is not None:
            return self.candidate
        return lanes[-1] if lanes else None

    def instead(self, lane: Lane, now: float) -> Upstream | None:
        """Return who serves in place of a lane that has nobody whose turn it is."""
        if any(upstream.refused_until <= now for upstream in lane.upstreams):
            return balance.spared(lane, now)
        for other in self.lanes:
            if other is not lane and other.weight_pct > 0:
                upstream = other.next(other, now) or balance.spared(other, now)
                if upstream is not None:
                    lane.tally.spilled += 1
                    return upstream
        return balance.refused(lane) or next(filter(None, map(balance.refused, self.lanes)), None)
