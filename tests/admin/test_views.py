"""What `status` says of an endpoint in the moments that one asks about."""

import pytest
from support.story import NAME, Story, World, revision, settings

from trafficmgr.admin import views
from trafficmgr.core import events
from trafficmgr.core.template import Resources

GAPS = {"cpu_limit": "process mode has none", "isolated_files": "nobody asks for it"}

GIVEN = {
    "replicas": "2",
    "steps": "10/30s,50/30s",
    "deadline": "60s",
    "min_ready": "5s",
    "watch": "60s",
}


def stable(**given: str) -> Story:
    """Return a story in which v1 is stable at 100 s."""
    return shows(Story(World(), settings(**{**GIVEN, **given})), "v1", 100.0)


def shows(story: Story, label: str, until: float) -> Story:
    story.feed(events.RevisionSeen(at=story.now, endpoint=NAME, revision=revision(label)))
    story.run_until(until)
    return story


def asks(story: Story, event: type[events.EndpointEvent], **given: int) -> Story:
    story.feed(event(at=story.now, endpoint=NAME, **given))
    story.run_until(story.now)
    return story


def shown(story: Story) -> views.Plain:
    return views.endpoint(story.state, {}, {}, story.now, gaps=GAPS)


def test_a_paused_rollout_is_paused_and_says_how_to_go_on() -> None:
    view = shown(asks(shows(stable(), "v2", 120.0), events.PauseAsked))

    assert view["phase"] == "paused"
    assert view["rollout"]["is_paused"]
    assert view["says"] == (
        "v2 is paused with 10 % of traffic; `trafficmgr resume shop` lets it go on."
    )


def test_a_step_that_pauses_says_that_it_waits_for_promote() -> None:
    view = shown(shows(stable(steps="0/pause"), "v2", 120.0))

    assert view["phase"] == "paused"
    assert not view["rollout"]["is_paused"]
    assert view["says"] == "v2 is paused without traffic; `trafficmgr promote shop` lets it go on."


def test_a_preview_is_shown_by_its_name() -> None:
    assert shown(stable())["remarks"] == []

    view = shown(shows(stable(), "v2", 120.0))

    assert view["remarks"] == ["preview.shop.test reaches the candidate, v2"]


def test_a_wildcard_is_no_name_of_a_preview() -> None:
    story = stable()
    wild = story.state.settings.but(hosts=("*.apps.test", "shop.test"))
    story.feed(events.SettingsApplied(at=story.now, endpoint=NAME, settings=wild))
    only_wild = shows(stable(), "v2", 120.0)
    only = only_wild.state.settings.but(hosts=("*.apps.test",))
    only_wild.feed(events.SettingsApplied(at=only_wild.now, endpoint=NAME, settings=only))

    assert shown(shows(story, "v2", 120.0))["remarks"] == [
        "preview.shop.test reaches the candidate, v2"
    ]
    assert shown(only_wild)["remarks"] == []


def test_requests_that_are_held_are_said_with_what_to_type() -> None:
    story = asks(stable(), events.HoldAsked)

    held = shown(story)
    released = shown(asks(story, events.ReleaseAsked))

    assert held["is_held"]
    assert held["remarks"] == [
        "held: requests wait for up to 30s; `trafficmgr release shop` lets them be served"
    ]
    assert held["says"] == "Requests are held. Revision v1 serves with 2 of 2 groups ready."
    assert (released["is_held"], released["remarks"]) == (False, [])
    assert released["says"] == "Revision v1 serves with 2 of 2 groups ready."


def test_an_engine_that_is_away_is_said() -> None:
    story = stable()
    story.feed(events.EngineLost(at=story.now, reason="nobody answers"))

    assert shown(story)["remarks"] == [
        "the engine can't be asked now; what runs goes on, and nothing is given up meanwhile"
    ]

    story.feed(events.EngineFound(at=story.now))
    assert shown(story)["remarks"] == []


def test_a_limit_that_is_not_enforced_is_said_with_why() -> None:
    story = stable()
    (web,) = story.state.settings.template.containers
    template = story.state.settings.template.but(
        containers=(web.but(resources=Resources(cpu=1.0)),)
    )
    story.feed(
        events.SettingsApplied(
            at=story.now, endpoint=NAME, settings=story.state.settings.but(template=template)
        )
    )

    assert shown(story)["remarks"] == ["cpu_limit can't be had here: process mode has none"]


def test_groups_that_did_their_work_are_said_to_have_done_it() -> None:
    story = stable()
    for group in story.state.groups:
        story.feed(
            events.GroupCompleted(
                at=story.now, endpoint=NAME, group=group.id, reason="exit code 0", is_success=True
            )
        )

    view = shown(story)

    assert view["says"] == "Revision v1 did its work in 2 of 2 groups."
    assert (view["alarm"], {group["state"] for group in view["groups"]}) == ("", {"completed"})


def test_another_number_of_groups_than_configured_is_shown() -> None:
    view = shown(asks(stable(), events.ScaleAsked, replicas=3))

    assert view["remarks"] == ["scaled to 3 by an operator; the config says 2"]
    assert view["weights"][0]["replicas"] == 3
    assert view["says"] == "Revision v1 serves with 2 of 3 groups ready."


def test_a_revision_that_is_ignored_is_shown_with_what_to_type() -> None:
    view = shown(shows(shows(stable(on_newer="ignore"), "v2", 120.0), "v3", 121.0))

    assert view["remarks"][-1] == (
        "revision v3 came during a rollout and is ignored; `trafficmgr retry shop` takes it up"
    )


def test_a_scaled_candidate_is_measured_by_what_it_should_have() -> None:
    view = shown(shows(stable(replicas="4", candidate_replicas="scaled"), "v2", 101.5))

    assert view["says"].startswith("Starting v2: 0 of 1 groups ready")


def test_a_rollback_is_told_apart_from_a_rollout() -> None:
    story = shows(stable(watch="0s", keep_previous="0s"), "v2", 300.0)
    assert story.state.stable == "v2"

    view = shown(asks(story, events.RollbackAsked))

    assert view["rollout"]["is_rollback"]
    assert view["candidate"] == "v1"


def test_a_revision_that_is_given_up_has_no_share() -> None:
    rollout = shown(asks(shows(stable(), "v2", 120.0), events.AbortAsked))["rollout"]

    assert (rollout["phase"], rollout["weight_pct"]) == ("aborting", 0)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"max_revisions": "2"}, "Revision v3 waits until another has drained."),
        ({"on_newer": "queue"}, "v2 has 10 % of traffic, for another 17s."),
    ],
)
def test_a_newer_revision_that_waits_says_for_what(given: dict[str, str], says: str) -> None:
    view = shown(shows(shows(stable(**given), "v2", 120.0), "v3", 120.0))

    assert view["says"] == says
