"""A receipt holds what the revision had to prove: verdicts, hooks and what they wrote, smoke."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.controller_support import NAME, Clock, eventually, revision, settings
from support.receipt_rig import DEFAULTS, Rig, controller, v1_serves

from trafficmgr.admin import receipts
from trafficmgr.controller import proofs
from trafficmgr.controller.outputs import HookOutputs
from trafficmgr.controller.receipts import OWED_S
from trafficmgr.core import events
from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.core.gating import HookRun, Verdict, VerdictKind
from trafficmgr.journal.sqlite import Journal
from trafficmgr.runtimes.contract import RuntimeFailure, RuntimeUnknownError
from trafficmgr.runtimes.memory import MemoryRuntime
from trafficmgr.wire.frames import ShareCounts

CANARY = "password=canary-77c1"

PASSED, FAILED = VerdictKind.passed, VerdictKind.failed
LACKING = VerdictKind.insufficient


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(tmp_path / "journal.db")
    yield opened
    await opened.close()


class Scripted:
    """Outputs that do as they are told, and count how often they were asked."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    async def of(self, rollout: str, hook: HookRun) -> str:
        self.asked.append((rollout, hook.name))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Hanging:
    """Outputs of an engine that never answers."""

    async def of(self, rollout: str, hook: HookRun) -> str:
        await asyncio.Event().wait()
        return f"{rollout} {hook.name}"


async def v1_then(rig: Rig, **given: str) -> None:
    """Let v1 serve as it is, and v2 have something to prove."""
    await v1_serves(rig, publish="proxy")
    wanted = settings(**{**DEFAULTS, "publish": "proxy", **given})
    await rig.tell(events.SettingsApplied, settings=wanted)
    await rig.tell(events.RevisionSeen, revision=revision("v2"))


async def v2_steps(rig: Rig, group: str = "shop-2") -> None:
    rig.clock.advance(4)
    await rig.ready(group)
    await rig.apply("w-1")


async def judge(rig: Rig, gate: str, kind: VerdictKind, why: str = "so it was measured") -> None:
    rollout = rig.state.rollout
    assert rollout is not None
    verdict = Verdict(
        gate=gate, kind=kind, at=rig.clock(), why=why, numbers={"failed": 83.0, "finished": 412.0}
    )
    await rig.tell(events.GateJudged, rollout=rollout.id, stage=rollout.stage, verdict=verdict)


async def task_ends(rig: Rig, group: str, *, is_success: bool) -> None:
    await rig.tell(
        events.GroupCompleted,
        group=group,
        reason=f"exit code {int(not is_success)}",
        is_success=is_success,
    )


def edges(receipt: dict[str, Any]) -> list[tuple[str, int, str, str, float]]:
    return [
        (one["stage"], one["weight_pct"], one["gate"], one["kind"], one["after_s"])
        for one in receipt["verdicts"]
    ]


# -- verdicts -------------------------------------------------------------------------------------


async def test_every_change_of_a_verdict_is_kept_with_its_numbers(journal: Journal) -> None:
    """The pass that ends a step is gone from the state with the step."""
    async with controller(journal, Clock()) as rig:
        await v1_then(rig, gates="max_error_rate,compare", steps="50/5s", watch="30s")
        await v2_steps(rig)
        rig.clock.advance(1)
        await judge(rig, "compare", LACKING)
        await rig.pass_time(5)
        await judge(rig, "max_error_rate", PASSED)
        await judge(rig, "compare", PASSED)
        assert rig.state.stable == "v2"
        rig.clock.advance(2)
        await judge(rig, "compare", FAILED, "83 of 412 failed")
        found = await rig.shown("shop-r2")

    assert edges(found) == [
        ("step 1", 50, "compare", "insufficient", 5.0),
        ("step 1", 50, "max_error_rate", "pass", 10.0),
        ("step 1", 50, "compare", "pass", 10.0),
        ("watch", 100, "compare", "fail", 12.0),
    ]
    last = found["verdicts"][-1]
    assert (last["why"], last["numbers"]) == ("83 of 412 failed", {"failed": 83, "finished": 412})
    assert found["outcome"] == "aborting"
    assert found["reason"] == "gate compare failed: 83 of 412 failed"


