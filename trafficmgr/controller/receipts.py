"""The book of receipts: looks at every change of the state and writes down what rollouts cost.

Drafts are kept in the journal with each change and every few seconds, so that a controller that is
killed in the middle leaves behind what it knew; the next one goes on from there. A final receipt is
written once, whoever finishes it. Nothing here decides anything, and a journal that can't be
read or written only makes the book wait.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from math import inf
from typing import Protocol

import msgspec
import structlog

from trafficmgr.controller import growth, proofs
from trafficmgr.controller.counts import Ledger, failed
from trafficmgr.controller.ports import Clock
from trafficmgr.controller.receipt import Receipt, iso
from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.core.events import GateJudged
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.gating import HookRun
from trafficmgr.core.model import Rollout
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import short
from trafficmgr.journal.entries import JournalError, Stored
from trafficmgr.runtimes.contract import RuntimeUnknownError

LOOK_EVERY_S = 1.0
"""As often as workers report."""

KEEP_EVERY_S = 10.0
"""What workers counted is kept at least this often while a rollout is under way."""

PAGE = 1000
"""Events read from the journal in one go."""

OUTPUT_S = 5.0
"""How long what a hook wrote may take to be had before it is asked for again."""

OWED_S = 60.0
"""How long a receipt waits for it once everything else is there."""

log = structlog.get_logger()

WallClock = Callable[[], float]
"""Seconds since 1970, for display only."""


def wall_clock() -> float:
    """Return seconds since 1970."""
    return datetime.now(UTC).timestamp()


class Store(Protocol):
    """Where receipts are kept."""

    async def put_receipt(
        self, rollout: str, endpoint: str, receipt: bytes, *, is_final: bool
    ) -> bool:
        """Keep a receipt in place of its draft; a final one is never changed."""
        ...

    async def drafts(self) -> list[bytes]:
        """Return every receipt that is not final yet."""
        ...

    async def final_receipts(self) -> frozenset[str]:
        """Return the rollouts whose receipt is final."""
        ...

    async def events(
        self,
        *,
        endpoint: str | None = ...,
        after: int = ...,
        limit: int = ...,
        from_end: bool = ...,
    ) -> list[Stored]:
        """Return journaled events in order."""
        ...


class Outputs(Protocol):
    """Where is found what hooks wrote."""

    async def of(self, rollout: str, hook: HookRun) -> str:
        """Return what a hook wrote, or the end of it.

        Raises:
            RuntimeUnknownError: That can't be known now; it is asked for again.
            TrafficmgrError: It can't be had any more; the text says why.
        """
        ...


class NoOutputs(Outputs):
    """Nothing of what hooks write is kept."""

    async def of(self, rollout: str, hook: HookRun) -> str:
        """Say so."""
        raise TrafficmgrError(f"nobody keeps what {hook.name} of {rollout} writes.")


class ReceiptBook:
    """The receipts of all rollouts that are under way or not settled yet, by rollout."""

    def __init__(
        self,
        *,
        store: Store,
        ledger: Ledger,
        clock: Clock,
        wall: WallClock,
        outputs: Outputs | None = None,
    ) -> None:
        self.drafts: dict[str, Receipt] = {}
        self._outputs = outputs or NoOutputs()
        self._read_to = 0
        self._read_since = -inf
        self._is_behind = True
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._wall = wall
        self._fleet: Fleet | None = None
        self._known: set[str] = set()
        self._final: dict[str, Receipt] = {}
        self._dirty: set[str] = set()
        self._news = asyncio.Event()
        self._is_troubled = False

    async def load(self) -> None:
        """Take up what the controller before has left unfinished."""
        drafts = [msgspec.json.decode(data, type=Receipt) for data in await self._store.drafts()]
        self.drafts = {draft.id: draft for draft in drafts}
        self._known = {*self.drafts, *await self._store.final_receipts()}
        last = await self._store.events(limit=1, from_end=True)
        newest = last[-1].seq if last else 0
        self._read_to = min((draft.read_to for draft in drafts), default=newest)

    def look(self, fleet: Fleet) -> None:
        """Take note of the newest state."""
        before, self._fleet = self._fleet, fleet
        self._is_behind = True
        if before is None:
            self._take_over(fleet)
        for name, state in fleet.endpoints.items():
            known = None if before is None else before.endpoints.get(name)
            if state is not known:
                self._begin_new(state, known, is_late=before is None)
        for draft in list(self.drafts.values()):
            known = None if before is None else before.endpoints.get(draft.endpoint)
            new = fleet.endpoints.get(draft.endpoint)
            if before is None or new is not known:
                self._follow(draft, new, is_missed=before is None)

    async def run(self) -> None:
        """Book, finish and keep receipts until cancelled; what is known then is kept as well."""
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._news.wait()
                self._news.clear()
                await self.catch_up()
                self.tend()
                await self.keep()
        finally:
            self.tend(is_last=True)
            await self.keep()

    async def catch_up(self) -> None:
        """Take over what is not in the state: verdicts, and what hooks wrote."""
        began_at = self._clock()
        if self._is_behind:
            self._is_behind = False
            try:
                await self._read_verdicts()
            except JournalError:  # the loop says so, and nothing can be kept either
                self._is_behind = True
                return
        self._read_since = began_at
        for draft in list(self.drafts.values()):
            for index, hook in proofs.unwritten(draft):
                await self._ask_output(draft.id, index, hook)

    def tend(self, *, is_last: bool = False) -> None:
        """Book what workers reported, and finish what has nothing more to come."""
        if self._fleet is None:
            return
        now = self._clock()
        for draft in list(self.drafts.values()):
            state = self._fleet.endpoints.get(draft.endpoint)
            grown = growth.booked(draft, self._ledger)
            if growth.is_finished(grown, state, now) and not self._is_owed(grown, now):
                self._finish(growth.finished(grown))
                continue
            self.drafts[draft.id] = grown
            if is_last or grown.wall(now) >= grown.written_at + KEEP_EVERY_S:
                self._dirty.add(draft.id)

    async def keep(self) -> None:
        """Write what has changed; what can't be written now is tried again."""
        while self._dirty:
            name = self._dirty.pop()
            receipt = self._final.get(name) or self.drafts[name]
            written = receipt.but(written_at=receipt.wall(self._clock()), read_to=self._read_to)
            data, is_final = msgspec.json.encode(written), receipt.is_final
            try:
                await self._store.put_receipt(name, receipt.endpoint, data, is_final=is_final)
            except JournalError as error:
                self._dirty.add(name)
                if not self._is_troubled:
                    log.warning("receipts_not_writable", reason=str(error))
                self._is_troubled = True
                return
            self._is_troubled = False
            if is_final:
                del self._final[name]
            elif name in self.drafts:
                self.drafts[name] = self.drafts[name].but(written_at=written.written_at)

    def current(self, rollout: str) -> Receipt | None:
        """Return a receipt that is not in the journal yet as it is now."""
        return self._final.get(rollout) or self.drafts.get(rollout)

    # -- what is not in the state --------------------------------------------------------------

    async def _read_verdicts(self) -> None:
        """Take every verdict from the journal that was not taken yet."""
        while True:
            page = await self._store.events(after=self._read_to, limit=PAGE)
            for stored in page:
                if stored.entry.kind == GateJudged.__name__:
                    self._judge(stored)
            self._read_to = page[-1].seq if page else self._read_to
            if len(page) < PAGE:
                return

    def _judge(self, stored: Stored) -> None:
        for draft in list(self.drafts.values()):
            if draft.endpoint == stored.entry.endpoint:
                self._replace(proofs.judged(draft, stored))

    async def _ask_output(self, rollout: str, index: int, hook: HookRun) -> None:
        """Ask for what a hook wrote; an engine that is away is asked again."""
        try:
            async with asyncio.timeout(OUTPUT_S):
                text = await self._outputs.of(rollout, hook)
        except (TimeoutError, RuntimeUnknownError):
            return
        except TrafficmgrError as error:
            self._replace(proofs.without_output(self.drafts[rollout], index, str(error)))
        else:
            self._replace(proofs.with_output(self.drafts[rollout], index, text))

    def _replace(self, draft: Receipt) -> None:
        if draft is not self.drafts[draft.id]:
            self.drafts[draft.id] = draft
            self._dirty.add(draft.id)

    def _is_owed(self, draft: Receipt, now: float) -> bool:
        """Whether something has still to be taken over that is worth waiting for."""
        settled_at = draft.settled_at or 0.0
        is_all_there = draft.wall(self._read_since) >= settled_at and not any(
            proofs.unwritten(draft)
        )
        return not is_all_there and draft.wall(now) < settled_at + OWED_S

    # -- leaves -------------------------------------------------------------------------------

    def _take_over(self, fleet: Fleet) -> None:
        """Go on with the drafts of the controller before; what is older than these has none."""
        for state in fleet.endpoints.values():
            self._known |= {rollout.id for rollout in state.history[:-1]}
        now = self._clock()
        for name, draft in self.drafts.items():
            away = draft
            if fleet.boot_id != draft.boot_id:
                away = growth.rebooted(draft, fleet.boot_id, self._wall() - now)
            self.drafts[name] = away.with_gap(
                f"The controller was away at some time from {iso(draft.written_at)} to"
                f" {iso(away.wall(now))}; what happened then has the time at which it came back."
            )

    def _begin_new(
        self, state: EndpointState, known: EndpointState | None, *, is_late: bool
    ) -> None:
        for rollout in growth.known_rollouts(state).values():
            if rollout.id not in self._known:
                self._known.add(rollout.id)
                self._begin(rollout, state, known or state, is_late=is_late)

    def _begin(
        self, rollout: Rollout, state: EndpointState, known: EndpointState, *, is_late: bool
    ) -> None:
        offset_s = self._wall() - self._clock()
        draft = growth.begun(rollout, state, known.table, self._ledger, offset_s)
        if is_late:
            draft = draft.with_gap("Its beginning was seen by no controller that kept receipts.")
        self.drafts[rollout.id] = draft
        self._follow(draft, state, is_missed=False)

    def _follow(self, draft: Receipt, state: EndpointState | None, *, is_missed: bool) -> None:
        draft = self.drafts.get(draft.id, draft)
        grown = growth.followed(draft, state, self._ledger, self._clock(), is_missed=is_missed)
        self.drafts[draft.id] = grown
        if _as_shown(grown) != _as_shown(draft) or draft.written_at == 0.0:
            self._dirty.add(draft.id)
            self._news.set()

    def _finish(self, receipt: Receipt) -> None:
        del self.drafts[receipt.id]
        self._final[receipt.id] = receipt
        self._dirty.add(receipt.id)
        counted = receipt.counted()
        log.info(
            "receipt_written",
            endpoint=receipt.endpoint,
            rollout=receipt.id,
            revision=short(receipt.revision),
            outcome=receipt.phase,
            failed=sum(failed(share) for share in counted.values()),
        )


def _as_shown(draft: Receipt) -> Receipt:
    """Return the draft without what changes all the time and is kept every few seconds."""
    return draft.but(
        windows=tuple(window.but(counted={}) for window in draft.windows),
        workers={k: witness.but(counts=None, heard_at=0.0) for k, witness in draft.workers.items()},
    )
