"""Gates on real traffic: bad releases are caught by what their users saw, good ones are spared.

Real services, real clients; every number that a verdict or a receipt gives is held against what
the clients counted themselves.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from support.client_support import boottime
from support.gate_clients import Crowd, Desk
from support.gate_support import FAILURES_ONLY, POLL_S, House, Site, housed
from support.service_support import wait_for

pytestmark = pytest.mark.processes

Data = dict[str, Any]


CLIENTS = 4
"""Of a crowd; each may be between its answer and taking note of it."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, registry: str) -> Iterator[House]:
    with housed(tmp_path_factory.mktemp("gates"), registry) as installation:
        yield installation


def kinds(receipt: Data, gate: str) -> list[str]:
    """Return what a gate said in a rollout, one after the other."""
    return [one["kind"] for one in receipt["verdicts"] if one["gate"] == gate]


def last(receipt: Data, gate: str) -> Data:
    """Return the numbers of what a gate said last."""
    numbers: Data = [one for one in receipt["verdicts"] if one["gate"] == gate][-1]["numbers"]
    return numbers


def share_of(receipt: Data, role: str) -> Data:
    """Return what was counted of a revision."""
    return next(one for one in receipt["revisions"] if one["role"] == role)


# -- our own traffic ------------------------------------------------------------------------------


def test_a_release_that_fails_a_fifth_goes_back_by_itself_and_good_ones_pass(house: House) -> None:
    """Its health checks pass all the while; only what users got tells it from a good one."""
    gates = {"compare": FAILURES_ONLY}
    with house.site("fifth", gates=gates) as site, Crowd(site) as crowd:
        site.push("2")
        wait_for("why to name the gate", lambda: "Gate compare has not seen enough" in site.why())
        site.wait_for_end(2)
        site.push("3", fails_every=5)
        site.wait_for_end(3)
        says = site.does("why")
        site.push("4")
        site.wait_for_end(4)
        before, aborted, after = map(site.wait_for_receipt, (2, 3, 4))

    failed = crowd.seen["3", 500]
    for good in (before, after):
        assert (good["outcome"], good["failed"]) == ("completed", 0)
        assert kinds(good, "compare") == ["insufficient", "pass"]
        assert last(good, "compare")["e_planted"] >= last(good, "compare")["needed"]
    assert aborted["outcome"] == "aborted"
    assert aborted["reason"].startswith("gate compare failed: ")
    assert kinds(aborted, "compare") == ["insufficient", "fail"]
    assert 0 < last(aborted, "compare")["failed"] <= failed
    assert last(aborted, "compare")["requests"] <= crowd.of("3")
    assert last(aborted, "compare")["e"] >= last(aborted, "compare")["needed"]
    assert (aborted["seen"]["requests"], aborted["seen"]["failed"]) == (crowd.of("3"), failed)
    assert aborted["failed"] == share_of(aborted, "to")["errors_5xx"] == failed
    assert f"in quarantine: {aborted['reason']}" in says
    assert crowd.trouble == []


def test_what_stable_shows_too_condemns_nobody(house: House) -> None:
    """A dependency of both is down in the step, far beyond the limit, and comes back."""
    down = house.folder / "down"
    ways = {"fails_every": 5, "fails_while": str(down)}
    gates = {"compare": FAILURES_ONLY, "max_error_rate": "10%", "max_hold": "10m"}
    with house.site("shared", gates=gates, ways=ways) as site, Crowd(site) as crowd:
        site.push("2", **ways)
        site.wait_for_step()
        down.touch()
        wait_for("both to fail", lambda: min(crowd.seen["1", 500], crowd.seen["2", 500]) >= 40)
        says = wait_for_excuse(site)
        down.unlink()
        receipt = site.wait_for_receipt(2)

    assert "of stable; 10 % may" in says
    assert receipt["outcome"] == "completed"
    for gate in ("compare", "max_error_rate"):
        assert "fail" not in kinds(receipt, gate)
        assert kinds(receipt, gate)[-1] == "pass"
    assert last(receipt, "max_error_rate")["failed"] >= 40
    assert share_of(receipt, "from")["errors_5xx"] == crowd.seen["1", 500]
    assert share_of(receipt, "to")["errors_5xx"] == crowd.seen["2", 500]
    assert crowd.trouble == []


def wait_for_excuse(site: Site) -> str:
    """Wait until a limit is exceeded beyond doubt, and yet nobody is condemned for it."""

    def excuse() -> str:
        why: str = site.gate("max_error_rate").get("why", "")
        return why if "stable shows it too" in why else ""

    found: str = wait_for("an excuse", excuse, every_s=POLL_S)
    return found


def test_a_quiet_site_is_asked_about_or_goes_on_as_it_was_told(house: House) -> None:
    """Nobody comes, so no gate can tell; what happens then is the user's choice, and no failure."""
    gates = {"compare": True, "max_hold": "2s"}
    with house.site("quiet", gates=gates) as site:
        site.push("2")
        wait_for("the hold to be extended", lambda: "waits for up to" in site.state()["says"])
        assert site.gate("compare")["kind"] == "insufficient"
        question = site.wait_for_question()
        asked, phase = site.does("why"), site.state()["phase"]
        site.does("promote")
        site.wait_for_end(2)

        site.change(gates={**gates, "max_hold": "500ms", "on_insufficient": "promote"})
        site.push("3")
        promoted, went_on = map(site.wait_for_receipt, (2, 3))

    assert "There is no verdict of compare within max_hold." in question
    assert question in asked
    assert phase == "paused"
    for receipt in (promoted, went_on):
        assert receipt["outcome"] == "completed"
        assert kinds(receipt, "compare") == ["insufficient"]
    assert "promote asked" in [one["what"] for one in promoted["phases"]]
    told = [one["what"] for one in went_on["phases"]]
    assert "went on without a verdict of compare" in told
    assert "paused by itself" not in told


