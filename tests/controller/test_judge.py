"""The judge: what workers counted and checks found becomes verdicts, told at their edges only."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from support.controller_support import NAME, Clock, eventually, revision, settings

from trafficmgr.controller import judge as judging
from trafficmgr.controller.checks import Finding, Subject
from trafficmgr.controller.counts import Ledger
from trafficmgr.controller.judge import Judge, of_this_boot
from trafficmgr.core import evidence, progress
from trafficmgr.core.counted import Counted, Pair
from trafficmgr.core.events import Event, EvidenceKept, GateJudged
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.gating import Check, CommandCheck, Compare, Gates, Verdict, VerdictKind
from trafficmgr.core.model import (
    Affinity,
    Countdown,
    Publish,
    Rollout,
    RolloutPhase,
    Slot,
    Step,
)
from trafficmgr.core.routing import Share, Table
from trafficmgr.core.state import EndpointState
from trafficmgr.wire.frames import Counts, ShareCounts

PASSED, FAILED, UNKNOWN = VerdictKind.passed, VerdictKind.failed, VerdictKind.insufficient
NEEDS_100 = Gates(min_requests=100)
STEPS = (Step(weight_pct=0, hold_s=0.0), Step(weight_pct=10, hold_s=30.0))
PREVIEW, TENTH, WATCH = 0, 1, 2


def table_of(weight_pct: int, *, affinity: Affinity = Affinity.none) -> Table:
    shares = (
        Share(revision="v1", weight_pct=100 - weight_pct, targets=()),
        Share(revision="v2", weight_pct=weight_pct, targets=()),
    )
    return Table(
        endpoint=NAME,
        generation=weight_pct,
        hosts=(),
        publish=Publish.proxy,
        ttl_s=1,
        shares=shares,
        affinity=affinity,
    )


def state_of(gates: Gates, *, step: int = -1, weight_pct: int = 0) -> EndpointState:
    """Return an endpoint in the middle of a rollout from v1 to v2, with two workers."""
    given = settings().but(gates=gates, steps=STEPS)
    rollout = Rollout(
        id="shop-r2",
        origin="v1",
        revision="v2",
        settings=given,
        started_at=1000.0,
        step=step,
        deadline=Countdown(left_s=600.0),
    )
    return EndpointState(
        name=NAME,
        boot_id="boot-1",
        settings=given,
        table=table_of(weight_pct),
        stable="v1",
        candidate="v2",
        revisions={"v1": revision("v1"), "v2": revision("v2")},
        rollout=rollout,
        slots=(Slot(number=0, start_id="0-a"), Slot(number=1, start_id="1-a")),
    )


class Court:
    """A judge with all that it hears and tells; what it tells is folded in, as the loop does."""

    def __init__(self, tasks: asyncio.TaskGroup, state: EndpointState) -> None:
        self.clock = Clock()
        self.ledger = Ledger()
        self.state = state
        self.told: list[Event] = []
        self.findings: dict[str, Finding] = {}
        self.asked: list[tuple[str, Subject]] = []
        self.is_journal_full = False
        self.judge = Judge(
            tasks=tasks, tell=self.tell, clock=self.clock, ledger=self.ledger, ask=self.ask
        )

    async def tell(self, event: Event) -> None:
        while self.is_journal_full:  # noqa: ASYNC110  what a loop does whose journal has no room
            await asyncio.sleep(0.001)
        self.told.append(event)
        match event:
            case GateJudged():
                self.look(progress.gate_judged(self.state, event))
            case EvidenceKept():
                self.look(progress.evidence_kept(self.state, event))
            case _:
                raise AssertionError(event)

    async def ask(self, check: Check, subject: Subject) -> Finding:
        self.asked.append((check.name, subject))
        return self.findings.get(check.name) or await asyncio.Event().wait()  # type: ignore[return-value]  # it hangs

    def look(self, state: EndpointState) -> None:
        """Show the judge another state."""
        self.state = state
        self.judge.look(Fleet(endpoints={NAME: state}))

    def enter(self, step: int, weight_pct: int) -> None:
        """Take a step, as the core does: with no verdicts yet."""
        assert self.state.rollout is not None
        rollout = self.state.rollout.but(step=step, verdicts=())
        self.look(self.state.but(rollout=rollout, table=table_of(weight_pct)))

    def promote(self) -> None:
        """Go into the watch."""
        assert self.state.rollout is not None
        rollout = self.state.rollout.but(phase=RolloutPhase.promoting, verdicts=())
        self.look(self.state.but(rollout=rollout, stable="v2", candidate=""))

    def count(self, worker: str, *, stable: int = 0, candidate: int = 0, failed: int = 0) -> None:
        """Let a worker report what it has counted since its start."""
        shares = {
            "v1": ShareCounts(requests=stable),
            "v2": ShareCounts(requests=candidate, errors_5xx=failed),
        }
        at = self.clock()
        self.ledger.hear(Counts(start_id=worker, at=at, endpoints={NAME: shares}))

    # -- what was told ------------------------------------------------------------------------

    def verdicts(self, gate: str = "min_requests") -> list[tuple[int, VerdictKind]]:
        """Return stage and kind of each verdict that was told of a gate."""
        return [
            (event.stage, event.verdict.kind)
            for event in self.told
            if isinstance(event, GateJudged) and event.verdict.gate == gate
        ]

    def kept(self) -> list[evidence.Evidence]:
        """Return the evidence that was told."""
        return [event.evidence for event in self.told if isinstance(event, EvidenceKept)]

    def newest(self, gate: str = "min_requests") -> Verdict | None:
        """Return the verdict that is shown of a gate."""
        return next((v for v in self.judge.view(NAME) if v.gate == gate), None)

    def seen_requests(self) -> float | None:
        """Return how many requests of the candidate the newest verdict goes by."""
        verdict = self.newest()
        return None if verdict is None else verdict.numbers.get("requests")

    async def looked(self) -> None:
        """Wait for a look that began after now."""
        self.clock.advance(0.001)
        await eventually(self._is_shown_now)

    def _is_shown_now(self) -> bool:
        newest = self.newest()
        return newest is not None and newest.at == self.clock()


@asynccontextmanager
async def court(state: EndpointState) -> AsyncIterator[Court]:
    async with asyncio.TaskGroup() as tasks:
        held = Court(tasks, state)
        try:
            yield held
        finally:
            held.is_journal_full = False
            held.judge.look(Fleet())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "LOOK_EVERY_S", 0.002)


# -- which rollouts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda rollout: rollout.but(settings=rollout.settings.but(gates=Gates())),
        lambda rollout: rollout.but(is_rollback=True),
        lambda rollout: rollout.but(phase=RolloutPhase.aborting),
        lambda rollout: rollout.but(phase=RolloutPhase.completed, ended_at=1.0),
    ],
)
async def test_what_has_no_gates_or_is_decided_is_not_judged(
    change: Callable[[Rollout], Rollout],
) -> None:
    state = state_of(NEEDS_100, step=TENTH, weight_pct=10)
    assert state.rollout is not None
    async with court(state) as held:
        held.look(state.but(rollout=change(state.rollout)))

        assert not held.judge._cases


async def test_a_case_is_closed_with_its_rollout() -> None:
    async with court(state_of(NEEDS_100, step=TENTH, weight_pct=10)) as held:
        held.look(held.state)
        await eventually(held.verdicts)
        assert held.state.rollout is not None
        (task,) = held.judge._sitting.values()

        held.look(held.state.but(rollout=held.state.rollout.but(phase=RolloutPhase.aborting)))
        await eventually(task.done)

        assert held.judge.view(NAME) == ()


# -- the baseline ---------------------------------------------------------------------------------


async def test_only_what_is_counted_after_the_beginning_is_evidence() -> None:
    """A revision that is tried again was counted before; and a worker reports only now and then."""
    async with court(state_of(NEEDS_100)) as held:
        held.count("0-a", stable=5000, candidate=700)
        held.look(held.state)  # the rollout begins; of worker 1-a nothing was heard
        held.count("1-a", stable=5000, candidate=700)
        held.enter(TENTH, 10)
        await eventually(lambda: held.seen_requests() == 0)

        held.count("0-a", stable=5100, candidate=711)
        held.count("1-a", stable=5100, candidate=722)
        await eventually(lambda: held.seen_requests() == 33)


async def test_a_worker_that_starts_meanwhile_began_at_nothing() -> None:
    """And the one whose place it took leaves its last counts."""
    async with court(state_of(NEEDS_100, step=TENTH, weight_pct=10)) as held:
        held.count("0-a", stable=500)
        held.count("1-a", stable=500)
        held.look(held.state)
        held.count("0-a", stable=600, candidate=10)
        held.look(
            held.state.but(slots=(Slot(number=0, start_id="0-b"), Slot(number=1, start_id="1-a")))
        )
        held.count("0-b", stable=50, candidate=7)

        await eventually(lambda: held.seen_requests() == 17)


async def test_nothing_is_judged_before_the_first_step() -> None:
    async with court(state_of(NEEDS_100)) as held:
        held.count("0-a")
        held.look(held.state)
        held.count("0-a", stable=1000, candidate=1000)
        (case,) = held.judge._cases.values()
        await eventually(lambda: case._evidence.in_stage.stable.finished == 1000)

        assert held.told == []
        assert held.judge.view(NAME) == ()


# -- verdicts -------------------------------------------------------------------------------------


async def test_only_another_kind_of_verdict_is_told() -> None:
    async with court(state_of(NEEDS_100, step=TENTH, weight_pct=10)) as held:
        held.count("0-a")
        held.look(held.state)
        for requests in (10, 20, 99, 100, 150, 200):
            held.count("0-a", candidate=requests)
            await held.looked()
            assert held.seen_requests() == requests

    assert held.verdicts() == [(TENTH, UNKNOWN), (TENTH, PASSED)]


async def test_a_verdict_is_told_with_why_and_its_numbers() -> None:
    gates = Gates(max_error_rate=0.01, compare=Compare())
    async with court(state_of(gates, step=TENTH, weight_pct=10)) as held:
        held.count("0-a")
        held.look(held.state)
        await eventually(lambda: held.verdicts("compare"))
        held.count("0-a", stable=9000, candidate=1000, failed=200)
        await eventually(lambda: (TENTH, FAILED) in held.verdicts("compare"))
        await eventually(lambda: (TENTH, FAILED) in held.verdicts("max_error_rate"))

    failed = [
        event.verdict
        for event in held.told
        if isinstance(event, GateJudged) and event.verdict.kind is FAILED
    ]
    assert {verdict.gate for verdict in failed} == {"compare", "max_error_rate"}
    assert all(verdict.why and verdict.numbers for verdict in failed)


async def test_each_stage_is_judged_anew_up_to_the_watch() -> None:
    async with court(state_of(NEEDS_100, step=TENTH, weight_pct=10)) as held:
        held.count("0-a")
        held.look(held.state)
        held.count("0-a", candidate=150)
        await eventually(lambda: (TENTH, PASSED) in held.verdicts())
        held.promote()
        await eventually(lambda: (WATCH, UNKNOWN) in held.verdicts())
        held.count("0-a", candidate=260)
        await eventually(lambda: (WATCH, PASSED) in held.verdicts())

    assert held.verdicts()[-2:] == [(WATCH, UNKNOWN), (WATCH, PASSED)]


async def test_the_weight_is_what_the_candidate_carries_and_not_what_it_should(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Capped by its health it carries less; in the watch it carries everybody."""
    weights: list[int] = []

    def noted(known: evidence.Evidence, *_: object, **given: int) -> evidence.Evidence:
        weights.append(given["weight_pct"])
        return known

    monkeypatch.setattr(evidence, "observed", noted)
    async with court(state_of(NEEDS_100, step=TENTH, weight_pct=5)) as held:
        held.look(held.state)
        await eventually(lambda: 5 in weights)
        held.promote()
        await eventually(lambda: 100 in weights)

    assert set(weights) == {5, 100}


