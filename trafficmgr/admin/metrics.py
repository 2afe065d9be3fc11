"""`/metrics`: the live state and the workers' counts, as Prometheus reads them.

Nothing is kept for it: each scrape is made of the state and the ledger. A revision has series as
long as its endpoint knows it (stable, candidate, previous, or with groups left); "none" is what
found no target. Totals never go down while the controller lives. After a controller's restart they
begin with what the living workers have counted since their own start, which to Prometheus is a
counter's reset at most.

Names and units follow https://prometheus.io/docs/practices/naming/.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

from trafficmgr import __version__
from trafficmgr.controller.counts import NOTHING, ByRevision, Ledger
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import short
from trafficmgr.wire.frames import DURATION_BOUNDS_S, ShareCounts

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of durations. Prometheus' usual ones, and finer below 5 ms: groups
are on the same host. Workers count in more of them, but each costs a series per revision."""

NO_TARGET = "none"
"""The revision label of what found no target."""

NO_ROLLOUT = "none"
"""The phase label of an endpoint without a rollout under way."""

PHASES = (NO_ROLLOUT, "progressing", "promoting", "aborting")

SINCE = (
    " Since the workers started; a worker that died stays in the sum while the controller lives."
)

BY_REVISION = ("endpoint", "revision")


class Sight:
    """All that is looked at for one scrape."""

    def __init__(
        self, *, fleet: Fleet, ledger: Ledger, registry_failed: dict[str, bool], trouble: str
    ) -> None:
        """Make it.

        Args:
            fleet: The state.
            ledger: What workers counted.
            registry_failed: Endpoint -> whether the last look at one of its images failed.
            trouble: Why the journal can't be written; "" if it can.
        """
        self.fleet = fleet
        self.registry_failed = registry_failed
        self.trouble = trouble
        self.ledger = ledger

    def endpoints(self) -> Iterator[tuple[str, EndpointState, ByRevision]]:
        """Yield each endpoint with the counts of the revisions that it still knows."""
        for name, state in sorted(self.fleet.endpoints.items()):
            counted = self.ledger.totals(name)
            known = {revision: counted.get(revision, NOTHING) for revision in state.revisions}
            yield name, state, {**known, "": counted.get("", NOTHING)}

    def in_flight(self, state: EndpointState) -> dict[str, int]:
        """Return the requests under way by revision, in the workers that live."""
        under_way: dict[str, int] = {}
        for revision, share in self._living(state):
            under_way[revision] = under_way.get(revision, 0) + share.in_flight
        return under_way

    def waiting(self, state: EndpointState) -> int:
        """Return the requests that wait for a release or for room, in the workers that live."""
        return sum(share.waiting for _, share in self._living(state))

    def _living(self, state: EndpointState) -> Iterator[tuple[str, ShareCounts]]:
        for slot in state.slots:
            counts = self.ledger.of(slot.start_id)
            if counts is not None:
                yield from counts.endpoints.get(state.name, {}).items()


