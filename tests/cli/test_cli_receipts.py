"""`rollouts show` and `wait`: what a pipeline gets to read, and how it is told to stop."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.admin_support import STATUS, FakeHouse
from support.cli_support import invoke
from support.receipt_support import RECEIPT, FakeReports, reporting_service

from trafficmgr.cli.wait import is_decided

NEW, OLD = "9f2c0000", "6a1d0000"


class Shop(FakeHouse):
    """A house whose endpoint "shop" moves on each time somebody looks."""

    def __init__(self) -> None:
        super().__init__()
        self.next: list[dict[str, Any]] = []

    def status(self) -> dict[str, Any]:
        state = self.next.pop(0) if len(self.next) > 1 else self.next[0]
        return {**STATUS, "endpoints": [{**STATUS["endpoints"][0], "rollout": None, **state}]}


@pytest.fixture
def house() -> Shop:
    return Shop()


@pytest.fixture
def reports() -> FakeReports:
    return FakeReports()


@pytest.fixture
def state_dir(house: Shop, reports: FakeReports, tmp_path: Path) -> Iterator[Path]:
    with reporting_service(house, reports, tmp_path / "state"):
        yield tmp_path / "state"


# -- rollouts show --------------------------------------------------------------------------------


def test_a_receipt_is_shown_for_people(state_dir: Path) -> None:
    result = invoke("rollouts", "show", "shop-r2", "--state-dir", state_dir)

    assert result.exit_code == 0
    for words in (
        "shop shop-r2  6a1d0000 → 9f2c0000  completed  took 1m 11s, began 2030-01-01 00:16:41Z",
        "3 requests failed",
        "proxy: connect    6a1d0000 (old)  2",
        "application: 5xx  9f2c0000 (new)  1",
        "+14s      +7.0s     +15s",
        "not measured: [a gap]",
        "412 requests were answered by revision 9f2c0000: 83 failed.",
        "smoke passed leg 3 of 3",
        "+12s step 1 50 % compare ✗ fail 83 of 412 failed",
        "+1m 11s watch 100 % [report] ✓ pass it ended with 0",
        "hook migrate (before) +1.0s succeeded took 5.0s exit code 0",
        "| 3 tables changed | [bold] is no markup",
        "hook announce (after) not done here waiting",
        "an operator went on over what had failed",
        "not final: waits for 1 group of 6a1d0000 to stop",
    ):
        assert " ".join(words.split()) in " ".join(result.stdout.split())


def test_a_receipt_of_which_keys_are_missing_is_shown_all_the_same(
    state_dir: Path, reports: FakeReports
) -> None:
    reports.found = {"id": "shop-r2", "failed": 0}

    result = invoke("rollouts", "show", "shop-r2", "--state-dir", state_dir)

    assert (result.exit_code, result.exception) == (0, None)
    assert "0 requests failed" in result.stdout


@pytest.mark.parametrize(("most", "code"), [(None, 0), (3, 0), (2, 1), (0, 1)])
def test_max_failed_is_an_exit_code(state_dir: Path, most: int | None, code: int) -> None:
    limit = () if most is None else ("--max-failed", most)

    result = invoke("rollouts", "show", "shop-r2", "--json", *limit, "--state-dir", state_dir)

    assert (result.exit_code, json.loads(result.stdout)) == (code, RECEIPT)
    sentence = f"shop-r2: 3 requests failed while it went on; at most {most} may.\n"
    assert result.stderr == (sentence if code else "")


def test_an_unknown_rollout_is_one_sentence_and_exit_1(state_dir: Path) -> None:
    result = invoke("rollouts", "show", "shop-r9", "--state-dir", state_dir)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "There is no receipt of a rollout 'shop-r9'.\n"


def test_one_word_is_an_endpoint_even_if_it_is_called_show(state_dir: Path) -> None:
    assert "completed" in invoke("rollouts", "shop", "--state-dir", state_dir).stdout
    assert "no rollouts yet" in invoke("rollouts", "show", "--state-dir", state_dir).stdout


@pytest.mark.parametrize("words", [("shop", "blog"), ("show", "a", "b"), ("--max-failed", "1")])
def test_words_that_mean_nothing_are_a_usage_error(state_dir: Path, words: tuple[str, ...]) -> None:
    result = invoke("rollouts", *words, "--state-dir", state_dir)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "show ID" in result.stderr


# -- wait -----------------------------------------------------------------------------------------


def test_wait_ends_when_the_newest_revision_serves(state_dir: Path, house: Shop) -> None:
    house.next = [
        {"newest": NEW, "stable": OLD, "rollout": {"id": "shop-r2"}},
        {"newest": NEW, "stable": NEW, "says": "It serves."},
    ]

    result = invoke("wait", "shop", "--state-dir", state_dir)

    assert result.exit_code == 0
    assert result.stdout == "It serves. shop-r2 completed in 1m 11s; 3 requests failed meanwhile.\n"


def test_wait_ends_with_1_when_the_newest_revision_failed(state_dir: Path, house: Shop) -> None:
    house.next = [
        {
            "newest": NEW,
            "stable": OLD,
            "quarantined": [{"revision": NEW, "reason": "it never became ready"}],
        }
    ]

    result = invoke("wait", "shop", "--json", "--state-dir", state_dir)

    assert result.exit_code == 1
    assert json.loads(result.stdout)["receipt"] == RECEIPT
    assert result.stderr == f"Revision {NEW} of shop failed: it never became ready.\n"


QUESTION = "There is no verdict of compare within max_hold. `promote` goes on without."


def test_wait_ends_with_5_when_the_rollout_was_paused_by_itself(
    state_dir: Path, house: Shop
) -> None:
    house.next = [
        {"newest": NEW, "stable": OLD, "rollout": {"id": "shop-r2", "question": ""}},
        {"newest": NEW, "stable": OLD, "rollout": {"id": "shop-r2", "question": QUESTION}},
    ]

    result = invoke("wait", "shop", "--state-dir", state_dir)

    assert (result.exit_code, result.stdout) == (5, "")
    assert result.stderr == (
        f"shop is not decided: its rollout was paused by itself. {QUESTION} Each is typed like"
        " `trafficmgr abort shop`.\n"
    )


def test_a_question_as_json_has_the_receipt_so_far(state_dir: Path, house: Shop) -> None:
    rollout = {"id": "shop-r2", "question": QUESTION}
    house.next = [{"newest": NEW, "stable": OLD, "rollout": rollout}]

    result = invoke("wait", "shop", "--json", "--state-dir", state_dir)

    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["receipt"]) == (5, RECEIPT)
    assert answer["endpoint"]["rollout"] == rollout


def test_a_rollout_that_somebody_paused_is_waited_for(state_dir: Path, house: Shop) -> None:
    """Whoever paused it knows; nobody asks."""
    rollout = {"id": "shop-r2", "is_paused": True, "question": ""}
    house.next = [
        {"newest": NEW, "stable": OLD, "rollout": rollout},
        {"newest": NEW, "stable": NEW, "says": "It serves."},
    ]

    assert invoke("wait", "shop", "--state-dir", state_dir).exit_code == 0


def test_wait_judges_what_failed(state_dir: Path, house: Shop) -> None:
    house.next = [{"newest": NEW, "stable": NEW}]

    result = invoke("wait", "shop", "--max-failed", 2, "--state-dir", state_dir)

    assert (result.exit_code, result.stderr.count("at most 2 may")) == (1, 1)


def test_wait_runs_out_of_time_with_4(state_dir: Path, house: Shop) -> None:
    house.next = [{"newest": NEW, "stable": OLD, "says": "It holds."}]

    result = invoke("wait", "shop", "--timeout", "100ms", "--state-dir", state_dir)

    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == "shop is not decided after 0.1s: It holds.\n"


def test_a_time_that_is_none_is_a_usage_error(state_dir: Path) -> None:
    result = invoke("wait", "shop", "--timeout", "soon", "--state-dir", state_dir)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("--timeout soon ")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"newest": None, "stable": None}, False),
        ({"newest": NEW, "stable": NEW}, True),
        ({"newest": NEW, "stable": NEW, "rollout": {"id": "r"}}, False),
        ({"newest": NEW, "stable": OLD, "quarantined": [{"revision": NEW}]}, True),
        ({"newest": NEW, "stable": OLD, "quarantined": [{"revision": OLD}]}, False),
        ({"newest": NEW, "stable": OLD, "quarantined": []}, False),
    ],
)
def test_what_is_decided(state: dict[str, Any], expected: bool) -> None:
    assert is_decided(state) is expected