async def test_a_controller_that_is_killed_loses_no_verdict_and_books_none_twice(
    journal: Journal,
) -> None:
    clock = Clock()
    async with controller(journal, clock) as rig:
        await v1_then(rig, gates="compare", steps="50/60s")
        await v2_steps(rig)
        await judge(rig, "compare", LACKING)
        await rig.finish()
        await judge(rig, "compare", PASSED)  # and the draft is not kept any more

    async with controller(journal, clock) as rig:
        await rig.start()
        await judge(rig, "compare", LACKING)
        await rig.finish()
        once = await rig.shown("shop-r2")

    async with controller(journal, clock) as rig:
        await rig.start()
        again = await rig.shown("shop-r2")

    assert [kind for *_, kind, _ in edges(once)] == ["insufficient", "pass", "insufficient"]
    assert again["verdicts"] == once["verdicts"]


async def test_a_verdict_that_a_draft_has_read_already_is_not_booked_again(
    journal: Journal,
) -> None:
    """Another draft may have been kept longer ago; for its sake the journal is read again."""
    async with controller(journal, Clock()) as rig:
        await v1_then(rig, gates="compare", steps="50/60s")
        await v2_steps(rig)
        await judge(rig, "compare", LACKING)
        draft = rig.book.drafts["shop-r2"]
        (stored,) = [one for one in await journal.events() if one.entry.kind == "GateJudged"]

    assert len(proofs.judged(draft.but(read_to=stored.seq - 1), stored).verdicts) == 1
    assert proofs.judged(draft.but(read_to=stored.seq), stored).verdicts == ()
    assert proofs.judged(draft.but(id="shop-r9"), stored).verdicts == ()


async def test_a_receipt_is_not_final_before_its_last_verdicts_are_read(journal: Journal) -> None:
    async with controller(journal, Clock()) as rig:
        await v1_then(rig, gates="compare", steps="50/60s")
        await v2_steps(rig)
        await rig.finish()
        rig.clock.advance(1)
        await judge(rig, "compare", FAILED)
        await rig.apply("w-1")
        await rig.pass_time(30)
        await rig.tell(events.GroupStopped, group="shop-2")
        rig.clock.advance(10)
        rig.book.tend()
        assert "shop-r2" in rig.book.drafts
        await rig.finish()
        found = await rig.kept("shop-r2")

    assert found.is_final
    assert [judged.verdict.kind for judged in found.verdicts] == [FAILED]


async def test_a_verdict_of_the_boot_before_has_its_time_by_the_wall(journal: Journal) -> None:
    clock = Clock()
    async with controller(journal, clock) as rig:
        await v1_then(rig, gates="compare", steps="50/60s")
        await v2_steps(rig)
        await rig.finish()
        await judge(rig, "compare", LACKING)

    clock.now = 5.0
    async with controller(journal, clock) as rig:
        await rig.start(boot_id="boot-2")
        found = await rig.shown("shop-r2")
        (wall,) = [
            stored.wall
            for stored in await journal.events(after=0)
            if stored.entry.kind == "GateJudged"
        ]

    (verdict,) = found["verdicts"]
    assert verdict["at"] == wall.replace("+00:00", "Z")


async def test_verdicts_that_flap_for_ever_do_not_fill_the_receipt(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proofs, "MOST_VERDICTS", 3)
    async with controller(journal, Clock()) as rig:
        await v1_then(rig, gates="compare", steps="50/60s")
        await v2_steps(rig)
        for _ in range(3):
            await judge(rig, "compare", LACKING)
            await judge(rig, "compare", PASSED)
        found = await rig.shown("shop-r2")

    assert len(found["verdicts"]) == 3
    assert found["gaps"] == ["There were more than 3 verdicts."]


async def test_what_an_operator_went_over_is_said(journal: Journal) -> None:
    async with controller(journal, Clock()) as rig:
        await v1_then(rig, gates="compare", hooks="before:migrate:command:60s:final")
        await rig.tell(events.GroupStarted, group="shop-2")
        await task_ends(rig, "shop-2", is_success=True)
        await v2_steps(rig, "shop-3")
        await judge(rig, "compare", FAILED)
        before = await rig.shown("shop-r2")
        await rig.tell(events.ResumeAsked)
        after = await rig.shown("shop-r2")

    assert (before["is_overruled"], after["is_overruled"]) == (False, True)
    assert "paused by itself" in [phase["what"] for phase in after["phases"]]


