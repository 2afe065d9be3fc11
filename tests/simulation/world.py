"""The world of one history: time, chance, the registry, operators, and the machine itself.

Everything is drawn from one `random.Random(seed)`, and all that happens is an entry of one agenda,
so that a seed is a history. After `calm_at` nothing more goes wrong: what is broken in itself stays
broken, the registry shows something good, operators let paused rollouts go on, and the world must
settle.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from simulation import transcript
from simulation.brain import SWEEP_S, Brain
from simulation.dataplane import Dataplane
from simulation.demands import FLAWLESS, demanding, draw_flaws
from simulation.engine import Engine
from simulation.faults import (
    CALM,
    Nature,
    draw_faults,
    draw_nature,
    draw_settings,
    revision,
)
from simulation.judge import Judge
from simulation.trouble import Trouble
from simulation.witness import Witness

from trafficmgr.controller import loop
from trafficmgr.core import events
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import EndpointSettings, GroupPhase, RolloutPhase
from trafficmgr.core.operator import Standing, standing
from trafficmgr.core.state import EndpointState

ANSWERS = (
    events.ResumeAsked,
    events.ResumeAsked,
    events.PromoteAsked,
    events.RetryAsked,
    events.AbortAsked,
)
"""What operators say to a question, in the end."""


ONE_EAR: dict[type[events.Event], str] = {
    events.WorkerStarted: "supervision",
    events.WorkerEnded: "supervision",
    events.EngineLost: "engine",
    events.EngineFound: "engine",
}
"""What comes by one and the same ear is heard in order, however slow the controller is."""


class World:
    """Everything outside the controller, and the controller's processes one after another."""

    def __init__(self, seed: int, *, lines: list[str] | None = None) -> None:
        self.rng = rng = Random(seed)  # noqa: S311  a history is not a secret
        self.luck = Random(f"{seed} must prove")  # noqa: S311  nor is what it demands
        self.flaws = draw_flaws(self.luck)
        self.now = rng.uniform(0.0, 1e5)
        self.faults = draw_faults(rng)
        self.eagerness = rng.choice((0.2, 0.7, 1.0))
        self.pool = rng.choice(("127.77.0.0/27", "127.77.0.0/26", "127.77.0.0/16"))
        self.max_concurrent = rng.choice((1, 2))
        self.is_calm = False
        self.boot = 1
        self.lives = 0
        self.skew_s = 0.0
        self.reached: set[tuple[str, str]] = set()
        self.kinds: Counter[str] = Counter()
        self.lines = lines
        self.natures: dict[str, Nature] = {}
        self.registry: dict[str, str] = {}
        self.tasks: set[str] = set()
        self.config: dict[str, EndpointSettings] = {}
        self.durable = Fleet()
        self.brain: Brain | None = None
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._heard_until: dict[str, float] = {}
        self._calm_calls: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.witness = Witness(self)
        self.engine = Engine(self)
        self.dataplane = Dataplane(self, rng.randint(2, 3))
        self.judge = Judge(self)
        self._trouble = Trouble(self)

    def begin(self) -> None:
        """Start everything."""
        rng = self.rng
        for name in ("shop", "cart")[: 1 if rng.random() < 0.7 else 2]:
            self.config[name] = demanding(self.luck, draw_settings(rng, name))
            if self.happens(self.faults.tasks):
                self.tasks.add(name)
            self.registry_shows(name, good=True)
            self.later(rng.expovariate(1 / 20.0), self._release, name)
        for slot in range(self.dataplane.slots):
            self.dataplane.start(slot)
        self.start_controller()
        self._trouble.begin()

    # -- time ---------------------------------------------------------------------------------

    def later(self, delay_s: float, what: Callable[..., None], *given: Any) -> None:
        """Let something happen after a delay."""
        self._order += 1
        heapq.heappush(self._agenda, (self.now + delay_s, self._order, what, given))

    def when_calm(self, what: Callable[..., None], *given: Any) -> None:
        """Let something happen only once nothing goes wrong any more."""
        if self.is_calm:
            self.later(1.0, what, *given)
        else:
            self._calm_calls.append((what, given))

    def controller_clock(self) -> float:
        """Return what the controller believes to be the time: CLOCK_BOOTTIME, which never jumps."""
        return self.now + self.skew_s

    def run_until(self, end: float | None) -> None:
        """Let time pass up to `end`; None is until it is calm."""
        while end is not None or not self.is_calm:
            brain, agenda = self.brain, self._agenda
            wake = brain.wake if brain is not None else None
            at = agenda[0][0]  # somebody always plans something
            is_timer = wake is not None and max(wake - self.skew_s, self.now) < at
            if is_timer and wake is not None:
                at = max(wake - self.skew_s, self.now)
            if end is not None and at > end:
                self.now = max(self.now, end)
                return
            self.now = at
            if is_timer and brain is not None:
                self._timer(brain)
            else:
                _, _, what, given = heapq.heappop(agenda)
                what(*given)

    def _timer(self, brain: Brain) -> None:
        if self.skew_s:
            self.now += 1e-6  # a skewed clock rounds
        if self.happens(self.faults.late_timer):
            brain.wake = None
            self.later(self.rng.uniform(0.0, 2.0), self._late_timer, brain)
        else:
            brain.wake = None
            brain.turn()

    def _late_timer(self, brain: Brain) -> None:
        if brain.is_free:
            brain.turn()

    def sleep(self, asleep_s: float) -> None:
        """Let time pass in which nothing happens."""
        self.now += asleep_s
        self._agenda = [(at + asleep_s, n, what, given) for at, n, what, given in self._agenda]

    def shift(self, delta_s: float) -> None:
        """Let the clock of a new boot be the one that everything is measured with."""
        self.now += delta_s
        self._agenda = [(at + delta_s, n, what, given) for at, n, what, given in self._agenda]
        held = self.dataplane.held
        self.dataplane.held = {group: until + delta_s for group, until in held.items()}
        self._heard_until.clear()
        self.witness.rebooted()

    # -- chance -------------------------------------------------------------------------------

    def happens(self, rate: float) -> bool:
        """Whether something of this rate happens now."""
        return rate > 0.0 and self.rng.random() < rate

    def is_flawed(self, rate: float) -> bool:
        """Whether something of this rate goes wrong now with what must be proved."""
        return rate > 0.0 and self.luck.random() < rate

    def dies(self, brain: Brain, where: str) -> bool:
        """Kill the controller here, if the seed wants it."""
        if self.happens(self.faults.crash):
            self.say("the controller dies {}", where)
            self.crash()
        return brain.is_dead

    # -- what is told -------------------------------------------------------------------------

    def tell(self, kind: type[events.Event], **told: Any) -> None:
        """Tell the controller, if there is one; it may be slow to hear."""
        brain = self.brain
        if brain is None or not brain.is_acting:
            return
        event = kind(at=self.controller_clock(), **told)
        is_from_config = isinstance(event, events.SettingsApplied | events.EndpointRemoved)
        slow_s = 0.0
        if not is_from_config and self.happens(self.faults.slow_controller):
            slow_s = self.rng.uniform(0.0, 2.0)
        if (ear := ONE_EAR.get(kind)) is not None:
            slow_s = max(slow_s, self._heard_until.get(ear, 0.0) - self.now)
            self._heard_until[ear] = self.now + slow_s
        if slow_s:
            self.later(slow_s, brain.tell, event)
        else:
            brain.tell(event)

    def later_again(self, kind: type[events.Event], told: dict[str, object]) -> None:
        """Let what was told be told again, much later: an echo."""
        self.later(self.luck.uniform(0.5, 60.0), partial(self.tell, kind, **told))

    def say(self, line: str, *given: object) -> None:
        """Write a line of the transcript, if anybody wants one."""
        if self.lines is not None:
            self.lines.append(f"{self.now:10.2f}  {line.format(*given)}")

    def count(self, event: events.Event, before: Fleet) -> None:
        """Take note of what is handled, and where the endpoints stand that hear it."""
        kind = type(event).__name__
        self.kinds[kind] += 1
        if self.lines is not None:
            self.say("{}", transcript.of_event(event, self.now))
        name = getattr(event, "endpoint", None)
        states = before.endpoints.values() if name is None else (before.endpoints.get(name),)
        for state in states:
            if state is not None:
                self.reached.add((standing(state), kind))

    def appended(self, brain: Brain, event: events.Event, before: Fleet, after: Fleet) -> None:
        """A change is in the journal; from now on it may be acted upon."""
        self.durable = after
        if isinstance(event, events.GroupStarted):
            self.later(1.0, self.engine.probe, event.group)
        for name, state in after.endpoints.items():
            known = before.endpoints.get(name)
            if state is not known:
                for line in () if self.lines is None else transcript.of_change(known, state):
                    self.say("     {}", line)
                self.witness.changed(brain, event, known, state)
                self._watch_kernel(brain, state)
                self.judge.look(brain, state)
                if state.previous and (known is None or known.previous != state.previous):
                    self._trouble.may_rethink(state)

    def _watch_kernel(self, brain: Brain, state: EndpointState) -> None:
        for group in state.groups:
            if group.is_retiring and group.answered_at is not None and not group.is_direct_clear:
                brain.watch_kernel(state.name, group.id)

    # -- the controller's life ----------------------------------------------------------------

    def start_controller(self) -> None:
        """Start a controller on what is in the journal."""
        if self.brain is None:
            stored = loop._states(Fleet(), self.durable)
            self.durable = loop.restored({k: v for k, v in stored.items() if v is not None})
            self.brain = Brain(self, self.durable)
            self.say("a controller starts")
            self.brain.begin()

    def took_over(self, brain: Brain) -> None:
        """The controller is up: its ears open."""
        rng = self.rng
        for worker in list(self.dataplane.workers.values()):
            self.later(rng.uniform(0.01, 0.5), self.dataplane.connect, worker)
        for state in brain.mind.fleet.endpoints.values():
            self.later(rng.uniform(0.05, 1.0), self.poll, state.name)
            self.judge.took_over(brain, state)
            for group in state.groups:
                if group.phase is GroupPhase.started:
                    self.later(rng.uniform(0.5, 3.0), self.engine.probe, group.id)
        self.later(SWEEP_S, brain.sweep)

    def crash(self) -> None:
        """The controller dies; everything else goes on."""
        brain = self.brain
        if brain is None:
            return
        brain.is_dead, self.brain = True, None
        for worker in self.dataplane.workers.values():
            worker.link = None
        self.later(self.rng.choice((0.1, 1.0, 5.0, 60.0)), self.start_controller)

    # -- the registry -------------------------------------------------------------------------

    def registry_shows(self, name: str, *, good: bool = False) -> None:
        """Another image is behind the tag; with `good` a new one that works."""
        rng = self.rng
        of_it = [label for label in self.natures if label.startswith(name)]
        if not good and len(of_it) > 1 and self.happens(self.faults.old_tag):
            label = rng.choice(of_it)
        else:
            label = f"{name}-v{len(of_it) + 1}"
            nature = Nature() if good else draw_nature(rng, self.faults)
            is_task = name in self.tasks and nature.kind in {"good", "goes bad"}
            self.natures[label] = Nature("completes") if is_task else nature
        self.registry[name] = label
        self.say("registry shows {} ({}) for {}", label, self.natures[label], name)

    def _release(self, name: str) -> None:
        if self.is_calm:
            return
        self.registry_shows(name)
        self.poll(name)
        self.later(self.rng.expovariate(1 / 25.0), self._release, name)

    def poll(self, name: str) -> None:
        """Ask the registry now."""
        if name in self.config:
            label = self.registry[name]
            self.tell(events.RevisionSeen, endpoint=name, revision=revision(label))

    # -- calm ---------------------------------------------------------------------------------

    def calm(self) -> None:
        """Nothing goes wrong any more, except for what is broken in itself."""
        self.is_calm = True
        self.faults, self.flaws = CALM, FLAWLESS
        self.say("-- from here on nothing goes wrong")
        calls, self._calm_calls = self._calm_calls, []
        for what, given in calls:
            self.later(1.0, what, *given)
        for name in self.registry:
            if self.rng.random() < 0.8:
                self.registry_shows(name, good=True)
        self.later(0.1, self._help)

    def _help(self) -> None:
        """Operators let go on what waits for them."""
        brain = self.brain
        states = brain.mind.fleet.endpoints.values() if brain is not None else ()
        for state in states:
            rollout = state.rollout
            if state.ignored:
                self.tell(events.RetryAsked, endpoint=state.name)
            elif rollout is not None and rollout.question:
                self.tell(self.luck.choice(ANSWERS), endpoint=state.name)
            elif rollout is not None and standing(state) is Standing.paused:
                kind = events.ResumeAsked if rollout.is_paused else events.PromoteAsked
                self.tell(kind, endpoint=state.name)
            elif rollout is not None and rollout.has_failed and not rollout.is_overruled:
                self.tell(events.PromoteAsked, endpoint=state.name)  # it has nowhere to go back to
            elif _is_stuck(state, self.controller_clock()):
                self.tell(events.AbortAsked, endpoint=state.name)
            if state.newest != self.registry[state.name]:
                self.poll(state.name)
        self.later(5.0, self._help)


def _is_stuck(state: EndpointState, now: float) -> bool:
    """Whether a rollout is overdue, and serves on because nobody else could (promise 9)."""
    on = state.rollout
    if on is None or on.phase is not RolloutPhase.progressing or state.ready(state.stable):
        return False
    return on.deadline.left_at(now) <= 0
