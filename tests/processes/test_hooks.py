"""Hooks around a rollout: done once, in their place, whoever is killed meanwhile.

A command notes in a file that it ran, and so does every copy of the app that starts; an HTTP call
goes to a server that counts. So what is promised is held against what was really done.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from support.gate_clients import Crowd, Desk
from support.gate_support import FAILURES_ONLY, POLL_S, TASK, House, Site, housed
from support.service_support import is_alive, wait_for

pytestmark = pytest.mark.processes

Data = dict[str, Any]

MIGRATE = {"name": "migrate", "container": "web", "command": TASK}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, registry: str) -> Iterator[House]:
    with housed(tmp_path_factory.mktemp("hooks"), registry) as installation:
        yield installation


def hook_of(receipt: Data) -> Data:
    """Return what a receipt says of its only hook."""
    (hook,) = receipt["hooks"]
    return dict(hook)


def wait_for_task(site: Site, version: str) -> int:
    """Wait until a version's task runs; return its pid."""
    noted = wait_for("the task", lambda: site.notes(version), every_s=POLL_S)
    ((what, pid),) = noted
    assert what == "task"
    return int(pid)


# -- commands -------------------------------------------------------------------------------------


def test_a_command_runs_once_and_before_any_group_of_its_revision(house: House) -> None:
    with house.site("migrated", replicas=2, hooks={"before": [MIGRATE]}) as site:
        site.push("2")
        site.wait_for_end(2)
        site.push("3", task="fails")
        site.wait_for_end(3)
        site.wait_until_serving("2")
        first, second, failed = map(site.wait_for_receipt, (1, 2, 3))
        groups = {group["id"] for group in failed["groups"]}

    for version, receipt in (("1", first), ("2", second)):
        assert [what for what, _ in site.notes(version)] == ["task", "app", "app"]
        hook = hook_of(receipt)
        assert (receipt["outcome"], hook["phase"]) == ("completed", "succeeded")
        said = f"migrating to {version}, and GREETING is hello from migrated\nmigrated\n"
        assert hook["output"] == said
    assert [what for what, _ in site.notes("3")] == ["task"]
    assert (failed["outcome"], hook_of(failed)["phase"]) == ("aborted", "failed")
    assert failed["reason"].startswith("hook migrate failed: ")
    assert "there is no such column" in hook_of(failed)["output"]
    assert groups <= {hook_of(failed)["group"]}, "a group of a revision that was never migrated to"


def test_an_abort_does_not_wait_for_a_command_that_hangs(house: House) -> None:
    with house.site("hung", hooks={"before": [MIGRATE]}) as site, Crowd(site, size=1) as crowd:
        site.push("2", task="waits")
        pid = wait_for_task(site, "2")
        running = site.does("why")
        site.does("abort")
        site.wait_for_end(2)
        is_left = is_alive(pid)
        receipt = site.wait_for_receipt(2)
        site.wait_until_serving("1")

    assert "Hook migrate runs since" in running
    assert not is_left
    assert receipt["outcome"] == "aborted"
    assert "an operator asked for it" in receipt["reason"]
    assert site.notes("2") == [("task", pid)]
    assert (crowd.of("2"), crowd.trouble) == (0, [])


def test_a_command_outlives_the_controller_and_is_not_run_again(house: House) -> None:
    with house.site("adopted", hooks={"before": [MIGRATE]}) as site:
        site.push("2", task="waits")
        pid = wait_for_task(site, "2")
        house.kill_controller()
        wait_for("the task to be adopted", lambda: "Hook migrate runs since" in site.why())
        is_running = is_alive(pid)
        site.let_go_on("2")
        receipt = site.wait_for_receipt(2)
        site.wait_until_serving("2")

    assert is_running
    assert [what for what, _ in site.notes("2")] == ["task", "app"]
    assert (receipt["outcome"], hook_of(receipt)["phase"]) == ("completed", "succeeded")
    assert hook_of(receipt)["output"].endswith("\nmigrated\n")


# -- calls ----------------------------------------------------------------------------------------


def test_a_call_is_made_once_and_asked_about_when_its_answer_is_lost(house: House) -> None:
    """Whoever was called may have acted; only a person can find out, so nobody calls again."""
    with Desk() as desk:
        announce = {"name": "announce", "http": {"url": f"{desk.url}/rollouts"}, "timeout": "1m"}
        desk.answer = {"ticket": 17}
        with house.site("announced", hooks={"before": [announce]}) as site:
            site.push("2")
            site.wait_for_end(2)
            calls = len(desk.calls)

            desk.hold()
            site.push("3")
            wait_for("the call", lambda: len(desk.calls) > calls)
            house.kill_controller()
            question = site.wait_for_question()
            desk.go_on()
            asked = site.does("why")
            site.does("resume")
            answered, resumed = map(site.wait_for_receipt, (2, 3))
            site.wait_until_serving("3")

    revisions = [call.body["revision"] for call in desk.calls]
    assert {(call.method, call.path) for call in desk.calls} == {("POST", "/rollouts")}
    assert [call.body["rollout"] for call in desk.calls] == [f"announced-r{n}" for n in (1, 2, 3)]
    assert len(set(revisions)) == len(revisions) == 3
    assert (answered["outcome"], hook_of(answered)["output"]) == ("completed", '{"ticket": 17}')
    assert "Hook announce has begun, and nobody knows how it ended" in question
    assert question in asked
    assert resumed["outcome"] == "completed"
    assert "an operator took it as done" in hook_of(resumed)["note"]


# -- no way back ----------------------------------------------------------------------------------


def test_after_a_hook_that_cannot_be_undone_only_an_operator_goes_back(house: House) -> None:
    """A migrated database may be of no use to the old revision; a failing one still serves."""
    hooks = {"before": [{**MIGRATE, "reversible": False}]}
    gates = {"compare": FAILURES_ONLY, "max_hold": "10m"}
    with house.site("final", hooks=hooks, gates=gates) as site, Crowd(site) as crowd:
        site.push("2", fails_every=5)
        question = site.wait_for_question()
        served = crowd.of("2")
        crowd.wait_for_more(100)
        went_on = crowd.of("2") - served
        asked, remarks = site.does("why"), site.state()["remarks"]
        site.does("abort")
        receipt = site.wait_for_receipt(2)
        site.wait_until_serving("1")

    assert "gate compare failed" in question
    assert "hook migrate can't be undone, so nothing goes back by itself" in question
    assert question in asked
    assert any("hook migrate can't be undone" in remark for remark in remarks)
    assert went_on > 0, "traffic went back, though nobody asked for it"
    assert receipt["outcome"] == "aborted"
    assert receipt["failed"] == crowd.seen["2", 500]
    assert crowd.trouble == []
