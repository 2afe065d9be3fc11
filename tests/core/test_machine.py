"""A hypothesis state machine: any order of happenings keeps the promises that hold at all times.

The simulator (tests/simulation) has more faults and its own ground truth; this one shrinks what it
finds to the shortest story.
"""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support import story
from support.story import NAME, SENTENCES, Story, World, revision

from trafficmgr.core import events
from trafficmgr.core.gating import (
    HookPhase,
    HookStage,
    SmokePhase,
    TaskCommand,
    Verdict,
    VerdictKind,
)
from trafficmgr.core.model import GroupPhase, RolloutPhase
from trafficmgr.core.routing import check
from trafficmgr.core.schedule import capacity_pct
from trafficmgr.core.state import EndpointState

GIVEN = {
    "replicas": "2",
    "steps": "0/1s,10/10s,60/pause",
    "deadline": "30s",
    "min_ready": "1s",
    "keep_previous": "20s",
    "watch": "10s",
    "publish": "groups",
    "ttl": "5s",
    "ttl_grace": "1s",
    "drain_http": "10s",
}
PROOFS = {
    "gates": "compare",
    "max_hold": "20s",
    "hooks": "before:migrate:command:20s:final,before:announce:call:5s,gate:approve:call:10s,"
    "after:clean:command:10s",
    "smoke": "rehearsed",
    "affinity": "client",
}
"""What revisions must prove in half of the stories."""

OUTSIDE = ("migrate", "announce", "approve", "clean", "smoke")
VERBS = ("aborts", "promotes", "promotes fully", "pauses", "resumes", "rolls back", "retries")
HOLDS = (events.HoldAsked, events.ReleaseAsked)
BACK = (RolloutPhase.aborting, RolloutPhase.aborted, RolloutPhase.superseded)


