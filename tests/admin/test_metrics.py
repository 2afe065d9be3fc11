"""/metrics is read by Prometheus' own parser, and its totals only grow."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import parser
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from support.admin_support import FakeHouse
from support.controller_support import NAME, first_events, revision

from trafficmgr import __version__
from trafficmgr.admin import api
from trafficmgr.admin.metrics import BUCKETS_S, Metrics, Sight
from trafficmgr.admin.ports import UnknownNameError
from trafficmgr.controller.counts import MOST_WORKERS, Ledger
from trafficmgr.controller.loop import Mind
from trafficmgr.core import events
from trafficmgr.core.fleet import Fleet
from trafficmgr.wire.frames import DURATION_BOUNDS_S, Counts, ShareCounts

ALL_BUCKETS = len(DURATION_BOUNDS_S) + 1

ODD = 'sh"op\\\n'
"""No config allows such a name; the format must hold it all the same."""


class Scene:
    """An endpoint in the step of a rollout, one worker, and what it says of itself."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.mind = Mind(Fleet())
        self.trouble = ""
        self.is_registry_failing = False
        for event in first_events(0.0):
            self.mind.handle(event)
        for label, group in (("v1", "shop-1"), ("v2", "shop-2")):
            self.feed(events.RevisionSeen, revision=revision(label))
            self.feed(events.GroupStarted, group=group)
            self.feed(events.GroupReady, group=group)
            self.feed(events.Woke, after_s=20.0)
        self.metrics = Metrics(self.look)

    def feed(self, kind: type[events.EndpointEvent], *, after_s: float = 0.0, **given: Any) -> None:
        self.at = getattr(self, "at", 0.0) + after_s
        self.mind.handle(kind(at=self.at, endpoint=NAME, **given))

    def look(self) -> Sight:
        return Sight(
            fleet=self.mind.fleet,
            ledger=self.ledger,
            registry_failed={NAME: self.is_registry_failing},
            trouble=self.trouble,
        )

    def report(self, start_id: str, **shares: ShareCounts) -> None:
        named = {"" if name == "none" else name: share for name, share in shares.items()}
        self.ledger.hear(Counts(start_id=start_id, at=1.0, endpoints={NAME: named}))

    def families(self) -> dict[str, Metric]:
        page, content_type = self.metrics.exposition("")
        assert content_type.startswith("text/plain; version=")
        return {one.name: one for one in parser.text_string_to_metric_families(page.decode())}

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the samples of a name by their labels' values, in the order of their names."""
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in self.families().values()
            for sample in family.samples
            if sample.name == f"trafficmgr_{name}"
        }


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_every_family_of_the_list_is_there_with_a_help_text(scene: Scene) -> None:
    scene.report("w-1", v1=ShareCounts(requests=3, failures={"connect": 1}))

    families = scene.families()

    assert {name.removeprefix("trafficmgr_") for name in families} == {
        "requests", "failures", "responses_5xx", "dns_answers", "spilled", "ejected",
        "repeated", "in_flight", "waiting",
        "response_seconds", "weight_configured_ratio", "weight_observed_ratio", "groups",
        "groups_ready", "preview_clients", "rollout_phase", "table_generation", "slots_present",
        "registry_check_failed", "journal_trouble", "build_info",
    }  # fmt: skip
    assert all(family.documentation for family in families.values())
    assert families["trafficmgr_requests"].type == "counter"
    assert families["trafficmgr_response_seconds"].type == "histogram"


