"""What a revision had to prove is told in the log: once, at the transition, with its reason."""

from typing import Any

import pytest
from support.controller_support import NAME, settings

from trafficmgr.controller import chronicle
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.gating import (
    HookPhase,
    HookRun,
    SmokePhase,
    SmokeRun,
    Verdict,
    VerdictKind,
)
from trafficmgr.core.model import Countdown, Mark, Publish, Rollout, RolloutPhase
from trafficmgr.core.routing import Table
from trafficmgr.core.state import EndpointState


class Lines:
    """A log that remembers what it was told: level, event, pairs."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **pairs: object) -> None:
        self.lines.append(("info", event, pairs))

    def warning(self, event: str, **pairs: object) -> None:
        self.lines.append(("warning", event, pairs))


ROLLOUT = Rollout(
    id="shop-r2",
    origin="v1",
    revision="v2",
    settings=settings(steps="10/30s"),
    started_at=0.0,
    step=0,
    deadline=Countdown(left_s=600.0),
)
WHO = {"endpoint": NAME, "rollout": "shop-r2"}


def fleet_of(rollout: Rollout | None) -> Fleet:
    state = EndpointState(
        name=NAME,
        boot_id="boot-1",
        settings=settings(),
        table=Table(endpoint=NAME, generation=0, hosts=(), publish=Publish.proxy, ttl_s=1),
        rollout=rollout,
    )
    return Fleet(endpoints={NAME: state})


def told(before: Rollout | None, after: Rollout) -> list[tuple[str, str, dict[str, Any]]]:
    lines = Lines()
    chronicle.write(lines, fleet_of(before), fleet_of(after))
    return lines.lines


def verdict(kind: VerdictKind, *, gate: str = "compare", at: float = 5.0) -> Verdict:
    return Verdict(gate=gate, kind=kind, at=at, why="It is so.", numbers={"e": 3.0})


@pytest.mark.parametrize(
    ("kind", "level", "event"),
    [
        (VerdictKind.passed, "info", "gate_passed"),
        (VerdictKind.failed, "warning", "gate_failed"),
        (VerdictKind.insufficient, "info", "gate_undecided"),
    ],
)
def test_a_verdict_is_told_when_it_is_reached(kind: VerdictKind, level: str, event: str) -> None:
    before = ROLLOUT.but(verdicts=(verdict(VerdictKind.passed, gate="deep"),))
    after = before.but(verdicts=(*before.verdicts, verdict(kind)))

    assert told(before, after) == [
        (level, event, {**WHO, "gate": "compare", "reason": "It is so."})
    ]


def test_a_verdict_is_told_once_though_its_rollout_goes_on_to_another_stage() -> None:
    before = ROLLOUT.but(verdicts=(verdict(VerdictKind.passed),))
    after = before.but(phase=RolloutPhase.aborting)

    assert told(before, after) == []


@pytest.mark.parametrize(
    ("phase", "level", "event"),
    [
        (HookPhase.running, "info", "hook_started"),
        (HookPhase.succeeded, "info", "hook_succeeded"),
        (HookPhase.failed, "warning", "hook_failed"),
        (HookPhase.unknown, "warning", "hook_unknown"),
    ],
)
def test_a_hook_is_told_as_far_as_it_comes(phase: HookPhase, level: str, event: str) -> None:
    before = ROLLOUT.but(hooks=(HookRun(name="migrate", phase=HookPhase.wanted),))
    after = before.but(hooks=(HookRun(name="migrate", phase=phase, note="exit code 3"),))

    assert told(before, after) == [
        (level, event, {**WHO, "hook": "migrate", "reason": "exit code 3"})
    ]


def test_a_hook_that_waits_or_was_done_before_is_no_news() -> None:
    done = HookRun(name="migrate", phase=HookPhase.succeeded, began_at=0.0)
    waiting = HookRun(name="announce")

    assert told(None, ROLLOUT.but(hooks=(done, waiting))) == []
    assert (
        told(
            ROLLOUT.but(hooks=(waiting,)), ROLLOUT.but(hooks=(waiting.but(phase=HookPhase.wanted),))
        )
        == []
    )


def test_each_leg_of_a_smoke_test_is_told() -> None:
    first = ROLLOUT.but(smoke=SmokeRun())
    second = ROLLOUT.but(smoke=SmokeRun(leg=1))
    passed = ROLLOUT.but(smoke=SmokeRun(leg=1, phase=SmokePhase.passed))
    failed = ROLLOUT.but(smoke=SmokeRun(leg=1, phase=SmokePhase.failed, note="It was 500."))

    assert told(ROLLOUT, first) == []
    assert told(first, second) == [("info", "smoke_passed", {**WHO, "leg": 0})]
    assert told(second, passed) == [("info", "smoke_passed", {**WHO, "leg": 1})]
    assert told(second, failed) == [
        ("warning", "smoke_failed", {**WHO, "leg": 1, "reason": "It was 500."})
    ]
    assert told(passed, passed.but(step=1)) == []


def test_a_question_to_the_operator_is_told_when_it_is_asked() -> None:
    asked = ROLLOUT.but(questions={"verdicts": "Go on?"})

    assert told(ROLLOUT, asked) == [("warning", "operator_asked", {**WHO, "question": "Go on?"})]
    assert told(asked, asked.but(step=1)) == []
    assert told(asked, ROLLOUT) == []


def test_why_something_happens_is_told_before_it() -> None:
    after = ROLLOUT.but(
        verdicts=(verdict(VerdictKind.failed),),
        phase=RolloutPhase.aborting,
        marks=(Mark(at=5.0, what="aborting"),),
    )

    assert [event for _, event, _ in told(ROLLOUT, after)] == ["gate_failed", "rollout_aborting"]