# -- what users met -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "says"),
    [
        (
            ShareCounts(requests=412, errors_5xx=80, failures={"connect": 3}),
            "412 requests were answered by revision v2: 83 failed.",
        ),
        (ShareCounts(requests=1), "1 request was answered by revision v2: none failed."),
        (
            ShareCounts(dns=52),
            "52 DNS answers led to revision v2; what came of it was not seen.",
        ),
        (ShareCounts(preview=9), "No request was answered by revision v2."),
    ],
)
async def test_how_many_met_the_new_revision_is_one_sentence(
    journal: Journal, share: ShareCounts, says: str
) -> None:
    async with controller(journal, Clock()) as rig:
        await v1_then(rig, gates="compare", steps="50/60s")
        await v2_steps(rig)
        rig.clock.advance(1)
        rig.report("w-1", v1=ShareCounts(requests=3000, errors_5xx=7), v2=share)
        rig.book.tend()
        found = await rig.shown("shop-r2")

    assert found["seen"]["says"] == says
    assert found["seen"]["failed"] == share.errors_5xx + sum(share.failures.values())


# -- hooks ----------------------------------------------------------------------------------------


async def test_a_hook_is_told_with_its_times_its_end_and_its_output(journal: Journal) -> None:
    outputs = Scripted("3 tables changed\n")
    async with controller(journal, Clock(), outputs) as rig:
        await v1_then(rig, hooks="before:migrate:command:60s,after:clean:command:60s")
        rig.clock.advance(1)
        await rig.tell(events.GroupStarted, group="shop-2")
        running = await rig.shown("shop-r2")
        rig.clock.advance(5)
        await task_ends(rig, "shop-2", is_success=True)
        await rig.finish()
        migrate, clean = (await rig.shown("shop-r2"))["hooks"]

    assert (running["hooks"][0]["phase"], running["hooks"][0]["output"]) == ("running", None)
    assert (migrate["name"], migrate["stage"], migrate["phase"]) == (
        "migrate",
        "before",
        "succeeded",
    )
    assert (migrate["began"]["after_s"], migrate["seconds"], migrate["note"]) == (
        1.0,
        5.0,
        "exit code 0",
    )
    assert (migrate["group"], migrate["output"]) == ("shop-2", "3 tables changed\n")
    assert (clean["phase"], clean["began"], clean["output"]) == ("waiting", None, None)
    assert outputs.asked == [("shop-r2", "migrate")]


async def test_what_a_hook_wrote_is_in_the_receipt_and_nowhere_else(
    journal: Journal, capfd: pytest.CaptureFixture[str]
) -> None:
    async with controller(journal, Clock(), Scripted(CANARY)) as rig:
        await v1_then(rig, hooks="before:migrate:command:60s")
        await rig.tell(events.GroupStarted, group="shop-2")
        await task_ends(rig, "shop-2", is_success=False)
        await rig.pass_time(5)
        await rig.tell(events.GroupStopped, group="shop-2")
        await rig.pass_time(10)
        await rig.finish()
        found = await rig.kept("shop-r2")
        (task,) = receipts.plain(found)["groups"]
        stored = await journal.events(after=0, limit=1000)
        states = (await journal.load()).states

    assert found.is_final
    assert (task["hook"], task["says"]) == ("migrate", "It ran the task of hook migrate.")
    assert receipts.plain(found)["hooks"][0]["output"] == CANARY
    journaled = b"".join([*(one.entry.event for one in stored), *states.values()])
    assert b"migrate" in journaled
    assert CANARY.encode() not in journaled
    printed = "".join(capfd.readouterr())
    assert "receipt_written" in printed
    assert CANARY not in printed


async def test_only_the_end_of_a_long_output_is_kept(journal: Journal) -> None:
    text = "é" * 5000 + "the end"
    async with controller(journal, Clock(), Scripted(text)) as rig:
        await v1_then(rig, hooks="before:migrate:command:60s")
        await rig.tell(events.GroupStarted, group="shop-2")
        await task_ends(rig, "shop-2", is_success=True)
        (migrate,) = (await rig.shown("shop-r2"))["hooks"]

    assert len(migrate["output"].encode()) <= proofs.OUTPUT_BYTES
    assert migrate["output"].startswith("é")
    assert migrate["output"].endswith("ééthe end")


