"""A hypothesis state machine: any order of happenings keeps the promises that hold at all times.

The simulator (tests/simulation) has more faults and its own ground truth; this one shrinks what it
finds to the shortest story.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support import story
from support.story import NAME, SENTENCES, Story, World, revision

from trafficmgr.core import events
from trafficmgr.core.model import GroupPhase
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
VERBS = ("aborts", "promotes", "promotes fully", "pauses", "resumes", "rolls back", "retries")


class Endpoint(RuleBasedStateMachine):
    """One endpoint and everything that may happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story(World(broken={"v3"}), story.settings(**GIVEN))
        self.generation = 0
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
        SENTENCES[f"operator {verb}"](self.story)

    @rule(replicas=st.integers(1, 3))
    def operator_scales(self, replicas: int) -> None:
        self.story.feed(events.ScaleAsked(at=self.story.now, endpoint=NAME, replicas=replicas))

    @precondition(lambda self: self.state.groups)
    @rule(data=st.data(), what=st.sampled_from(["ends", "unready", "ready"]))
    def group_changes(self, data: st.DataObject, what: str) -> None:
        group = data.draw(st.sampled_from([g.id for g in self.state.groups]))
        at = self.story.now
        if what == "ends":
            self.story.feed(events.GroupEnded(at=at, endpoint=NAME, group=group, reason="died"))
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


TestEndpoint = Endpoint.TestCase
TestEndpoint.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