@pytest.mark.parametrize("affinity", Affinity)
async def test_clients_are_told_apart_as_the_table_says(
    affinity: Affinity, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def noted(known: evidence.Evidence, *_: object, **given: bool) -> evidence.Evidence:
        seen.append(given["has_affinity"])
        return known

    monkeypatch.setattr(evidence, "observed", noted)
    state = state_of(NEEDS_100, step=TENTH, weight_pct=10)
    async with court(state.but(table=table_of(10, affinity=affinity))) as held:
        held.look(held.state)
        await eventually(lambda: seen)

    assert set(seen) == {affinity is Affinity.client}


async def test_what_each_worker_says_becomes_evidence_whole() -> None:
    share = ShareCounts(
        requests=10,
        in_flight=2,
        errors_5xx=1,
        failures={"connect": 2},
        durations=(3, 4),
        clients={7: 8},
        failing={7: 3},
    )

    assert judging.counted({"v2": share}, "v2") == Counted(
        finished=8, failed=3, durations=(3, 4), clients={7: 8}, failing={7: 3}
    )
    assert judging.counted({"v2": share}, "v1") == Counted()


# -- checks ---------------------------------------------------------------------------------------


def with_checks(*names: str, gates: Gates | None = None) -> Gates:
    """Return gates with checks besides, each of them a command of its name."""
    checks = tuple(
        Check(name=name, ask=CommandCheck(command=(name,)), every_s=0.005) for name in names
    )
    return (gates or Gates()).but(checks=checks)


async def test_a_preview_has_checks_only() -> None:
    """Nobody but its testers asks it, and they are not counted."""
    async with court(state_of(with_checks("deep", gates=NEEDS_100))) as held:
        held.findings["deep"] = Finding(PASSED, "Fine.")
        held.look(held.state)
        held.enter(PREVIEW, 0)
        await eventually(lambda: (PREVIEW, PASSED) in held.verdicts("deep"))
        assert [verdict.gate for verdict in held.judge.view(NAME)] == ["deep"]

        held.enter(TENTH, 10)
        await eventually(lambda: (TENTH, PASSED) in held.verdicts("deep"))
        await eventually(lambda: held.verdicts() == [(TENTH, UNKNOWN)])


async def test_nothing_is_asked_before_the_first_step() -> None:
    async with court(state_of(with_checks("deep", gates=NEEDS_100))) as held:
        held.look(held.state)
        held.count("0-a", stable=10)
        (case,) = held.judge._cases.values()
        await eventually(lambda: "0-a" in case._evidence.seen and case._evidence.seen["0-a"])

        assert held.asked == []


async def test_a_check_is_asked_about_the_revision_and_its_weight() -> None:
    async with court(state_of(with_checks("deep"), step=TENTH, weight_pct=7)) as held:
        held.findings["deep"] = Finding(PASSED, "Fine.")
        held.look(held.state)
        await eventually(lambda: held.asked)
        held.promote()
        await eventually(lambda: held.asked[-1][1].weight_pct == 100)

    name, subject = held.asked[0]
    assert (name, subject.revision, subject.weight_pct) == ("deep", "v2", 7)
    assert subject.state.name == NAME
    assert held.asked[-1][1].revision == "v2"


async def test_verdicts_of_checks_are_told_at_their_edges() -> None:
    async with court(state_of(with_checks("deep", "report"), step=TENTH, weight_pct=10)) as held:
        held.findings = {"deep": Finding(PASSED, "Fine.")}
        held.look(held.state)
        await eventually(lambda: (TENTH, PASSED) in held.verdicts("deep"))
        asked = len(held.asked)
        await eventually(lambda: len(held.asked) > asked + 5)
        held.findings["deep"] = Finding(FAILED, "It answered 500.")
        await eventually(lambda: (TENTH, FAILED) in held.verdicts("deep"))

    assert held.verdicts("deep") == [(TENTH, UNKNOWN), (TENTH, PASSED), (TENTH, FAILED)]
    assert held.verdicts("report") == [(TENTH, UNKNOWN)], "one that hangs holds up nobody else"
    assert held.kept() == [], "there is nothing counted to be kept"


async def test_a_check_that_passed_is_asked_again_in_the_next_stage() -> None:
    async with court(state_of(with_checks("deep"), step=TENTH, weight_pct=10)) as held:
        held.findings["deep"] = Finding(PASSED, "Fine.")
        held.look(held.state)
        await eventually(lambda: (TENTH, PASSED) in held.verdicts("deep"))
        del held.findings["deep"]
        held.promote()
        await eventually(lambda: (WATCH, UNKNOWN) in held.verdicts("deep"))

    assert held.verdicts("deep")[-1] == (WATCH, UNKNOWN)


async def test_a_check_in_flight_is_dropped_with_its_case() -> None:
    async with court(state_of(with_checks("deep"), step=TENTH, weight_pct=10)) as held:
        held.look(held.state)
        await eventually(lambda: held.asked)
        (task,) = held.judge._sitting.values()

        held.judge.look(Fleet())
        await eventually(task.done)


# -- the checkpoint -------------------------------------------------------------------------------


async def test_evidence_is_kept_with_each_stage_and_every_ten_seconds_if_it_grew() -> None:
    async with court(state_of(NEEDS_100, step=TENTH, weight_pct=10)) as held:
        held.count("0-a")
        held.count("1-a")
        held.look(held.state)
        await eventually(lambda: len(held.kept()) == 1)

        held.count("0-a", candidate=40)
        await eventually(lambda: held.seen_requests() == 40)
        held.clock.advance(9.9)
        await held.looked()
        assert len(held.kept()) == 1

        held.clock.advance(0.1)
        await eventually(lambda: len(held.kept()) == 2)
        held.clock.advance(100.0)  # in which open windows are closed for their age
        await held.looked()
        known = len(held.kept())
        held.clock.advance(100.0)
        await held.looked()
        assert len(held.kept()) == known, "nobody asked for anything"

        held.promote()
        await eventually(lambda: len(held.kept()) == known + 1)

    assert held.kept()[1].in_stage.candidate.finished == 40
    assert [kept.stage for kept in held.kept()] == [TENTH] * known + [WATCH]


async def test_another_judge_goes_on_from_the_checkpoint() -> None:
    """With nothing counted twice, and with what was counted while nobody judged."""
    async with court(state_of(NEEDS_100, step=TENTH, weight_pct=10)) as before:
        before.count("0-a", candidate=5)
        before.look(before.state)
        await eventually(before.kept)
        before.count("0-a", candidate=65)
        await eventually(lambda: before.seen_requests() == 60)
        before.clock.advance(10.0)
        await eventually(lambda: len(before.kept()) == 2)
    assert before.kept()[1].in_stage.candidate.finished == 60

    async with court(before.state) as after:
        after.look(after.state)
        await eventually(lambda: after.seen_requests() == 60)
        after.count("0-a", candidate=105)
        await eventually(lambda: after.verdicts() == [(TENTH, PASSED)])

    assert after.seen_requests() is None, "the case is closed"
    assert after.kept() == [], "it was kept a moment ago"


async def test_evidence_of_another_boot_is_not_ahead_of_the_clock() -> None:
    known = evidence.begun(at=9000.0, stage=0, seen={"0-a": Pair()})
    known = known.but(weights={10: 8990.0}, window_since=8995.0)

    moved = of_this_boot(known, 5.0)

    assert (moved.at, moved.window_since, moved.weights) == (5.0, 5.0, {10: 5.0})
    assert moved.seen == known.seen
    assert of_this_boot(known, 9000.0) is known


async def test_a_journal_that_can_not_be_written_only_makes_it_wait() -> None:
    async with court(state_of(NEEDS_100, step=TENTH, weight_pct=10)) as held:
        held.is_journal_full = True
        held.count("0-a")
        held.look(held.state)
        (case,) = held.judge._cases.values()
        await eventually(lambda: case.verdicts)
        held.count("0-a", candidate=150)
        assert held.told == []

        held.is_journal_full = False
        await eventually(lambda: held.verdicts() == [(TENTH, UNKNOWN), (TENTH, PASSED)])