async def test_an_output_that_cannot_be_had_is_a_gap(journal: Journal) -> None:
    outputs = Scripted(RuntimeFailure("there are no logs of it."))
    async with controller(journal, Clock(), outputs) as rig:
        await v1_then(rig, hooks="before:migrate:command:60s")
        await rig.tell(events.GroupStarted, group="shop-2")
        await task_ends(rig, "shop-2", is_success=True)
        await rig.finish()
        found = await rig.shown("shop-r2")

    assert found["gaps"] == ["What hook migrate wrote could not be had: there are no logs of it."]
    assert len(outputs.asked) == 1


async def test_without_anybody_who_keeps_outputs_that_is_said(journal: Journal) -> None:
    async with controller(journal, Clock()) as rig:
        await v1_then(rig, hooks="before:migrate:command:60s")
        await rig.tell(events.GroupStarted, group="shop-2")
        await task_ends(rig, "shop-2", is_success=True)
        found = await rig.shown("shop-r2")

    (gap,) = found["gaps"]
    assert gap.startswith("What hook migrate wrote could not be had: nobody keeps")


async def test_an_engine_that_is_away_is_asked_again_for_an_output(journal: Journal) -> None:
    away = RuntimeUnknownError("the engine is away")
    async with controller(journal, Clock(), Scripted(away, away, "done\n")) as rig:
        await v1_then(rig, hooks="before:migrate:command:60s")
        await rig.tell(events.GroupStarted, group="shop-2")
        await task_ends(rig, "shop-2", is_success=True)
        seen = [(await rig.shown("shop-r2"))["hooks"][0]["output"] for _ in range(3)]
        gaps = (await rig.shown("shop-r2"))["gaps"]

    assert (seen, gaps) == ([None, None, "done\n"], [])


