"""A receipt holds what was measured, once, whoever finishes it, and says what was not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.controller_support import NAME, Clock, eventually, revision
from support.receipt_rig import (
    DEFAULTS,
    FIRST_OF_2030,
    controller,
    to_the_end,
    v1_serves,
    v2_in_its_step,
)

from trafficmgr.admin import receipts
from trafficmgr.core import events
from trafficmgr.journal.entries import JournalError, Stored
from trafficmgr.journal.sqlite import Journal
from trafficmgr.wire.frames import ShareCounts


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(tmp_path / "journal.db")
    yield opened
    await opened.close()


# -- what it holds --------------------------------------------------------------------------------


async def test_a_receipt_holds_what_was_measured(journal: Journal) -> None:
    async with controller(journal, Clock()) as rig:
        await v1_serves(rig)
        await v2_in_its_step(rig)
        await to_the_end(rig)
        rig.report("w-1")
        await rig.finish()

        found = receipts.plain(await rig.kept("shop-r2"))

    assert (found["outcome"], found["is_final"], found["gaps"]) == ("completed", True, [])
    assert (found["seconds"], found["started"]) == (14.0, "2030-01-01T00:16:41.000Z")
    assert [(p["what"], p["weight_pct"], p["seconds"]) for p in found["phases"]] == [
        ("started", 0, 4.0),
        ("step", 50, 10.0),
        ("promoted", 100, 0.0),
        ("completed", 0, 0.0),
    ]
    assert [(f["by"], f["role"], f["cause"], f["count"]) for f in found["failures"]] == [
        ("proxy", "from", "connect", 2),
        ("application", "from", "5xx", 1),
        ("application", "to", "5xx", 3),
    ]
    assert found["failed"] == 6
    old, new = found["revisions"]
    assert (old["requests"], old["dns_answers"], old["spilled"]) == (160, 5, 0)
    assert (new["requests"], new["dns_answers"], new["spilled"]) == (40, 6, 1)


async def test_each_share_is_held_against_what_was_served_under_it(journal: Journal) -> None:
    """The worker reports when it takes a table over, so each request has its right weights."""
    async with controller(journal, Clock()) as rig:
        await v1_serves(rig)
        await v2_in_its_step(rig)
        await to_the_end(rig)
        await rig.finish()

        found = receipts.plain(await rig.kept("shop-r2"))

    assert [
        (share["weight_pct"], share["observed_pct"], share["clients"], share["seconds"])
        for share in found["shares"]
    ] == [(0, 0.0, 100, 4.0), (50, round(100 * 46 / 111, 2), 111, 10.0)]


async def test_no_share_ends_before_it_begins(journal: Journal) -> None:
    """An event that was told while the append before it was under way is older than that look."""
    async with controller(journal, Clock()) as rig:
        await rig.start(**{**DEFAULTS, "replicas": "2"})
        await rig.connect("w-1")
        rig.report("w-1")
        await rig.tell(events.RevisionSeen, revision=revision("v1"))
        told_at = rig.clock() + 1
        for group in ("shop-1", "shop-2"):
            await rig.tell(events.GroupStarted, group=group)
        rig.clock.advance(1.02)

        for late_s, group in ((0.0, "shop-1"), (0.01, "shop-2")):
            await rig.loop.tell(events.GroupReady(at=told_at + late_s, endpoint=NAME, group=group))

        shares = receipts.plain(rig.book.drafts["shop-r1"])["shares"]
        assert min(share["seconds"] for share in shares) >= 0


async def test_a_group_is_told_from_its_last_answer_to_its_end(journal: Journal) -> None:
    async with controller(journal, Clock()) as rig:
        await v1_serves(rig)
        await v2_in_its_step(rig)
        await to_the_end(rig)
        rig.clock.advance(10)
        await rig.finish()

        (group,) = receipts.plain(await rig.kept("shop-r2"))["groups"]

    assert (group["id"], group["role"], group["says"]) == ("shop-1", "from", "")
    moments = [group[key]["after_s"] for key in ("withdrawn", "last_answered", "stopped")]
    assert moments == [14.0, 7.0, 15.0]
    assert group["stopped"]["at"] == "2030-01-01T00:16:56.000Z"


async def test_a_receipt_is_a_draft_until_the_old_groups_are_gone(journal: Journal) -> None:
    async with controller(journal, Clock()) as rig:
        await v1_serves(rig)
        await v2_in_its_step(rig)
        await rig.finish()
        step = receipts.plain(await rig.kept("shop-r2"))
        await rig.pass_time(10)
        rig.clock.advance(100)
        rig.report("w-1")
        await rig.finish()
        over = receipts.plain(await rig.kept("shop-r2"))

    assert (step["is_over"], step["waits"]) == (False, ["the end of the rollout"])
    assert (over["is_over"], over["is_final"]) == (True, False)
    assert over["waits"] == ["1 group of v1 to stop"]


async def test_an_aborted_rollout_waits_for_its_own_groups_only(journal: Journal) -> None:
    async with controller(journal, Clock()) as rig:
        await v1_serves(rig)
        await v2_in_its_step(rig)
        await rig.tell(events.AbortAsked)
        rig.report("w-1", v2=ShareCounts(requests=9, errors_5xx=9))
        await rig.apply("w-1")
        rig.clock.advance(1)
        await rig.tell(events.GroupStopped, group="shop-2")
        rig.clock.advance(1)
        rig.report("w-1", v2=ShareCounts(requests=9, errors_5xx=9))
        await rig.finish()
        found = receipts.plain(await rig.kept("shop-r2"))

    assert (found["outcome"], found["failed"], found["is_final"]) == ("aborted", 9, True)
    assert "an operator asked for it" in found["reason"]
    assert [group["id"] for group in found["groups"]] == ["shop-2"]


async def test_a_revision_that_comes_back_is_waited_for_no_longer(journal: Journal) -> None:
    async with controller(journal, Clock()) as rig:
        await v1_serves(rig, keep_previous="10m")
        await v2_in_its_step(rig)
        await rig.pass_time(10)
        await rig.tell(events.RollbackAsked)
        assert rig.state.stable == "v1"
        await rig.apply("w-1")
        rig.clock.advance(10)
        await rig.finish()
        found = receipts.plain(await rig.kept("shop-r2"))

    assert found["is_final"]
    assert "Revision v1 came back before its groups were stopped." in found["gaps"]


# -- workers that come and go ---------------------------------------------------------------------


async def test_a_worker_that_restarts_begins_at_nothing_and_the_dead_one_counts(
    journal: Journal,
) -> None:
    async with controller(journal, Clock()) as rig:
        await v1_serves(rig)
        await v2_in_its_step(rig)
        rig.report("w-1", v1=ShareCounts(requests=1130, errors_5xx=7))
        rig.ledger.end_well("w-1")
        await rig.loop.tell(
            events.WorkerEnded(
                at=rig.clock(), slot=0, start_id="w-1", reaped_at=rig.clock(), is_clean=True
            )
        )
        await rig.connect("w-2")
        rig.clock.advance(1)
        rig.report("w-2", v1=ShareCounts(requests=20), v2=ShareCounts(requests=25))
        rig.book.tend()
        draft = receipts.plain(rig.book.drafts["shop-r2"])

    assert [one["requests"] for one in draft["revisions"]] == [100 + 30 + 20, 25]
    assert draft["gaps"] == []


async def test_a_killed_workers_last_second_is_said_to_be_missing(journal: Journal) -> None:
    async with controller(journal, Clock()) as rig:
        await v1_serves(rig)
        await v2_in_its_step(rig)
        await rig.loop.tell(
            events.WorkerEnded(
                at=rig.clock(), slot=0, start_id="w-1", reaped_at=rig.clock(), is_clean=False
            )
        )
        await rig.connect("w-2")
        await rig.pass_time(10)
        await rig.apply("w-2")
        await rig.pass_time(10)
        await rig.tell(events.DirectClientsGone, group="shop-1")
        await rig.tell(events.GroupStopped, group="shop-1")
        rig.clock.advance(1)
        rig.report("w-2")
        await rig.finish()
        found = await rig.kept("shop-r2")

    (gap,) = found.gaps
    assert gap == (
        "A worker of slot 0 ended without a bye; what it served after 2030-01-01T00:16:45.000Z"
        " was not counted."
    )


# -- a controller that dies -----------------------------------------------------------------------


async def test_the_next_controller_goes_on_with_the_draft(journal: Journal) -> None:
    clock = Clock()
    async with controller(journal, clock) as rig:
        await v1_serves(rig)
        await v2_in_its_step(rig)
        await rig.book.keep()

    clock.advance(2)
    async with controller(journal, clock) as rig:
        await rig.start()
        await rig.connect("w-1")
        rig.report("w-1", v1=ShareCounts(requests=1140, errors_5xx=7))
        await to_the_end(rig)
        rig.report("w-1")
        await rig.finish()
        found = receipts.plain(await rig.kept("shop-r2"))

    assert [one["requests"] for one in found["revisions"]] == [160, 40]
    assert found["failed"] == 6
    (gap,) = found["gaps"]
    assert gap.startswith("The controller was away at some time from 2030-01-01T00:16:45.000Z to")


async def test_a_group_that_was_gone_when_the_controller_came_back_has_no_invented_end(
    journal: Journal,
) -> None:
    """The state without it was journaled, and the draft was not: the crash came in between."""
    clock = Clock()
    async with controller(journal, clock) as rig:
        await v1_serves(rig)
        await v2_in_its_step(rig)
        await rig.book.keep()
        await to_the_end(rig)

    clock.advance(60)
    async with controller(journal, clock) as rig:
        await rig.start()
        clock.advance(10)
        await rig.finish()
        found = receipts.plain(await rig.kept("shop-r2"))

    (group,) = found["groups"]
    assert (group["stopped"], found["is_final"]) == (None, True)
    assert "no controller was there to see when" in group["says"]


async def test_a_worker_that_died_unheard_is_said_to_be_missing(journal: Journal) -> None:
    clock = Clock()
    async with controller(journal, clock) as rig:
        await v1_serves(rig)
        await v2_in_its_step(rig)
        await rig.book.keep()

    async with controller(journal, clock) as rig:
        await rig.start()
        await rig.loop.tell(
            events.WorkerEnded(
                at=clock(), slot=0, start_id="w-1", reaped_at=clock(), is_clean=False
            )
        )
        await rig.connect("w-2")
        await rig.pass_time(100)
        await rig.apply("w-2")
        await rig.pass_time(100)
        await rig.tell(events.GroupStopped, group="shop-1")
        clock.advance(10)
        await rig.finish()
        found = await rig.kept("shop-r2")

    assert any("ended while no controller was there" in gap for gap in found.gaps)


async def test_a_rollout_whose_beginning_nobody_saw_says_so(journal: Journal) -> None:
    """The controller died after the rollout was journaled and before its draft was."""
    clock = Clock()
    async with controller(journal, clock) as rig:
        await v1_serves(rig)
        await rig.tell(events.RevisionSeen, revision=revision("v2"))

    async with controller(journal, clock) as rig:
        await rig.start()
        await rig.finish()
        found = await rig.kept("shop-r2")

    assert found.gaps == ("Its beginning was seen by no controller that kept receipts.",)


async def test_a_restart_of_the_machine_moves_no_time(journal: Journal) -> None:
    """CLOCK_BOOTTIME starts anew; the wall clock goes on."""
    clock = Clock()
    async with controller(journal, clock) as rig:
        await v1_serves(rig)
        await v2_in_its_step(rig)
        await rig.book.keep()

    clock.now = 5.0
    async with controller(journal, clock) as rig:
        rig.book._wall = lambda: clock() + FIRST_OF_2030 + 2000
        await rig.start(boot_id="boot-2")
        await rig.tell(events.AbortAsked)
        await rig.book.keep()
        found = receipts.plain(await rig.kept("shop-r2"))

    aborting = next(phase for phase in found["phases"] if phase["what"] == "aborting")
    assert aborting["after_s"] == 1004.0
    assert any("machine was restarted" in gap for gap in found["gaps"])


async def test_a_final_receipt_is_written_once(journal: Journal) -> None:
    clock = Clock()
    async with controller(journal, clock) as rig:
        await v1_serves(rig)
        await v2_in_its_step(rig)
        await to_the_end(rig)
        clock.advance(10)
        await rig.finish()
        first = await journal.receipt("shop-r2")

    async with controller(journal, clock) as rig:
        await rig.start()
        await rig.finish()

        assert rig.book.drafts == {}
        assert await journal.receipt("shop-r2") == first
        assert not await journal.put_receipt("shop-r2", NAME, b"{}", is_final=True)
        assert await journal.receipt("shop-r2") == first


# -- keeping --------------------------------------------------------------------------------------


class FullDisk:
    """A store that can't write for a while."""

    def __init__(self, inner: Journal) -> None:
        self.inner = inner
        self.is_full = True
        self.refused = 0
        self.final: list[str] = []

    async def put_receipt(self, *given: Any, is_final: bool) -> bool:
        if self.is_full:
            self.refused += 1
            raise JournalError("the disk is full")
        is_kept = await self.inner.put_receipt(*given, is_final=is_final)
        self.final += given[:1] if is_final else ()
        return is_kept

    async def drafts(self) -> list[bytes]:
        return []

    async def final_receipts(self) -> frozenset[str]:
        return frozenset()

    async def events(self, **asked: Any) -> list[Stored]:
        if self.is_full:
            raise JournalError("the disk is full")
        return await self.inner.events(**asked)


async def test_a_receipt_that_cannot_be_written_now_is_written_later(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trafficmgr.controller.receipts.LOOK_EVERY_S", 0.01)
    clock = Clock()
    async with controller(journal, clock) as rig:
        disk = FullDisk(journal)
        rig.book._store = disk
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(rig.book.run())
            await v1_serves(rig)
            clock.advance(100)
            await eventually(lambda: disk.refused > 1)
            disk.is_full = False
            await eventually(lambda: disk.final)
            task.cancel()

        assert await journal.final_receipts() == {"shop-r1"}
        assert rig.book.current("shop-r1") is None


async def test_what_is_known_at_the_end_is_kept(journal: Journal) -> None:
    clock = Clock()
    async with controller(journal, clock) as rig:
        await v1_serves(rig)
        await v2_in_its_step(rig)
        await rig.book.keep()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(rig.book.run())
            await asyncio.sleep(0)
            clock.advance(1)
            rig.report("w-1", v1=ShareCounts(requests=1107, errors_5xx=7))
            task.cancel()
        draft = await rig.kept("shop-r2")

    assert draft.counted()["v1"].requests == 107
