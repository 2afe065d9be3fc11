"""What the demo sees of the running service: its groups, its receipts, and that it is away."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from demo.house import DemoError, House, Picture, ReceiptSeen, RolloutSeen

WITHIN_S = 20.0


def status(*groups: tuple[str, str, str]) -> dict[str, Any]:
    """Return a status with groups as (id, revision, state)."""
    return {
        "service": {"pid": 7},
        "endpoints": [
            {
                "name": "shop",
                "phase": "serving",
                "weights": [{"revision": "r1", "weight_pct": 100}],
                "groups": [
                    {
                        "id": id_,
                        "revision": revision,
                        "address": f"127.1.0.{id_}",
                        "state": state,
                        "hook": None,
                    }
                    for id_, revision, state in groups
                ],
                "quarantined": [],
            }
        ],
    }


def receipt_of(rollout: str, *, is_final: bool) -> dict[str, Any]:
    """Return a receipt with what the demo reads in it."""
    old, new = (
        {"role": role, "requests": requests, "errors_5xx": errors}
        for role, requests, errors in (("from", 900, 1), ("to", 100, 20))
    )
    verdicts = [("compare", 10, "insufficient"), ("compare", 10, "fail")]
    return {
        "id": rollout,
        "is_final": is_final,
        "reason": "gate compare failed: 20 of 100",
        "revisions": [old, new],
        "hooks": [
            {"name": "migrate", "phase": "succeeded", "output": "it is done\n"},
            {"name": "tidy", "phase": "waiting", "output": None},
        ],
        "smoke": {"phase": "passed", "leg": 3, "legs": 3},
        "verdicts": [
            {"gate": gate, "weight_pct": weight_pct, "kind": kind}
            for gate, weight_pct, kind in verdicts
        ],
    }


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[tuple[House, list[dict[str, Any]]]]:
    """A house whose service answers with the last status of a list; 503 while it is empty.

    Of the receipts that are asked for the first is not there, the second a draft, all others final.
    """
    statuses: list[dict[str, Any]] = []
    receipts = iter([None, receipt_of("r1", is_final=False)])

    async def answer(request: web.Request) -> web.Response:
        if not statuses:
            return web.json_response({"error": "not now"}, status=503)
        return web.json_response(statuses[-1] if request.path == "/v1/status" else [])

    async def answer_receipt(request: web.Request) -> web.Response:
        found = next(receipts, receipt_of(request.match_info["id"], is_final=True))
        return web.json_response(found, status=200 if found else 404)

    app = web.Application()
    app.router.add_get("/v1/{what}", answer)
    app.router.add_get("/v1/receipts/{id}", answer_receipt)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "admin.sock")).start()
    watched = House(tmp_path, lambda revision: f"v-{revision}" if revision else "")
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watched.watch())
        yield watched, statuses
        watching.cancel()
    await runner.cleanup()


def has_groups(count: int) -> Any:
    return lambda seen: len(seen.endpoints["shop"].groups) == count


async def test_a_group_told_to_stop_is_noted_with_its_time(
    house: tuple[House, list[dict[str, Any]]],
) -> None:
    watched, statuses = house
    statuses.append(status(("1", "r1", "started"), ("2", "r1", "started")))
    before = await watched.until(has_groups(2), within_s=WITHIN_S, what="two groups")

    statuses.append(status(("2", "r1", "stopping")))
    after = await watched.until(has_groups(1), within_s=WITHIN_S, what="one group")

    assert set(watched.gone_since) == {("127.1.0.1", "v-r1"), ("127.1.0.2", "v-r1")}
    assert all(before.at < at <= after.at for at in watched.gone_since.values())


async def test_the_task_of_a_hook_is_no_group_that_serves(
    house: tuple[House, list[dict[str, Any]]],
) -> None:
    """Its address may be another group's right after it."""
    watched, statuses = house
    with_task = status(("1", "r1", "started"), ("2", "r1", "started"))
    with_task["endpoints"][0]["groups"][1]["hook"] = "migrate"
    statuses.append(with_task)
    await watched.until(has_groups(1), within_s=WITHIN_S, what="a group")

    statuses.append(status())
    await watched.until(has_groups(0), within_s=WITHIN_S, what="no group")

    assert set(watched.gone_since) == {("127.1.0.1", "v-r1")}


async def test_a_receipt_is_waited_for_until_it_is_final(
    house: tuple[House, list[dict[str, Any]]],
) -> None:
    watched, _ = house
    rollout = RolloutSeen("shop-r4", "shop", "v2", "v4", "aborted", 0.0, 1.0, ())

    found = await watched.receipt(rollout, within_s=WITHIN_S)

    assert found == ReceiptSeen(
        reason="gate compare failed: 20 of 100",
        requests=100,
        errors=20,
        proofs=(
            "hook migrate succeeded (it is done)",
            "hook tidy waiting",
            "smoke passed (3 of 3 legs)",
            "gate compare at 10 %: fail",
        ),
    )


async def test_a_receipt_that_never_comes_is_not_waited_for_without_end(tmp_path: Path) -> None:
    rollout = RolloutSeen("shop-r4", "shop", "v2", "v4", "aborted", 0.0, 1.0, ())

    with pytest.raises(DemoError, match=r"waited 0.3 s for the final receipt of shop-r4"):
        await House(tmp_path, str).receipt(rollout, within_s=0.3)


async def test_a_controller_that_is_away_or_forgetful_changes_nothing(
    house: tuple[House, list[dict[str, Any]]],
) -> None:
    watched, statuses = house
    statuses.append(status(("1", "r1", "started")))
    await watched.until(has_groups(1), within_s=WITHIN_S, what="a group")

    statuses.append({"service": {"pid": 8}, "endpoints": []})
    with pytest.raises(DemoError):
        await watched.until(lambda seen: not seen.endpoints, within_s=1.0, what="nothing")
    statuses.clear()
    with pytest.raises(DemoError):
        await watched.until(lambda _: True, within_s=1.0, what="an answer")

    assert watched.gone_since == {}
    assert watched.now.endpoints["shop"].groups[0].id == "1"


async def test_a_wait_in_vain_says_what_for_and_what_was_seen(
    house: tuple[House, list[dict[str, Any]]],
) -> None:
    watched, statuses = house
    statuses.append(status(("1", "r1", "started")))
    await watched.until(has_groups(1), within_s=WITHIN_S, what="a group")

    with pytest.raises(
        DemoError, match=r"waited 0.3 s for a miracle. Last seen: shop serving .*1 v-r1 started"
    ):
        await watched.until(lambda _: False, within_s=0.3, what="a miracle")


def test_a_house_that_never_answered_says_so() -> None:
    assert str(Picture()) == "it never answered"
