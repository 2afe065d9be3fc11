"""Failures of other systems, told as stories of ours: each once happened to somebody's users.

docs/failures.md lists them all and says what shows each; those that nothing else showed are here.
The transcripts lie with the others in tests/scenarios. A transcript says all that happened; the
test says which of its lines is the point, so that a transcript that is written anew can't lose it.
`REWRITE=1 pytest tests/core/test_field_failures.py` writes them anew.
"""

import os
import re
from pathlib import Path

from support.story import NAME, Story, World, revision, settings, tell

from trafficmgr.controller.probes import readiness_of
from trafficmgr.core import events
from trafficmgr.core.commands import StartGroup
from trafficmgr.core.template import Probe, TcpCheck

SCENARIOS = Path(__file__).parent.parent / "scenarios"
RULER = "-" * 72 + "\n"
BY_V1 = "v1 100% [shop-1 shop-2]"
BY_V2 = "v2 100% [shop-3 shop-4]"
GIVEN = {
    "replicas": "2",
    "steps": "10/30s,50/30s",
    "deadline": "60s",
    "min_ready": "2s",
    "keep_previous": "0s",
    "watch": "0s",
}


class Told:
    """A transcript, and what one may ask of it."""

    def __init__(self, lines: list[str]) -> None:
        self._told = [(float(line[:7]), line[9:]) for line in lines]

    def when(self, what: str) -> list[float]:
        """Return every moment at which something that begins like this was told."""
        return [at for at, line in self._told if line.startswith(what)]

    def tables(self, since: float = 0.0) -> list[tuple[float, str]]:
        """Return (at, shares) of each table, without its number and its preview."""
        found = [(at, re.match(r"table \d+: ([^;]*)", line)) for at, line in self._told]
        return [(at, match[1]) for at, match in found if match and at >= since]

    def serving(self, at: float) -> str:
        """Return the shares that are served at a moment."""
        return [shares for since, shares in self.tables() if since <= at][-1]

    def weights(self, label: str, since: float = 0.0) -> list[int]:
        """Return a revision's weight in each table."""
        found = [re.search(rf"\b{label} (\d+)%", shares) for _, shares in self.tables(since)]
        return [int(match[1]) if match else 0 for match in found]


def story(name: str) -> Told:
    """Tell the story of a file in tests/scenarios."""
    path = SCENARIOS / f"{name}.txt"
    text, _, _ = path.read_text().partition(RULER)
    told = tell(text)
    if os.environ.get("REWRITE"):
        path.write_text(text + RULER + told)
    return Told(told.splitlines())


def shows(told: Story, label: str) -> None:
    told.feed(events.RevisionSeen(at=told.now, endpoint=NAME, revision=revision(label)))


# -- stuck rollouts -------------------------------------------------------------------------------


def test_a_crash_loop_is_no_progress() -> None:
    """argo-rollouts#3765: groups that became ready again and again kept a rollout going for ever.

    The deadline stands still while everything is ready, four seconds in all, and starts anew with
    the first time that two are ready, at 12 s; from there on nothing resets it.
    """
    told = story("40_crash_loop")

    ready = [at for group in range(3, 11) for at in told.when(f"shop-{group}: ready")]
    assert len(ready) == 8
    assert told.when("rollout of v2: aborting") == [12.0 + 4.0 + 60.0]
    assert set(told.weights("v2")) == {0}


def test_flapping_does_not_add_up_to_a_hold() -> None:
    """argo-rollouts#3765, other side: minutes of health between deaths are no half hour of it.

    Of the 30 s of the hold one passed before the first death, and two at the end of shop-6's life.
    """
    told = story("56_flapping_candidate")

    lives = [(32.0, 33.0), (88.0, 90.0), (118.0, 145.0)]
    assert told.when("rollout of v2: step") == [32.0]
    assert told.when("rollout of v2: promoted") == [145.0]
    assert sum(end - begin for begin, end in lives) == 30.0


def test_a_watch_without_a_way_back_ends() -> None:
    """flagger#1588: stuck in the promotion, and nothing newer could start."""
    told = story("57_watched_without_a_way_back")

    assert told.when("rollout of v2: completed") == told.when("rollout of v3: started") == [100.0]
    assert told.serving(300.0) == "v3 100% [shop-7 shop-8]"


def test_a_start_that_never_returns_is_given_up() -> None:
    """moby#37493: the updater waited for a task to run, without a limit, and nothing followed."""
    told = Story(World(), settings(**GIVEN))
    shows(told, "v1")
    told.run_until(10.0)
    told.world.start_s = 1e6

    shows(told, "v2")
    told.run_until(200.0)

    seen = Told(told.lines)
    assert seen.when("rollout of v2: aborting") == [70.0]
    assert seen.when("shop-3: gone") == [70.5]
    assert seen.serving(200.0) == BY_V1


