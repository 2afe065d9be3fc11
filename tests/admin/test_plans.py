"""A plan in words: what an operator reads before he types `apply`."""

from trafficmgr.admin.plans import plain
from trafficmgr.controller.plan import Changed, EndpointPlan, Fate, Moved, Plan

STEPS = Changed(key="rollout.steps", old="50 % for 1m", new="10 % for 1m")


def endpoint(fate: Fate = Fate.changed, **given: object) -> EndpointPlan:
    return EndpointPlan(name="shop", fate=fate).but(**given)


def said(*endpoints: EndpointPlan, **given: object) -> list[str]:
    plan = Plan(restart=(), service=(), endpoints=endpoints).but(**given)
    sentences: str = plain(plan)["says"]
    return sentences.splitlines()


def test_nothing_is_said_to_be_nothing() -> None:
    assert said(endpoint(Fate.unchanged)) == ["Nothing changes."]


def test_each_key_is_a_sentence_and_what_follows_from_it_another() -> None:
    assert said(endpoint(changed=(STEPS,))) == ["shop: rollout.steps: 50 % for 1m -> 10 % for 1m."]
    assert said(endpoint(changed=(STEPS,), is_under_way=True))[1:] == [
        "shop: the rollout under way goes on with the steps, gates and hooks that it began with."
    ]
    assert said(endpoint(changed=(STEPS,), has_new_group=True))[1:] == [
        "shop: its group changes, so a new revision is rolled out."
    ]
    assert said(endpoint(changed=(STEPS,), has_new_tag=True))[1:] == [
        "shop: a new revision is rolled out if the tag names another image."
    ]
    readiness = Changed(key="group.containers.web.readiness", old="", new="tcp :8080")
    assert said(endpoint(changed=(readiness,))) == [
        "shop: group.containers.web.readiness: nothing -> tcp :8080.",
        "shop: readiness counts from the next revision on.",
    ]


def test_what_comes_and_goes_is_named_and_the_rest_is_one_line() -> None:
    same = (endpoint(Fate.unchanged), endpoint(Fate.unchanged, name="blog"))

    assert said(endpoint(Fate.removed, name="old", groups=1), *same) == [
        "old: removed; its 1 group drains first.",
        "Unchanged: shop, blog.",
    ]
    assert said(endpoint(Fate.removed, groups=0)) == ["shop: removed; it has no groups."]
    assert said(endpoint(Fate.new)) == [
        "shop: new; it starts when the registry has shown its image."
    ]


def test_a_host_that_moves_says_what_its_clients_will_see() -> None:
    moved = (Moved(host="shop.test", old="shop", new="store"),)

    assert said(endpoint(Fate.removed, groups=2), moved=moved)[1:] == [
        (
            "shop.test moves from shop to store, which has to start first: until then it is"
            " answered with 503."
        )
    ]


def test_what_needs_a_restart_makes_the_whole_plan_impossible() -> None:
    workers = Changed(key="workers", old="2", new="4")
    plan = Plan(restart=(workers,), service=(), endpoints=(endpoint(changed=(STEPS,)),))

    data = plain(plan)

    assert not data["is_possible"]
    assert data["says"].startswith(
        "workers: 2 -> 4; that needs a restart, so `apply` refuses all of it."
    )
    assert data["restart"] == [{"key": "workers", "old": "2", "new": "4"}]


def test_programs_are_told_whether_it_rolls_out() -> None:
    endpoints = (
        endpoint(Fate.new),
        endpoint(has_new_group=True),
        endpoint(has_new_tag=True),
        endpoint(),
        endpoint(Fate.removed),
    )

    data = plain(Plan(restart=(), service=(), endpoints=endpoints))

    assert [one["rolls_out"] for one in data["endpoints"]] == ["yes", "yes", "perhaps", "no", "no"]
