"""What a worker knows: the newest tables, compiled for the hot path, and what it counted.

`Book` is the only shared state of a worker. DNS and HTTP read it, the link feeds it, and all of
them run in one thread, so that choosing a target and counting it in flight can be one synchronous
step (field/rollouts.md 3.3). A table swap is a pointer swap: a new `Route` takes the place of the
old one, while `Upstream` objects live on for as long as anyone may still be talking to the group.

Nothing here logs, waits or starts a task.
"""

from collections.abc import Callable

from trafficmgr.core.model import Dial, Publish
from trafficmgr.core.routing import Table, Zones, pick
from trafficmgr.wire import frames


class Tally:
    """Cumulative counts of one revision of one endpoint; plain integers (DESIGN 7)."""

    __slots__ = ("dns", "errors_5xx", "failures", "in_flight", "requests", "spilled")

    def __init__(self) -> None:
        self.requests = 0
        self.errors_5xx = 0
        self.failures: dict[str, int] = {}
        self.dns = 0
        self.spilled = 0
        self.in_flight = 0

    def fail(self, reason: str) -> None:
        """Count a request that the proxy itself had to answer or break off."""
        self.failures[reason] = self.failures.get(reason, 0) + 1

    def frozen(self) -> frames.ShareCounts:
        """Return the counts as they are reported."""
        return frames.ShareCounts(
            requests=self.requests,
            errors_5xx=self.errors_5xx,
            failures=dict(self.failures),
            dns=self.dns,
            spilled=self.spilled,
            in_flight=self.in_flight,
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


class Route:
    """A table, compiled. It lives for one generation; `answers` caches what DNS encoded for it."""

    __slots__ = ("answers", "lanes", "misses", "table")

    def __init__(self, table: Table, lanes: tuple[Lane, ...], misses: Tally) -> None:
        self.table = table
        self.lanes = lanes
        self.misses = misses
        self.answers: dict[object, object] = {}

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
        first = pick(self.table.shares, point)
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


class Book:
    """Everything a worker knows. `by_host` keys are lower case, without port and last dot."""

    def __init__(self, start_id: str) -> None:
        self.start_id = start_id
        self.by_host: dict[str, Route] = {}
        self.by_endpoint: dict[str, Route] = {}
        self.zones = Zones(generation=0, zones=(), advertise=())
        self.on_table: list[Callable[[Route], None]] = []
        self.on_zones: list[Callable[[Zones], None]] = []
        self.on_withdrawn: list[Callable[[Upstream], None]] = []
        self._upstreams: dict[str, dict[str, Upstream]] = {}
        self._tallies: dict[str, dict[str, Tally]] = {}

    def apply(self, table: Table) -> bool:
        """Serve this table from now on; returns False if it is not newer than the one served."""
        old = self.by_endpoint.get(table.endpoint)
        if old is not None and table.generation <= old.table.generation:
            return False
        route = self._compiled(table)
        if old is not None:
            for host in old.table.hosts:
                if self.by_host.get(host) is old:  # it may have moved to another endpoint
                    del self.by_host[host]
        for host in table.hosts:
            self.by_host[host] = route
        self.by_endpoint[table.endpoint] = route
        self._withdraw(table)
        for listener in self.on_table:
            listener(route)
        return True

    def apply_zones(self, zones: Zones) -> None:
        """Be authoritative for these zones from now on."""
        if zones.generation > self.zones.generation:
            self.zones = zones
            for listener in self.on_zones:
                listener(zones)

    def generations(self) -> dict[str, int]:
        """Return endpoint -> generation served."""
        return {name: route.table.generation for name, route in self.by_endpoint.items()}

    def applied(self, endpoint: str) -> frames.Applied:
        """Return what the controller must know of an endpoint's withdrawn groups."""
        withdrawn = [u for u in self._upstreams.get(endpoint, {}).values() if u.is_withdrawn]
        return frames.Applied(
            endpoint=endpoint,
            generation=self.by_endpoint[endpoint].table.generation,
            answered={u.group: u.answered_at for u in withdrawn if u.answered_at is not None},
            http_busy=tuple(u.group for u in withdrawn if u.requests),
            tunnel_busy=tuple(u.group for u in withdrawn if u.tunnels),
        )

    def counts(self, now: float) -> frames.Counts:
        """Return everything counted since this worker started."""
        return frames.Counts(
            start_id=self.start_id,
            at=now,
            endpoints={
                endpoint: {revision: tally.frozen() for revision, tally in tallies.items()}
                for endpoint, tallies in self._tallies.items()
            },
        )

    def bye(self) -> frames.Bye:
        """Return the last frame; the worker must not answer anything after it was made."""
        answered = {
            endpoint: {u.group: u.answered_at for u in known.values() if u.answered_at is not None}
            for endpoint, known in self._upstreams.items()
        }
        return frames.Bye(start_id=self.start_id, answered=answered)

    def _compiled(self, table: Table) -> Route:
        known = self._upstreams.setdefault(table.endpoint, {})
        lanes = []
        for share in table.shares:
            lane = Lane(share.revision, share.weight_pct, self._tally(table, share.revision))
            for target in share.targets:
                upstream = known.get(target.group)
                if upstream is None or upstream.dial != target.dial:
                    upstream = Upstream(target.group, target.dial, lane.tally)
                    known[target.group] = upstream
                upstream.is_withdrawn = False
                lane.upstreams.append(upstream)
            lanes.append(lane)
        return Route(table, tuple(lanes), self._tally(table, ""))

    def _tally(self, table: Table, revision: str) -> Tally:
        return self._tallies.setdefault(table.endpoint, {}).setdefault(revision, Tally())

    def _withdraw(self, table: Table) -> None:
        """Mark what the table no longer has; it is remembered for the acknowledgement.

        A few words per group that ever ran; a worker that lives for 10,000 rollouts holds some
        megabytes of them.
        """
        present = table.groups()
        for upstream in self._upstreams[table.endpoint].values():
            if upstream.group not in present and not upstream.is_withdrawn:
                upstream.is_withdrawn = True
                for listener in self.on_withdrawn:
                    listener(upstream)


def is_direct(table: Table) -> bool:
    """Whether DNS answers with the groups' own addresses."""
    return table.publish is Publish.groups