class CannotStart(Story):
    """A world in which groups of broken revisions can't even be started."""

    def _started(self, command: StartGroup) -> None:
        if command.revision.id not in self.world.broken:
            super()._started(command)
            return
        group, why = command.group.id, "no such program"
        self.feed(events.GroupStartFailed(at=self.now, endpoint=NAME, group=group, reason=why))


def test_a_start_that_always_fails_ends_at_the_deadline() -> None:
    """nomad#10465, #11267: an error for good held a deployment for days beyond its deadline."""
    told = CannotStart(World(broken={"v2"}), settings(**GIVEN))
    shows(told, "v1")
    told.run_until(10.0)

    shows(told, "v2")
    told.run_until(200.0)

    seen = Told(told.lines)
    assert len(seen.when("shop-")) > 20, "it was tried more than once"
    assert seen.when("rollout of v2: aborting") == [70.0]
    assert "v2" in told.state.quarantined
    assert {group.revision for group in told.state.groups} == {"v1"}


def test_a_promoted_revision_does_not_get_stuck_half_healthy() -> None:
    """flagger#379, flagger#1588: a release stayed in its promotion and could not be undone."""
    told = story("43_stuck_while_watched")

    assert told.when("rollout of v2: aborting") == [100.0]
    assert told.serving(100.0) == BY_V1


def test_an_unhealthy_stable_revision_does_not_block_its_successor() -> None:
    """argo-rollouts#1774, #841, #1677: the fix could not come because what it fixed was broken."""
    told = story("47_unhealthy_stable")

    assert told.when("rollout of v2: promoted") == [74.0]
    served = [re.findall(r"\[(shop[^\]]*)\]", shares) for _, shares in told.tables(since=2.0)]
    assert all(served), "whatever still ran was served"
    assert told.weights("v2", since=9.0) == [0, 0, 0, 10, 50, 100]


def test_a_newer_revision_ends_the_watch() -> None:
    """Flagger heeds no newer revision while it promotes and finalises."""
    told = story("44_newer_while_watched")

    assert told.when("rollout of v2: completed") == told.when("rollout of v3: started") == [40.0]
    assert told.serving(43.9) == BY_V2
    assert set(told.weights("v1", since=24.0)) == {0}


def test_a_newer_revision_does_not_wait_for_an_aborted_one() -> None:
    """flagger#1152: after a failed canary nothing was tried any more."""
    told = story("45_newer_while_aborting")

    assert told.when("rollout of v3: started") == [25.0]
    assert told.when("rollout of v3: completed") == [87.0]
    assert told.when("shop-2: stopping") == [20.1 + 30.0 + 5.0 + 0.5], "its clients had their time"


def test_a_tag_that_goes_back_ends_the_rollout() -> None:
    """argo-rollouts#3331: what supersedes got stuck. Here it is stable's own revision that came."""
    told = story("46_tag_goes_back")

    assert told.when("rollout of v2: superseded") == [50.0]
    assert told.serving(50.0) == BY_V1
    assert told.when("rollout of v1: started") == [0.0]


# -- health ---------------------------------------------------------------------------------------


def test_a_preview_that_lost_its_health_is_not_promoted() -> None:
    """argo-rollouts PR#4604, #3724: groups that came and went counted as a passed analysis."""
    told = story("41_blue_green_loses_health")

    assert told.when("rollout of v2: promoted") == []
    assert told.when("rollout of v2: aborting") == [91.5]
    assert set(told.weights("v2")) == {0}


def test_slow_is_not_broken() -> None:
    """kamal-proxy#71, kamal#1041, kamal#1139: good releases failed because they started slowly."""
    told = story("51_slow_start")

    assert told.when("shop-3: ready") == [100.0 + 1.0 + 50.0]
    assert told.when("rollout of v2: completed") == [213.0]


def test_a_group_without_a_probe_is_probed_all_the_same() -> None:
    """docker-rollout looks at the health of the new container only if the old one had a check."""
    assert revision("v1").template.containers[0].readiness is None

    assert readiness_of(revision("v1"), 8080) == {"": Probe(check=TcpCheck(port=8080))}


# -- abort, rollback ------------------------------------------------------------------------------


def test_an_abort_asks_nothing_of_what_was_promoted() -> None:
    """argo-rollouts#2824: traffic could not go back while the new version was unhealthy."""
    told = story("42_abort_while_unhealthy")

    assert told.when("rollout of v2: aborting") == [35.0]
    assert told.serving(35.0) == BY_V1
    assert told.when("shop-5") == [], "what it goes back to was still there"


def test_an_abort_needs_no_resume() -> None:
    """flagger#1017, #413, #1344: a blocked promotion had no button that ended it."""
    told = story("53_abort_while_paused")

    assert told.when("rollout of v2: step 50%") == []
    assert told.when("rollout of v2: aborting") == [110.0]
    assert told.serving(110.0) == BY_V1


def test_an_abort_without_a_rollout_stops_nothing() -> None:
    """argo-rollouts#1292: it scaled down the stable version."""
    told = story("50_abort_when_idle")

    assert told.when("-- operator aborts") == [8.0, 40.0, 120.0]
    assert told.when("rollout of v1: abort") == told.when("rollout of v2: abort") == []
    assert (told.serving(10.0), told.serving(130.0)) == (BY_V1, BY_V2)
    assert told.when("shop-3: retiring") == []