def test_the_openmetrics_format_is_given_to_who_asks_for_it(scene: Scene) -> None:
    scene.report("w-1", v1=ShareCounts(requests=3, durations=(1,) * ALL_BUCKETS, durations_s=1.0))

    page, content_type = scene.metrics.exposition("application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    read: Any = openmetrics.text_string_to_metric_families  # it has no types
    families = {one.name for one in read(page.decode())}
    assert "trafficmgr_build" in families


def test_counts_have_their_endpoint_revision_and_cause(scene: Scene) -> None:
    scene.report(
        "w-1",
        v1=ShareCounts(requests=10, errors_5xx=2, dns=4, failures={"connect": 1, "timeout": 3}),
        v2=ShareCounts(requests=5, spilled=1),
        none=ShareCounts(requests=6, failures={"no_target": 6}),
    )

    assert scene.samples("requests_total") == {
        (NAME, "v1"): 10, (NAME, "v2"): 5, (NAME, "none"): 6,
    }  # fmt: skip
    assert scene.samples("failures_total") == {
        ("connect", NAME, "v1"): 1, ("timeout", NAME, "v1"): 3, ("no_target", NAME, "none"): 6,
    }  # fmt: skip
    assert scene.samples("responses_5xx_total")[NAME, "v1"] == 2
    assert scene.samples("dns_answers_total")[NAME, "v1"] == 4
    assert scene.samples("spilled_total")[NAME, "v2"] == 1


def test_durations_are_a_cumulative_histogram(scene: Scene) -> None:
    took = {0.001: 5, 0.0012: 1, 0.004: 1, 0.005: 1, 0.006: 1, 10.0: 1, 30.0: 1}
    counts = (*(took.get(bound, 0) for bound in DURATION_BOUNDS_S), 1)
    scene.report("w-1", v1=ShareCounts(requests=12, durations=counts, durations_s=12.5))

    buckets = {
        float(sample.labels["le"]): sample.value
        for sample in scene.families()["trafficmgr_response_seconds"].samples
        if sample.name.endswith("_bucket") and sample.labels["revision"] == "v1"
    }

    assert sorted(buckets) == [*BUCKETS_S, float("inf")]
    bounds = (0.001, 0.0025, 0.005, 0.01, 5.0, 10.0, float("inf"))
    assert [buckets[bound] for bound in bounds] == [5, 6, 8, 9, 9, 10, 12]
    assert scene.samples("response_seconds_count")[NAME, "v1"] == 12
    assert scene.samples("response_seconds_sum")[NAME, "v1"] == 12.5


def test_no_bucket_of_prometheus_cuts_one_of_the_workers_in_two() -> None:
    assert set(BUCKETS_S) <= set(DURATION_BOUNDS_S)


def test_the_state_is_shown_as_it_is(scene: Scene) -> None:
    state = scene.mind.fleet.endpoints[NAME]
    weights = {share.revision: share.weight_pct / 100 for share in state.table.shares}

    assert scene.samples("weight_configured_ratio") == {
        (NAME, name): weights.get(name, 0) for name in state.revisions
    }
    assert scene.samples("groups_ready") == {(NAME, "v1"): 1, (NAME, "v2"): 1}
    assert scene.samples("groups") == {(NAME, "v1"): 1, (NAME, "v2"): 1}
    assert scene.samples("table_generation") == {(NAME,): state.table.generation}
    assert scene.samples("slots_present") == {(NAME,): 1}
    assert scene.samples("build_info") == {(__version__,): 1}
    phases = scene.samples("rollout_phase")
    assert state.rollout is not None
    assert {phase for (_, phase), value in phases.items() if value} == {state.rollout.phase.value}
    assert sum(phases.values()) == 1


def test_troubles_are_shown(scene: Scene) -> None:
    assert scene.samples("journal_trouble") == {(): 0}
    assert scene.samples("registry_check_failed") == {(NAME,): 0}

    scene.trouble, scene.is_registry_failing = "the disk is full", True

    assert scene.samples("journal_trouble") == {(): 1}
    assert scene.samples("registry_check_failed") == {(NAME,): 1}


def test_the_observed_share_is_that_of_the_present_weights(scene: Scene) -> None:
    """Each worker's part begins when it serves by them; without clients there is no share."""
    scene.report("w-1", v1=ShareCounts(requests=1000))
    scene.ledger.cut(NAME, 7)
    scene.report("w-1", v1=ShareCounts(requests=1050))
    assert scene.samples("weight_observed_ratio") == {}

    scene.ledger.applied(NAME, "w-1", 7)
    scene.report("w-1", v1=ShareCounts(requests=1060), v2=ShareCounts(requests=20, dns=10))
    scene.ledger.applied(NAME, "w-1", 8)  # other groups, the same weights

    assert scene.samples("weight_observed_ratio") == {(NAME, "v1"): 0.25, (NAME, "v2"): 0.75}


# -- totals only grow -----------------------------------------------------------------------------


def test_a_worker_that_restarts_takes_nothing_from_the_totals(scene: Scene) -> None:
    scene.report("w-1", v1=ShareCounts(requests=10, failures={"connect": 1}, in_flight=3))
    scene.report("w-2", v1=ShareCounts(requests=1))
    scene.report("w-1", v1=ShareCounts(requests=11, failures={"connect": 1}, in_flight=3))

    assert scene.samples("requests_total")[NAME, "v1"] == 12
    assert scene.samples("failures_total")["connect", NAME, "v1"] == 1


def test_what_a_dead_worker_had_under_way_is_not_under_way(scene: Scene) -> None:
    alive = scene.mind.fleet.endpoints[NAME].slots[0].start_id
    scene.report("dead", v1=ShareCounts(requests=10, in_flight=3))
    scene.report(alive, v1=ShareCounts(requests=1, in_flight=1))

    assert scene.samples("in_flight")[NAME, "v1"] == 1


def test_who_waits_is_counted_in_workers_that_live(scene: Scene) -> None:
    alive = scene.mind.fleet.endpoints[NAME].slots[0].start_id
    for start_id in ("dead", alive):
        scene.report(start_id, none=ShareCounts(waiting=4))

    assert scene.samples("waiting") == {(NAME,): 4}


def test_totals_outlive_any_number_of_workers(scene: Scene) -> None:
    """Only so many workers are told apart; the sums of all others are kept, and kept once."""
    for number in range(3 * MOST_WORKERS):
        before = scene.samples("requests_total").get((NAME, "v1"), 0)
        scene.report(f"w-{number}", v1=ShareCounts(requests=2))
        assert scene.samples("requests_total")[NAME, "v1"] == before + 2

    scene.report("w-0", v1=ShareCounts(requests=2))

    assert scene.samples("requests_total")[NAME, "v1"] == 6 * MOST_WORKERS
    assert len(scene.ledger._newest) == MOST_WORKERS


def test_a_revision_that_the_endpoint_has_forgotten_has_no_series(scene: Scene) -> None:
    """Otherwise each rollout would leave some twenty series behind for ever."""
    scene.report("w-1", v1=ShareCounts(requests=1), v0=ShareCounts(requests=5))

    assert (NAME, "v0") not in scene.samples("requests_total")


def test_names_are_escaped(scene: Scene) -> None:
    state = scene.mind.fleet.endpoints[NAME]
    scene.mind.fleet = scene.mind.fleet.but(endpoints={ODD: state})

    assert scene.samples("table_generation") == {(ODD,): state.table.generation}


# -- over HTTP ------------------------------------------------------------------------------------


class FakeReports:
    """Made-up reports behind the real routes."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def metrics(self, accept: str) -> tuple[bytes, str]:
        return self.scene.metrics.exposition(accept)

    async def receipts(self, endpoint: str | None, limit: int) -> list[dict[str, Any]]:
        return [{"endpoint": endpoint, "limit": limit}]

    async def receipt(self, rollout: str) -> dict[str, Any]:
        if rollout != "shop-r1":
            raise UnknownNameError(f"There is no receipt of a rollout {rollout!r}.")
        return {"id": rollout}


@pytest.fixture
async def session(tmp_path: Path, scene: Scene) -> AsyncIterator[aiohttp.ClientSession]:
    path = tmp_path / "admin.sock"
    async with (
        api.serve(FakeHouse(), path, FakeReports(scene)),
        aiohttp.ClientSession("http://api", connector=aiohttp.UnixConnector(str(path))) as session,
    ):
        yield session


async def test_metrics_are_served_with_their_content_type(session: aiohttp.ClientSession) -> None:
    async with session.get("/metrics") as answer:
        text = await answer.text()

    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert list(parser.text_string_to_metric_families(text))


async def test_receipts_are_served_and_unknown_ones_are_404(session: aiohttp.ClientSession) -> None:
    async with session.get("/v1/receipts?endpoint=shop&limit=1") as answer:
        assert await answer.json() == [{"endpoint": "shop", "limit": 1}]
    async with session.get("/v1/receipts/shop-r1") as answer:
        assert await answer.json() == {"id": "shop-r1"}
    async with session.get("/v1/receipts/shop-r9") as answer:
        assert (answer.status, (await answer.json())["error"]) == (
            404,
            "There is no receipt of a rollout 'shop-r9'.",
        )
    async with session.get("/v1/receipts?limit=all") as answer:
        assert answer.status == 400
