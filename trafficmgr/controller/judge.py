"""An ear: what workers counted and checks found becomes verdicts on the rollouts under way.

One task per rollout that has gates, from its beginning on: what the workers had counted by then is
where its evidence starts from. Once a second, as they report, the growth of both revisions goes
into the evidence (core/evidence.py) and the gates judge it (core/gates.py); external checks are
asked at their own pace (controller/checks.py). Told are edges only: a verdict of another kind than
the one that the state knows for this stage. The evidence itself is told now and then, so that a
controller that takes over goes on from there.

While the journal can't be written the tellings wait, and the judging with them; what workers count
meanwhile is not lost, as their counts are cumulative.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial

from trafficmgr.controller.checks import Finding, Inquiry, Subject
from trafficmgr.controller.counts import ByRevision, Ledger, failed, finished
from trafficmgr.controller.ports import Clock, Tell
from trafficmgr.core import evidence, gates
from trafficmgr.core.counted import Counted, Pair
from trafficmgr.core.events import EvidenceKept, GateJudged
from trafficmgr.core.evidence import Evidence
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.gating import Check, Verdict, VerdictKind
from trafficmgr.core.model import Affinity, Rollout
from trafficmgr.core.schedule import WHOLE_PCT
from trafficmgr.core.state import EndpointState

LOOK_EVERY_S = 1.0
"""As often as workers report."""

KEEP_EVERY_S = 10.0
"""What was counted since is lost with the controller, and counted against nobody."""

AskOnce = Callable[[Check, Subject], Awaitable[Finding]]


class Judge:
    """Keeps one case for each rollout that has gates and is not decided."""

    def __init__(
        self, *, tasks: asyncio.TaskGroup, tell: Tell, clock: Clock, ledger: Ledger, ask: AskOnce
    ) -> None:
        self._tasks = tasks
        self._tell = tell
        self._clock = clock
        self._ledger = ledger
        self._ask = ask
        self._cases: dict[str, Case] = {}
        self._sitting: dict[str, asyncio.Task[None]] = {}

    def look(self, fleet: Fleet) -> None:
        """Open and close cases as the state demands, and show it to those that are open."""
        wanted = {
            state.rollout.id: state
            for state in fleet.endpoints.values()
            if state.rollout is not None and is_judged(state.rollout)
        }
        for gone in self._cases.keys() - wanted.keys():
            del self._cases[gone]
            self._sitting.pop(gone).cancel()
        for rollout, state in wanted.items():
            if rollout in self._cases:
                self._cases[rollout].look(state)
            else:
                self._open(rollout, state)

    def view(self, endpoint: str) -> tuple[Verdict, ...]:
        """Return the newest verdicts on an endpoint's rollout, with the numbers as they are now."""
        cases = (case for case in self._cases.values() if case.state.name == endpoint)
        return next((case.verdicts for case in cases), ())

    def _open(self, rollout: str, state: EndpointState) -> None:
        case = Case(state, tell=self._tell, clock=self._clock, ledger=self._ledger, ask=self._ask)
        self._cases[rollout] = case
        self._sitting[rollout] = self._tasks.create_task(case.run(), name=f"judge {rollout}")


def is_judged(rollout: Rollout) -> bool:
    """Whether gates have a say in a rollout."""
    has_gates = bool(rollout.settings.gates.names(WHOLE_PCT))
    return rollout.is_undecided and not rollout.is_rollback and has_gates


