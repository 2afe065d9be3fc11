"""`why` and `status` of what a revision must prove: gates, hooks, smoke, and questions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from support.story import NAME, Story, World, revision, settings

from trafficmgr.admin import proofs, views
from trafficmgr.admin.reasons import Sight, reasons
from trafficmgr.admin.unproven import THEN
from trafficmgr.core import events
from trafficmgr.core.gating import (
    Check,
    CommandCheck,
    Gates,
    OnInsufficient,
    Verdict,
    VerdictKind,
)
from trafficmgr.core.model import EndpointSettings

GIVEN = {
    "replicas": "2",
    "steps": "10/30s,50/30s",
    "deadline": "60s",
    "min_ready": "5s",
    "keep_previous": "120s",
    "watch": "60s",
    "max_hold": "90s",
}

LACKING, PASSED, FAILED = VerdictKind.insufficient, VerdictKind.passed, VerdictKind.failed

HELD = "v2 is held at step 1 of 2 with 10 % of traffic for another"
FINAL = (
    "Hook migrate can't be undone, so nothing goes back by itself; `trafficmgr abort shop` does it"
    " all the same."
)


def v2_until(end: float, world: World | None = None, **given: str) -> Story:
    """Return a story in which v1 is stable at 100 s and v2 is shown then, up to `end`."""
    story = Story(world or World(), settings(**{**GIVEN, **given}))
    for label, until in (("v1", 100.0), ("v2", end)):
        story.feed(events.RevisionSeen(at=story.now, endpoint=NAME, revision=revision(label)))
        story.run_until(until)
    return story


def judged(story: Story, until: float = 0.0, **kinds: VerdictKind) -> Story:
    for gate, kind in kinds.items():
        story.judge(gate, kind)
    story.run_until(max(story.now, until))
    return story


def asks(story: Story, event: type[events.EndpointEvent], until: float = 0.0) -> Story:
    story.feed(event(at=story.now, endpoint=NAME))
    story.run_until(max(story.now, until))
    return story


def final_and_failed(until: float = 125.0) -> Story:
    """Return a story whose gate fails after a hook that can't be undone."""
    hooks = "before:migrate:command:10m:final"
    return judged(v2_until(until, hooks=hooks, gates="compare"), compare=FAILED)


def unknown_call() -> Story:
    """Return a story in which the controller died while it made a call."""
    world = World(hanging={"announce"})
    story = v2_until(102.0, world, hooks="before:announce:call:10s")
    story.start_controller()
    return story


def said(story: Story) -> list[str]:
    return list(reasons(story.state, Sight(fleet=story.fleet), story.now))


def shown(story: Story) -> views.Plain:
    return views.endpoint(story.state, {}, {}, story.now, gaps={})


