"""Bugs that somebody could write into the core, each with the oracle that must notice it.

They stay here for good: an oracle that no bug can wake protects nothing. Each is a context in
which one piece of the core, or one step of the loop, does something else; histories run in it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from unittest.mock import patch

from simulation import oracles
from simulation.brain import Brain
from simulation.world import World

from trafficmgr.controller.loop import Mind
from trafficmgr.core import events, fleet, moves, publishing, retirement, rollout
from trafficmgr.core.commands import AnyCommand
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import Group, RolloutPhase
from trafficmgr.core.retirement import Condition
from trafficmgr.core.routing import Share
from trafficmgr.core.state import EndpointState


class Planted(NamedTuple):
    """A bug, and the name of the oracle that must find it."""

    bug: Callable[[], AbstractContextManager[Any]]
    oracle: str


# -- retirement -----------------------------------------------------------------------------------


def no_ttl_wait() -> AbstractContextManager[Any]:
    """Resolvers are forgotten: a group stops although its address is still cached."""
    right = retirement._clients

    def wrong(group: Group, state: EndpointState, now: float) -> Iterator[Condition]:
        for condition in right(group, state, now):
            yield condition.but(is_met=True) if condition.name == "ttl" else condition

    return patch.object(retirement, "_clients", wrong)


def ttl_from_publish() -> AbstractContextManager[Any]:
    """The TTL is counted from the new table, not from the last answer of the old one."""
    right = retirement._clients

    def wrong(group: Group, state: EndpointState, now: float) -> Iterator[Condition]:
        is_known = group.answered_at is not None
        return right(group.but(answered_at=group.withdrawn_at if is_known else None), state, now)

    return patch.object(retirement, "_clients", wrong)


def superseded_is_stopped_at_once() -> AbstractContextManager[Any]:
    """Nobody wants the candidate any more, so it is killed; its clients are not asked."""
    right = retirement.may_stop

    def wrong(group: Group, state: EndpointState, now: float) -> bool:
        on = state.rollout
        is_superseded = on is not None and on.phase is RolloutPhase.superseded
        if is_superseded and on is not None and on.revision == group.revision:
            return True
        return right(group, state, now)

    return patch.object(retirement, "may_stop", wrong)


def restart_trusts_old_hellos() -> AbstractContextManager[Any]:
    """What slots had acknowledged to the last controller counts for the new one."""
    right = rollout.EVENT_TABLE[events.ControllerStarted]

    def wrong(state: EndpointState, event: events.ControllerStarted) -> EndpointState:
        started = right(state, event)
        return started.but(slots=state.slots) if state.slots else started

    return patch.dict(rollout.EVENT_TABLE, {events.ControllerStarted: wrong})


def hung_worker_blocks() -> AbstractContextManager[Any]:
    """Nobody replaces a worker that never acknowledges."""
    rules = tuple(rule for rule in rollout.CONSEQUENCES if rule is not publishing.fence)
    return patch.object(rollout, "CONSEQUENCES", rules)


def clock_can_jump() -> AbstractContextManager[Any]:
    """Time is that of the wall, which somebody sets forward by an hour."""
    right = World.begin

    def jump(world: World) -> None:
        world.skew_s += 3600.0
        world.say("the clock is set forward")

    def wrong(world: World) -> None:
        right(world)
        world.later(60.0, jump, world)

    return patch.object(World, "begin", wrong)


# -- the loop -------------------------------------------------------------------------------------


def command_before_journal() -> AbstractContextManager[Any]:
    """What is wanted is done at once, and written down afterwards."""
    right = Brain.__init__

    class Hasty(Mind):
        brain: Brain

        def handle(self, event: events.Event) -> tuple[AnyCommand, ...]:
            commands = super().handle(event)
            if self.brain.is_acting:
                self.brain.act(commands)
            return commands

    def wrong(brain: Brain, world: World, durable: Fleet) -> None:
        right(brain, world, durable)
        mind = Hasty(durable)
        mind.brain = brain
        brain.mind = mind

    return patch.object(Brain, "__init__", wrong)


def timer_is_not_rearmed() -> AbstractContextManager[Any]:
    """After it ran out, the timer is set again only when something else happens."""
    right = Mind.due

    def due(mind: Mind, now: float) -> list[events.Woke]:
        woken = right(mind, now)
        if woken:
            ran_out.add(id(mind))
        else:
            ran_out.discard(id(mind))
        return woken

    def wrong(mind: Mind) -> float | None:
        return None if id(mind) in ran_out else wake_at(mind)

    ran_out: set[int] = set()
    wake_at = Mind.wake_at
    return patch.multiple(Mind, due=due, wake_at=wrong)


# -- rollouts -------------------------------------------------------------------------------------


def abort_waits_for_readiness() -> AbstractContextManager[Any]:
    """An abort is refused while groups of the candidate are not ready."""
    right = rollout.EVENT_TABLE[events.AbortAsked]

    def wrong(state: EndpointState, event: events.AbortAsked) -> EndpointState:
        is_ready = all(group.is_ready for group in state.live(state.candidate))
        return right(state, event) if is_ready else state

    return patch.dict(rollout.EVENT_TABLE, {events.AbortAsked: wrong})


def nobody_is_the_least_bad() -> AbstractContextManager[Any]:
    """When nobody is ready, nobody serves."""

    def wrong(_state: EndpointState) -> tuple[Share, ...]:
        return ()

    return patch.object(publishing, "_least_bad", wrong)


def weight_beyond_capacity() -> AbstractContextManager[Any]:
    """One ready group is taken for all of them."""

    def wrong(ready: int, _replicas: int) -> int:
        return 100 if ready else 0

    return patch.object(publishing, "capacity_pct", wrong)


def quarantine_lost_on_restart() -> AbstractContextManager[Any]:
    """A new controller knows nothing of what failed."""
    right = rollout.EVENT_TABLE[events.ControllerStarted]

    def wrong(state: EndpointState, event: events.ControllerStarted) -> EndpointState:
        return right(state, event).but(quarantined={})

    return patch.dict(rollout.EVENT_TABLE, {events.ControllerStarted: wrong})


def promote_by_copy() -> AbstractContextManager[Any]:
    """The candidate is thrown away and started again as stable."""
    right = moves.promote

    def wrong(state: EndpointState, now: float) -> EndpointState:
        promoted = right(state, now)
        for group in promoted.live(promoted.stable):
            promoted = promoted.with_group(group.but(is_retiring=True))
        return promoted

    return patch.object(moves, "promote", wrong)


def books_are_taken_for_all() -> AbstractContextManager[Any]:
    """Readiness is taken for an event that only keeps the books of retirement."""
    return patch.object(rollout, "KEEPS_BOOKS", rollout.KEEPS_BOOKS | {events.GroupUnready})


# -- the fleet ------------------------------------------------------------------------------------


def address_reused_too_early() -> AbstractContextManager[Any]:
    """The address of a group that retires counts as free."""
    right = fleet._with_addresses

    def wrong(known: Fleet) -> Fleet:
        live = {
            name: state.but(groups=tuple(g for g in state.groups if not g.is_retiring))
            for name, state in known.endpoints.items()
        }
        given = right(known.but(endpoints=live, cursor=0))
        after = dict(known.endpoints)
        for name, state in given.endpoints.items():
            for group in state.groups:
                after[name] = after[name].with_group(group)
        return known.but(endpoints=after)

    return patch.object(fleet, "_with_addresses", wrong)


BUGS = (
    Planted(no_ttl_wait, oracles.retirement_ttl.__name__),
    Planted(ttl_from_publish, oracles.retirement_ttl.__name__),
    Planted(superseded_is_stopped_at_once, oracles.retirement_workers.__name__),
    Planted(command_before_journal, "commands_are_journaled_first"),
    Planted(timer_is_not_rearmed, "no_moment_is_missed"),
    Planted(abort_waits_for_readiness, oracles.abort_has_no_precondition.__name__),
    Planted(nobody_is_the_least_bad, oracles.least_bad_serves.__name__),
    Planted(weight_beyond_capacity, oracles.weight_within_capacity.__name__),
    Planted(quarantine_lost_on_restart, oracles.quarantine_is_heeded.__name__),
    Planted(address_reused_too_early, oracles.address_is_free.__name__),
    Planted(promote_by_copy, oracles.promote_is_a_flip.__name__),
    Planted(hung_worker_blocks, "it_settles"),
    Planted(restart_trusts_old_hellos, oracles.retirement_hello.__name__),
    Planted(books_are_taken_for_all, "no_rule_is_skipped"),
    Planted(clock_can_jump, oracles.retirement_ttl.__name__),
)
