"""The demo's verdicts on made-up runs: a perfect one passes, and each single flaw is noticed."""

import dataclasses
import json
from functools import cache

import pytest

from demo import judge, receipt
from demo.house import Mark, ReceiptSeen, RolloutSeen
from demo.judge import EXPECTED, Check, Evidence, Kill
from demo.ledger import Batch, Ledger, NameAnswer, Response, Trouble

START = 1000.0
RATE = 600
SECONDS = 60
WEIGHTS = (10, 50)
REASONS = {"shop": "gate compare failed: 18 of 90", "api": "gate checkout failed: it answered 500"}


def perfect() -> Evidence:
    """Return a run in which everything went as it must."""
    rollouts = tuple(
        _rollout(endpoint, index) for endpoint in ("shop", "api") for index in range(len(EXPECTED))
    )
    ledger = Ledger()
    ledger.add(Batch(responses=list(_responses())))
    flaw = ledger.met("v4", kind="proxy")
    ledger.names.append(NameAnswer(START + 15.0, "127.1.0.1", 2))
    return Evidence(
        ledger=ledger,
        rollouts=rollouts,
        gone_since={("127.1.0.1", "v1"): START + 23.0},
        kill=Kill(at=START + 51.0, held=5),
        flaw=ReceiptSeen(REASONS["shop"], requests=flaw.requests, errors=flaw.errors),
        left=(),
        weights=WEIGHTS,
    )


@cache
def _responses() -> tuple[Response, ...]:
    return tuple(_response(tick) for tick in range(RATE * SECONDS))


def _response(tick: int) -> Response:
    at = START + tick / RATE
    version = _version(at, tick)
    kind = "dns" if tick % 5 == 4 else "proxy"
    status = 500 if version == "v4" and tick % 4 == 0 else 200
    return Response(at, kind, version, f"127.1.0.{version[1]}", 0.004, status)


def _rollout(endpoint: str, index: int) -> RolloutSeen:
    origin, target, outcome = EXPECTED[index]
    began = START + 10 * index
    marks = [Mark(began, "started", 0)]
    if target in {"v2", "v4", "v6"}:
        marks.append(Mark(began + 2, "step", 10))
    if target == "v4":
        marks.append(Mark(began + 3.5, "aborting", 0))
    if target in {"v2", "v6"}:
        marks += [Mark(began + 5, "step", 50), Mark(began + 8, "promoted", 100)]
    reason = REASONS[endpoint] if target == "v4" else ""
    return RolloutSeen(
        f"{endpoint}-r{index}", endpoint, origin, target, outcome, began, 9.0, tuple(marks), reason
    )


def _version(at: float, tick: int) -> str:
    """Return who serves: old or new by the weight of the moment, exactly."""
    for index, (origin, target, _) in enumerate(EXPECTED):
        since = at - START - 10 * index
        if target in {"v2", "v4", "v6"} and 0 <= since < 10:
            weight = _weight(target, since)
            return target if (tick * 7) % 100 < weight else origin
    return "v1" if at < START + 10 else "v2"


def _weight(target: str, since: float) -> int:
    if target == "v4":
        return 10 if 2 <= since < 3.5 else 0
    return 0 if since < 2 else 10 if since < 5 else 50 if since < 8 else 100


def failing(evidence: Evidence) -> list[str]:
    return [check.name for check in judge.judged(evidence) if not check.is_ok]


def changed(**changes: object) -> Evidence:
    """Return the perfect run with some fields replaced."""
    evidence = perfect()
    fields = {name: getattr(evidence, name) for name in Evidence.__dataclass_fields__}
    return Evidence(**{**fields, **changes})


def test_a_perfect_run_passes_every_check() -> None:
    assert failing(perfect()) == []
    assert len(judge.judged(perfect())) == 12


def test_one_failed_request_is_enough() -> None:
    evidence = perfect()
    evidence.ledger.failures.append(Trouble(START + 3, "proxy", "status 502"))

    assert failing(evidence) == ["no_failures"]


def test_another_outcome_is_noticed() -> None:
    evidence = perfect()
    v3 = next(r for r in evidence.rollouts if (r.endpoint, r.target) == ("api", "v3"))
    rest = tuple(r for r in evidence.rollouts if r is not v3)

    assert failing(changed(rollouts=rest)) == ["outcomes_as_expected"]


def test_too_little_load_is_noticed() -> None:
    evidence = perfect()
    del evidence.ledger.responses[RATE * 5 :]
    evidence.ledger.responses.append(Response(START + SECONDS, "proxy", "v6", "127.1.0.6", 0.004))

    assert "enough_requests" in failing(evidence)


def test_a_run_without_dns_clients_is_noticed() -> None:
    evidence = perfect()
    evidence.ledger.responses = [
        r._replace(kind="proxy")
        for r in evidence.ledger.responses
        if (r.kind, r.version) != ("dns", "v4")  # the receipt knows of none of these
    ]

    assert failing(evidence) == ["both_kinds_of_client"]


def test_a_broken_version_that_served_someone_is_noticed() -> None:
    evidence = perfect()
    evidence.ledger.responses.append(Response(START + 25, "dns", "v3", "127.1.0.3", 0.004))

    assert failing(evidence) == ["v3_seen_by_nobody"]


def test_v4_must_fall_by_the_gates_that_are_meant_to_catch_it() -> None:
    evidence = perfect()
    by_hand = tuple(
        dataclasses.replace(r, reason="an operator aborted it") if r.reason else r
        for r in evidence.rollouts
    )

    assert failing(changed(rollouts=by_hand)) == ["v4_caught_by_gates"]


