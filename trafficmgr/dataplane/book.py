"""What a worker knows: the newest tables, compiled for the hot path, and what it counted.

`Book` is the only shared state of a worker. DNS and HTTP read it, the link feeds it, and all of
them run in one thread, so that choosing a target and counting it in flight can be one synchronous
step (field/rollouts.md 3.3). A table swap is a pointer swap: a new `Route` takes the place of the
old one, while `Upstream` objects live on for as long as anyone may still be talking to the group.

A table with a preview is compiled into two routes, one for its hosts and one for `preview.<host>`
of each. They share the upstreams, so that retirement sees all that is under way to a group, but
neither ever serves for the other, and clients of a preview are counted apart: they chose it, so
they say nothing of how weights work out.

Each worker begins at a turn of its own, so that a few requests to many workers don't all go to the
candidate, whose points come first.

Nothing here logs, waits or starts a task.
"""

import zlib
from collections.abc import Callable

from trafficmgr.core.model import Affinity, Dial, Publish, Tcp
from trafficmgr.core.routing import PREVIEW_PREFIX, TURNS, Share, Table, Zones
from trafficmgr.dataplane import ejection
from trafficmgr.dataplane.routes import Lane, Route, Seat, Upstream
from trafficmgr.dataplane.tallies import Tally
from trafficmgr.dataplane.waiting import Gate, Line, Lines, Waiter
from trafficmgr.wire import frames

TOLD_APART = 4
"""Revisions of an endpoint of which clients are told apart: a rollout is about two, and what it
superseded may still be answering. Each costs some KiB in every report, and a worker may live for
thousands of them."""


