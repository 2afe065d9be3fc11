"""One history: trouble for a while, then calm, then everything must have settled.

`run(seed)` is all that a test calls. A seed that broke a promise is run again with its transcript.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from simulation.witness import BrokenPromise
from simulation.world import World

from trafficmgr.core.model import EndpointSettings, GroupPhase
from trafficmgr.core.state import EndpointState

LAST_LINES = 60
PATIENCE_S = 3000.0
"""How long the world may take to settle: more than all back-offs, holds and drains together."""


@dataclass
class History:
    """What came of a seed. `oracle` is the promise that was broken ("" is none)."""

    seed: int
    oracle: str = ""
    why: str = ""
    events: int = 0
    revisions: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    reached: set[tuple[str, str]] = field(default_factory=set)


def run(seed: int, *, lines: list[str] | None = None) -> History:
    """Run the history of a seed."""
    history = History(seed)
    world = None
    try:
        world = World(seed, lines=lines)
        world.begin()
        world.later(world.rng.uniform(20.0, 90.0), world.calm)
        world.run_until(None)
        _settle(world)
    except BrokenPromise as broken:
        history.oracle, history.why = broken.oracle, broken.why
    except AssertionError as broken:
        history.oracle, history.why = "assertion_in_the_core", str(broken)
    if world is not None:
        history.events, history.revisions = sum(world.kinds.values()), len(world.natures)
        history.kinds, history.reached = world.kinds, world.reached
    return history


def told(seed: int) -> str:
    """Return the end of a broken seed's transcript, and how to repeat it."""
    lines: list[str] = []
    history = run(seed, lines=lines)
    return "\n".join(
        [
            f"seed {seed} broke {history.oracle}: {history.why}",
            *lines[-LAST_LINES:],
            f"repeat: .venv/bin/pytest tests/simulation -k test_seed -s --seed {seed}",
        ]
    )


# -- has it settled -------------------------------------------------------------------------------


def _settle(world: World) -> None:
    """Wait until nothing is left to do; raises BrokenPromise if that takes too long."""
    end = world.now + PATIENCE_S
    world.run_until(world.now + 10.0)  # what has just happened is still to be heard
    missing = list(unsettled(world))
    while missing and world.now < end:
        world.run_until(world.now + 10.0)
        missing = list(unsettled(world))
    if missing:
        raise BrokenPromise("it_settles", "; ".join(missing))
    for what in _leaks(world):
        raise BrokenPromise("nothing_leaks", what)


def _leaks(world: World) -> Iterator[str]:
    """(8) Nothing is doubled, nothing leaks: what runs is what is known."""
    states = world.brain.mind.fleet.endpoints.values() if world.brain is not None else ()
    groups = [g for state in states for g in state.groups]
    every = world.engine.processes.values()
    running = {p.group for p in every if p.is_running or p.seen_running}  # a death is told late
    if unknown := world.engine.processes.keys() - {g.id for g in groups}:
        yield f"nobody knows {sorted(unknown)}"
    believed = {g.id for g in groups if g.phase is GroupPhase.started}
    if dead := believed - running:
        yield f"{sorted(dead)} are believed to run"


def unsettled(world: World) -> Iterator[str]:
    """Yield what is still missing."""
    brain = world.brain
    if brain is None or not brain.is_open:
        yield "there is no controller"
        return
    states = brain.mind.fleet.endpoints
    for name in states:
        if name not in world.config:
            yield f"{name} is still there"
    for name, settings in world.config.items():
        if name not in states:
            yield f"{name} is not there"
        else:
            yield from (f"{name}: {what}" for what in _missing(world, states[name], settings))


def _missing(world: World, state: EndpointState, settings: EndpointSettings) -> Iterator[str]:
    yield from _missing_decisions(world, state, settings)
    if any(not s.is_present or s.applied != state.table.generation for s in state.slots):
        yield f"table {state.table.generation} is not everywhere: {state.slots}"
    if not state.stable:
        idle = [g.id for g in state.groups if g.id not in state.table.groups()]
        if idle or (state.groups and not state.table.is_least_bad):
            yield f"there is no stable, and {[g.id for g in state.groups]} are there"
    elif world.natures[state.stable].kind == "good":
        yield from _missing_groups(state)


def _missing_decisions(
    world: World, state: EndpointState, settings: EndpointSettings
) -> Iterator[str]:
    if state.settings != settings:
        yield "its settings are old"
    if state.rollout is not None and not state.rollout.is_over:
        yield f"{state.rollout.id} is {state.rollout.phase}; {state.rollout.question}"
    if state.newest != world.registry[state.name]:
        yield f"newest is {state.newest}, the registry shows {world.registry[state.name]}"
    if state.stable != state.newest and state.newest not in state.quarantined:
        yield f"stable is {state.stable}, newest {state.newest}"
    if tasks := [g.id for g in state.groups if g.hook]:
        yield f"the tasks {tasks} are left"
    if state.candidate or (state.previous and state.stable):
        yield f"{state.candidate} or {state.previous} still has a role"


def _missing_groups(state: EndpointState) -> Iterator[str]:
    if any(g.is_retiring or g.revision != state.stable for g in state.groups):
        yield f"{[g.id for g in state.groups if g.is_retiring]} retire"
    if len(state.ready(state.stable)) != state.replicas or len(state.groups) != state.replicas:
        yield f"{len(state.groups)} groups, {state.replicas} wanted"
    shares = [(s.revision, s.weight_pct, len(s.targets)) for s in state.table.shares]
    if shares != [(state.stable, 100, state.replicas)]:
        yield f"the table is {shares}"