class Metrics(Collector):
    """Makes all metrics anew at each scrape."""

    def __init__(self, look: Callable[[], Sight]) -> None:
        self._look = look
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the page and its content type, in the format that the scraper likes best."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type

    def describe(self) -> Iterable[Metric]:
        """Name nothing: no other collector is in this registry."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        sight = self._look()
        yield from _traffic(sight)
        yield _durations(sight)
        yield from _shares(sight)
        yield from _groups(sight)
        yield _phases(sight)
        yield from _service(sight)


def _traffic(sight: Sight) -> Iterator[Metric]:
    counters: tuple[tuple[str, str, Callable[[ShareCounts], int]], ...] = (
        ("requests", "HTTP requests, by the revision that they went to.", lambda s: s.requests),
        (
            "responses_5xx",
            "Answers of the application with a status of 5xx.",
            lambda s: s.errors_5xx,
        ),
        ("dns_answers", "DNS answers that carried an address of the revision.", lambda s: s.dns),
        ("spilled", "Clients drawn for the revision and served by another.", lambda s: s.spilled),
        ("ejected", "Times that a group was passed over because it failed.", lambda s: s.ejected),
        ("repeated", "Requests that were safe to send again, and were.", lambda s: s.repeated),
        (
            "preview_clients",
            "Clients of its preview; they count nowhere else.",
            lambda s: s.preview,
        ),
    )
    for name, says, of in counters:
        family = CounterMetricFamily(f"trafficmgr_{name}", says + SINCE, labels=BY_REVISION)
        for endpoint, _, counted in sight.endpoints():
            for revision, share in counted.items():
                family.add_metric((endpoint, _label(revision)), of(share))
        yield family
    yield _failures(sight)


def _failures(sight: Sight) -> Metric:
    family = CounterMetricFamily(
        "trafficmgr_failures",
        "Requests that the proxy itself had to answer or break off, by cause." + SINCE,
        labels=(*BY_REVISION, "cause"),
    )
    for endpoint, _, counted in sight.endpoints():
        for revision, share in counted.items():
            for cause, count in share.failures.items():
                family.add_metric((endpoint, _label(revision), cause), count)
    return family


def _durations(sight: Sight) -> Metric:
    family = HistogramMetricFamily(
        "trafficmgr_response_seconds",
        "From the choice of a group to the first byte of its answer." + SINCE,
        labels=BY_REVISION,
    )
    for endpoint, _, counted in sight.endpoints():
        for revision in filter(None, counted):
            share = counted[revision]
            buckets = list(_buckets(share.durations))
            family.add_metric((endpoint, _label(revision)), buckets, share.durations_s)
    return family


def _buckets(durations: tuple[int, ...]) -> Iterator[tuple[str, float]]:
    """Yield the upper bound and the cumulative count of each bucket."""
    within = [0, *accumulate(durations or (0,) * (len(DURATION_BOUNDS_S) + 1))]
    for name, bound in zip(map(floatToGoString, BUCKETS_S), BUCKETS_S, strict=True):
        yield name, within[bisect_right(DURATION_BOUNDS_S, bound)]
    yield "+Inf", within[-1]


def _shares(sight: Sight) -> Iterator[Metric]:
    configured = GaugeMetricFamily(
        "trafficmgr_weight_configured_ratio",
        "The revision's share of clients by the newest table, 0 to 1.",
        labels=BY_REVISION,
    )
    observed = GaugeMetricFamily(
        "trafficmgr_weight_observed_ratio",
        "Its share of the clients served since the weights last changed; absent without clients.",
        labels=BY_REVISION,
    )
    in_flight = GaugeMetricFamily(
        "trafficmgr_in_flight", "HTTP requests under way.", labels=BY_REVISION
    )
    waiting = GaugeMetricFamily(
        "trafficmgr_waiting",
        "HTTP requests that wait, because the endpoint is held or for room at a group.",
        labels=("endpoint",),
    )
    for endpoint, state, counted in sight.endpoints():
        waiting.add_metric((endpoint,), sight.waiting(state))
        weights = {share.revision: share.weight_pct for share in state.table.shares}
        served, under_way = sight.ledger.observed(endpoint), sight.in_flight(state)
        everybody = sum(served.values())
        for revision in filter(None, counted):
            labels = (endpoint, _label(revision))
            configured.add_metric(labels, weights.get(revision, 0) / 100)
            in_flight.add_metric(labels, under_way.get(revision, 0))
            if everybody:
                observed.add_metric(labels, served.get(revision, 0) / everybody)
    return iter((configured, observed, in_flight, waiting))


def _groups(sight: Sight) -> Iterator[Metric]:
    every = GaugeMetricFamily(
        "trafficmgr_groups", "Groups that are not gone, in whatever state.", labels=BY_REVISION
    )
    ready = GaugeMetricFamily(
        "trafficmgr_groups_ready", "Groups that pass their probes and stay.", labels=BY_REVISION
    )
    for endpoint, state, counted in sight.endpoints():
        for revision in filter(None, counted):
            labels = (endpoint, _label(revision))
            every.add_metric(labels, sum(g.revision == revision for g in state.groups))
            ready.add_metric(labels, len(state.ready(revision)))
    return iter((every, ready))


def _phases(sight: Sight) -> Metric:
    family = GaugeMetricFamily(
        "trafficmgr_rollout_phase",
        "1 for the phase that the endpoint's rollout is in, 0 for the others.",
        labels=("endpoint", "phase"),
    )
    for endpoint, state in sorted(sight.fleet.endpoints.items()):
        rollout = state.rollout
        now = NO_ROLLOUT if rollout is None or rollout.is_over else rollout.phase.value
        for phase in PHASES:
            family.add_metric((endpoint, phase), phase == now)
    return family


def _service(sight: Sight) -> Iterator[Metric]:
    states = sorted(sight.fleet.endpoints.items())
    generation = GaugeMetricFamily(
        "trafficmgr_table_generation", "The newest routing table's number.", labels=("endpoint",)
    )
    present = GaugeMetricFamily(
        "trafficmgr_slots_present",
        "Slots whose worker has said hello to this controller.",
        labels=("endpoint",),
    )
    unseen = GaugeMetricFamily(
        "trafficmgr_registry_check_failed",
        "1 if the last look at one of its images at the registry failed.",
        labels=("endpoint",),
    )
    for endpoint, state in states:
        generation.add_metric((endpoint,), state.table.generation)
        present.add_metric((endpoint,), sum(slot.is_present for slot in state.slots))
        unseen.add_metric((endpoint,), sight.registry_failed.get(endpoint, False))
    journal = GaugeMetricFamily(
        "trafficmgr_journal_trouble", "1 while the journal can't be written and decisions wait."
    )
    journal.add_metric((), bool(sight.trouble))
    build = InfoMetricFamily("trafficmgr_build", "The version that runs.")
    build.add_metric((), {"version": __version__})
    return iter((generation, present, unseen, journal, build))


def _label(revision: str) -> str:
    return short(revision) or NO_TARGET