@pytest.mark.parametrize(("requests", "errors"), [(1, 0), (0, 1), (-1, 0), (0, -1)])
def test_a_receipt_that_is_off_by_one_is_noticed(requests: int, errors: int) -> None:
    flaw = perfect().flaw
    assert flaw is not None
    told = ReceiptSeen(flaw.reason, flaw.requests + requests, flaw.errors + errors)

    assert failing(changed(flaw=told)) == ["v4_errors_in_receipt"]


def test_a_v4_that_nobody_met_proves_nothing() -> None:
    evidence = perfect()
    evidence.ledger.responses = [
        r._replace(version="v2", status=200) if r.version == "v4" else r
        for r in evidence.ledger.responses
    ]
    nothing = ReceiptSeen(REASONS["shop"], requests=0, errors=0)

    without = dataclasses.replace(evidence, flaw=nothing)

    assert failing(without) == ["v4_errors_in_receipt"]


def test_a_run_without_the_receipt_of_v4_is_noticed() -> None:
    assert failing(changed(flaw=None)) == ["v4_errors_in_receipt"]


def test_an_answer_of_a_stopped_group_is_noticed() -> None:
    evidence = perfect()
    evidence.ledger.responses.append(Response(START + 24, "dns", "v1", "127.1.0.1", 0.004))

    assert failing(evidence) == ["nobody_served_after_stop"]


def test_the_same_address_with_a_newer_version_is_another_group() -> None:
    evidence = perfect()
    evidence.ledger.responses.append(Response(START + 55, "dns", "v6", "127.1.0.1", 0.004))

    assert failing(evidence) == []


def test_a_group_that_stops_within_its_ttl_is_noticed() -> None:
    evidence = perfect()
    evidence.ledger.names.append(NameAnswer(START + 21.5, "127.1.0.1", 2))

    assert failing(evidence) == ["stopped_after_ttl"]


def test_a_share_that_is_off_is_noticed() -> None:
    evidence = perfect()
    evidence.ledger.responses = [
        r._replace(version="v1") if START + 12 <= r.at < START + 15 else r
        for r in evidence.ledger.responses
    ]

    assert failing(evidence) == ["shares_within_5_points"]


def test_a_step_that_was_never_held_is_noticed() -> None:
    without_steps = tuple(
        dataclasses.replace(rollout, marks=rollout.marks[:1]) for rollout in perfect().rollouts
    )

    assert failing(changed(rollouts=without_steps)) == ["shares_within_5_points"]


@pytest.mark.parametrize(("at", "count"), [(START + 50.9, 1), (START + 54.0, 1), (START + 51.1, 6)])
def test_cuts_are_excused_only_in_the_kill_window_and_up_to_what_was_held(
    at: float, count: int
) -> None:
    evidence = perfect()
    evidence.ledger.cuts += [Trouble(at, "proxy", "cut")] * count

    assert failing(evidence) == ["cut_only_by_kill"]


def test_cuts_in_the_kill_window_are_excused() -> None:
    evidence = perfect()
    evidence.ledger.cuts += [Trouble(START + 51.1, "proxy", "cut")] * 5

    assert failing(evidence) == []


def test_a_run_without_a_kill_proves_nothing() -> None:
    assert failing(changed(kill=None)) == ["cut_only_by_kill"]


def test_a_process_that_is_left_is_noticed() -> None:
    assert failing(changed(left=("python3 app.py",))) == ["no_process_left"]


def test_the_json_receipt_has_the_agreed_keys() -> None:
    evidence = perfect()

    told = json.loads(receipt.as_json(evidence, judge.judged(evidence), None))

    assert told["ok"] is True
    assert told["requests"] == RATE * SECONDS
    assert (told["failed"], told["cut_by_kill"], told["p99_ms"]) == (0, 0, 4.0)
    assert told["clients"] == {"proxy": 28800, "dns": 7200}
    assert told["v4"]["shop"] == {"requests": 72, "errors": 18, "exposed_s": 1.478}
    assert told["rollouts"][1] == {
        "endpoint": "shop",
        "from": "v1",
        "to": "v2",
        "outcome": "completed",
        "seconds": 9.0,
        "failed": 0,
    }
    assert all(told["checks"].values())


def test_a_failed_check_or_trouble_is_not_ok() -> None:
    good, bad = Check("a", is_ok=True, says=""), Check("b", is_ok=False, says="why")

    assert receipt.is_ok([good], None)
    assert not receipt.is_ok([good, bad], None)
    assert not receipt.is_ok([good], "it was interrupted")
    assert not receipt.is_ok([], None)


def test_the_readable_receipt_tells_errors_on_purpose_apart_from_failures() -> None:
    evidence = perfect()

    text = receipt.as_text(evidence, judge.judged(evidence), None)

    errors = evidence.ledger.errors
    assert "  failed     0\n" in text
    assert f"v4's own errors, seen by users: {errors} (shop 18 of 72 requests within 1.5 s" in text
    assert "0 failed, 18 errors of its own  (gate compare failed: 18 of 90)" in text


def test_the_readable_receipt_says_what_failed() -> None:
    evidence = changed(left=("python3 app.py",))

    text = receipt.as_text(evidence, judge.judged(evidence), None)

    assert "FAIL  no_process_left          python3 app.py" in text
    assert text.endswith("NOT OK")