async def test_a_receipt_waits_for_an_output_but_not_for_ever(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trafficmgr.controller.receipts.OUTPUT_S", 0.01)
    async with controller(journal, Clock(), Hanging()) as rig:
        await v1_then(rig, hooks="before:migrate:command:60s")
        await rig.tell(events.GroupStarted, group="shop-2")
        await task_ends(rig, "shop-2", is_success=False)
        await rig.pass_time(5)
        await rig.tell(events.GroupStopped, group="shop-2")
        await rig.pass_time(10)
        await rig.finish()
        early = await rig.kept("shop-r2")
        await rig.pass_time(OWED_S)
        await rig.finish()
        late = await rig.kept("shop-r2")

    assert (early.ended_at is not None, early.is_final) == (True, False)
    assert late.is_final
    assert late.gaps[-1] == (
        "What hook migrate wrote could not be had: nobody answered who could tell."
    )


async def test_a_hook_that_is_done_again_is_told_twice(journal: Journal) -> None:
    clock = Clock()
    lost = TrafficmgrError("the controller that made the call is gone.")
    async with controller(journal, clock, Scripted(lost, "created\n")) as rig:
        await v1_then(rig, hooks="before:announce:call:60s")
        await rig.tell(events.HookStarted, rollout="shop-r2", hook="announce")
        clock.advance(1)
        await rig.start()  # another controller: whether the call was made nobody knows
        await rig.finish()
        assert rig.state.rollout is not None
        assert rig.state.rollout.question
        clock.advance(1)
        await rig.tell(events.RetryAsked)
        await rig.tell(events.HookStarted, rollout="shop-r2", hook="announce")
        clock.advance(2)
        await rig.tell(
            events.HookEnded, rollout="shop-r2", hook="announce", is_success=True, reason=""
        )
        await rig.finish()
        found = await rig.shown("shop-r2")

    assert [(one["phase"], one["seconds"], one["output"]) for one in found["hooks"]] == [
        ("unknown", None, None),
        ("succeeded", 2.0, "created\n"),
    ]
    assert found["gaps"] == [
        "What hook announce wrote could not be had: the controller that made the call is gone."
    ]


async def test_a_hook_that_an_abort_broke_off_is_said_to_be_cut_off(journal: Journal) -> None:
    async with controller(journal, Clock(), Scripted("half of it\n")) as rig:
        await v1_then(rig, hooks="before:migrate:command:60s")
        await rig.tell(events.GroupStarted, group="shop-2")
        await rig.pass_time(3)
        await rig.tell(events.AbortAsked)
        await rig.pass_time(1)
        await rig.tell(events.GroupStopped, group="shop-2")
        await rig.pass_time(10)
        await rig.finish()
        found = receipts.plain(await rig.kept("shop-r2"))

    (migrate,) = found["hooks"]
    assert (found["outcome"], found["is_final"]) == ("aborted", True)
    assert (migrate["phase"], migrate["output"]) == ("cut off", "half of it\n")


async def test_a_hook_that_was_done_for_the_revision_before_is_not_asked_about(
    journal: Journal,
) -> None:
    outputs = Scripted("done\n")
    async with controller(journal, Clock(), outputs) as rig:
        await v1_then(rig, hooks="before:migrate:command:60s")
        await rig.tell(events.GroupStarted, group="shop-2")
        await task_ends(rig, "shop-2", is_success=True)
        await rig.finish()
        await rig.tell(events.AbortAsked)
        for group in [g.id for g in rig.state.groups if g.revision == "v2"]:
            await rig.tell(events.GroupStopped, group=group)
        await rig.tell(events.RetryAsked)
        await rig.finish()
        found = await rig.shown("shop-r3")

    (migrate,) = found["hooks"]
    assert (migrate["phase"], migrate["began"], migrate["output"]) == ("succeeded", None, None)
    assert "before" in migrate["note"]
    assert outputs.asked == [("shop-r2", "migrate")]
    assert found["gaps"] == []


# -- smoke ----------------------------------------------------------------------------------------


async def test_the_legs_of_the_smoke_test_are_told(journal: Journal) -> None:
    async with controller(journal, Clock()) as rig:
        await v1_then(rig, smoke="rehearsed")
        await v2_steps(rig)
        first = await rig.shown("shop-r2")
        told = {"rollout": "shop-r2", "is_success": True}
        await rig.tell(events.SmokeEnded, leg=0, **told)
        failed = {"rollout": "shop-r2", "is_success": False, "reason": "GET / answered 500"}
        await rig.tell(events.SmokeEnded, leg=1, **failed)
        last = await rig.shown("shop-r2")

    assert first["smoke"] == {"phase": "asking", "leg": 1, "legs": 3, "note": ""}
    assert last["smoke"] == {
        "phase": "failed",
        "leg": 2,
        "legs": 3,
        "note": "GET / answered 500",
    }


async def test_a_rollout_without_anything_to_prove_has_nothing_of_it(journal: Journal) -> None:
    async with controller(journal, Clock()) as rig:
        await v1_then(rig)
        found = await rig.shown("shop-r2")

    assert (found["smoke"], found["verdicts"], found["hooks"]) == (None, [], [])
    assert json.loads(json.dumps(found)) == found


# -- where outputs are found ----------------------------------------------------------------------


async def test_the_output_of_a_command_is_the_end_of_its_groups_logs() -> None:
    runtime = MemoryRuntime()
    runtime.world.logs["shop-2"] = [b"x" * 5000 + b"\n", b"caf\xe9\n"]
    outputs = HookOutputs(runtime=runtime, answered=lambda _rollout, _hook: None)

    text = await outputs.of("shop-r2", HookRun(name="migrate", group="shop-2"))

    assert len(text) == proofs.OUTPUT_BYTES
    assert text.endswith("x\ncaf\N{REPLACEMENT CHARACTER}\n")
    with pytest.raises(RuntimeFailure, match='no group "shop-9"'):
        await outputs.of("shop-r2", HookRun(name="migrate", group="shop-9"))
    await runtime.close()


async def test_the_output_of_a_call_is_what_it_was_answered() -> None:
    answers = {("shop-r2", "announce"): "created\n"}
    outputs = HookOutputs(
        runtime=MemoryRuntime(), answered=lambda rollout, hook: answers.get((rollout, hook))
    )

    assert await outputs.of("shop-r2", HookRun(name="announce")) == "created\n"
    with pytest.raises(TrafficmgrError, match="the controller that made the call is gone"):
        await outputs.of("shop-r9", HookRun(name="announce"))


async def test_the_book_takes_over_verdicts_by_itself(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trafficmgr.controller.receipts.LOOK_EVERY_S", 0.01)
    async with controller(journal, Clock()) as rig, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(rig.book.run())
        await v1_then(rig, gates="compare", steps="50/60s")
        await v2_steps(rig)
        await judge(rig, "compare", LACKING)
        await eventually(lambda: rig.book.drafts["shop-r2"].verdicts)
        task.cancel()

    assert (await journal.receipt("shop-r2")) is not None
    assert NAME in rig.loop.fleet.endpoints
