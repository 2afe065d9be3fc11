"""The judge of a history: verdicts on every stage, and checkpoints of what they are reached by.

It reaches verdicts by a plan that is drawn when a stage begins, not by counting: whether they are
right is for tests/core/test_gates.py. Like the real one it tells edges only, and a controller that
takes over tells again what the state does not know. A verdict may come again much later, when
another stage or rollout is under way. Checkpoints of a rollout come in the order in which they were
made, as the judge waits for each to be journaled.
"""

from typing import TYPE_CHECKING, Any

from simulation.demands import NOTHING

from trafficmgr.core import events
from trafficmgr.core.evidence import Evidence
from trafficmgr.core.gating import Verdict, VerdictKind
from trafficmgr.core.model import Rollout
from trafficmgr.core.schedule import WHOLE_PCT

if TYPE_CHECKING:
    from simulation.brain import Brain
    from simulation.world import World

    from trafficmgr.core.state import EndpointState

Stage = tuple[str, str, int]
"""Endpoint, rollout, stage."""


class Judge:
    """Everything that gates see, and when."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._truth: dict[Stage, dict[str, VerdictKind]] = {}
        self._keeping: set[tuple[str, int]] = set()

    # -- when there is something to judge -----------------------------------------------------

    def look(self, brain: "Brain", state: "EndpointState") -> None:
        """Begin to judge a stage that has only just begun."""
        on = state.rollout
        if on is None or on.settings.gates == NOTHING or not on.is_undecided or on.stage < 0:
            return
        stage = (state.name, on.id, on.stage)
        if stage not in self._truth:
            self._truth[stage] = {}
            for gate in on.settings.gates.names(_weight_pct(on)):
                self._plan(stage, gate)
        if (on.id, brain.life) not in self._keeping:
            self._keeping.add((on.id, brain.life))
            self._world.later(self._world.luck.uniform(1.0, 8.0), self._keep, state.name, on.id)

    def took_over(self, brain: "Brain", state: "EndpointState") -> None:
        """Another controller: its judge looks at everything anew."""
        self.look(brain, state)
        if (on := state.rollout) is not None:
            stage = (state.name, on.id, on.stage)
            self._world.later(self._world.luck.uniform(0.1, 1.5), self._tell_edges, stage)

    def _plan(self, stage: Stage, gate: str) -> None:
        world, luck, flaws = self._world, self._world.luck, self._world.flaws
        passed, failed = VerdictKind.passed, VerdictKind.failed
        first_s = luck.uniform(0.0, 1.0)
        pass_s, fail_s = first_s + luck.uniform(0.1, 6.0), first_s + luck.uniform(0.1, 20.0)
        plan = [(first_s, VerdictKind.insufficient)]
        if world.is_flawed(flaws.gate_fails):
            plan.append((fail_s, failed))
        elif world.is_flawed(flaws.gate_flips):
            plan += [(pass_s, passed), (pass_s + fail_s, failed)]
        elif world.is_flawed(flaws.gate_silent):
            plan.append((luck.choice((25.0, 70.0, 200.0)), passed))
        else:
            plan.append((pass_s, passed))
        for after_s, kind in plan:
            world.later(after_s, self._turn, stage, gate, kind)

    # -- what is told -------------------------------------------------------------------------

    def _turn(self, stage: Stage, gate: str, kind: VerdictKind) -> None:
        self._truth[stage][gate] = kind
        self._tell_edges(stage)

    def _tell_edges(self, stage: Stage) -> None:
        """Tell every verdict that the state does not have, if the stage is still the present."""
        brain = self._world.brain
        if brain is None or not brain.is_acting:
            return
        name, rollout, number = stage
        on = _judged(brain, name, rollout)
        if on is None or on.stage != number or stage not in self._truth:
            return
        known = {verdict.gate: verdict.kind for verdict in on.verdicts}
        for gate, kind in self._truth[stage].items():
            if known.get(gate) is not kind:
                self._tell(stage, gate, kind)
        if self._world.luck.random() < 0.3:
            self._world.later(0.0, self._keep, name, rollout, False)

    def _tell(self, stage: Stage, gate: str, kind: VerdictKind) -> None:
        world, (name, rollout, number) = self._world, stage
        at = world.controller_clock()
        verdict = Verdict(gate=gate, kind=kind, at=at, why="so it was counted")
        told = {"endpoint": name, "rollout": rollout, "stage": number, "verdict": verdict}
        world.tell(events.GateJudged, **told)
        if world.is_flawed(world.flaws.said_again):
            world.later_again(events.GateJudged, told)

    def _keep(self, name: str, rollout: str, goes_on: bool = True) -> None:
        """Journal what the verdicts are reached by, again and again."""
        world, brain = self._world, self._world.brain
        if brain is None or not brain.is_acting:
            return
        on = _judged(brain, name, rollout)
        if on is None or world.dies(brain, "between a verdict and its checkpoint"):
            return
        at = world.controller_clock()
        evidence = Evidence(at=at, stage=on.stage)
        told: dict[str, Any] = {"endpoint": name, "rollout": rollout, "evidence": evidence}
        brain.tell(events.EvidenceKept(at=at, **told))
        if world.is_flawed(world.flaws.said_again):
            world.later(world.luck.uniform(0.5, 60.0), self._keep_again, told)
        if goes_on:
            world.later(world.luck.uniform(4.0, 12.0), self._keep, name, rollout)

    def _keep_again(self, told: dict[str, Any]) -> None:
        """A judge's last word comes when its rollout is decided, and never in between."""
        brain = self._world.brain
        if brain is None or _judged(brain, told["endpoint"], told["rollout"]) is None:
            self._world.tell(events.EvidenceKept, **told)


def _judged(brain: "Brain", name: str, rollout: str) -> Rollout | None:
    """Return the rollout, if it still is to be decided."""
    state = brain.mind.fleet.endpoints.get(name)
    on = None if state is None else state.rollout
    return on if on is not None and on.id == rollout and on.is_undecided else None


def _weight_pct(on: Rollout) -> int:
    steps = on.settings.steps
    return steps[on.stage].weight_pct if on.stage < len(steps) else WHOLE_PCT
