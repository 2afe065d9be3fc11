"""Ears tell edges: readiness, ends of direct connections, revisions."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import web
from support.controller_support import NAME, Clock, eventually, revision, settings

from trafficmgr.controller.images import ImageWatch
from trafficmgr.controller.kernel import connected_addresses
from trafficmgr.controller.ports import boottime
from trafficmgr.controller.prober import Prober
from trafficmgr.core.events import Event, GroupReady, GroupUnready, RevisionSeen
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import Group, GroupPhase, Publish
from trafficmgr.core.routing import Table
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import ContainerTemplate, GroupTemplate, HttpCheck, Probe, Revision
from trafficmgr.registry.images import Resolved
from trafficmgr.runtimes.memory import MemoryRuntime

ADDRESS = "127.77.200.1"


class Notes:
    def __init__(self) -> None:
        self.told: list[Event] = []

    async def tell(self, event: Event) -> None:
        self.told.append(event)


class Health:
    """A group's health page, good or bad as told."""

    def __init__(self) -> None:
        self.status = 200
        self.asked = 0

    async def answer(self, _request: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(status=self.status)


@contextlib.asynccontextmanager
async def served(health: Health) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/healthz", health.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, ADDRESS, 0)
    await site.start()
    assert site._server is not None
    try:
        yield site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    finally:
        await runner.cleanup()


def fleet_of(port: int, group: Group) -> Fleet:
    probe = Probe(check=HttpCheck(port=port, path="/healthz"), every_s=0.02, rise=2, fall=2)
    template = GroupTemplate(
        containers=tuple(c.but(readiness=probe) for c in settings().template.containers)
    )
    found = Revision(id="v1", template=template, images=revision("v1").images)
    state = EndpointState(
        name=NAME,
        boot_id="boot-1",
        settings=settings(),
        table=Table(endpoint=NAME, generation=0, hosts=(), publish=Publish.proxy, ttl_s=1),
        revisions={"v1": found},
        stable="v1",
        groups=(group,),
    )
    return Fleet(endpoints={NAME: state})


GROUP = Group(id="shop-1", revision="v1", created_at=0.0, address=ADDRESS, phase=GroupPhase.started)


@contextlib.asynccontextmanager
async def probing(fleet: Fleet, notes: Notes) -> AsyncIterator[Prober]:
    async with asyncio.TaskGroup() as tasks:
        prober = Prober(tasks=tasks, tell=notes.tell, clock=boottime, runtime=MemoryRuntime())
        prober.look(fleet)
        yield prober
        prober.look(Fleet())


async def test_readiness_is_told_at_its_edges_only() -> None:
    health, notes = Health(), Notes()
    async with served(health) as port, probing(fleet_of(port, GROUP), notes):
        await eventually(lambda: len(notes.told) == 1)
        assert isinstance(notes.told[0], GroupReady)

        asked = health.asked
        await eventually(lambda: health.asked > asked + 5)
        assert len(notes.told) == 1

        health.status = 503
        await eventually(lambda: len(notes.told) == 2)

    unready = notes.told[1]
    assert isinstance(unready, GroupUnready)
    assert unready.reason == "GET /healthz answered 503"


async def test_a_group_that_was_ready_needs_fresh_failures_to_become_unready() -> None:
    """A new controller believes the journal until `fall` probes of its own have failed."""
    health, notes = Health(), Notes()
    health.status = 503
    ready = GROUP.but(is_ready=True, ready_since=0.0)
    async with served(health) as port, probing(fleet_of(port, ready), notes):
        await eventually(lambda: notes.told)

    assert health.asked >= 2
    assert isinstance(notes.told[-1], GroupUnready)


async def test_the_first_failure_of_a_new_group_says_why() -> None:
    notes = Notes()
    with socket.create_server((ADDRESS, 0)) as closed:
        port = closed.getsockname()[1]
    async with probing(fleet_of(port, GROUP), notes):
        await eventually(lambda: notes.told)

    (unready,) = notes.told
    assert isinstance(unready, GroupUnready)
    assert unready.reason == "connection refused"


async def test_a_retiring_group_is_not_probed_any_more() -> None:
    """Our own probe would look like a client's connection."""
    health, notes = Health(), Notes()
    async with served(health) as port, probing(fleet_of(port, GROUP), notes) as prober:
        await eventually(lambda: notes.told)

        prober.look(fleet_of(port, GROUP.but(is_retiring=True)))

        assert not prober._probing


async def test_a_task_of_a_hook_is_not_probed() -> None:
    """It serves nobody, and its end is its answer."""
    notes = Notes()
    task = GROUP.but(id="shop-2", hook="migrate")
    health = Health()
    async with served(health) as port:
        fleet = fleet_of(port, GROUP)
        state = fleet.endpoints[NAME]
        both = fleet.but(endpoints={NAME: state.but(groups=(task, GROUP))})
        async with probing(both, notes) as prober:
            await eventually(lambda: notes.told)

            assert set(prober._probing) == {"shop-1"}


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    with socket.create_server((ADDRESS, 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted:
            yield client


@pytest.mark.usefixtures("connection")
def test_the_kernel_knows_established_connections() -> None:
    assert ADDRESS in connected_addresses()
    assert "127.77.200.2" not in connected_addresses()


async def test_a_closed_connection_is_not_established(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()

    await eventually(lambda: ADDRESS not in connected_addresses())


async def test_a_changed_platform_digest_is_a_new_revision_and_nothing_else_is() -> None:
    notes = Notes()
    watch = ImageWatch(tell=notes.tell, clock=Clock())
    ((image, tag),) = watch.watch(settings())

    await watch.on_seen(image, tag, Resolved(digest="sha256:i1", platform_digest="sha256:p1"))
    await watch.on_seen(image, tag, Resolved(digest="sha256:i1", platform_digest="sha256:p1"))
    await watch.on_seen(image, tag, Resolved(digest="sha256:i2", platform_digest="sha256:p1"))
    await watch.on_seen(image, tag, Resolved(digest="sha256:i3", platform_digest="sha256:p3"))

    seen = [
        event.revision.images[0].platform_digest
        for event in notes.told
        if isinstance(event, RevisionSeen)
    ]
    assert seen == ["sha256:p1", "sha256:p3"]


async def test_the_image_of_an_init_container_is_watched_as_well() -> None:
    notes = Notes()
    watch = ImageWatch(tell=notes.tell, clock=Clock())
    fetch = ContainerTemplate(name="fetch", image="registry.test/fetch", tag="v2")
    given = settings()
    given = given.but(template=given.template.but(init_containers=(fetch,)))

    keys = watch.watch(given)
    for image, tag in sorted(keys):
        assert notes.told == [], "a revision without one of its images"
        await watch.on_seen(image, tag, Resolved(digest=f"{image}-i", platform_digest=image))

    assert ("registry.test/fetch", "v2") in keys
    (seen,) = notes.told
    assert isinstance(seen, RevisionSeen)
    assert {image.container for image in seen.revision.images} == {"fetch", "web"}

    await watch.on_seen("registry.test/fetch", "v2", Resolved(digest="i", platform_digest="p2"))

    assert len(notes.told) == 2