def test_a_rollback_gets_traffic_when_it_can_carry_all_of_it() -> None:
    """argo-rollouts#3941, PR#4852: all traffic went to the half of the groups that was there.

    And nomad#10882: a revert went through the steps of a canary.
    """
    told = story("48_rollback_waits_for_capacity")

    assert told.tables(since=40.0)[-1] == (44.5, "v1 100% [shop-2 shop-5]")
    assert told.weights("v1", since=40.0) == [0, 0, 100]
    assert told.when("shop-3: retiring") == [44.5]


def test_an_abort_finds_a_warm_revision_that_is_whole() -> None:
    """argo-rollouts#3941: going back within the window sent everybody to a part of it."""
    told = story("54_warm_groups_die")

    assert told.tables(since=40.0) == [(40.0, "v1 100% [shop-5 shop-6]")]


def test_an_abort_leaves_nobody_without_an_answer() -> None:
    """argo-rollouts#3941, the worst of it: nothing of the revision before is ready."""
    told = story("55_abort_to_nobody")

    since = told.tables(since=39.0)
    assert [shares for _, shares in since] == [BY_V2, "v1 100% [shop-5 shop-6]"]
    assert told.when("shop-3: retiring") == [since[-1][0]]


def test_a_rollback_that_fails_leads_nowhere_else() -> None:
    """Nomad: reverts led to reverts (PR#3496), and the healthy one was killed before (#3836)."""
    told = story("49_rollback_fails")

    assert told.when("rollout of v1: rollback started") == [100.0]
    assert len(told.when("rollout of v1: aborting")) == 1
    assert len(told.when("rollout of v2: started")) == 1
    assert {shares for _, shares in told.tables(since=74.0)} == {BY_V2}
    assert told.when("shop-3: retiring") == told.when("shop-4: retiring") == []


# -- nobody is left without an answer -------------------------------------------------------------


def test_a_first_revision_that_serves_is_not_taken_away_for_a_newer() -> None:
    """argo-rollouts#2507, #1731: downtime at the first deployment."""
    told = story("58_newer_during_the_first")

    assert "nothing" not in {shares for _, shares in told.tables(since=2.0)}
    assert told.when("rollout of v2: promoted") == [27.0]


def test_the_last_one_that_serves_goes_on_when_a_newer_comes() -> None:
    """argo-rollouts#4750: an active service without any endpoint, while pods of it ran."""
    told = story("59_superseded_last_one")

    assert told.serving(25.0) == "v2 100% [shop-2] least bad"
    assert told.serving(29.0) == "v3 10% [shop-4], v1 90% []"
    assert told.when("shop-2: stopping") > [29.0]


def test_the_deadline_waits_for_somebody_to_go_back_to() -> None:
    """argo-rollouts#4750: who went back found nobody there."""
    told = story("60_deadline_while_stable_is_dead")

    assert told.serving(79.0) == "v2 50% [shop-4], v1 50% []"
    assert told.when("rollout of v2: aborting") == told.when("shop-5: ready") == [80.0]


def test_the_warm_revision_serves_while_stable_is_dead() -> None:
    """argo-rollouts#4750: the version before still ran, and nobody was sent there."""
    told = story("61_stable_dies_after_the_watch")

    assert told.tables(since=30.0) == [
        (40.0, "v1 100% [shop-1] least bad"),
        (43.0, "v2 100% [shop-3]"),
    ]


# -- weights --------------------------------------------------------------------------------------


def test_scaling_does_not_throw_the_weight() -> None:
    """argo-rollouts#4642: another size of the canary sent everybody to stable for a moment."""
    told = story("52_scaled_during_a_step")

    in_step = [int(pct) for pct in told.weights("v2", since=44.0)[:-1]]
    assert in_step[0] == in_step[-1] == 50
    assert min(in_step) == 100 * 2 // 5, "two groups of five carry no more"
    assert told.when("rollout of v2: promoted") == [74.0 + 2.0 + 2.0], "new groups: min_ready"


def test_a_changed_config_does_not_change_the_rollout_under_way() -> None:
    """flagger#784: what becomes of a canary that is edited while it is judged? It is finished."""
    told = Story(World(), settings(**GIVEN))
    shows(told, "v1")
    told.run_until(10.0)
    shows(told, "v2")
    told.run_until(20.0)

    other = settings(**{**GIVEN, "steps": "90/1s"})
    told.feed(events.SettingsApplied(at=told.now, endpoint=NAME, settings=other))
    told.run_until(100.0)
    shows(told, "v3")
    told.run_until(200.0)

    seen = Told(told.lines)
    assert sorted(set(seen.weights("v2"))) == [0, 10, 50, 100]
    assert seen.when("rollout of v2: promoted") == [74.0]
    assert sorted(set(seen.weights("v3"))) == [0, 90, 100]
