"""What an installation's journal says afterwards, and what its receipts must say by it.

The receipts are an answer that the controller wrote bit by bit, across kills; the events are what
really happened. `contradictions` holds one against the other, and against the clients' own count.
What docs/behaviour.md promises: one receipt for each rollout, with the numbers that clients count,
and what could not be measured said as a gap and not made up.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from trafficmgr.admin.receipts import plain
from trafficmgr.controller.loop import restored
from trafficmgr.controller.receipt import Receipt
from trafficmgr.core import fleet
from trafficmgr.core.events import AnyEvent, ControllerStarted, Event, WorkerEnded
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import Group, Rollout, RolloutPhase
from trafficmgr.journal.sqlite import Journal

AWAY = "The controller was away"
UNSEEN = "Its beginning was seen by no controller"
OF_A_WORKER = (
    "A worker of slot",
    "The worker of slot",
    "What the worker of slot",
)
NOBODY_LOOKED = "It stopped while no controller was there to see when."

ROUNDING_S = 0.002
"""Two times, each rounded to a millisecond."""

TOO_MUCH_S = 3.0
"""Workers count once a second, so a receipt may begin up to a second too early; on a busy machine
a little more. What a controller missed before is unsaid for at most as long (growth.LATE_S)."""


@dataclass
class History:
    """What happened, by the events of the journal, and what it kept.

    `rollouts` and `groups` are each as they were last seen in the state.
    """

    kept: Fleet = field(default_factory=Fleet)
    folded: Fleet = field(default_factory=Fleet)
    rollouts: dict[str, Rollout] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    started_at: list[float] = field(default_factory=list)
    killed_workers: dict[str, float] = field(default_factory=dict)
    receipts: list[Receipt] = field(default_factory=list)

    def fold(self, event: Event) -> None:
        """Take one more event."""
        self.folded = fleet.evolve(self.folded, event)
        for state in self.folded.endpoints.values():
            known = (*state.history, *(() if state.rollout is None else (state.rollout,)))
            self.rollouts |= {rollout.id: rollout for rollout in known}
            self.groups |= {group.id: group for group in state.groups}
        match event:
            case ControllerStarted():
                self.started_at.append(event.at)
            case WorkerEnded(is_clean=False):
                self.killed_workers.setdefault(event.start_id, event.reaped_at)


async def read_journal(path: Path) -> History:
    """Return what a journal holds; nobody else may have it open."""
    journal, history = await Journal.open(path), History()
    async for stored in journal.replay():
        history.fold(msgspec.json.decode(stored.entry.event, type=AnyEvent))
    history.kept = restored((await journal.load()).states)
    kept = await journal.receipts(limit=-1)
    history.receipts = [msgspec.json.decode(data, type=Receipt) for data in kept]
    await journal.close()
    return history


# -- receipts -------------------------------------------------------------------------------------


def contradictions(history: History, answered_at: Sequence[float]) -> Iterator[str]:
    """Yield where the receipts of rollouts that are over say something that was not so.

    Args:
        history: What happened, and the receipts.
        answered_at: When each request of all clients of the proxy was answered, sorted.
    """
    kept = Counter(receipt.id for receipt in history.receipts)
    if kept != Counter(history.rollouts.keys()):
        yield f"receipts {dict(kept)} of rollouts {list(history.rollouts)}"
    for receipt in history.receipts:
        one = _Held(history, receipt, history.rollouts[receipt.id], plain(receipt))
        told = chain(one.end(), one.phases(), one.shares(), one.groups(), one.gaps())
        for sentence in chain(told, one.failures(), one.requests(answered_at)):
            yield f"{receipt.id}: {sentence}"


@dataclass
class _Held:
    """A receipt that is held against what happened; each question yields what is wrong."""

    history: History
    receipt: Receipt
    rollout: Rollout
    shown: dict[str, Any]

    def end(self) -> Iterator[str]:
        """How the rollout ended, and when."""
        rollout, shown = self.rollout, self.shown
        assert rollout.ended_at is not None, rollout
        told = [self.receipt.origin, self.receipt.revision]
        told += [shown[key] for key in ("outcome", "reason", "is_over", "is_final")]
        is_ = [rollout.origin, rollout.revision, rollout.phase.value, rollout.reason, True, True]
        if told != is_:
            yield f"it ended as {told}, not as {rollout}"
        if not _is_near(shown["seconds"], rollout.ended_at - rollout.started_at):
            yield f"it took {shown['seconds']} s"

    def phases(self) -> Iterator[str]:
        """What the rollout did: each mark of the journal, and all of the time."""
        marks, told = self.rollout.marks, self.shown["phases"]
        names = [(mark.what, mark.weight_pct) for mark in marks]
        if names != [(one["what"], one["weight_pct"]) for one in told]:
            yield f"it tells {told}, not {marks}"
        for mark, one in zip(marks, told, strict=False):
            if not _is_near(one["after_s"], mark.at - self.rollout.started_at):
                yield f"phase {one} was not when {mark} was"
        yield from self._without_holes("phases")

    def shares(self) -> Iterator[str]:
        """What was served under which weights: all of the time, too."""
        yield from self._without_holes("shares")
        for one in self.shown["shares"]:
            is_served = one["observed_pct"] is not None
            if is_served != (one["clients"] > 0) or not 0 <= (one["observed_pct"] or 0) <= 100:
                yield f"impossible share {one}"

    def _without_holes(self, what: str) -> Iterator[str]:
        """Each lasts from the end of the one before to the beginning of the next."""
        at = 0.0
        for one in self.shown[what]:
            if one["seconds"] is None or one["seconds"] < 0 or not _is_near(one["after_s"], at):
                yield f"{what}: {one} does not begin after {at:g} s, or has no length"
            at = one["after_s"] + (one["seconds"] or 0)
        if not _is_near(at, self.shown["seconds"]):
            yield f"{what} end after {at:g} s, not {self.shown['seconds']} s"

    def groups(self) -> Iterator[str]:
        """Each group that lost: when it was withdrawn and answered last, and that it is gone."""
        is_completed = self.rollout.phase is RolloutPhase.completed
        loser = self.rollout.origin if is_completed else self.rollout.revision
        lost = {name for name, group in self.history.groups.items() if group.revision == loser}
        told = self.shown["groups"]
        if Counter(one["id"] for one in told) != Counter(lost):
            yield f"{sorted(lost)} lost, and it tells of {[one['id'] for one in told]}"
        for one in told:
            stopped, is_missed = one["stopped"], NOBODY_LOOKED in one["says"]
            if is_missed == bool(stopped) or (is_missed and not self._was_killed()):
                yield f"no end of {one}"
            if not is_missed and one["id"] in lost:
                yield from self._group(one, self.history.groups[one["id"]])

    def _group(self, one: dict[str, Any], group: Group) -> Iterator[str]:
        """The times of a group that was seen to the end."""
        for key, at in (("withdrawn", group.withdrawn_at), ("last_answered", group.answered_at)):
            told = one[key]
            if told is None or at is None:
                is_so = told is None and at is None
            else:
                is_so = _is_near(told["after_s"], at - self.rollout.started_at)
                is_so = is_so and told["after_s"] <= one["stopped"]["after_s"]
            if not is_so:
                yield f"{key} of {one} was {at}; the rollout began at {self.rollout.started_at}"

    def failures(self) -> Iterator[str]:
        """No client of ours saw any, so there was none."""
        by_revision = [(one["errors_5xx"], one["failures"]) for one in self.shown["revisions"]]
        is_clean = all(told == (0, {}) for told in by_revision)
        if self.shown["failed"] != 0 or self.shown["failures"] or not is_clean:
            yield f"nobody saw {self.shown['failures'] or by_revision}"

    def gaps(self) -> Iterator[str]:
        """A controller or worker that was killed meanwhile leaves a sentence, nothing else does."""
        told = self.receipt.gaps
        began = self.rollout.started_at
        was_away = any(gap.startswith((AWAY, UNSEEN)) for gap in told)
        if self._was_killed() != was_away and began not in self.history.started_at:
            yield f"gaps {told}, and controllers that started at {self.history.started_at}"
        ends = self.history.killed_workers.values()
        lost = any(began < at <= self._written_at() for at in ends)
        is_said = any(gap.startswith((*OF_A_WORKER, UNSEEN)) for gap in told)
        if lost and not is_said:
            yield f"gaps {told}, and workers that ended at {ends}"
        if not (lost or self._was_killed(TOO_MUCH_S)) and told:
            yield f"nothing happened that explains {told}"

    def requests(self, answered_at: Sequence[float]) -> Iterator[str]:
        """Each request of the clients was counted once; fewer only if a gap says so."""
        rollout, told = self.rollout, sum(one["requests"] for one in self.shown["revisions"])
        began, ended = rollout.started_at, rollout.ended_at or 0.0
        most = _between(answered_at, began - TOO_MUCH_S, self._written_at()) + CLIENTS
        if told > most:
            yield f"it counted {told} requests, the clients {most}"
        if all(gap.startswith(AWAY) for gap in self.receipt.gaps):
            late_s = TOO_MUCH_S if self._was_killed(TOO_MUCH_S) else ROUNDING_S
            least = _between(answered_at, began + late_s, ended) - CLIENTS
            if told < least:
                yield f"it counted {told} requests, the clients {least}"

    def _was_killed(self, before_s: float = 0.0) -> bool:
        """Whether another controller took over between the beginning and the final receipt."""
        begin, end = self.rollout.started_at - before_s, self._written_at()
        return any(begin < at <= end for at in self.history.started_at)

    def _written_at(self) -> float:
        """Return when the receipt was written, on CLOCK_BOOTTIME."""
        return self.receipt.written_at - self.receipt.offset_s


CLIENTS = 2
"""Each may be between being counted and taking note of its answer."""


def _is_near(told: float, is_: float) -> bool:
    return abs(told - is_) <= ROUNDING_S


def _between(moments: Sequence[float], begin: float, end: float) -> int:
    return bisect_right(moments, end) - bisect_left(moments, begin)
