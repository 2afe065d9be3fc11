"""Who and what makes trouble in a history: the machine, its processes, and people.

Kinds and rates come from `faults`; which of them comes next is drawn each time.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from simulation.dataplane import Worker
from simulation.demands import changed_demands, draw_hooks
from simulation.faults import changed, revision

from trafficmgr.core import events
from trafficmgr.core.model import EndpointSettings, GroupPhase
from trafficmgr.core.state import EndpointState

if TYPE_CHECKING:
    from simulation.world import World

VERBS: tuple[tuple[type[events.EndpointEvent], dict[str, Any]], ...] = (
    (events.PromoteAsked, {}),
    (events.PromoteAsked, {"is_full": True}),
    (events.PauseAsked, {}),
    (events.ResumeAsked, {}),
    (events.AbortAsked, {}),
    (events.RollbackAsked, {}),
    (events.RetryAsked, {}),
)

HOLDS = (events.HoldAsked, events.ReleaseAsked)
"""Verbs that no rollout has to do with."""

_FAILED: tuple[type[events.Event], dict[str, Any]] = (events.GroupUnready, {"reason": "503"})


class Trouble:
    """Everything that goes wrong by itself, and everybody who presses a button."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._rates = self._troubles()

    def begin(self) -> None:
        """Let the first trouble come."""
        if self._rates:
            self._plan()

    def _troubles(self) -> list[tuple[float, Callable[[], None]]]:
        faults = self._world.faults
        rates = (
            (faults.worker_dies, self._worker_dies),
            (faults.worker_leaves, self._worker_leaves),
            (faults.worker_hangs, self._worker_hangs),
            (faults.link_breaks, self._link_breaks),
            (faults.group_dies, self._group_dies),
            (faults.group_flaps, self._group_flaps),
            (faults.engine_leaves, self._engine_leaves),
            (faults.suspend, self._suspend),
            (faults.reboot, self._reboot),
            (faults.supervisor_dies, self._supervisor_dies),
            (faults.operator, self._operator),
            (faults.settings, self._settings),
            (faults.removal, self._removal),
        )
        return [(rate, trouble) for rate, trouble in rates if rate > 0.0]

    def _plan(self) -> None:
        total = sum(rate for rate, _ in self._rates)
        self._world.later(self._world.rng.expovariate(total), self._trouble)

    def _trouble(self) -> None:
        if self._world.is_calm:
            return
        weights = [rate for rate, _ in self._rates]
        self._world.rng.choices(self._rates, weights)[0][1]()
        self._plan()

    def _worker(self) -> Worker | None:
        workers = list(self._world.dataplane.workers.values())
        return self._world.rng.choice(workers) if workers else None

    def _worker_dies(self) -> None:
        if (worker := self._worker()) is not None:
            self._world.say("worker {} dies", worker.start_id)
            self._world.dataplane.end(worker, is_clean=False)

    def _worker_leaves(self) -> None:
        if (worker := self._worker()) is not None and not worker.is_hung:
            self._world.say("worker {} leaves", worker.start_id)
            self._world.dataplane.end(worker, is_clean=True)

    def _worker_hangs(self) -> None:
        if (worker := self._worker()) is not None:
            self._world.say("worker {} hangs", worker.start_id)
            self._world.dataplane.hang(worker, self._world.rng.choice((2.0, 10.0, 1e6)))

    def _link_breaks(self) -> None:
        if (worker := self._worker()) is not None:
            self._world.say("the link of {} breaks", worker.start_id)
            self._world.dataplane.disconnect(worker, for_s=self._world.rng.choice((0.1, 1.0, 20.0)))

    def _group_dies(self) -> None:
        if (process := self._world.engine.any_running()) is not None:
            self._world.say("{} dies", process.group)
            self._world.engine.die(process)

    def _group_flaps(self) -> None:
        process = self._world.engine.any_running()
        if process is not None and process.is_healthy:
            self._world.say("{} fails its probes", process.group)
            self._world.engine.turn(process, is_healthy=False)
            self._world.later(
                self._world.rng.choice((0.5, 3.0, 20.0)), self._world.engine.turn, process, True
            )

    def _engine_leaves(self) -> None:
        """Nothing is known of groups for a while."""
        world = self._world
        world.say("the engine goes away")
        world.tell(events.EngineLost, reason="connection refused")
        world.later(world.rng.choice((1.0, 30.0, 200.0)), self._engine_returns)

    def _engine_returns(self) -> None:
        """It is told until the controller knows."""
        world = self._world
        world.tell(events.EngineFound)
        if any(state.is_engine_away for state in world.durable.endpoints.values()):
            world.later(1.0, self._engine_returns)

    def _suspend(self) -> None:
        """Everything stands still, except for time and for those who wait elsewhere."""
        asleep_s = self._world.rng.choice((5.0, 60.0, 600.0))
        self._world.say("the machine sleeps for {}", asleep_s)
        self._world.sleep(asleep_s)

    def _reboot(self) -> None:
        """The machine restarts: no process is left, and its clock starts again."""
        self._world.say("the machine restarts")
        self._all_workers_die()
        self._world.engine.processes.clear()
        self._world.crash()
        self._world.dataplane.ended = []
        self._world.boot += 1
        self._world.sleep(self._world.rng.uniform(1.0, 30.0))
        self._world.shift(self._world.rng.uniform(0.0, 50.0) - self._world.now)

    def _supervisor_dies(self) -> None:
        self._world.say("the supervisor dies and the next run ends all workers")
        self._all_workers_die()
        self._world.dataplane.ended = []
        self._world.crash()

    def _all_workers_die(self) -> None:
        for worker in list(self._world.dataplane.workers.values()):
            self._world.dataplane.end(worker, is_clean=False, is_told=False)

    # -- people -------------------------------------------------------------------------------

    def _operator(self) -> None:
        rng, luck = self._world.rng, self._world.luck
        name = rng.choice(list(self._world.registry))
        if luck.random() < 0.1:
            self._world.tell(luck.choice(HOLDS), endpoint=name)
        draw = rng.random()
        if draw < 0.2:
            self._world.tell(events.ScaleAsked, endpoint=name, replicas=rng.randint(1, 3))
        elif draw < 0.25:
            self._world.max_concurrent = rng.randint(1, 2)
            self._world.tell(events.LimitsApplied, max_concurrent=self._world.max_concurrent)
        else:
            kind, told = rng.choice(VERBS)
            self._world.tell(kind, endpoint=name, **told)
            if kind is events.AbortAsked:
                self._starts_were_under_way(name)
                self._work_was_almost_done(name)

    def _settings(self) -> None:
        name = self._world.rng.choice(list(self._world.registry))
        if name in self._world.config:
            other = changed(self._world.rng, self._world.config[name])
            self.apply(changed_demands(self._world.luck, other))

    def may_rethink(self, state: EndpointState) -> None:
        """After a promotion some want the image before back while it is warm, with other hooks."""
        luck = self._world.luck
        if state.settings.hooks and luck.random() < 0.7:
            self._world.later(luck.uniform(0.5, 30.0), self._rethink, state.name, state.previous)

    def _rethink(self, name: str, previous: str) -> None:
        world, settings = self._world, self._world.config.get(name)
        if settings is not None and not world.is_calm:
            world.registry[name] = previous
            world.say("registry shows {} again", previous)
            self.apply(settings.but(hooks=draw_hooks(world.luck)))
            world.poll(name)

    def apply(self, settings: EndpointSettings) -> None:
        """Write an endpoint into the config and apply it."""
        self._world.config[settings.name] = settings
        self._world.tell(events.SettingsApplied, endpoint=settings.name, settings=settings)

    def _removal(self) -> None:
        world = self._world
        name = world.rng.choice(list(world.registry))
        if name in world.config:
            gone = world.config.pop(name)
            world.tell(events.EndpointRemoved, endpoint=name)
            self._were_on_their_way(name)
            world.later(world.rng.choice((0.5, 20.0, 120.0)), self.back, gone)

    def _were_on_their_way(self, name: str) -> None:
        """The last poll and the last probes come in after the endpoint was taken out."""
        world = self._world
        seen = revision(world.registry[name])
        world.later(0.1, partial(world.tell, events.RevisionSeen, endpoint=name, revision=seen))
        for process in world.engine.processes.values():
            if process.endpoint == name and process.is_running:
                kind, told = (events.GroupReady, {}) if process.is_healthy else _FAILED
                group = process.group
                world.later(0.1, partial(world.tell, kind, endpoint=name, group=group, **told))
        self._starts_were_under_way(name)
        state = world.durable.endpoints.get(name)
        on = state.rollout if state is not None else None
        if on is not None and on.settings.smoke is not None:
            told = {"endpoint": name, "rollout": on.id, "leg": 0, "is_success": True}
            world.later(0.1, partial(world.tell, events.SmokeEnded, **told))

    def _starts_were_under_way(self, name: str) -> None:
        """The engine's last words about groups that are being given up."""
        world = self._world
        state = world.durable.endpoints.get(name)
        for group in state.groups if state is not None else ():
            if group.phase is GroupPhase.wanted:
                is_lie = world.faults.start_lies > 0 and world.rng.random() < 0.5
                is_failed = is_lie and not group.hook  # of a task that may run nobody says so
                kind = events.GroupStartFailed if is_failed else events.GroupStartDelayed
                told = {"endpoint": name, "group": group.id, "reason": "engine away"}
                world.later(0.1, partial(world.tell, kind, **told))

    def _work_was_almost_done(self, name: str) -> None:
        """Tasks come to their end in the moment in which they are given up."""
        world = self._world
        for process in list(world.engine.processes.values()):
            if process.endpoint == name and (process.hook or name in world.tasks):
                world.later(0.01, world.engine.complete, process)

    def back(self, settings: EndpointSettings) -> None:
        """An endpoint that was taken out comes back."""
        if settings.name not in self._world.config:
            self.apply(settings)
            self._world.poll(settings.name)