def test_evidence_goes_on_where_a_killed_controller_left_it(house: House) -> None:
    """What was counted before counts afterwards, once: neither is it lost nor doubled."""
    needed, before = 600, 400
    gates = {"compare": FAILURES_ONLY, "min_requests": needed}
    with house.site("killed", gates=gates) as site, Crowd(site) as crowd:
        site.push("2")
        wait_for("most of the requests", lambda: requests_of(site) >= before, every_s=POLL_S)
        killed_at = boottime()
        house.kill_controller()
        receipt = site.wait_for_receipt(2)
        (verdict,) = passed(site, "min_requests")

    counted, by = verdict["numbers"]["requests"], verdict["at"]
    assert needed <= counted <= crowd.of("2", by=by) + CLIENTS
    # who began anew would have seen at most what came since; workers tell every second
    assert counted > crowd.of("2", by=by) - crowd.of("2", by=killed_at)
    for gate in ("compare", "min_requests"):
        assert kinds(receipt, gate) == ["insufficient", "pass"]
    assert receipt["outcome"] == "completed"
    assert crowd.trouble == []


def requests_of(site: Site) -> float:
    """Return how many requests of the candidate the present step has seen."""
    numbers = site.gate("min_requests").get("numbers", {})
    return float(numbers.get("requests", 0))


def passed(site: Site, gate: str) -> list[Data]:
    """Return the verdicts by which a gate passed, as they were journaled."""
    told = (one["event"]["verdict"] for one in site.events("GateJudged"))
    return [one for one in told if one["gate"] == gate and one["kind"] == "pass"]


# -- the world ------------------------------------------------------------------------------------


def test_a_check_decides_by_what_it_is_answered_and_not_by_silence(house: House) -> None:
    with Desk() as desk:
        ask = {"url": f"{desk.url}/burn", "json": "slo.burn_rate", "at_most": 1.5}
        check = {"name": "budget", "http": ask, "every": "1s"}
        with house.site("checked", gates={"checks": [check], "max_hold": "10m"}) as site:
            desk.answer = {"slo": {"burn_rate": 0.5}}
            site.push("2")
            site.wait_for_end(2)

            desk.answer = {"slo": {"burn_rate": 14.4}}
            site.push("3")
            site.wait_for_end(3)

            desk.close()
            site.push("4")
            wait_for("the silence to be told", lambda: "could not be asked" in site.why())
            wait_for("the hold to be extended", lambda: "waits for up to" in site.state()["says"])
            unknown = site.gate("budget")["kind"]
            desk.answer = {"slo": {"burn_rate": 1.5}}
            desk.open()
            within, beyond, late = map(site.wait_for_receipt, (2, 3, 4))

    assert (within["outcome"], kinds(within, "budget")[-1]) == ("completed", "pass")
    assert last(within, "budget") == {"value": 0.5, "at_most": 1.5}
    assert (beyond["outcome"], kinds(beyond, "budget")[-1]) == ("aborted", "fail")
    assert beyond["reason"] == "gate budget failed: 14.4 is more than 1.5"
    assert unknown == "insufficient"
    assert (late["outcome"], kinds(late, "budget")) == ("completed", ["insufficient", "pass"])
    assert {(call.method, call.path) for call in desk.calls} == {("GET", "/burn")}


# -- clients that stay where they are -------------------------------------------------------------

WEIGHTS = (30, 70)
SOURCES = tuple(f"127.0.7.{number}" for number in range(1, 61))
"""Of so many, none is on either side of a step with a probability of less than 10^-8."""


def test_a_client_crosses_once_whichever_worker_it_meets(house: House) -> None:
    """Each request comes over a connection of its own, so that the kernel picks the worker."""
    steps = [{"weight": weight, "pause": True} for weight in WEIGHTS]
    with house.site("sticky", affinity="client", steps=steps) as site:
        rounds = [versions(site)]
        site.push("2")
        for number in range(1, len(WEIGHTS) + 1):
            site.wait_for_step(number)
            wait_for_all_workers(site)
            rounds.append(versions(site))
            site.does("promote")
        site.wait_until_serving("2")
        rounds.append(versions(site))

    assert all(len(seen) == 1 for one in rounds for seen in one), "a client flaps within a step"
    assert (set().union(*rounds[0]), set().union(*rounds[-1])) == ({"1"}, {"2"})
    for before, after in pairwise(rounds):
        moves = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
        assert moves, "nobody moved, though the weight rose"
        assert all(move == ({"1"}, {"2"}) for move in moves), "a client moved back"


def versions(site: Site) -> list[set[str]]:
    """Let each client ask some times; return which versions answered it."""
    return [{site.get(source=client)[0] for _ in range(4)} for client in SOURCES]


def wait_for_all_workers(site: Site) -> None:
    """Wait until every worker serves by the newest table."""

    def is_served() -> bool:
        newest = site.state()["generation"]
        told = [one["event"] for one in site.events("TableApplied")]
        return {one["slot"] for one in told if one["generation"] >= newest} == {0, 1}

    wait_for("the table to be everywhere", is_served, every_s=POLL_S)
