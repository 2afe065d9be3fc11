"""What was truly said and done of all that a revision must prove: the memory behind its oracles.

It is written down from what was told and from what the hands did, never from what the core made
of it. A hook is known by its endpoint, revision and name, a stage by its rollout and number.
"""

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from simulation.oracles import Change

from trafficmgr.core import events, operator
from trafficmgr.core.evidence import Evidence
from trafficmgr.core.gating import HookPhase, HookStage, VerdictKind
from trafficmgr.core.model import Rollout, RolloutPhase
from trafficmgr.core.operator import Verb
from trafficmgr.core.state import EndpointState

if TYPE_CHECKING:
    from simulation.engine import Process
    from simulation.world import World

    from trafficmgr.core.commands import AskSmoke, CallHook

Deed = tuple[str, str, str]
"""Endpoint, revision, hook."""
Stage = tuple[str, int]
"""Rollout, stage."""


class Testimony:
    """Everything that oracles of gates, hooks and smoke have to know.

    Attributes:
        verdicts: By stage, the newest verdict of each gate.
        waived: Stages that an operator ended.
        skipped: Stages that an operator passed over.
        overruled: Rollouts that an operator let go on although something had failed.
        proved_s: By stage, for how long the candidate could carry it.
        done: Hooks that succeeded, or that an operator took as done.
        failed: Rollout and hook: it failed.
        begun: How often a hook was begun.
        retried: How often an operator wanted a revision tried again, by endpoint and revision.
        final: Rollout -> the hook that was begun and can't be undone.
        met: By rollout, the legs of the smoke test that were answered well.
        burnt: Rollouts of which the smoke test was answered badly.
        kept: By rollout, the newest checkpoint.
    """

    def __init__(self, world: "World") -> None:
        self._world = world
        self.verdicts: defaultdict[Stage, dict[str, VerdictKind]] = defaultdict(dict)
        self.waived: set[Stage] = set()
        self.skipped: set[Stage] = set()
        self.overruled: set[str] = set()
        self.proved_s: defaultdict[Stage, float] = defaultdict(float)
        self.done: set[Deed] = set()
        self.failed: set[tuple[str, str]] = set()
        self.begun: Counter[Deed] = Counter()
        self.retried: Counter[tuple[str, str]] = Counter()
        self.final: dict[str, str] = {}
        self.met: defaultdict[str, set[int]] = defaultdict(set)
        self.burnt: set[str] = set()
        self.kept: dict[str, Evidence] = {}
        self._seen_at: dict[str, float] = {}

    def rebooted(self) -> None:
        """Clocks start again, and what was proved counts for nothing."""
        self._seen_at.clear()
        self.proved_s.clear()

    # -- what the hands did -------------------------------------------------------------------

    def task_begins(self, process: "Process") -> None:
        """The processes of a task are there."""
        state = self._world.durable.endpoints.get(process.endpoint)
        on = None if state is None else state.rollout
        if on is not None and any(run.group == process.group for run in on.hooks):
            self._begun(process.endpoint, on, process.hook)

    def called(self, command: "CallHook") -> None:
        """Somebody was called."""
        state = self._world.durable.endpoints.get(command.endpoint)
        if state is not None and state.rollout is not None:
            self._begun(command.endpoint, state.rollout, command.hook)

    def _begun(self, endpoint: str, on: Rollout, hook: str) -> None:
        self.begun[endpoint, on.revision, hook] += 1
        if not on.hook(hook).is_reversible:
            self.final.setdefault(on.id, hook)

    def answered(self, command: "AskSmoke", *, is_success: bool) -> None:
        """The preview answered the requests of a leg."""
        if is_success:
            self.met[command.rollout].add(command.leg)

    # -- what was told ------------------------------------------------------------------------

    def hear(self, change: Change) -> None:
        """Write down what a change was told by; before any oracle is asked."""
        before, event = change.before, change.event
        if before is None:
            self._forget(change.after.name)
            return
        on = before.rollout
        if on is None or not on.is_undecided:
            if isinstance(event, events.RetryAsked):
                self._retried(before)
            return
        match event:
            case events.GateJudged() if (event.rollout, event.stage) == (on.id, on.stage):
                self.verdicts[on.id, on.stage][event.verdict.gate] = event.verdict.kind
            case events.EvidenceKept() if event.rollout == on.id:
                self.kept[on.id] = event.evidence
            case events.SmokeEnded() if event.rollout == on.id and not event.is_success:
                self._burnt(on, event)
            case events.RetryAsked():
                self._retried(before)
            case events.PromoteAsked() | events.ResumeAsked():
                self._gone_on(event, before, on)
            case _:
                self._hear_of_hooks(event, before, on)

    def _hear_of_hooks(self, event: events.Event, before: EndpointState, on: Rollout) -> None:
        match event:
            case events.HookEnded() if event.rollout == on.id:
                self._ended(before, on, event.hook, is_success=event.is_success)
            case events.GroupCompleted() | events.GroupStartFailed():
                is_success = isinstance(event, events.GroupCompleted) and event.is_success
                for run in on.hooks:
                    if run.group == event.group:
                        self._ended(before, on, run.name, is_success=is_success)
            case _:
                pass

    def _forget(self, name: str) -> None:
        """An endpoint that comes back after it was gone is a new one."""
        self.done = {deed for deed in self.done if deed[0] != name}
        self.begun = Counter({k: n for k, n in self.begun.items() if k[0] != name})

    def _ended(self, before: EndpointState, on: Rollout, hook: str, *, is_success: bool) -> None:
        run = next((run for run in on.hooks if run.name == hook), None)
        if run is None or run.phase not in {HookPhase.wanted, HookPhase.running}:
            return
        if is_success:
            self.done.add((before.name, on.revision, hook))
        else:
            self.failed.add((on.id, hook))

    def _burnt(self, on: Rollout, event: events.SmokeEnded) -> None:
        if on.smoke is not None and on.is_smoking and on.smoke.leg == event.leg:
            self.burnt.add(on.id)

    def _retried(self, before: EndpointState) -> None:
        """The newest revision is meant, and the one of which nobody knows how a hook ended."""
        meant, on = {before.ignored or before.newest}, before.rollout
        if on is not None and on.is_undecided:
            meant.add(on.revision)
        self.retried.update((before.name, revision) for revision in meant)

    def _gone_on(
        self, event: events.PromoteAsked | events.ResumeAsked, before: EndpointState, on: Rollout
    ) -> None:
        """An operator answers a question, or ends a stage; or is refused."""
        is_promote = isinstance(event, events.PromoteAsked)
        is_full = isinstance(event, events.PromoteAsked) and event.is_full
        promote = Verb.promote_full if is_full else Verb.promote
        if operator.why_not(promote if is_promote else Verb.resume, before):
            return
        if on.question:
            asked = {run.name for run in on.hooks if run.phase is HookPhase.unknown}
            self.done |= {(before.name, on.revision, hook) for hook in asked}
        if (on.question or is_promote) and (self.has_failed(on) or _has_failed_hook(on)):
            self.overruled.add(on.id)
        if is_promote and on.phase is RolloutPhase.progressing:
            last = len(on.settings.steps) - 1
            self.skipped |= {(on.id, stage) for stage in range(on.stage, last if is_full else 0)}
            self.waived.add((on.id, max(on.stage, last) if is_full else on.stage))

    # -- what follows -------------------------------------------------------------------------

    def prove(self, change: Change) -> None:
        """Add the time up to a change to what its stage has proved, if it could."""
        before, now = change.before, change.event.at
        seen_at = self._seen_at.get(change.after.name, now)
        is_new = isinstance(change.event, events.ControllerStarted)
        if before is not None and before.rollout is not None and not is_new:
            on = before.rollout
            if on.phase is RolloutPhase.progressing and _can_prove(before, on, seen_at):
                self.proved_s[on.id, on.step] += max(0.0, now - seen_at)
        self._seen_at[change.after.name] = now

    def has_failed(self, on: Rollout) -> bool:
        """Whether a gate of the present stage, a hook that counts, or smoke has condemned it."""
        is_condemned = VerdictKind.failed in self.verdicts[on.id, on.stage].values()
        names = {hook.name for hook in on.settings.hooks if hook.stage is not HookStage.after}
        has_failed_hook = any((on.id, name) in self.failed for name in names)
        return is_condemned or has_failed_hook or (on.step < 0 and on.id in self.burnt)


def _has_failed_hook(on: Rollout) -> bool:
    """Whether a hook failed that counts, by its timeout too."""
    failed = (run for run in on.hooks if run.phase is HookPhase.failed)
    return any(on.hook(run.name).stage is not HookStage.after for run in failed)


def _can_prove(state: EndpointState, on: Rollout, now: float) -> bool:
    """Whether time that passes in this state counts towards `max_hold`."""
    if on.is_paused or on.step < 0:
        return False
    live = [g for g in state.groups if g.revision == on.revision and not g.is_retiring]
    since = [g.ready_since for g in live if g.ready_since is not None and not g.hook]
    available = sum(now >= one + on.settings.min_ready_s - 1e-6 for one in since)
    carries = min(100, 100 * available // max(1, state.replicas))
    return carries >= max(1, on.settings.steps[on.step].weight_pct)
