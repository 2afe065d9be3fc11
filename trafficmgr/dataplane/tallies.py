"""What a worker counts: plain integers per revision of an endpoint, from its start to its end.

The hot path adds to them, the link reports them (wire.frames.ShareCounts says what each means).
"""

from bisect import bisect_left

from trafficmgr.wire import frames

ANSWERED_5XX = "5xx"
"""The reason of a failure that the application answered itself."""


_NONE: list[int] = []
"""Shared by all that have none, as most endpoints at rest; it is never added to."""


class Tally:
    """Cumulative counts of one revision of one endpoint; plain integers (DESIGN 7).

    `preview` counts the clients of `preview.<host>` in the same way (None: there were none).
    `clients` and `failing` are finished and failed requests by client bucket (None: clients are
    not told apart). `waiting` is who waits now.
    """

    __slots__ = (
        "_last",
        "_told",
        "clients",
        "dns",
        "durations",
        "durations_s",
        "ejected",
        "errors_5xx",
        "failing",
        "failures",
        "in_flight",
        "moved",
        "preview",
        "repeated",
        "requests",
        "spilled",
        "waiting",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.errors_5xx = 0
        self.failures: dict[str, int] = {}
        self.dns = 0
        self.spilled = 0
        self.in_flight = 0
        self.moved = 0
        self.ejected = 0
        self.repeated = 0
        self.waiting = 0
        self.durations: list[int] = _NONE
        self.durations_s = 0.0
        self.preview: Tally | None = None
        self.clients: dict[int, int] | None = None
        self.failing: dict[int, int] = {}
        self._last: frames.ShareCounts | None = None
        self._told: tuple[int, ...] = ()

    def of_preview(self) -> "Tally":
        """Return where the clients of a preview are counted."""
        if self.preview is None:
            self.preview = Tally()
        return self.preview

    def answered(self, after_s: float) -> None:
        """Count an answer by how long it took to begin."""
        if not self.durations:
            self.durations = [0] * (len(frames.DURATION_BOUNDS_S) + 1)
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
        """Return the counts as they are reported.

        While nothing happened they are those of the last time: most endpoints rest most of the
        time, and a thousand of them must not hold up requests once a second.
        """
        preview = self.preview
        told = (
            self.requests,
            self.dns,
            self.waiting,
            self.spilled,
            self.ejected,
            0 if preview is None else preview.requests + preview.dns,
            self.clients is None,
        )
        last = self._last
        if last is None or told != self._told or self.in_flight or last.in_flight:
            self._told = told  # whatever ends or fails was in flight before
            last = self._last = self._counted()
        return last

    def _counted(self) -> frames.ShareCounts:
        return frames.ShareCounts(
            requests=self.requests,
            errors_5xx=self.errors_5xx,
            failures=dict(self.failures),
            dns=self.dns,
            spilled=self.spilled,
            in_flight=self.in_flight,
            moved=self.moved,
            ejected=self.ejected,
            repeated=self.repeated,
            waiting=self.waiting,
            durations=tuple(self.durations),
            durations_s=self.durations_s,
            preview=self.preview.requests + self.preview.dns if self.preview else 0,
            clients=dict(self.clients or ()),
            failing=dict(self.failing),
        )