class Endpoint(RuleBasedStateMachine):
    """One endpoint and everything that may happen to it."""

    given = GIVEN

    def __init__(self) -> None:
        super().__init__()
        self.story = Story(World(broken={"v3"}), story.settings(**self.given))
        self.generation = 0
        self.aborted: set[str] = set()
        self.registry_shows("v1")
        self.story.run_until(20.0)

    @property
    def state(self) -> EndpointState:
        """The endpoint's state now."""
        return self.story.state

    @rule(seconds=st.sampled_from([0.05, 0.5, 2.0, 7.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.story.run_until(self.story.now + seconds)

    @rule(label=st.sampled_from(["v1", "v2", "v3", "v4"]))
    def revision_comes(self, label: str) -> None:
        self.registry_shows(label)

    @rule(label=st.sampled_from(["v2", "v4"]))
    def revision_comes_far(self, label: str) -> None:
        """It comes and gets to its first weight, if nothing is in the way."""
        self.registry_shows(label)
        self.story.run_until(self.story.now + 6.0)

    def registry_shows(self, label: str) -> None:
        self.story.feed(
            events.RevisionSeen(at=self.story.now, endpoint=NAME, revision=revision(label))
        )

    @rule(verb=st.sampled_from(VERBS))
    def operator_asks(self, verb: str) -> None:
        if verb == "aborts" and self.state.rollout is not None:
            self.aborted.add(self.state.rollout.id)
        SENTENCES[f"operator {verb}"](self.story)

    @rule(kind=st.sampled_from(HOLDS))
    def operator_holds(self, kind: type[events.EndpointEvent]) -> None:
        self.story.feed(kind(at=self.story.now, endpoint=NAME))

    @rule(replicas=st.integers(1, 3))
    def operator_scales(self, replicas: int) -> None:
        self.story.feed(events.ScaleAsked(at=self.story.now, endpoint=NAME, replicas=replicas))

    @precondition(lambda self: self.state.groups)
    @rule(data=st.data(), what=st.sampled_from(["ends", "completes", "unready", "ready"]))
    def group_changes(self, data: st.DataObject, what: str) -> None:
        group = data.draw(st.sampled_from([g.id for g in self.state.groups]))
        at = self.story.now
        if what == "ends":
            self.story.feed(events.GroupEnded(at=at, endpoint=NAME, group=group, reason="died"))
        elif what == "completes":
            SENTENCES[r"(\S+) completes with an error"](self.story, group)
        elif what == "unready":
            self.story.feed(events.GroupUnready(at=at, endpoint=NAME, group=group, reason="503"))
        else:
            self.story.feed(events.GroupReady(at=at, endpoint=NAME, group=group))

    @rule(slot=st.integers(0, 1))
    def worker_hangs(self, slot: int) -> None:
        self.story.world.hung.add(slot)

    @precondition(lambda self: not self.story.is_controller_away)
    @rule(slot=st.integers(0, 1))
    def worker_dies(self, slot: int) -> None:
        if slot in self.story._workers:
            self.story.kill_worker(slot)

    @precondition(lambda self: not self.story.is_controller_away)
    @rule()
    def controller_dies(self) -> None:
        self.story.is_controller_away = True

    @precondition(lambda self: self.story.is_controller_away)
    @rule()
    def controller_returns(self) -> None:
        self.story.start_controller()
        self.story.hello_all()

    # -- what holds at all times ------------------------------------------------------------------

    @invariant()
    def tables_keep_their_rules_and_only_grow(self) -> None:
        table = check(self.state.table)
        assert table.generation >= self.generation
        self.generation = table.generation

    @invariant()
    def a_table_reaches_running_groups_only(self) -> None:
        by_id = {group.id: group for group in self.state.groups}
        for group in self.state.table.groups():
            assert by_id[group].phase is GroupPhase.started
            assert not by_id[group].is_retiring

    @invariant()
    def weight_is_never_above_capacity(self) -> None:
        """Promise 3."""
        state = self.state
        for share in state.table.shares:
            if share.revision == state.candidate and state.stable:
                ready = len(state.ready(state.candidate))
                assert share.weight_pct <= capacity_pct(ready, state.replicas)

    @invariant()
    def whoever_still_runs_serves(self) -> None:
        """Promise 9: the table is not empty while a group of stable that served is there."""
        state = self.state
        served = [
            g
            for g in state.live(state.stable)
            if g.phase is GroupPhase.started and (g.in_table or g.withdrawn_generation)
        ]
        assert not (state.stable and served) or any(s.targets for s in state.table.shares)

    @invariant()
    def no_quarantined_revision_is_rolled_out(self) -> None:
        """Promise 6."""
        assert self.state.candidate not in self.state.quarantined or not self.state.candidate

    @invariant()
    def a_stopping_group_is_in_no_table(self) -> None:
        """Of promise 1 what the state can tell; the simulator knows what slots still have."""
        for group in self.state.groups:
            assert not (group.phase is GroupPhase.stopping and group.in_table)

    @invariant()
    def addresses_are_unique(self) -> None:
        """Promise 13."""
        given_out = [group.address for group in self.state.groups if group.address]
        assert len(given_out) == len(set(given_out))

    @invariant()
    def roles_are_exclusive(self) -> None:
        state = self.state
        roles = [r for r in (state.stable, state.candidate, state.previous) if r]
        assert len(roles) == len(set(roles))


class ProvingEndpoint(Endpoint):
    """One whose revisions must prove more than their health."""

    given = {**GIVEN, **PROOFS}

    def __init__(self) -> None:
        self.kept: dict[str, float] = {}
        super().__init__()

    @rule(label=st.sampled_from(["v2", "v4"]))
    def revision_comes_to_its_last_step(self, label: str) -> None:
        """It comes, and all goes well with it for a while."""
        self.registry_shows(label)
        self.story.run_until(self.story.now + 14.0)
        self.gate_judges("passes")
        self.story.run_until(self.story.now + 8.0)

    @rule(what=st.sampled_from(OUTSIDE), how=st.sampled_from(["fail", "hang"]))
    def something_goes_wrong_outside(self, what: str, how: str) -> None:
        SENTENCES[rf"(\S+) will {how}"](self.story, what)

    @rule(what=st.sampled_from(OUTSIDE))
    def it_goes_well_again(self, what: str) -> None:
        SENTENCES[r"(\S+) will not fail"](self.story, what)
        SENTENCES[r"(\S+) will not hang"](self.story, what)

    @rule(label=st.sampled_from(["v2", "v4"]))
    def migration_needs_what_is_not_there(self, label: str) -> None:
        """The config asks for a container that the revision, of before, does not have."""
        self.migration_runs_in("job")
        self.revision_comes_to_its_last_step(label)
        self.migration_runs_in("web")

    def migration_runs_in(self, container: str) -> None:
        given = self.state.settings
        migrate = given.hooks[0].but(action=TaskCommand(container=container, command=("x",)))
        other = given.but(hooks=(migrate, *given.hooks[1:]))
        self.story.feed(events.SettingsApplied(at=self.story.now, endpoint=NAME, settings=other))

    @rule(verdict=st.sampled_from(["passes", "passes", "fails", "lacks data"]))
    def gate_judges(self, verdict: str) -> None:
        if self.state.rollout is not None:
            SENTENCES[rf"gate (\S+) {verdict}"](self.story, "compare")

    @rule(stage=st.integers(-1, 3), number=st.integers(1, 3))
    def an_echo_comes(self, stage: int, number: int) -> None:
        """A verdict, or the answer to a leg, of a stage or rollout that is over."""
        at, under_way = self.story.now, self.state.rollout
        if under_way is None or (under_way.id, under_way.stage) == (f"{NAME}-r{number}", stage):
            return
        told: dict[str, Any] = {"at": at, "endpoint": NAME, "rollout": f"{NAME}-r{number}"}
        verdict = Verdict(gate="compare", kind=VerdictKind.passed, at=at, why="it was so")
        self.story.feed(events.GateJudged(stage=stage, verdict=verdict, **told))
        if under_way.smoke is None or under_way.smoke.leg != stage:
            self.story.feed(events.SmokeEnded(leg=stage, is_success=True, **told))

    @precondition(lambda self: not self.story.is_controller_away)
    @rule()
    def evidence_is_kept(self) -> None:
        under_way = self.state.rollout
        if under_way is not None and under_way.is_undecided:
            self.kept[under_way.id] = self.story.now
            self.story.keep_evidence()

    # -- what holds at all times ------------------------------------------------------------------

    @invariant()
    def what_asks_is_paused(self) -> None:
        under_way = self.state.rollout
        if under_way is not None and under_way.question:
            assert under_way.is_undecided
            assert under_way.is_paused

    @invariant()
    def a_task_serves_nobody(self) -> None:
        table, tasks = self.state.table, {g.id for g in self.state.groups if g.hook}
        shown = () if table.preview is None else table.preview.targets
        assert not tasks & (table.groups() | {target.group for target in shown})
        assert not tasks & {g.id for g in self.state.live(self.state.candidate)}

    @invariant()
    def the_first_hooks_come_first(self) -> None:
        state, under_way = self.state, self.state.rollout
        if under_way is None or under_way.phase is not RolloutPhase.progressing:
            return
        stage, done = HookStage.before, HookPhase.succeeded
        first = [run for run in under_way.hooks if under_way.hook(run.name).stage is stage]
        is_done = all(run.phase is done for run in first) or under_way.is_overruled
        if is_done or state.table.is_least_bad:
            return
        preview = state.table.preview
        assert preview is None or preview.revision != under_way.revision
        shares = {share.revision for share in state.table.shares if share.weight_pct}
        assert under_way.revision not in shares
        assert all(g.created_at < under_way.started_at for g in state.live(under_way.revision))

    @invariant()
    def smoke_comes_before_the_first_step(self) -> None:
        under_way = self.state.rollout
        if under_way is None or under_way.step < 0 or under_way.is_overruled:
            return
        assert under_way.smoke is not None
        assert under_way.smoke.phase is SmokePhase.passed

    @invariant()
    def nothing_irreversible_goes_back_by_itself(self) -> None:
        for rollout in (*self.state.history, *filter(None, [self.state.rollout])):
            begun = [rollout.hook(run.name) for run in rollout.hooks if run.began_at is not None]
            is_undone = rollout.phase in BACK and not all(hook.is_reversible for hook in begun)
            assert not is_undone or rollout.id in self.aborted

    @invariant()
    def no_checkpoint_is_lost(self) -> None:
        under_way = self.state.rollout
        if under_way is not None and under_way.is_undecided and under_way.id in self.kept:
            assert under_way.evidence is not None
            assert under_way.evidence.at == self.kept[under_way.id]


STORIES = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestEndpoint = Endpoint.TestCase
TestEndpoint.settings = STORIES
TestProvingEndpoint = ProvingEndpoint.TestCase
TestProvingEndpoint.settings = STORIES
