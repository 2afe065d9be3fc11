"""A book of receipts on a real loop and a real journal; the workers are made of words."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from support.controller_support import NAME, Clock, revision, running, settings
from trafficmgr.admin import receipts
from trafficmgr.controller.counts import Ledger
from trafficmgr.controller.loop import Loop, Mind, restored
from trafficmgr.controller.receipt import Receipt
from trafficmgr.controller.receipts import Outputs, ReceiptBook
from trafficmgr.core import events
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.state import EndpointState
from trafficmgr.journal.sqlite import Journal
from trafficmgr.wire.frames import Counts, ShareCounts

FIRST_OF_2030 = 1_893_456_000.0


class Rig:
    """One controller's life: a real loop and journal, and workers made of words."""

    def __init__(
        self, journal: Journal, clock: Clock, fleet: Fleet, outputs: Outputs | None = None
    ) -> None:
        self.journal = journal
        self.clock = clock
        self.ledger = Ledger()
        self.book = ReceiptBook(
            store=journal,
            ledger=self.ledger,
            clock=clock,
            wall=lambda: clock() + FIRST_OF_2030,
            outputs=outputs,
        )
        self.loop = Loop(
            mind=Mind(fleet),
            journal=journal,
            clock=clock,
            act=lambda _commands: None,
            look=self.book.look,
        )

    @property
    def state(self) -> EndpointState:
        return self.loop.fleet.endpoints[NAME]

    async def tell(self, kind: type[events.EndpointEvent], **given: Any) -> None:
        await self.loop.tell(kind(at=self.clock(), endpoint=NAME, **given))

    async def start(self, *, boot_id: str = "boot-1", **given: str) -> None:
        await self.loop.tell(
            events.ControllerStarted(
                at=self.clock(), boot_id=boot_id, slots=1, address_pool="127.77.0.0/16"
            )
        )
        if given:
            await self.tell(events.SettingsApplied, settings=settings(**given))

    async def connect(self, start_id: str) -> None:
        generations = (
            {NAME: self.state.table.generation} if NAME in self.loop.fleet.endpoints else {}
        )
        await self.loop.tell(
            events.WorkerConnected(
                at=self.clock(), slot=0, start_id=start_id, generations=generations
            )
        )

    def report(self, start_id: str, **shares: ShareCounts) -> None:
        """Let a worker report its counts since its start."""
        self.ledger.hear(Counts(start_id=start_id, at=self.clock(), endpoints={NAME: shares}))

    async def apply(self, start_id: str, answered: dict[str, float] | None = None) -> None:
        await self.tell(
            events.TableApplied,
            slot=0,
            start_id=start_id,
            generation=self.state.table.generation,
            answered=answered or {},
        )

    async def ready(self, group: str) -> None:
        await self.tell(events.GroupStarted, group=group)
        await self.tell(events.GroupReady, group=group)

    async def pass_time(self, by_s: float) -> None:
        """Let time pass, and the loop notice it."""
        self.clock.advance(by_s)
        await self.tell(events.Woke)

    async def finish(self) -> None:
        await self.book.catch_up()
        self.book.tend()
        await self.book.keep()

    async def shown(self, rollout: str) -> dict[str, Any]:
        """Return a receipt as the API has it, as it is now."""
        await self.book.catch_up()
        return receipts.plain(self.book.current(rollout) or await self.kept(rollout))

    async def kept(self, rollout: str) -> Receipt:
        data = await self.journal.receipt(rollout)
        assert data is not None
        return msgspec.json.decode(data, type=Receipt)


@asynccontextmanager
async def controller(
    journal: Journal, clock: Clock, outputs: Outputs | None = None
) -> AsyncIterator[Rig]:
    """Be a controller on what the one before has left; its end is a crash."""
    rig = Rig(journal, clock, restored((await journal.load()).states), outputs)
    await rig.book.load()
    async with running(rig.loop):
        yield rig


DEFAULTS = {
    "steps": "50/10s", "publish": "groups", "ttl": "2s", "ttl_grace": "0s", "min_ready": "0s",
    "watch": "0s", "keep_previous": "0s",
}  # fmt: skip


async def v1_serves(rig: Rig, **given: str) -> None:
    await rig.start(**{**DEFAULTS, **given})
    await rig.connect("w-1")
    rig.report("w-1")
    await rig.tell(events.RevisionSeen, revision=revision("v1"))
    await rig.ready("shop-1")
    await rig.apply("w-1")
    rig.clock.advance(1)
    rig.report("w-1", v1=ShareCounts(requests=1000, errors_5xx=7))
    await rig.finish()


async def v2_in_its_step(rig: Rig) -> None:
    await rig.tell(events.RevisionSeen, revision=revision("v2"))
    rig.clock.advance(4)
    await rig.ready("shop-2")
    rig.report("w-1", v1=ShareCounts(requests=1100, errors_5xx=7))
    await rig.apply("w-1")


async def to_the_end(rig: Rig) -> None:
    """Let v2 be promoted and v1's group retire; DNS answered with it 3 s into the step."""
    answered_at = rig.clock() + 3
    await rig.pass_time(10)
    assert rig.state.stable == "v2"
    rig.report(
        "w-1",
        v1=ShareCounts(requests=1160, errors_5xx=8, failures={"connect": 2}, dns=5),
        v2=ShareCounts(requests=40, errors_5xx=3, spilled=1, dns=6),
    )
    await rig.apply("w-1", {"shop-1": answered_at})
    rig.clock.advance(1)
    await rig.tell(events.DirectClientsGone, group="shop-1")
    rig.report(  # v2 is alone now: what it serves is no matter of the rollout any more
        "w-1",
        v1=ShareCounts(requests=1160, errors_5xx=8, failures={"connect": 2}, dns=5),
        v2=ShareCounts(requests=900, errors_5xx=90, spilled=1, dns=6),
    )
    rig.book.tend()
    await rig.tell(events.GroupStopped, group="shop-1")
    rig.clock.advance(1)
