"""One controller process of the simulation: the real `Mind`, an inbox, a journal, and hands.

It follows `controller.loop` and `service` step by step, and may die between any two of them: before
the append (what was heard is lost, what the world did stays), after the append, between commands.
Times are those of the world; the journal is the last state that was appended.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from simulation import transcript
from simulation.errands import Errands

from trafficmgr.controller.loop import Mind
from trafficmgr.core import events, retirement
from trafficmgr.core.commands import (
    AnyCommand,
    AskSmoke,
    CallHook,
    PublishTable,
    RestartWorker,
    StartGroup,
    StopGroup,
)
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import GroupPhase
from trafficmgr.core.routing import Table

if TYPE_CHECKING:
    from simulation.engine import Process
    from simulation.world import World

KERNEL_S = 0.5
SWEEP_S = 60.0


class Brain:
    """A controller from its start to its death."""

    def __init__(self, world: "World", durable: Fleet) -> None:
        world.lives += 1
        self.life = world.lives
        self.mind = Mind(durable)
        self.is_dead = False
        self.is_acting = False
        self.is_open = False
        self.wake: float | None = None
        self.published: dict[str, Table] = {}
        self.hellos: set[int] = set()
        self._world = world
        self._inbox: deque[events.Event] = deque()
        self._thens: list[tuple[events.Event, Callable[[], None]]] = []
        self._errands = Errands(self, world)
        self._is_writing = False
        self._starting: dict[str, int] = {}
        self._stopping: set[str] = set()
        self._restarted: set[str] = set()
        self._watched: set[str] = set()
        self._tokens = 0

    # -- taking over (service.begin, controller.recovery) -------------------------------------

    def begin(self) -> None:
        """Believe the journal, look at the world, then act."""
        world = self._world
        self._now_tell(
            events.ControllerStarted,
            boot_id=f"boot-{world.boot}",
            slots=world.dataplane.slots,
            address_pool=world.pool,
            max_concurrent=world.max_concurrent,
        )
        for record in world.dataplane.ended:
            self._now_tell(events.WorkerEnded, **record)
        for worker in tuple(world.dataplane.workers.values()):
            self._now_tell(events.WorkerStarted, slot=worker.slot, start_id=worker.start_id)
        self._observe()
        self.is_acting = True
        for settings in world.config.values():
            self._now_tell(events.SettingsApplied, endpoint=settings.name, settings=settings)
        for name in [n for n in self.mind.fleet.endpoints if n not in world.config]:
            self._now_tell(events.EndpointRemoved, endpoint=name)
        for state in () if self.is_dead else self.mind.fleet.endpoints.values():
            self._publish(state.table)
        if self.is_dead:
            return
        self.is_open = True
        world.took_over(self)

    def _now_tell(self, kind: type[events.Event], **told: object) -> None:
        if not self.is_dead:
            self.tell(kind(at=self._world.controller_clock(), **told))

    def _observe(self) -> None:
        found = self._world.engine.listed()
        for state in () if self.is_dead else tuple(self.mind.fleet.endpoints.values()):
            for group in state.groups:
                process = found.get(group.id)
                if group.phase is GroupPhase.started:
                    self._tell_of(state.name, group.id, process)

    def _tell_of(self, endpoint: str, group: str, process: "Process | None") -> None:
        told = {"endpoint": endpoint, "group": group, "reason": "it was gone"}
        if process is None or not (process.seen_running or process.result is not None):
            self._now_tell(events.GroupEnded, **told)
        elif not process.seen_running:
            self._now_tell(events.GroupCompleted, **told, is_success=bool(process.result))

    # -- the loop (controller.loop) -----------------------------------------------------------

    def tell(self, event: events.Event, then: Callable[[], None] | None = None) -> None:
        """Take an event; it waits while the journal is being written.

        Args:
            event: What was observed.
            then: Called once the event is journaled and was acted upon.
        """
        if self.is_dead:
            return
        self._inbox.append(event)
        if then is not None:
            self._thens.append((event, then))
        if not self._is_writing:
            self.turn()

    def turn(self) -> None:
        """Fold everything that waits, then append."""
        world = self._world
        batch, self._inbox = self._inbox, deque()
        changes = []
        commands: tuple[AnyCommand, ...] | None = None
        for event in chain(batch, self._due()):
            before = self.mind.fleet
            commands = self.mind.handle(event)
            world.count(event, before)
            world.witness.folded(event, before, self.mind.fleet)
            if isinstance(event, events.WorkerConnected):
                self.hellos.add(event.slot)
            if self.mind.fleet is not before:
                changes.append((event, before, self.mind.fleet))
            elif isinstance(event, events.AbortAsked):
                world.witness.unheard(self, event)
        if commands is None:
            self._arm()
            return
        if changes and world.dies(self, "before the append"):
            return
        if changes and self.is_open and world.happens(world.faults.slow_disk):
            self._is_writing = True
            self.wake = None
            slow_s = world.rng.uniform(0.05, 3.0)
            world.later(slow_s, self._appended, changes, commands, batch)
        else:
            self._appended(changes, commands, batch)

    def _due(self) -> Iterator[events.Event]:
        """Yield the timer's events; asked only after everything that was told before."""
        yield from self.mind.due(self._world.controller_clock())

    def _appended(
        self,
        changes: list[tuple[events.Event, Fleet, Fleet]],
        commands: tuple[AnyCommand, ...],
        batch: deque[events.Event],
    ) -> None:
        """What was folded is on disk: show it, act on it, arm the timer."""
        if self.is_dead:
            return
        self._is_writing = False
        world = self._world
        for event, before, after in changes:
            world.appended(self, event, before, after)
        if changes and world.dies(self, "after the append"):
            return
        if self.is_acting:
            self.act(commands)
        if not self.is_free:
            return
        self._go_on(batch)
        self._arm()
        if self._inbox and not self._is_writing:
            self.turn()

    def _go_on(self, batch: deque[events.Event]) -> None:
        """Let those go on who waited for an event of this batch."""
        if self._thens:
            handled = set(map(id, batch))
            for event, then in self._thens:
                if id(event) in handled:
                    self._world.later(0.0, then)
            self._thens = [one for one in self._thens if id(one[0]) not in handled]

    def _arm(self) -> None:
        self.wake = self.mind.wake_at()
        self._world.witness.armed(self)

    @property
    def is_free(self) -> bool:
        """Whether it lives and does not wait for its journal."""
        return not self.is_dead and not self._is_writing

    # -- hands (controller.hands) -------------------------------------------------------------

    def act(self, commands: tuple[AnyCommand, ...]) -> None:
        """Begin everything that is wanted and not under way."""
        self._errands.drop_unwanted(commands)
        for command in commands:
            if self._begin(command) and (self.is_dead or self._dies_between()):
                return

    def _dies_between(self) -> bool:
        return self._world.dies(self, "between two commands")

    def _begin(self, command: AnyCommand) -> bool:
        """Whether it was not under way; it is now."""
        match command:
            case PublishTable():
                known = self.published.get(command.table.endpoint)
                if known is not None and known.generation >= command.table.generation:
                    return False
                self._publish(command.table)
            case StartGroup() if command.group.id not in self._starting:
                self._start(command)
            case StopGroup() if command.group not in self._stopping:
                self._stop(command)
            case CallHook() | AskSmoke():
                return self._errands.go(command)
            case RestartWorker():
                self._restart(command)
            case _:
                return False
        return True

    def _publish(self, table: Table) -> None:
        world = self._world
        world.witness.publishing(table)
        self.published[table.endpoint] = table
        world.dataplane.files[table.endpoint] = table
        if world.lines is not None:
            world.say("{}", transcript.of_table(table))
        for worker in list(world.dataplane.workers.values()):
            if worker.link is self:
                world.dataplane.send(worker, table)

    def _start(self, command: StartGroup) -> None:
        world, group = self._world, command.group.id
        world.witness.starting(command)
        world.say("start {}", group)
        self._tokens += 1
        token = self._starting[group] = self._tokens
        world.engine.start(
            command,
            is_wanted=lambda: not self.is_dead and self._starting.get(group) == token,
            tell=partial(self._started, command.endpoint, group),
        )

    def _started(
        self, endpoint: str, group: str, kind: type[events.Event], told: dict[str, str]
    ) -> None:
        if not self.is_dead:
            self._world.tell(kind, endpoint=endpoint, group=group, **told)

    def _stop(self, command: StopGroup) -> None:
        world, group = self._world, command.group
        world.witness.stopping(command)
        world.say("stop {}", group)
        self._starting.pop(group, None)
        self._stopping.add(group)
        world.engine.stop(
            group,
            is_wanted=lambda: not self.is_dead,
            tell=partial(self._started, command.endpoint, group),
        )

    def _restart(self, command: RestartWorker) -> None:
        if command.start_id in self._restarted:
            return
        self._world.witness.restarting(command)
        self._restarted.add(command.start_id)
        self._world.say("restart worker {}", command.start_id)
        self._world.later(0.05, self._world.dataplane.restart, command.start_id)

    # -- the kernel's ear (controller.kernel) -------------------------------------------------

    def watch_kernel(self, endpoint: str, group: str) -> None:
        """Ask the kernel about a group from now on, until nobody is connected to it."""
        if group not in self._watched:
            self._watched.add(group)
            self._world.later(KERNEL_S, self._look, endpoint, group)

    def _look(self, endpoint: str, group_id: str) -> None:
        world, now = self._world, self._world.now
        state = self.mind.fleet.endpoints.get(endpoint)
        group = next((g for g in state.groups if g.id == group_id), None) if state else None
        if self.is_dead or state is None or group is None or group.phase is GroupPhase.stopping:
            self._watched.discard(group_id)
            return
        until = world.dataplane.direct_until(group_id)
        if now >= until and retirement.waits_for_kernel(group, state, world.controller_clock()):
            self._now_tell(events.DirectClientsGone, endpoint=endpoint, group=group_id)
            self._watched.discard(group_id)
            return
        ttl_s = state.settings.ttl_grace_s + (group.max_ttl_s or 0) + (group.answered_at or 0.0)
        world.later(max(KERNEL_S, until - now, ttl_s - now), self._look, endpoint, group_id)

    # -- leftovers (controller.recovery.sweep) ------------------------------------------------

    def sweep(self) -> None:
        """End the groups that nobody knows."""
        if self.is_dead:
            return
        known = {g.id for s in self.mind.fleet.endpoints.values() for g in s.groups}
        for group in [g for g in self._world.engine.processes if g not in known]:
            self._world.say("sweep {}", group)
            self._world.engine.processes.pop(group)
