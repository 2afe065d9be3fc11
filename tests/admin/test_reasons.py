"""`why` by example: a story up to a moment, and what is said then."""

from collections.abc import Callable
from typing import Any

import pytest
from support.story import NAME, Story, World, revision, settings

from trafficmgr.admin.reasons import Sight, reasons
from trafficmgr.core import events, fleet

GIVEN = {
    "replicas": "2",
    "steps": "10/30s,50/30s",
    "deadline": "60s",
    "min_ready": "5s",
    "keep_previous": "120s",
    "watch": "60s",
    "publish": "groups",
}

NOT_THE_ADDRESS = "and for direct connections to close"


def told(*, world: World | None = None, **given: str) -> Story:
    """Return a story in which v1 is stable at 100 s."""
    story = Story(world or World(), settings(**{**GIVEN, **given}))
    shows(story, "v1")
    story.run_until(100.0)
    return story


def shows(story: Story, label: str, until: float = 0.0) -> Story:
    story.feed(events.RevisionSeen(at=story.now, endpoint=NAME, revision=revision(label)))
    story.run_until(max(story.now, until))
    return story


def asks(story: Story, event: Callable[..., events.Event], until: float = 0.0) -> Story:
    story.feed(event(at=story.now, endpoint=NAME))
    story.run_until(max(story.now, until))
    return story


def loses(story: Story, label: str, count: int, until: float = 0.0) -> Story:
    for group in [g for g in story.state.groups if g.revision == label][:count]:
        story.feed(
            events.GroupUnready(
                at=story.now, endpoint=NAME, group=group.id, reason="GET / answered 500"
            )
        )
    story.run_until(max(story.now, until))
    return story


def said(story: Story, **sight: Any) -> list[str]:
    return list(reasons(story.state, Sight(fleet=story.fleet, **sight), story.now))


def without_registry(until: float) -> Story:
    story = told()
    story.world.is_registry_away = True
    return shows(story, "v2", until)


def hung(until: float) -> Story:
    """Return a story in which the worker of slot 1 has stopped acknowledging."""
    story = told(steps="")
    story.world.hung.add(1)
    return shows(story, "v2", until)


def controller_restarted() -> Story:
    story = told()
    story.start_controller()
    return story


