"""Every verb and every event, wherever an endpoint may stand, is decided on purpose."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.story import NAME, Story, World, revision, settings

from trafficmgr.core import events, operator, rollout
from trafficmgr.core.events import EndpointEvent, Event
from trafficmgr.core.evidence import Evidence
from trafficmgr.core.gating import Verdict, VerdictKind
from trafficmgr.core.operator import REFUSED, TABLE, Standing, Verb
from trafficmgr.core.state import EndpointState

PAIRS = Path(__file__).parent / "pairs.txt"
GIVEN = {
    "replicas": "2",
    "steps": "10/30s,50/30s",
    "deadline": "60s",
    "min_ready": "5s",
    "keep_previous": "60s",
    "watch": "60s",
    "publish": "groups",
}


def story(*happenings: tuple[float, Callable[[Story], None]]) -> EndpointState:
    """Return the state after v1 was deployed, v2 came at 100 s, and these things happened."""
    told = Story(World(), settings(**GIVEN))
    shows(told, "v1")
    for at, happens in happenings:
        told.run_until(at)
        happens(told)
    return told.state


def shows(told: Story, label: str) -> None:
    told.feed(events.RevisionSeen(at=told.now, endpoint=NAME, revision=revision(label)))


def asks(event: type[EndpointEvent]) -> Callable[[Story], None]:
    return lambda told: told.feed(event(at=told.now, endpoint=NAME))


def nothing(_told: Story) -> None:
    """Let time pass."""


V2 = (100.0, lambda told: shows(told, "v2"))

STATES: dict[Standing, EndpointState] = {
    Standing.removed: story((100.0, asks(events.EndpointRemoved)), (100.05, nothing)),
    Standing.idle: story(V2, (300.0, nothing)),
    Standing.starting: story(V2, (100.5, nothing)),
    Standing.stepping: story(V2, (110.0, nothing)),
    Standing.paused: story(V2, (110.0, asks(events.PauseAsked))),
    Standing.promoting: story(V2, (180.0, nothing)),
    Standing.aborting: story(V2, (110.0, asks(events.AbortAsked)), (111.0, nothing)),
}

ASKED: dict[Verb, Callable[[float], Event]] = {
    Verb.promote: lambda at: events.PromoteAsked(at=at, endpoint=NAME),
    Verb.promote_full: lambda at: events.PromoteAsked(at=at, endpoint=NAME, is_full=True),
    Verb.pause: lambda at: events.PauseAsked(at=at, endpoint=NAME),
    Verb.resume: lambda at: events.ResumeAsked(at=at, endpoint=NAME),
    Verb.abort: lambda at: events.AbortAsked(at=at, endpoint=NAME),
    Verb.rollback: lambda at: events.RollbackAsked(at=at, endpoint=NAME),
    Verb.retry: lambda at: events.RetryAsked(at=at, endpoint=NAME),
    Verb.scale: lambda at: events.ScaleAsked(at=at, endpoint=NAME, replicas=3),
    Verb.hold: lambda at: events.HoldAsked(at=at, endpoint=NAME),
    Verb.release: lambda at: events.ReleaseAsked(at=at, endpoint=NAME),
}


def last_moment(state: EndpointState) -> float:
    """Return a time at which nothing else is due."""
    known = state.rollout
    marks = known.marks if known else ()
    return max((mark.at for mark in marks), default=0.0) + 0.01


@pytest.mark.parametrize("where", Standing)
def test_the_examples_stand_where_they_should(where: Standing) -> None:
    assert operator.standing(STATES[where]) is where


@pytest.mark.parametrize("where", Standing)
@pytest.mark.parametrize("verb", Verb)
def test_a_verb_does_something_or_is_refused_with_a_sentence(verb: Verb, where: Standing) -> None:
    state = STATES[where]
    now = last_moment(state)

    why_not = operator.why_not(verb, state)
    after = rollout.evolve(state, ASKED[verb](now))

    if TABLE[verb][where].startswith(REFUSED):
        assert why_not
    if why_not:
        assert why_not.startswith(f"{NAME}: ")
        assert why_not.endswith(".")
        assert after == rollout.evolve(state, events.Woke(at=now, endpoint=NAME))
    else:
        assert after != state


def test_the_table_has_every_verb_at_every_standing() -> None:
    assert {verb: set(row) for verb, row in TABLE.items()} == {v: set(Standing) for v in Verb}
    assert all(says.endswith(".") for row in TABLE.values() for says in row.values())


# -- every event, everywhere ----------------------------------------------------------------------


def example(kind: type[Event], state: EndpointState, at: float) -> Event:
    """Return an event that concerns what the state has, as far as it has it."""
    newest = state.groups[-1].id
    given: dict[type[Event], dict[str, object]] = {
        events.ControllerStarted: {
            "boot_id": "boot-1",
            "slots": 2,
            "address_pool": "127.77.0.0/16",
        },
        events.EngineLost: {"reason": "connection refused"},
        events.WorkerStarted: {"slot": 0, "start_id": "0-9"},
        events.WorkerConnected: {"slot": 0, "start_id": "0-9", "generations": {}},
        events.WorkerEnded: {"slot": 0, "start_id": "0-1", "reaped_at": at},
        events.SettingsApplied: {"settings": settings(**{**GIVEN, "replicas": "3"})},
        events.EndpointRemoved: {},
        events.RevisionSeen: {"revision": revision("v9")},
        events.TableApplied: {"slot": 0, "start_id": "0-1", "generation": 99},
        events.ScaleAsked: {"replicas": 3},
        events.GroupCompleted: {"reason": "exit code 0", "is_success": True},
        events.HookEnded: {"is_success": True},
        events.SmokeEnded: {"leg": 0, "is_success": True},
    }
    words = given.get(kind, {})
    if issubclass(kind, EndpointEvent):
        words = {"endpoint": NAME, **words}
    if "group" in kind.__struct_fields__:
        words["group"] = newest
    words |= _of_rollout(kind, state, at)
    if "reason" in kind.__struct_fields__:
        words["reason"] = "so it is"
    return kind(at=at, **words)


def _of_rollout(kind: type[Event], state: EndpointState, at: float) -> dict[str, object]:
    """Return what an event that concerns the rollout says of it."""
    under_way = state.rollout
    assert under_way is not None
    verdict = Verdict(gate="compare", kind=VerdictKind.passed, at=at, why="so it was measured")
    given: dict[str, object] = {
        "rollout": under_way.id,
        "stage": under_way.stage,
        "verdict": verdict,
        "evidence": Evidence(at=at, stage=under_way.stage),
        "hook": "migrate",
    }
    return {key: value for key, value in given.items() if key in kind.__struct_fields__}


def matrix() -> str:
    """Return a line for each event, with what it does at each standing."""
    lines = [f"{'':20}" + "".join(f"{where:>11}" for where in Standing)]
    for kind in rollout.EVENT_TABLE:
        cells = []
        for where in Standing:
            state = STATES[where]
            now = last_moment(state)
            woken = rollout.evolve(state, events.Woke(at=now, endpoint=NAME))
            changed = rollout.evolve(state, example(kind, state, now)) != woken
            cells.append("changes" if changed else "-")
        lines.append(f"{kind.__name__:20}" + "".join(f"{cell:>11}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def test_every_event_at_every_standing_is_decided_on_purpose() -> None:
    """pairs.txt is the decision; `REWRITE=1` writes it anew, and its diff is the review."""
    if os.environ.get("REWRITE"):
        PAIRS.write_text(matrix())

    assert matrix() == PAIRS.read_text()


def test_every_kind_of_event_has_a_row() -> None:
    known = {kind for kind in events.Event.__subclasses__() if kind is not events.EndpointEvent}
    known |= set(events.EndpointEvent.__subclasses__())

    assert known - {events.LimitsApplied} == set(rollout.EVENT_TABLE)