class Book:
    """Everything a worker knows. Hosts are lower case, without port and last dot.

    `preview_hosts` holds the names that previews made; a host of an endpoint goes before them.
    """

    def __init__(self, start_id: str) -> None:
        self.start_id = start_id
        self.by_host: dict[str, Route] = {}
        self.preview_hosts: dict[str, Route] = {}
        self.by_endpoint: dict[str, Route] = {}
        self.zones = Zones(generation=0, zones=(), advertise=())
        self.on_table: list[Callable[[Route], None]] = []
        self.on_zones: list[Callable[[Zones], None]] = []
        self.on_withdrawn: list[Callable[[Upstream], None]] = []
        self._upstreams: dict[str, dict[str, Upstream]] = {}
        self._tallies: dict[str, dict[str, Tally]] = {}
        self._told_apart: dict[str, list[Tally]] = {}
        self._seats: dict[tuple[str, bool], Seat] = {}
        self._lines: dict[str, dict[str, Line]] = {}
        self._waiting = Lines()
        self._retiring: set[str] = set()
        self._first_turn = zlib.crc32(start_id.encode()) % TURNS

    def apply(self, table: Table) -> bool:
        """Serve this table from now on; returns False if it is not newer than the one served.

        Raises:
            AssertionError: A group has another address than before. Nothing is changed.
        """
        old = self.by_endpoint.get(table.endpoint)
        if old is not None and table.generation <= old.table.generation:
            return False
        self._check_addresses(table)
        preview = self._compiled_preview(table)
        route = self._compiled(table, preview)
        if old is not None:
            _drop(self.by_host, old.table.hosts, old.table)
            _drop(self.preview_hosts, _preview_names(old.table), old.table)
        self._give_hosts(route)
        self.preview_hosts.update(dict.fromkeys(_preview_names(table), preview))
        route.seat.newest, preview.seat.newest = route, preview
        self.by_endpoint[table.endpoint] = route
        self._tell_clients_apart(table)
        for lane in (*preview.lanes, *route.lanes):
            _settle(lane)
        self._withdraw(table)
        for listener in self.on_table:
            listener(route)
        self._wake(route)
        return True

    def sweep(self, now: float) -> None:
        """Keep the deadlines of what waits, once a second (loop time)."""
        for seat in self._seats.values():
            seat.budget.rotate(seat.turn)
        self._waiting.sweep(now)

    def dismiss(self) -> None:
        """Answer what waits, and let nothing wait any more: this worker ends."""
        self._waiting.close()

    def route_of(self, host: str) -> Route | None:
        """Return the route of a host, or of a preview."""
        return self.by_host.get(host) or self.preview_hosts.get(host)

    def hosts(self) -> set[str]:
        """Return every name that leads somewhere."""
        return self.by_host.keys() | self.preview_hosts.keys()

    def apply_zones(self, zones: Zones) -> None:
        """Be authoritative for these zones from now on."""
        if zones.generation > self.zones.generation:
            self.zones = zones
            for listener in self.on_zones:
                listener(zones)

    def generations(self) -> dict[str, int]:
        """Return endpoint -> generation served."""
        return {name: route.table.generation for name, route in self.by_endpoint.items()}

    def retiring(self) -> set[str]:
        """Return the endpoints of which a withdrawn group is known."""
        return self._retiring

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
        endpoints = {endpoint: self.counts_of(endpoint) for endpoint in self._tallies}
        return frames.Counts(start_id=self.start_id, at=now, endpoints=endpoints)

    def counts_of(self, endpoint: str) -> dict[str, frames.ShareCounts]:
        """Return what was counted for an endpoint, by revision."""
        tallies = self._tallies.get(endpoint, {})
        return {revision: tally.frozen() for revision, tally in tallies.items()}

    def bye(self) -> frames.Bye:
        """Return the last frame; the worker must not answer anything after it was made."""
        answered = {
            endpoint: {u.group: u.answered_at for u in known.values() if u.answered_at is not None}
            for endpoint, known in self._upstreams.items()
        }
        return frames.Bye(start_id=self.start_id, answered=answered)

    def _check_addresses(self, table: Table) -> None:
        """A group keeps its address for life (promise 13); its port follows the settings."""
        known = self._upstreams.get(table.endpoint, {})
        for share in _all_shares(table):
            for target in share.targets:
                upstream = known.get(target.group)
                if upstream is None or upstream.dial == target.dial:
                    continue
                assert _place(upstream.dial) == _place(target.dial), (  # noqa: S101  an invariant, stays on
                    f"{upstream} was at {upstream.dial} and is at {target.dial} now"
                )

    def _compiled(self, table: Table, preview: Route) -> Route:
        lanes = tuple(
            self._lane(table, share, self._tally(table, share.revision)) for share in table.shares
        )
        misses = self._tally(table, "")
        seat = self._seat(table, is_preview=False)
        candidate = self._candidate(table, preview) if table.http.pins else None
        return Route(table, table.shares, lanes, misses=misses, seat=seat, candidate=candidate)

    def _compiled_preview(self, table: Table) -> Route:
        """Return the preview's route; without lanes if there is none."""
        share, seat = table.preview, self._seat(table, is_preview=True)
        misses = self._tally(table, "").of_preview()
        if share is None:
            return Route(table, (), (), misses=misses, seat=seat)
        tally = self._tally(table, share.revision).of_preview()
        lanes = (self._lane(table, share, tally),)
        return Route(table, (share,), lanes, misses=misses, seat=seat, preview=tally)

    def _candidate(self, table: Table, preview: Route) -> Lane | None:
        """Return where pins lead that are for the candidate: the groups that are ready of it.

        That is the preview, unless it shows stable (on the way back of a rehearsal); without one,
        the first share of several.
        """
        stable = table.shares[-1].revision if table.shares else ""
        if preview.lanes and preview.lanes[0].revision != stable:
            return preview.lanes[0]
        if len(table.shares) > 1:
            share = table.shares[0]
            return self._lane(table, share, self._tally(table, share.revision).of_preview())
        return None

    def _lane(self, table: Table, share: Share, tally: Tally) -> Lane:
        """Return a share with its upstreams; those that are known are used again."""
        known = self._upstreams.setdefault(table.endpoint, {})
        line = None if table.http.max_requests is None else self._line(table, share.revision)
        lane = Lane(share.revision, share.weight_pct, tally, http=table.http, line=line)
        for target in share.targets:
            upstream = known.get(target.group)
            if upstream is None:
                of_revision = self._tally(table, share.revision)
                upstream = known[target.group] = Upstream(target.group, target.dial, of_revision)
            elif upstream.dial != target.dial:
                self._move(upstream, target.dial)
            upstream.is_withdrawn = False
            lane.upstreams.append(upstream)
        return lane

    def _line(self, table: Table, revision: str) -> Line:
        """Return where requests wait for the groups of a revision."""
        lines = self._lines.setdefault(table.endpoint, {})
        if revision not in lines:
            lines[revision] = Line(self._waiting, self._tally(table, ""))
        return lines[revision]

    def _wake(self, route: Route) -> None:
        """Let those that wait look at the newest table, in the order in which they came."""
        table, gate = route.table, route.seat.gate
        lines = self._lines.get(table.endpoint, {})
        waiters: list[Waiter] = [waiter for line in lines.values() for waiter in line.empty()]
        current = {share.revision for share in _all_shares(table)}
        for revision in lines.keys() - current:
            del lines[revision]
        gate.passing_s = table.http.hold_s
        gate.turn(is_open=not table.http.is_held)
        for waiter in sorted(waiters, key=lambda waiter: waiter.since):
            waiter.resume(None)

    def _move(self, upstream: Upstream, dial: Dial) -> None:
        """Use another port of a group from now on; what is under way to it stays counted."""
        upstream.dial = dial
        for listener in self.on_withdrawn:
            listener(upstream)

    def _seat(self, table: Table, *, is_preview: bool) -> Seat:
        seat = self._seats.get((table.endpoint, is_preview))
        if seat is None:
            gate = Gate(self._waiting, self._tally(table, ""))
            seat = self._seats[table.endpoint, is_preview] = Seat(gate, self._first_turn)
        return seat

    def _give_hosts(self, route: Route) -> None:
        """Let the table's hosts lead to it.

        A host may move to another endpoint, whichever of the two tables comes first. One that has
        nothing to reach (it was removed, perhaps) takes no host away from another that has.
        """
        for host in route.table.hosts:
            holder = self.by_host.get(host)
            if holder is None or route.lanes or not holder.lanes:
                self.by_host[host] = route

    def _tally(self, table: Table, revision: str) -> Tally:
        tallies = self._tallies.setdefault(table.endpoint, {})
        tally = tallies.get(revision)
        if tally is None:
            tally = tallies[revision] = Tally()
        return tally

    def _tell_clients_apart(self, table: Table) -> None:
        """With affinity, count by client for the revisions of the newest tables, and no others."""
        known = self._told_apart.setdefault(table.endpoint, [])  # the newest last
        for share in table.shares:
            tally = self._tally(table, share.revision)
            if tally in known:
                known.remove(tally)
            known.append(tally)
        most = 0 if table.affinity is Affinity.none else TOLD_APART
        gone = len(known) - most
        for number, tally in enumerate(known):
            tally.tell_apart(is_wanted=number >= gone)
        del known[: max(gone, 0)]

    def _withdraw(self, table: Table) -> None:
        """Mark what the table no longer has; it is remembered for the acknowledgement.

        A few words per group that ever ran; a worker that lives for 10,000 rollouts holds some
        megabytes of them.
        """
        present = table.groups()
        for upstream in self._upstreams.get(table.endpoint, {}).values():
            if upstream.group not in present and not upstream.is_withdrawn:
                upstream.is_withdrawn = True
                self._retiring.add(table.endpoint)
                for listener in self.on_withdrawn:
                    listener(upstream)


def _all_shares(table: Table) -> tuple[Share, ...]:
    return table.shares if table.preview is None else (*table.shares, table.preview)


def _settle(lane: Lane) -> None:
    """Tell upstreams what the newest table says of them."""
    for upstream in lane.upstreams:
        upstream.lane, upstream.line, upstream.http = lane, lane.line, lane.http
    ejection.settle(lane)


def _place(dial: Dial) -> str:
    return dial.address if isinstance(dial, Tcp) else dial.path


def _preview_names(table: Table) -> tuple[str, ...]:
    """Return the names of a table's preview; without one they do not exist."""
    return () if table.preview is None else tuple(PREVIEW_PREFIX + host for host in table.hosts)


def _drop(routes: dict[str, Route], names: tuple[str, ...], table: Table) -> None:
    """Remove those of the names that still lead to the table."""
    for name in names:
        if name in routes and routes[name].table is table:
            del routes[name]


def is_direct(table: Table) -> bool:
    """Whether DNS answers with the groups' own addresses."""
    return table.publish is Publish.groups
