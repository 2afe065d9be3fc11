"""Images that nobody needs go in a quiet moment, and whatever goes wrong costs nobody anything."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.controller_support import NAME, eventually, first_events, revision

from trafficmgr.controller import tidy
from trafficmgr.controller.loop import Mind
from trafficmgr.core.events import EngineFound, EngineLost, RevisionSeen
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import Rollout
from trafficmgr.core.state import EndpointState
from trafficmgr.registry.errors import StoreError
from trafficmgr.registry.images import BlobsRemoved, Images
from trafficmgr.registry.store import BlobStore
from trafficmgr.runtimes.contract import ImagesRemoved, RuntimeFailure, RuntimeUnknownError
from trafficmgr.runtimes.memory import MemoryRuntime

NOW = 1000.0


class World(MemoryRuntime):
    """A runtime with images to remove, or with a way to fail."""

    def __init__(self, removed: ImagesRemoved = ImagesRemoved()) -> None:  # noqa: B008  frozen
        super().__init__()
        self.removed = removed
        self.failure: Exception | None = None

    async def keep_images(self, digests: frozenset[str]) -> ImagesRemoved:
        await super().keep_images(digests)
        if self.failure is not None:
            raise self.failure
        return self.removed


class Shelf(Images):
    """Takes note of what was to be kept."""

    def __init__(self, store: BlobStore) -> None:
        super().__init__(store, {})
        self.kept: list[frozenset[str]] = []
        self.failure: Exception | None = None

    async def keep(self, digests: frozenset[str]) -> BlobsRemoved:
        self.kept.append(digests)
        if self.failure is not None:
            raise self.failure
        return BlobsRemoved(blobs=3, size_bytes=10)


class Newest:
    """The state that the loop would have."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    store = BlobStore(tmp_path / "store")
    yield Shelf(store)
    store.close()


def fleet_of(**changes: object) -> Fleet:
    """Return a fleet of one endpoint without a rollout, with revisions v1 to v5."""
    mind = Mind(Fleet())
    for event in first_events(NOW):
        mind.handle(event)
    state = mind.fleet.endpoints[NAME]
    known = {name: revision(name) for name in ("v1", "v2", "v3", "v4", "v5")}
    return mind.fleet.but(endpoints={NAME: state.but(**{"revisions": known, **changes})})


def state_of(fleet: Fleet) -> EndpointState:
    return fleet.endpoints[NAME]


def under_way() -> Mind:
    """Return a mind whose endpoint's first rollout is under way."""
    mind = Mind(Fleet())
    for event in first_events(NOW):
        mind.handle(event)
    mind.handle(RevisionSeen(at=NOW, endpoint=NAME, revision=revision("v1")))
    return mind


def needed(fleet: Fleet) -> set[str]:
    return {one.platform_digest for one in tidy.needed_images(fleet)}


def test_every_revision_that_is_known_is_needed() -> None:
    assert needed(fleet_of()) == {"v1", "v2", "v3", "v4", "v5"}
    assert needed(under_way().fleet) == {"v1"}
    assert needed(Fleet()) == set()


def test_one_in_quarantine_is_needed_only_for_a_role_or_a_group() -> None:
    with_group = state_of(under_way().fleet).groups  # of v1
    fleet = fleet_of(
        quarantined=dict.fromkeys(("v1", "v2", "v3", "v5"), "it failed"),
        newest="v5",
        stable="v2",
        last_good="v3",
        groups=with_group,
    )

    assert needed(fleet) == {"v1", "v2", "v3", "v4"}


async def test_runtime_and_store_keep_what_is_needed_and_one_line_says_what_went(
    shelf: Shelf,
) -> None:
    image = revision("v1").images[0].but(digest="index-1")
    fleet = fleet_of(revisions={"v1": revision("v1").but(images=(image,))})
    runtime = World(ImagesRemoved(images=2, size_bytes=32))

    with capture_logs() as logs:
        await tidy.tidy(fleet, runtime, shelf)

    assert runtime.world.kept_images == [frozenset({"v1"})]
    assert shelf.kept == [frozenset({"v1", "index-1"})]
    assert logs == [
        {"event": "images_tidied", "log_level": "info", "images": 2, "blobs": 3, "bytes": 42}
    ]


async def test_bytes_that_are_not_known_are_not_said(shelf: Shelf) -> None:
    with capture_logs() as logs:
        await tidy.tidy(fleet_of(), World(ImagesRemoved(images=1)), shelf)

    assert "bytes" not in logs[0]


@pytest.mark.parametrize(
    "failure", [RuntimeUnknownError("it is away"), RuntimeFailure("no"), KeyError("ImageID")]
)
async def test_a_runtime_that_fails_is_said_and_the_store_is_left_alone(
    shelf: Shelf, failure: Exception
) -> None:
    runtime = World()
    runtime.failure = failure

    with capture_logs() as logs:
        await tidy.tidy(fleet_of(), runtime, shelf)

    assert [line["event"] for line in logs] == ["images_not_tidied"]
    assert shelf.kept == []


async def test_a_store_that_fails_is_said(shelf: Shelf) -> None:
    shelf.failure = StoreError("of this machine", "it can't be read")

    with capture_logs() as logs:
        await tidy.tidy(fleet_of(), World(), shelf)

    assert [line["event"] for line in logs] == ["images_not_tidied"]
    assert "it can't be read" in logs[0]["reason"]


async def test_it_waits_for_rollouts_and_for_the_engine(shelf: Shelf) -> None:
    mind, runtime = under_way(), World()
    newest = Newest(mind.fleet)
    looks = _Looks(newest)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(tidy.run(looks, runtime, shelf, first_s=0.001, every_s=3600.0))
        await eventually(lambda: looks.count > 3)
        assert runtime.world.kept_images == []  # a rollout is under way

        mind = Mind(_after_rollout(mind.fleet))
        mind.handle(EngineLost(at=NOW, reason="it is away"))
        newest.fleet, looks.count = mind.fleet, 0
        await eventually(lambda: looks.count > 3)
        kept_while_away = list(runtime.world.kept_images)
        mind.handle(EngineFound(at=NOW))
        newest.fleet = mind.fleet
        await eventually(lambda: runtime.world.kept_images)
        task.cancel()

    assert kept_while_away == []
    assert runtime.world.kept_images == [frozenset({"v1"})]


async def test_it_is_done_again_and_again(shelf: Shelf) -> None:
    runtime = World()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(
            tidy.run(Newest(fleet_of()), runtime, shelf, first_s=0.0, every_s=0.001)
        )
        await eventually(lambda: len(runtime.world.kept_images) > 2)
        task.cancel()


class _Looks:
    """The state, and how often it was looked at."""

    def __init__(self, newest: Newest) -> None:
        self._newest = newest
        self.count = 0

    @property
    def fleet(self) -> Fleet:
        self.count += 1
        return self._newest.fleet


def _after_rollout(fleet: Fleet) -> Fleet:
    """Return the state as if the rollout were over."""
    state = state_of(fleet)
    assert isinstance(state.rollout, Rollout)
    over = state.but(rollout=state.rollout.but(ended_at=NOW), stable="v1", candidate="")
    return fleet.but(endpoints={NAME: over})
