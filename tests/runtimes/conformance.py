"""What every runtime promises (trafficmgr/runtimes/contract.py), as tests.

A test module of a runtime inherits from `RuntimeConformance` and provides the fixture `bench`.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.runtime_support import DEADLINE_S, Bench, log_text

from trafficmgr.runtimes.contract import GroupState, GroupStatus, LogQuery, RuntimeFailure


async def next_end(watch: AsyncIterator[GroupStatus]) -> GroupStatus:
    async with asyncio.timeout(DEADLINE_S):
        return await anext(watch)


class RuntimeConformance:
    async def test_started_group_is_listed_as_running(self, bench: Bench) -> None:
        runtime = bench.open()
        spec = bench.spec("shop-1")

        address = await runtime.start(spec)

        (status,) = await runtime.list()
        assert address == spec.address
        assert (status.group, status.endpoint) == ("shop-1", "shop")
        assert status.state is GroupState.running
        assert status.pid is not None

    async def test_second_start_changes_nothing(self, bench: Bench) -> None:
        runtime = bench.open()
        spec = bench.spec("shop-1")
        await runtime.start(spec)
        before = await runtime.list()

        address = await runtime.start(spec)

        assert address == spec.address
        assert await runtime.list() == before

    async def test_concurrent_starts_give_one_group(self, bench: Bench) -> None:
        runtime = bench.open()
        spec = bench.spec("shop-1")

        addresses = await asyncio.gather(*(runtime.start(spec) for _ in range(4)))

        assert set(addresses) == {spec.address}
        assert len(await runtime.list()) == 1

    async def test_groups_run_beside_each_other(self, bench: Bench) -> None:
        runtime = bench.open()

        await asyncio.gather(*(runtime.start(bench.spec(f"shop-{n}")) for n in range(3)))

        statuses = await runtime.list()
        assert {status.group for status in statuses} == {"shop-0", "shop-1", "shop-2"}
        assert len({status.pid for status in statuses}) == 3

    async def test_stopped_group_is_gone(self, bench: Bench) -> None:
        runtime = bench.open()
        await runtime.start(bench.spec("shop-1"))

        await runtime.stop("shop-1")

        assert await runtime.list() == ()

    async def test_stop_of_what_is_gone_changes_nothing(self, bench: Bench) -> None:
        runtime = bench.open()
        await runtime.start(bench.spec("shop-1"))

        await asyncio.gather(runtime.stop("shop-1"), runtime.stop("shop-1"))
        await runtime.stop("shop-1")
        await runtime.stop("never-was")

        assert await runtime.list() == ()

    async def test_end_is_told_once_and_stays_listed(self, bench: Bench) -> None:
        runtime = bench.open()
        first, second = bench.spec("shop-1"), bench.spec("shop-2")
        await runtime.start(first)
        await runtime.start(second)
        watch = runtime.watch()

        await bench.exit(first, 3)
        told = await next_end(watch)
        listed = {status.group: status for status in await runtime.list()}
        await runtime.list()
        await bench.exit(second, 4)
        told_next = await next_end(watch)

        assert (told.group, told.state, told.reason) == (
            "shop-1",
            GroupState.exited,
            "exit code 3",
        )
        assert listed["shop-1"] == told
        assert (told_next.group, told_next.reason) == ("shop-2", "exit code 4")

    async def test_end_before_anyone_watches_is_told(self, bench: Bench) -> None:
        runtime = bench.open()
        spec = bench.spec("shop-1")
        await runtime.start(spec)

        await bench.exit(spec, 5)

        assert (await next_end(runtime.watch())).reason == "exit code 5"

    async def test_ended_group_is_never_started_again(self, bench: Bench) -> None:
        runtime = bench.open()
        spec = bench.spec("shop-1")
        await runtime.start(spec)
        await bench.exit(spec, 3)
        await next_end(runtime.watch())

        with pytest.raises(RuntimeFailure, match="shop-1 has ended"):
            await runtime.start(spec)

        await runtime.stop("shop-1")
        assert await runtime.list() == ()

    async def test_stop_is_not_told_as_an_end(self, bench: Bench) -> None:
        runtime = bench.open()
        stopped, ended = bench.spec("shop-1"), bench.spec("shop-2")
        await runtime.start(stopped)
        await runtime.start(ended)
        watch = runtime.watch()

        await runtime.stop("shop-1")
        await bench.exit(ended, 0)

        assert (await next_end(watch)).group == "shop-2"

    async def test_new_controller_adopts(self, bench: Bench) -> None:
        old = bench.open()
        spec = bench.spec("shop-1")
        await old.start(spec)
        before = await old.list()

        new = bench.open()
        adopted = await new.list()
        await new.start(spec)
        await bench.exit(spec, 7)
        told = await next_end(new.watch())

        assert adopted == before
        assert (told.group, told.reason) == ("shop-1", "exit code 7")
        await new.stop("shop-1")
        assert await new.list() == ()

    async def test_stop_ends_a_start_that_is_under_way(self, bench: Bench) -> None:
        runtime = bench.open()
        bench.hold_starts()
        outcomes: list[str] = []

        async def start() -> None:
            with pytest.raises(RuntimeFailure, match="told to stop while it was starting") as info:
                await runtime.start(bench.spec("shop-1"))
            outcomes.append(str(info.value))

        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(start())
            await asyncio.sleep(0)  # the start has begun; how far it is makes no difference
            await runtime.stop("shop-1")

        assert len(outcomes) == 1
        assert await runtime.list() == ()

    async def test_failed_start_says_why_and_leaves_nothing(self, bench: Bench) -> None:
        runtime = bench.open()

        with pytest.raises(RuntimeFailure, match=r"cannot start group shop-1: .+") as info:
            await runtime.start(bench.spec("shop-1", fails=True))

        assert str(info.value).endswith(".")
        assert await runtime.list() == ()

    async def test_logs_are_oldest_first(self, bench: Bench) -> None:
        runtime = bench.open()
        spec = bench.spec("shop-1")
        await runtime.start(spec)

        for word in ("one", "two", "three"):
            await bench.say(spec, word)

        assert (await log_text(runtime, "shop-1")).endswith("one\ntwo\nthree\n")
        assert await log_text(runtime, "shop-1", tail=2) == "two\nthree\n"
        assert await log_text(runtime, "shop-1", tail=0) == ""

    async def test_logs_outlive_the_group(self, bench: Bench) -> None:
        runtime = bench.open()
        spec = bench.spec("shop-1")
        await runtime.start(spec)
        await bench.say(spec, "last words")

        await runtime.stop("shop-1")

        assert "last words\n" in await log_text(runtime, "shop-1")
        assert await log_text(runtime, "shop-1", tail=1) == "last words\n"

    async def test_followed_logs_end_with_the_group(self, bench: Bench) -> None:
        runtime = bench.open()
        spec = bench.spec("shop-1")
        await runtime.start(spec)
        await bench.say(spec, "before")
        seen: list[bytes] = []

        async def follow() -> None:
            async for chunk in runtime.logs("shop-1", LogQuery(tail=1, is_followed=True)):
                if not seen:
                    has_begun.set()
                seen.append(chunk)

        has_begun = asyncio.Event()
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(follow())
            await has_begun.wait()
            await bench.say(spec, "after")
            await bench.exit(spec, 0)

        assert b"".join(seen) == b"before\nafter\n"

    async def test_logs_of_the_unknown_are_refused(self, bench: Bench) -> None:
        runtime = bench.open()

        with pytest.raises(RuntimeFailure, match="never-was"):
            await log_text(runtime, "never-was")
