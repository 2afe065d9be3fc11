"""The books that retirement reads, in the orders of events in which they were once wrong.

Each of these was found by the simulator; its seeds are in tests/simulation/regressions.txt.
"""

from support.controller_support import first_events
from support.story import NAME, revision, settings

from trafficmgr.controller.loop import Mind
from trafficmgr.core import events, fleet, publishing, retirement
from trafficmgr.core.commands import RestartWorker, StartGroup
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import Group, Tcp
from trafficmgr.core.state import EndpointState

DIRECT = settings(
    publish="groups",
    ttl="5s",
    ttl_grace="1s",
    drain_http="2s",
    drain_websocket="2s",
    min_ready="0s",
)


def fold(state: Fleet, *happened: events.Event) -> Fleet:
    for event in happened:
        state = fleet.evolve(state, event)
    return state


def deployed(slots: int = 1) -> Fleet:
    """Return a fleet that serves v1 with shop-1 since 10 s, every slot with the newest table."""
    state = fold(
        Fleet(),
        *first_events(0.0, slots),
        events.SettingsApplied(at=0.0, endpoint=NAME, settings=DIRECT),
        events.RevisionSeen(at=1.0, endpoint=NAME, revision=revision("v1")),
        events.GroupStarted(at=2.0, endpoint=NAME, group="shop-1"),
        events.GroupReady(at=10.0, endpoint=NAME, group="shop-1"),
    )
    return fold(state, *(applied(state, slot, at=10.0) for slot in range(slots)))


def applied(state: Fleet, slot: int, *, at: float, **told: object) -> events.TableApplied:
    return events.TableApplied(
        at=at,
        endpoint=NAME,
        slot=slot,
        start_id=f"{slot}-a",
        generation=endpoint(state).table.generation,
        **told,  # type: ignore[arg-type]
    )


def endpoint(state: Fleet) -> EndpointState:
    return state.endpoints[NAME]


def shop_1(state: Fleet) -> Group:
    return endpoint(state).groups[0]


def restarted(at: float) -> events.ControllerStarted:
    return events.ControllerStarted(at=at, boot_id="boot-1", slots=1, address_pool="127.77.0.0/16")


def test_a_hello_is_no_acknowledgement() -> None:
    """The worker withdrew the group while no controller was there to hear when it last answered."""
    state = fold(deployed(), events.EndpointRemoved(at=20.0, endpoint=NAME))
    newest = {NAME: endpoint(state).table.generation}

    state = fold(
        state,
        restarted(23.0),
        events.WorkerConnected(at=23.0, slot=0, start_id="0-a", generations=newest),
    )
    assert not retirement.may_stop(shop_1(state), endpoint(state), 23.0)

    state = fold(state, applied(state, 0, at=23.1, answered={"shop-1": 20.5}))
    assert not retirement.may_stop(shop_1(state), endpoint(state), 26.4)
    assert retirement.conditions(shop_1(state), endpoint(state), 26.4)[1].ends_at == 26.5


def test_a_successor_with_an_older_table_may_hold_requests() -> None:
    """It served from its file while the controller was away, and withdraws only now."""
    away = deployed()
    older = {NAME: endpoint(away).table.generation}
    state = fold(away, restarted(30.0), events.EndpointRemoved(at=30.0, endpoint=NAME))

    state = fold(
        state,
        events.WorkerEnded(at=30.1, slot=0, start_id="0-a", reaped_at=25.0),
        events.WorkerConnected(at=30.2, slot=0, start_id="0-b", generations=older),
    )

    assert shop_1(state).http_slots == (0,)
    assert shop_1(state).tunnel_slots == (0,)


def test_an_endpoint_that_comes_later_knows_the_workers_that_are_there() -> None:
    """They said hello before it existed, and will not say it again."""
    state = deployed(slots=2)

    late = DIRECT.but(name="api")
    state = fold(state, events.SettingsApplied(at=50.0, endpoint="api", settings=late))

    assert [(s.start_id, s.is_present) for s in state.endpoints["api"].slots] == [
        ("0-a", True),
        ("1-a", True),
    ]


def test_a_worker_that_ended_is_not_there_for_a_later_endpoint() -> None:
    state = deployed(slots=2)
    state = fold(state, events.WorkerEnded(at=49.0, slot=1, start_id="1-a", reaped_at=49.0))

    late = DIRECT.but(name="api")
    state = fold(state, events.SettingsApplied(at=50.0, endpoint="api", settings=late))

    assert [s.is_present for s in state.endpoints["api"].slots] == [True, False]


def test_another_port_is_for_the_revision_that_declares_it() -> None:
    """Groups that run listen where their own template says, whatever the config says by now."""
    state = deployed()
    moved = DIRECT.template.containers[0].but(ports=(9090,))
    template = DIRECT.template.but(containers=(moved,))
    changed = DIRECT.but(port=9090, template=template)
    newest = revision("v2").but(template=template)

    state = fold(
        state,
        events.SettingsApplied(at=20.0, endpoint=NAME, settings=changed),
        events.RevisionSeen(at=20.0, endpoint=NAME, revision=newest),
    )

    (share,) = endpoint(state).table.shares
    assert [target.dial for target in share.targets] == [Tcp(address="127.77.0.1", port=8080)]
    started = [c for c in Mind(state).wanted() if isinstance(c, StartGroup)]
    assert [command.port for command in started] == [9090]


def test_limits_concern_no_endpoint_by_themselves() -> None:
    before = deployed()

    after = fold(before, events.LimitsApplied(at=60.0, max_concurrent=1))

    assert after.max_concurrent == 1
    assert after.endpoints == before.endpoints


def test_a_worker_that_never_says_hello_is_restarted() -> None:
    """It would keep everything from retiring; it was not known whom to restart."""
    state = fold(
        Fleet(),
        *first_events(0.0),
        events.WorkerEnded(at=5.0, slot=0, start_id="0-a", reaped_at=5.0),
        events.WorkerStarted(at=5.0, slot=0, start_id="w-2"),
    )
    patience_s = endpoint(state).settings.fence_s + publishing.HELLO_S

    early = fold(state, events.Woke(at=5.0 + patience_s - 0.1, endpoint=NAME))
    late = fold(state, events.Woke(at=5.0 + patience_s, endpoint=NAME))

    assert RestartWorker(slot=0, start_id="w-2") not in Mind(early).wanted()
    assert RestartWorker(slot=0, start_id="w-2") in Mind(late).wanted()
