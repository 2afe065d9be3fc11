"""Nothing is lost and nothing is sent twice, whatever the tables, targets and workers do."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from support.loss_support import CONNECTIONS, Crowd, Plane, Tally, plane, terminate

from trafficmgr.core.traffic import Balance, HttpPolicy

pytestmark = pytest.mark.processes

FLIPS = 200
KILLS = 20


async def a_pair(house: Plane, *, slots: int = 1) -> None:
    """Start two applications and the workers, which split between them."""
    await house.app("blue")
    await house.app("green")
    await house.publish({"blue": 50, "green": 50})
    for slot in range(slots):
        await house.worker(slot)


def nothing_twice(got: Counter[str]) -> bool:
    return max(got.values()) == 1


def all_once(told: Tally, got: Counter[str]) -> bool:
    """Whether each request that was answered reached an application exactly once."""
    return got == Counter(dict.fromkeys(told.answered, 1))


async def test_weights_that_flip_fifty_times_a_second_cost_nothing(tmp_path: Path) -> None:
    async def flip(_: Crowd) -> None:
        for n in range(FLIPS):
            blue = (0, 10, 50, 100)[n % 4]
            await house.publish({"green": 100 - blue, "blue": blue})
            await asyncio.sleep(0.02)  # the pace of it is what is tested
        await house.settled()

    async with plane(tmp_path) as house:
        await a_pair(house)
        told = await house.under_load(flip)

        assert told.bad == {}
        assert all_once(told, house.got())


async def test_a_target_that_is_withdrawn_drained_and_stopped_costs_nothing(tmp_path: Path) -> None:
    async def withdraw(crowd: Crowd) -> None:
        for n in range(5):
            await house.app(f"red{n}")
            await house.publish({f"red{n}": 50, "green": 50})
            await crowd.more(100)
            await house.publish({"green": 100})
            await house.settled(without=f"red{n}")
            await house.apps[f"red{n}"].end()

    async with plane(tmp_path) as house:
        await a_pair(house)
        told = await house.under_load(withdraw)

        assert told.bad == {}
        assert all_once(told, house.got())


async def test_a_target_killed_without_warning_costs_no_get_and_doubles_no_post(
    tmp_path: Path,
) -> None:
    async def kill(crowd: Crowd) -> None:
        for n in range(KILLS):
            await house.app(f"red{n}")
            await house.publish({f"red{n} green": 100})
            await crowd.more(100)
            await house.apps[f"red{n}"].kill()
            await crowd.more(100)

    async with plane(tmp_path) as house:
        await a_pair(house)
        told = await house.under_load(kill)

        got = house.got()
        assert [key for key in told.bad if key.startswith("GET")] == []
        assert len(told.bad) <= KILLS * CONNECTIONS  # POSTs that the dead ones had under way
        assert {key: n for key, n in got.items() if n > 1 and key.startswith("POST")} == {}


async def test_a_killed_worker_costs_only_what_it_held(tmp_path: Path) -> None:
    async def kill(crowd: Crowd) -> None:
        for slot in (0, 1, 0):
            house.workers[slot].kill()
            await house.workers[slot].wait()
            await house.worker(slot)
            await crowd.more(100)

    async with plane(tmp_path, slots=2) as house:
        await a_pair(house, slots=2)
        told = await house.under_load(kill)

        assert [key for key in told.bad if key.startswith("GET")] == []
        assert len(told.bad) <= 3 * CONNECTIONS
        posts = {key: n for key, n in house.got().items() if key.startswith("POST")}
        assert nothing_twice(Counter(posts))


async def test_a_worker_that_is_replaced_in_order_costs_nothing(tmp_path: Path) -> None:
    async def replace(crowd: Crowd) -> None:
        for _ in range(3):
            old = house.workers[0]
            terminate(old)
            await house.worker(0)
            await old.wait()
            await crowd.more(50)

    async with plane(tmp_path) as house:
        await a_pair(house)
        told = await house.under_load(replace)

        assert told.bad == {}
        assert all_once(told, house.got())


async def test_settings_that_change_cost_nothing(tmp_path: Path) -> None:
    async def change(crowd: Crowd) -> None:
        for balance in (Balance.least_requests, Balance.round_robin):
            for most in (None, CONNECTIONS):
                policy = HttpPolicy(balance=balance, max_requests=most, retry_budget_pct=0)
                await house.publish({"blue": 50, "green": 50}, http=policy)
                await house.settled()
                await crowd.more(50)

    async with plane(tmp_path) as house:
        await a_pair(house)
        told = await house.under_load(change)

        assert told.bad == {}
        assert all_once(told, house.got())