EXAMPLES: dict[str, tuple[Callable[[], Story], list[str]]] = {
    "nothing is seen yet": (
        lambda: Story(World(), settings(**GIVEN)),
        ["No revision is known yet: the registry has to show its image for the first time."],
    ),
    "nothing is waited for": (
        told,
        ["It waits for nothing: revision v1 serves with 2 of 2 groups ready."],
    ),
    "the candidate starts": (
        lambda: shows(told(), "v2", 101.5),
        [
            "v2 has 0 of the 2 groups ready that it needs to go on.",
            "Without progress v2 is given up in 58s.",
            "Group shop-3 of v2 runs and is not ready.",
            "Group shop-4 of v2 runs and is not ready.",
        ],
    ),
    "the candidate must stay ready": (
        lambda: shows(told(), "v2", 104.0),
        ["The groups of v2 are ready; they must stay so for another 3s (min_ready)."],
    ),
    "a step is held": (
        lambda: shows(told(), "v2", 120.0),
        [("v2 is held at step 1 of 2 with 10 % of traffic for another 17s; then it gets 50 %.")],
    ),
    "an operator holds requests": (
        lambda: asks(told(), events.HoldAsked, 101.0),
        [
            (
                "An operator holds its requests: each waits in the proxy for up to 30s;"
                " `trafficmgr release shop` lets them be served."
            )
        ],
    ),
    "a hold stands still": (
        lambda: loses(shows(told(), "v2", 120.0), "v2", 2, 121.0),
        [
            "The hold of v2 stands still at 17s left: it should have 10 % and can carry 0 %.",
            "Without progress v2 is given up in 59s.",
            "Group shop-3 of v2 runs and is not ready: GET / answered 500.",
            "Group shop-4 of v2 runs and is not ready: GET / answered 500.",
        ],
    ),
    "the next step needs another group": (
        lambda: loses(shows(told(replicas="3"), "v2", 120.0), "v2", 2, 140.0),
        [
            "v2 has 1 of the 2 groups ready that it needs to go on with 50 % of traffic.",
            "Without progress v2 is given up in 57s.",
            "Group shop-4 of v2 runs and is not ready: GET / answered 500.",
            "Group shop-5 of v2 runs and is not ready: GET / answered 500.",
        ],
    ),
    "an operator paused it": (
        lambda: asks(shows(told(), "v2", 120.0), events.PauseAsked, 150.0),
        [
            (
                "The rollout of v2 was paused by an operator at step 1 of 2 with 10 % of traffic;"
                " `trafficmgr resume shop` lets it go on."
            )
        ],
    ),
    "a step pauses": (
        lambda: shows(told(steps="0/pause"), "v2", 120.0),
        [
            (
                "The rollout of v2 waits at step 1 of 1 as a preview, because its config says so;"
                " `trafficmgr promote shop` lets it go on."
            )
        ],
    ),
    "a group can't be started now": (
        lambda: without_registry(150.0),
        [
            "v2 has 0 of the 2 groups ready that it needs to go on.",
            "The deadline stands still, because it can't be known whether a group can start.",
            "Group shop-3 of v2 can't be started now, and is tried again: away.",
            "Group shop-4 of v2 can't be started now, and is tried again: away.",
        ],
    ),
    "it is watched": (
        lambda: shows(told(steps=""), "v2", 120.0),
        ["v2 is stable and watched for another 47s; if it fails, v1 comes back."],
    ),
    "the previous one is kept warm": (
        lambda: shows(told(steps="", watch="0s"), "v2", 120.0),
        ["Revision v1 is kept warm for another 1m47s, to go back to."],
    ),
    "a worker does not acknowledge": (
        lambda: hung(104.0),
        [
            "The groups of v2 are ready; they must stay so for another 3s (min_ready).",
            "Slot 1 has not acknowledged table 5; its worker is replaced in 3s unless it does.",
        ],
    ),
    "no worker was heard of": (
        controller_restarted,
        [
            (
                f"Slot {slot} has no worker that said hello to this controller, and is given 15s"
                " more; no group stops before."
            )
            for slot in (0, 1)
        ],
    ),
    "it is aborted": (
        lambda: asks(shows(told(), "v2", 130.0), events.AbortAsked, 131.0),
        [
            ("v2 is being aborted (an operator asked for it); 2 of its groups still have to stop."),
            *(
                f"Group shop-{n} of v2 retires and waits for the DNS TTL to pass (14s left),"
                f" {NOT_THE_ADDRESS} (44s left)."
                for n in (3, 4)
            ),
            (
                "Revision v2 is in quarantine: an operator asked for it. A newer image takes its"
                " place; `trafficmgr retry shop` tries it again."
            ),
        ],
    ),
    "a newer one is ignored": (
        lambda: shows(shows(told(on_newer="ignore"), "v2", 120.0), "v3"),
        [
            ("v2 is held at step 1 of 2 with 10 % of traffic for another 17s; then it gets 50 %."),
            (
                "Revision v3 came during a rollout and is ignored (on_newer: ignore);"
                " `trafficmgr retry shop` takes it up."
            ),
        ],
    ),
    "a newer one is queued": (
        lambda: shows(shows(told(on_newer="queue"), "v2", 120.0), "v3"),
        [
            ("v2 is held at step 1 of 2 with 10 % of traffic for another 17s; then it gets 50 %."),
            "Revision v3 waits until the rollout under way is over.",
        ],
    ),
    "it is removed": (
        lambda: asks(told(publish="proxy"), events.EndpointRemoved, 100.3),
        ["Group shop-1 of v1 is being stopped.", "Group shop-2 of v1 is being stopped."],
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_why_says(name: str) -> None:
    story, expected = EXAMPLES[name]

    assert said(story()) == expected


def test_too_many_revisions_are_named() -> None:
    story = told(max_revisions="2")
    shows(story, "v2", 120.0)
    shows(story, "v3", 121.0)

    assert said(story)[-1] == (
        "Revision v3 waits until one of v1, v2 has drained (max_revisions: 2)."
    )


def test_who_has_the_only_turn_is_named() -> None:
    story = told()
    story.feed(events.LimitsApplied(at=story.now, max_concurrent=1))
    busy = shows(told(), "v2", 120.0).state.but(name="blog")
    both = story.fleet.but(endpoints={**story.fleet.endpoints, "blog": busy})
    seen = events.RevisionSeen(at=story.now, endpoint=NAME, revision=revision("v2"))
    after = fleet.evolve(both, seen)

    found = list(reasons(after.endpoints[NAME], Sight(fleet=after), story.now))

    assert found == ["Revision v2 waits for its turn: blog is rolled out (max_concurrent: 1)."]


def test_a_group_of_a_crash_loop_says_when_it_is_started_again() -> None:
    story = told()
    shows(story, "v2", 101.5)
    for _ in range(3):
        group = next(g for g in story.state.live("v2"))
        story.feed(
            events.GroupEnded(at=story.now, endpoint=NAME, group=group.id, reason="exit code 1")
        )

    assert "Group shop-7 of v2 is started in 4s after 3 failures." in said(story)


def test_a_registry_that_fails_and_a_full_disk_are_said() -> None:
    image = {
        "image": "registry.test/shop:stable",
        "trouble": "registry.test answers 503.",
        "trouble_for_s": 125.0,
    }

    found = said(told(), registry=[image], trouble="the disk is full.")

    assert found == [
        "Nothing is decided until the journal can be written again: the disk is full.",
        (
            "Whether registry.test/shop:stable is new can't be known since 2m5s:"
            " registry.test answers 503. What runs goes on."
        ),
    ]


def test_a_changed_config_that_the_registry_has_to_confirm_is_said() -> None:
    story = told()
    given = story.state.settings
    container = given.template.containers[0].but(env={"GREETING": "hello"})
    changed = given.but(template=given.template.but(containers=(container,)))
    story.feed(events.SettingsApplied(at=story.now, endpoint=NAME, settings=changed))

    assert said(story) == [
        (
            "The config asks for another group than the newest revision has; the registry has to"
            " show its image."
        )
    ]


def test_an_engine_that_is_away_comes_before_what_waits_for_it() -> None:
    story = told()
    story.world.broken.add("v2")
    shows(story, "v2", 101.5)
    story.feed(events.EngineLost(at=story.now, reason="nobody answers"))

    sentences = said(story)

    assert sentences[0].startswith("The engine that runs the groups can't be asked: until it")
    assert "The deadline stands still until the engine answers." in sentences


def test_work_that_ended_without_success_is_said() -> None:
    story = told()
    group = story.state.groups[0]
    story.feed(
        events.GroupCompleted(
            at=story.now, endpoint=NAME, group=group.id, reason="exit code 3", is_success=False
        )
    )

    assert (
        f"Group {group.id} of v1 has ended without success, and its restart policy wants no other:"
        " exit code 3."
    ) in said(story)