EXAMPLES: dict[str, tuple[Callable[[], Story], list[str]]] = {
    "a gate has seen nothing": (
        lambda: v2_until(120.0, gates="compare"),
        [
            f"{HELD} 17s; then it gets 50 %, if its gates have passed.",
            "Gate compare has not seen enough: nothing was seen yet.",
        ],
    ),
    "the hold is over, and a gate lacks data": (
        lambda: judged(
            v2_until(120.0, gates="max_error_rate,compare"),
            140.0,
            max_error_rate=PASSED,
            compare=LACKING,
        ),
        [
            (
                "Gate compare has not seen enough: so it was measured. The step is held for up to"
                " 57s more, then the rollout is paused."
            )
        ],
    ),
    "two gates lack data": (
        lambda: judged(
            v2_until(140.0, gates="max_error_rate,compare", on_insufficient="promote"),
            compare=LACKING,
        ),
        [
            "Gate max_error_rate has not seen enough: nothing was seen yet.",
            (
                "Gate compare has not seen enough: so it was measured. The step is held for up to"
                " 57s more, then it goes on without a verdict."
            ),
        ],
    ),
    "a gate lacks data, and that aborts": (
        lambda: judged(v2_until(140.0, gates="compare", on_insufficient="abort"), compare=LACKING),
        [
            (
                "Gate compare has not seen enough: so it was measured. The step is held for up to"
                " 57s more, then the rollout is aborted."
            )
        ],
    ),
    "no verdict came, and it asks": (
        lambda: judged(v2_until(120.0, gates="compare"), 200.0, compare=LACKING),
        [
            (
                "The rollout of v2 was paused by itself at step 1 of 2 with 10 % of traffic."
                " There is no verdict of compare within max_hold. `promote` goes on without,"
                " `resume` waits as long again, `abort` goes back. Each is typed like"
                " `trafficmgr abort shop`."
            )
        ],
    ),
    "the watch has gates": (
        lambda: v2_until(120.0, steps="", gates="compare"),
        [
            (
                "v2 is stable and watched for another 47s; if it or one of its gates fails,"
                " v1 comes back."
            )
        ],
    ),
    "it is watched, and a hook can't be undone": (
        lambda: v2_until(125.0, steps="", hooks="before:migrate:command:10m:final"),
        ["v2 is stable and watched for another 48s.", FINAL],
    ),
    "a task is being started": (
        lambda: v2_until(100.5, hooks="before:migrate:command:10m:final"),
        [
            "Hook migrate is being started in group shop-4; groups of v2 start when it is done.",
            FINAL,
        ],
    ),
    "a task runs": (
        lambda: v2_until(103.0, hooks="before:migrate:command:10m"),
        [
            (
                "Hook migrate runs since 2s in group shop-4 (timeout 10m); groups of v2 start"
                " when it is done."
            )
        ],
    ),
    "a call is under way": (
        lambda: v2_until(
            116.0, World(hanging={"approve"}), hooks="gate:approve:call:90s", steps="10/5s"
        ),
        ["Hook approve is called since 4s (timeout 1m30s); v2 is promoted when it is done."],
    ),
    "a hook comes after the watch": (
        lambda: v2_until(115.0, hooks="after:clean:command:10m", steps="", watch="5s"),
        [
            (
                "Hook clean runs since 2s in group shop-6 (timeout 10m); the rollout is complete"
                " when it is done."
            )
        ],
    ),
    "nobody knows how a call ended": (
        unknown_call,
        [
            (
                "The rollout of v2 was paused by itself before its first step. Hook announce has"
                " begun, and nobody knows how it ended: the controller was restarted while it was"
                " under way. `resume` takes it as done, `retry` does it again, `abort` goes back."
                " Each is typed like `trafficmgr abort shop`."
            ),
            *(
                f"Slot {slot} has no worker that said hello to this controller, and is given 15s"
                " more; no group stops before."
                for slot in (0, 1)
            ),
        ],
    ),
    "a hook can't be undone": (
        lambda: v2_until(120.0, hooks="before:migrate:command:10m:final"),
        [f"{HELD} 23s; then it gets 50 %.", FINAL],
    ),
    "a gate fails after what can't be undone": (
        final_and_failed,
        [
            (
                "The rollout of v2 was paused by itself at step 1 of 2 with 10 % of traffic."
                " Traffic would have gone back, because gate compare failed: so it was measured."
                " But hook migrate can't be undone, so nothing goes back by itself: `abort` does"
                " it all the same, `promote` or `resume` goes on. Each is typed like"
                " `trafficmgr abort shop`."
            ),
            FINAL,
        ],
    ),
    "an operator went on over that": (
        lambda: asks(final_and_failed(), events.ResumeAsked),
        [
            (
                "An operator went on over what had failed, so no gate decides any more; now fails"
                " gate compare (so it was measured)."
            ),
            f"{HELD} 18s; then it gets 50 %.",
            FINAL,
        ],
    ),
    "an operator paused it while a task runs": (
        lambda: asks(v2_until(103.0, hooks="before:migrate:command:10m"), events.PauseAsked),
        [
            (
                "The rollout of v2 was paused by an operator before its first step;"
                " `trafficmgr resume shop` lets it go on."
            ),
            (
                "Hook migrate runs since 2s in group shop-4 (timeout 10m); groups of v2 start"
                " when it is done."
            ),
        ],
    ),
    "smoke is asked": (
        lambda: v2_until(107.5, World(smoke_s=3.0), smoke="plain"),
        [
            "Smoke asks preview.shop.test, which reaches v2 and nobody else.",
            "Without progress v2 is given up in 1m.",
        ],
    ),
    **{
        f"smoke is rehearsed, leg {leg}": (
            partial(v2_until, until, World(smoke_s=3.0), smoke="rehearsed"),
            [
                f"Smoke asks preview.shop.test: leg {leg} of 3 ({where}).",
                f"Without progress v2 is given up in {left}s.",
            ],
        )
        for leg, until, where, left in (
            (1, 108.0, "on v2", 59),
            (2, 110.3, "back on v1", 57),
            (3, 113.4, "on v2 again", 54),
        )
    },
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_why_says(name: str) -> None:
    story, expected = EXAMPLES[name]

    assert said(story()) == expected


def test_a_task_that_cannot_be_started_now_says_why() -> None:
    story = v2_until(100.0, hooks="before:migrate:command:10m")
    (task,) = [group for group in story.state.groups if group.hook]
    story.feed(
        events.GroupStartDelayed(
            at=story.now, endpoint=NAME, group=task.id, reason="the registry is away"
        )
    )

    assert said(story)[0] == (
        f"Hook migrate is being started in group {task.id}, and that is tried again (the registry"
        " is away); groups of v2 start when it is done."
    )


# -- status ---------------------------------------------------------------------------------------


def test_status_has_the_gates_of_the_present_stage_with_their_numbers() -> None:
    story = judged(
        v2_until(140.0, gates="max_error_rate,compare", on_insufficient="abort"), compare=LACKING
    )

    rollout = shown(story)["rollout"]

    assert [(one["gate"], one["kind"], one["why"]) for one in rollout["gates"]] == [
        ("max_error_rate", "insufficient", proofs.NOTHING_SEEN),
        ("compare", "insufficient", "so it was measured"),
    ]
    assert (rollout["patience_left_s"], rollout["on_insufficient"]) == (57.0, "abort")
    assert shown(story)["says"] == (
        "v2 has 10 % of traffic and waits for up to 57s for the verdict of max_error_rate, compare."
    )


def test_numbers_of_now_take_the_place_of_those_that_are_journaled() -> None:
    story = judged(v2_until(120.0, gates="max_error_rate,compare"), compare=LACKING)
    rollout = story.state.rollout
    assert rollout is not None
    begun_at = rollout.marks[-1].at
    fresh = Verdict(gate="compare", kind=LACKING, at=119.9, why="2 of 41", numbers={"failed": 2.0})
    stale = Verdict(gate="max_error_rate", kind=PASSED, at=begun_at - 0.5, why="of the step before")

    state = proofs.with_newest(story.state, (fresh, stale))

    assert state.rollout is not None
    assert [(one["gate"], one["why"]) for one in proofs.gates(state.rollout)] == [
        ("max_error_rate", proofs.NOTHING_SEEN),
        ("compare", "2 of 41"),
    ]
    assert proofs.with_newest(v2_until(100.0).state, (fresh,)).rollout is not None


def test_a_preview_is_judged_by_checks_only() -> None:
    check = Check(name="report", ask=CommandCheck(command=("./check.sh",)))
    story = v2_until(100.0, steps="0/30s")
    rollout = story.state.rollout
    assert rollout is not None

    def with_gates(given: EndpointSettings) -> EndpointSettings:
        return given.but(gates=Gates(max_error_rate=0.01, checks=(check,)))

    before = rollout.but(settings=with_gates(rollout.settings))
    preview = before.but(step=0)

    assert proofs.gates(before) == []
    assert [one["gate"] for one in proofs.gates(preview)] == ["report"]


def test_status_has_the_hooks_with_their_phases() -> None:
    hooks = "before:migrate:command:10m:final,gate:approve:call:10s"
    story = v2_until(103.0, hooks=hooks)

    view = shown(story)

    migrate, approve = view["rollout"]["hooks"]
    assert migrate == {
        "name": "migrate",
        "stage": "before",
        "kind": "command",
        "phase": "running",
        "group": "shop-4",
        "seconds": 2.0,
        "timeout_s": 600.0,
        "is_reversible": False,
        "note": "",
    }
    assert (approve["phase"], approve["kind"], approve["seconds"]) == ("waiting", "http", None)
    assert not view["rollout"]["is_reversible"]
    assert view["remarks"] == [
        "hook migrate can't be undone (reversible: false): nothing goes back by itself"
    ]


def test_a_task_group_is_marked_and_is_no_replica() -> None:
    view = shown(v2_until(103.0, hooks="before:migrate:command:10m"))

    assert [(group["id"], group["hook"]) for group in view["groups"]] == [
        ("shop-2", None),
        ("shop-3", None),
        ("shop-4", "migrate"),
    ]
    assert [(one["revision"], one["ready"]) for one in view["weights"]] == [("v1", 2), ("v2", 0)]
    assert view["says"].startswith("Hook migrate runs since 2s in group shop-4")


def test_a_question_stands_in_the_status_and_it_is_paused() -> None:
    view = shown(final_and_failed())

    assert view["phase"] == "paused"
    assert view["says"] == "v2 was paused by itself with 10 % of traffic; it waits for an answer."
    assert view["rollout"]["question"].startswith("Traffic would have gone back, because gate")


def test_a_watch_that_asks_is_paused_as_well() -> None:
    hooks = "before:migrate:command:10m:final"
    story = judged(v2_until(125.0, hooks=hooks, gates="compare", steps=""), compare=FAILED)

    view = shown(story)

    assert (view["phase"], view["rollout"]["phase"]) == ("paused", "promoting")
    assert view["says"] == "v2 was paused by itself with 100 % of traffic; it waits for an answer."
    assert said(story)[0].startswith("The rollout of v2 was paused by itself while it was watched.")


def test_what_an_operator_went_over_is_remarked() -> None:
    view = shown(asks(final_and_failed(), events.ResumeAsked))

    assert view["rollout"]["is_overruled"]
    assert "an operator went on over what had failed; no gate decides any more" in view["remarks"]


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        (102.0, ("waiting", 0)),
        (108.0, ("asking", 1)),
        (140.0, ("passed", 3)),
    ],
)
def test_status_has_the_smoke_test(until: float, expected: tuple[str, int]) -> None:
    story = v2_until(until, World(smoke_s=3.0), smoke="rehearsed")

    smoke = shown(story)["rollout"]["smoke"]

    assert (smoke["phase"], smoke["leg"]) == expected
    assert (smoke["legs"], smoke["host"]) == (3, "preview.shop.test")


def test_without_smoke_there_is_none() -> None:
    assert shown(v2_until(120.0))["rollout"]["smoke"] is None


def test_the_history_says_what_was_done_and_asked() -> None:
    story = final_and_failed()

    *_, last = views.rollouts(story.state, story.now)

    assert last["question"]
    assert not last["is_reversible"]
    assert [(one["name"], one["phase"]) for one in last["hooks"]] == [("migrate", "succeeded")]
    assert _is_plain(last)
    assert _is_plain(shown(story))


def _is_plain(value: Any) -> bool:
    match value:
        case dict():
            return all(type(key) is str and _is_plain(one) for key, one in value.items())
        case list():
            return all(map(_is_plain, value))
        case _:
            return value is None or type(value) in {str, int, float, bool}


def test_every_choice_without_a_verdict_has_its_words() -> None:
    assert THEN.keys() == set(OnInsufficient)
