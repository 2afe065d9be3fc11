"""The witness: remembers what the oracles need to know, and asks them at the right moments.

Its memory is its own. A quarantine that the journal forgets, or a table generation that goes back,
is noticed because it was written down here when it was first journaled.
"""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from simulation import oracles, proof_oracles
from simulation.demands import NOTHING
from simulation.oracles import Change, Stop
from simulation.testimony import Testimony

from trafficmgr.core import events, fleet, rollout
from trafficmgr.core.commands import AskSmoke, CallHook, RestartWorker, StartGroup, StopGroup
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import Affinity, Group, GroupPhase, RolloutPhase
from trafficmgr.core.routing import Table
from trafficmgr.core.state import EndpointState

if TYPE_CHECKING:
    from simulation.brain import Brain
    from simulation.engine import Process
    from simulation.world import World


class BrokenPromise(AssertionError):  # noqa: N818  what it is; the word error would hide it
    """An oracle saw a promise broken."""

    def __init__(self, oracle: str, why: str) -> None:
        super().__init__(f"{oracle}: {why}")
        self.oracle = oracle
        self.why = why


class Witness:
    """Sees everything, forgets nothing."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._rng = Random(0)  # noqa: S311  its own, so that looking changes nothing
        self.failed: set[tuple[str, str]] = set()
        self.testimony = Testimony(world)
        self._withdrawn_at: dict[str, float] = {}
        self._stalls: dict[str, tuple[tuple[str, int, int] | None, int, float, float]] = {}
        self._published: dict[str, Table] = {}
        self._owners: dict[str, str] = {}

    # -- memory -------------------------------------------------------------------------------

    def withdrawn_at(self, group: str) -> float:
        """Return when the group left the journaled table; long ago if it never was in one."""
        return self._withdrawn_at.get(group, -1e9)

    def rebooted(self) -> None:
        """Clocks start again, and connections of before are gone."""
        self._withdrawn_at.clear()
        self._stalls.clear()
        self.testimony.rebooted()

    def stalled(self, change: Change) -> tuple[float, float]:
        """Return how long a rollout has made no progress, and how long that may take."""
        state, now = change.after, change.event.at
        on = state.rollout
        if on is None or on.phase is not RolloutPhase.progressing or on.question:
            self._stalls.pop(state.name, None)  # an operator's answer gives it all its time again
            return 0.0, 0.0
        step = on.settings.steps[on.step] if on.step >= 0 else None
        own_s = step.deadline_s if step is not None else None
        limit_s = max(on.settings.deadline_s, own_s or 0.0)
        key = (on.id, on.step, change.brain.life)
        known_key, most, stalled_s, seen_at = self._stalls.get(state.name, (None, 0, 0.0, now))
        if known_key is None or known_key[0] != on.id:
            most = 0
        if known_key != key:
            stalled_s = 0.0
        elif change.before is not None and not _is_excused(change.before, seen_at):
            stalled_s += now - seen_at
        ready = len(state.ready(on.revision))
        if ready > most:
            most, stalled_s = ready, 0.0
        self._stalls[state.name] = (key, most, stalled_s, now)
        share = oracles.weight_of(state, on.revision)
        serves = state.serves(on.revision) and not state.ready(state.stable)
        serves = serves and (share > 0 or not state.stable)
        is_excused = serves or state.is_engine_away  # while it is away nobody is given up
        return (0.0 if is_excused else stalled_s), limit_s

    # -- what happens -------------------------------------------------------------------------

    def changed(
        self,
        brain: "Brain",
        event: events.Event,
        before: EndpointState | None,
        after: EndpointState,
    ) -> None:
        """An endpoint changed, and that is journaled."""
        change = Change(self._world, brain, self, event, before, after)
        if before is None or not _is_bookkeeping(event, before, after):
            self._forgive(change)
            for oracle in (*self._heard(change), *oracles.CHANGES):
                if why := oracle(change):
                    raise BrokenPromise(oracle.__name__, why)
            self._remember(change)
        if before is not None and before.groups is not after.groups:
            known = {g.id: g for g in before.groups}
            for group in after.groups:
                if group.phase is GroupPhase.stopping:
                    was = known.get(group.id)
                    if was is None or was.phase is not GroupPhase.stopping:
                        self._stops(Stop(self._world, brain, self, after, group))

    def _heard(self, change: Change) -> tuple[Callable[[Change], str], ...]:
        """Write down what must be proved; return the oracles that look at it, if anything must."""
        is_asked = change.before is None or isinstance(change.event, events.RetryAsked)
        if not is_asked and not any(map(_has_demands, (change.before, change.after))):
            return ()
        self.testimony.hear(change)
        self.testimony.prove(change)
        return proof_oracles.CHANGES

    def folded(self, event: events.Event, before: Fleet, after: Fleet) -> None:
        """The state after an event: the same as if no rule had ever been passed over."""
        if self._rng.random() > 0.02:
            return
        if fleet.evolve(before, event) != after:
            self._hold("no_rule_is_skipped", f"{type(event).__name__} changes more than was seen")

    def unheard(self, brain: "Brain", event: events.AbortAsked) -> None:
        """An abort changed nothing."""
        state = brain.mind.fleet.endpoints.get(event.endpoint)
        if state is not None:
            change = Change(self._world, brain, self, event, state, state)
            oracle = oracles.abort_has_no_precondition
            self._hold(oracle.__name__, oracle(change))

    def _forgive(self, change: Change) -> None:
        """Take out of quarantine what an operator wants tried again."""
        before, after, name = change.before, change.after, change.after.name
        if before is None:  # it comes back after it was gone: a new endpoint of that name
            self.failed = {failure for failure in self.failed if failure[0] != name}
        elif isinstance(change.event, events.RetryAsked):
            self.failed.discard((name, after.newest))
        elif isinstance(change.event, events.RollbackAsked):
            self.failed.discard((name, before.last_good))

    def _remember(self, change: Change) -> None:
        before, after, name = change.before, change.after, change.after.name
        if before is not None and before.table is not after.table:
            for group in before.table.groups() - after.table.groups():
                self._withdrawn_at[group] = change.event.at
        on = after.rollout
        was = before.rollout if before is not None else None
        was_aborting = was is not None and was.phase is RolloutPhase.aborting
        if on is not None and on.phase is RolloutPhase.aborting and not was_aborting:
            self.failed.add((name, on.revision))

    def _stops(self, stop: Stop) -> None:
        for oracle in oracles.STOPS:
            self._hold(oracle.__name__, oracle(stop))

    def starting(self, command: StartGroup) -> None:
        """A group is started now."""
        group = _journaled(self._world, command.endpoint, command.group.id)
        is_wanted = group is not None and group.phase is GroupPhase.wanted
        self._hold("commands_are_journaled_first", "" if is_wanted else f"{command.key}: unwanted")
        self._hold(
            oracles.address_is_free.__name__,
            oracles.address_is_free(self._world, command, self._owners),
        )
        self._owners[command.group.address] = command.group.id

        waits = proof_oracles.groups_wait_for_before_hooks
        self._hold(waits.__name__, waits(self._world, command))

    def task_begins(self, process: "Process") -> None:
        """The processes of a task are there now."""
        self.testimony.task_begins(process)
        self._begun(process.endpoint)

    def called(self, command: CallHook) -> None:
        """The call of a hook is made now."""
        self.testimony.called(command)
        self._begun(command.endpoint)

    def _begun(self, endpoint: str) -> None:
        once = proof_oracles.hook_begins_once
        self._hold(once.__name__, once(self.testimony, endpoint))

    def asking(self, command: AskSmoke) -> None:
        """The requests of a leg of the smoke test are sent now."""
        meets = proof_oracles.smoke_meets_the_preview
        self._hold(meets.__name__, meets(self._world, command))

    def answered(self, command: AskSmoke, *, is_success: bool) -> None:
        """They were answered."""
        self.testimony.answered(command, is_success=is_success)

    def stopping(self, command: StopGroup) -> None:
        """A group is stopped now."""
        group = _journaled(self._world, command.endpoint, command.group)
        is_wanted = group is not None and group.phase is GroupPhase.stopping
        self._hold("commands_are_journaled_first", "" if is_wanted else f"{command.key}: unwanted")

    def publishing(self, table: Table) -> None:
        """A table goes to its file and to the workers."""
        state = self._world.durable.endpoints.get(table.endpoint)
        is_wanted = state is not None and state.table.generation >= table.generation
        why = "" if is_wanted else f"table {table.generation} of {table.endpoint}"
        self._hold("commands_are_journaled_first", why)
        known = self._published.get(table.endpoint)
        if known is not None and table.generation <= known.generation and table != known:
            why = f"generation {table.generation} of {table.endpoint} again, with other content"
            self._hold("generations_only_grow", why)
        self._published[table.endpoint] = table

    def restarting(self, command: RestartWorker) -> None:
        """A worker is killed and replaced."""
        late = [
            slot.start_id
            for state in self._world.durable.endpoints.values()
            for slot in state.slots
            if slot.is_overdue
        ]
        why = "" if command.start_id in late else f"{command.key}: unwanted"
        self._hold("commands_are_journaled_first", why)

    def armed(self, brain: "Brain") -> None:
        """The timer was set: before it runs out, time alone must change nothing."""
        if self._rng.random() > 0.03:
            return
        now = self._world.controller_clock()
        until = now + 300.0 if brain.wake is None else brain.wake
        if until <= now:
            return
        at = self._rng.uniform(now, until)
        for state in brain.mind.fleet.endpoints.values():
            if rollout.evolve(state, events.Woke(at=at, endpoint=state.name)) is not state:
                why = f"at {at:.2f} time alone changes {state.name}, the timer is set to {until}"
                self._hold("no_moment_is_missed", why)

    def _hold(self, oracle: str, why: str) -> None:
        if why:
            raise BrokenPromise(oracle, why)


def _is_bookkeeping(event: events.Event, before: EndpointState, after: EndpointState) -> bool:
    """Whether only slots changed, of which no oracle of changes has to know."""
    return (
        type(event) in rollout.KEEPS_BOOKS
        and before.groups is after.groups
        and before.table is after.table
        and before.rollout is after.rollout
        and before.candidate == after.candidate
    )


def _has_demands(state: EndpointState | None) -> bool:
    """Whether what is rolled out has anything to prove but its health."""
    on = None if state is None else state.rollout
    if on is None or state is None:
        return False
    asked = on.settings
    is_tested = bool(on.hooks) or asked.smoke is not None or asked.gates != NOTHING
    return is_tested or state.settings.affinity is not Affinity.none


def _is_excused(state: EndpointState, now: float) -> bool:
    return state.rollout is None or oracles.is_excused(state, state.rollout, now)


def _journaled(world: "World", endpoint: str, group: str) -> Group | None:
    state = world.durable.endpoints.get(endpoint)
    return next((g for g in state.groups if g.id == group), None) if state else None