class Case:
    """A rollout before the judge.

    Attributes:
        state: The endpoint as it is now.
        verdicts: The newest ones.
    """

    def __init__(
        self, state: EndpointState, *, tell: Tell, clock: Clock, ledger: Ledger, ask: AskOnce
    ) -> None:
        self.state = state
        self.verdicts: tuple[Verdict, ...] = ()
        self._tell = tell
        self._clock = clock
        self._ledger = ledger
        self._moved = asyncio.Event()
        self._kept = self._rollout.evidence
        self._evidence = of_this_boot(self._kept, clock()) if self._kept else self._begun()
        self._kept_at = self._evidence.at
        self._workers = set(self._evidence.seen)
        self._inquiries = [
            Inquiry(check, partial(self._asked, ask, check), clock)
            for check in self._rollout.settings.gates.checks
        ]
        self.look(state)

    def look(self, state: EndpointState) -> None:
        """Take note of the newest state."""
        before, self.state = self._rollout.stage, state
        self._workers |= {slot.start_id for slot in state.slots if slot.start_id}
        if self._rollout.stage != before:
            self._moved.set()

    async def run(self) -> None:
        """Judge stage after stage, until cancelled."""
        while True:
            stage = self._rollout.stage
            for inquiry in self._inquiries:
                inquiry.begin_stage()
            async with asyncio.TaskGroup() as asking:
                open_ = self._inquiries if stage >= 0 else []
                asked = [asking.create_task(inquiry.run()) for inquiry in open_]
                while self._rollout.stage == stage:
                    await self._judge(stage)
                    await self._next_look()
                for task in asked:
                    task.cancel()

    async def _next_look(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._moved.wait()
        self._moved.clear()

    async def _judge(self, stage: int) -> None:
        """Look at everything once; before the first step there is nothing to say about it."""
        now = self._clock()
        if self._rollout.settings.gates.on_traffic():
            self._evidence = self._observed(stage, now)
        if stage < 0:
            return
        self.verdicts = tuple(self._reached(stage, now))
        for verdict in self.verdicts:
            await self._tell_edge(stage, verdict)
        await self._keep(now)

    async def _tell_edge(self, stage: int, verdict: Verdict) -> None:
        known = next((v.kind for v in self._rollout.verdicts if v.gate == verdict.gate), None)
        if known is verdict.kind or self._rollout.stage != stage:
            return
        is_taken_back = known is VerdictKind.passed and verdict.kind is VerdictKind.insufficient
        if is_taken_back and self._is_deaf:
            return  # whoever judged before knew more than the workers have reported since
        await self._tell(
            GateJudged(
                at=self._clock(),
                endpoint=self.state.name,
                rollout=self._rollout.id,
                stage=stage,
                verdict=verdict,
            )
        )

    async def _keep(self, now: float) -> None:
        """Tell the evidence: with each stage, and every few seconds if it has changed."""
        kept, known = self._kept, self._evidence
        if not self._rollout.settings.gates.on_traffic():
            return
        if kept is not None and kept.stage == known.stage:
            is_due = now >= self._kept_at + KEEP_EVERY_S
            if not is_due or _without_times(known) == _without_times(kept):
                return
        self._kept, self._kept_at = known, now
        await self._tell(
            EvidenceKept(at=now, endpoint=self.state.name, rollout=self._rollout.id, evidence=known)
        )

    # -- leaves -----------------------------------------------------------------------------------

    @property
    def _rollout(self) -> Rollout:
        assert self.state.rollout is not None  # noqa: S101  the judge opens no case without
        return self.state.rollout

    @property
    def _is_deaf(self) -> bool:
        """Whether a worker that is in the evidence has not reported to this controller yet."""
        here = {slot.start_id for slot in self.state.slots}
        return any(self._heard(one) is None for one in here & self._evidence.seen.keys())

    def _begun(self) -> Evidence:
        """Start from what the workers that are there have counted; not heard of is None."""
        known = {slot.start_id for slot in self.state.slots if slot.start_id}
        seen = {start_id: self._heard(start_id) for start_id in known}
        return evidence.begun(at=self._clock(), stage=self._rollout.stage, seen=seen)

    def _observed(self, stage: int, now: float) -> Evidence:
        known = {start_id: self._heard(start_id) for start_id in self._workers}
        return evidence.observed(
            self._evidence,
            {start_id: pair for start_id, pair in known.items() if pair is not None},
            at=now,
            stage=stage,
            weight_pct=self._weight_pct(stage),
            gates=self._rollout.settings.gates,
            has_affinity=self._has_affinity,
        )

    def _reached(self, stage: int, now: float) -> Iterator[Verdict]:
        """Yield the verdict of each gate; without weight there is no traffic to judge by."""
        yield from gates.verdicts(
            self._rollout.settings.gates,
            self._evidence,
            at=now,
            weight_pct=self._weight_pct(stage),
            has_affinity=self._has_affinity,
        )
        for inquiry in self._inquiries:
            yield inquiry.verdict

    async def _asked(self, ask: AskOnce, check: Check) -> Finding:
        weight_pct = self._weight_pct(self._rollout.stage)
        return await ask(check, Subject(self.state, self._rollout.revision, weight_pct))

    @property
    def _has_affinity(self) -> bool:
        """Whether workers tell clients apart: as the table says that they serve by."""
        return self.state.table.affinity is Affinity.client

    def _weight_pct(self, stage: int) -> int:
        """Return the share that the candidate has now, which can be less than the step's."""
        if stage == len(self._rollout.settings.steps):
            return WHOLE_PCT
        shares = (s for s in self.state.table.shares if s.revision == self._rollout.revision)
        return next((share.weight_pct for share in shares), 0)

    def _heard(self, start_id: str) -> Pair | None:
        """Return what a worker has counted of both revisions; None if it was not heard of."""
        counts = self._ledger.of(start_id)
        if counts is None:
            return None
        shares = counts.endpoints.get(self.state.name, {})
        return Pair(
            candidate=counted(shares, self._rollout.revision),
            stable=counted(shares, self._rollout.origin),
        )


def of_this_boot(known: Evidence, now: float) -> Evidence:
    """Return evidence whose times are not ahead of a clock that began anew with the machine."""
    if known.at <= now:
        return known
    return known.but(at=now, window_since=now, weights=dict.fromkeys(known.weights, now))


def _without_times(known: Evidence) -> Evidence:
    """Return what does not change as long as nobody asks for anything."""
    return known.but(at=0.0, window_since=0.0, weights={})


def counted(shares: ByRevision, revision: str) -> Counted:
    """Return what a worker has counted of a revision, as evidence takes it."""
    share = shares.get(revision)
    if share is None:
        return Counted()
    return Counted(
        finished=finished(share),
        failed=failed(share),
        spilled=share.spilled,
        durations=share.durations,
        clients=share.clients,
        failing=share.failing,
    )
