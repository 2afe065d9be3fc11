"""The engine goes away and comes back, or we do: at every point of a start."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support.conformance_bench import said
from support.docker_bench import DockerBench
from support.docker_images import ImageShelf
from support.dockerd import Dockerd
from support.runtime_support import DEADLINE_S, eventually, tell

from trafficmgr.core.template import EmptyDir, ImageDigest, Mount, Volume
from trafficmgr.runtimes.contract import (
    GroupSpec,
    GroupState,
    GroupStatus,
    RuntimeFailure,
    RuntimeUnknownError,
    Secrets,
)
from trafficmgr.runtimes.docker import DockerRuntime

pytestmark = [pytest.mark.docker, pytest.mark.processes]

FOR_EVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


@pytest.fixture
async def bench(
    dockerd: Dockerd, image_shelf: ImageShelf, app_digest: ImageDigest, tmp_path: Path
) -> AsyncIterator[DockerBench]:
    bench = DockerBench(dockerd, image_shelf, app_digest, tmp_path)
    yield bench
    await bench.close()


class KilledError(BaseException):
    """The controller dies here: nothing is tidied up."""


def die_at(runtime: DockerRuntime, point: int) -> None:
    """Let the runtime die when the engine has carried out one of its calls, before it hears so."""
    engine: Any = runtime._engine
    call, calls = engine.call, iter(range(10_000))

    async def dying(work: Callable[[Any], Any]) -> Any:
        is_here = next(calls) == point
        result = await call(work)
        if is_here:
            raise KilledError
        return result

    engine.call = dying


async def next_end(runtime: DockerRuntime) -> GroupStatus:
    return await anext(runtime.watch())


def rich_group(bench: DockerBench, group: str) -> GroupSpec:
    mounts = (Mount(volume="shared", path="/shared"),)
    return bench.group(
        group,
        bench.listener("web", mounts=mounts),
        bench.script("side", FOR_EVER),
        init_containers=(bench.script("init", "echo x >> /shared/x", mounts=mounts),),
        volumes=(Volume(name="shared", source=EmptyDir()),),
    )


@pytest.mark.timeout(300)
async def test_controller_killed_at_any_call_of_a_start(bench: DockerBench) -> None:
    secrets = Secrets(env={"web": {"PASSWORD": "x"}})
    point, was_killed = 0, True

    while was_killed:
        spec = rich_group(bench, f"shop-{point}")
        first = bench.open()
        die_at(first, point)
        try:
            await first.start(spec, secrets)
            was_killed = False
        except KilledError:
            pass
        second = bench.open()
        await second.start(spec, secrets)

        (status,) = await second.list()
        assert status.state is GroupState.running, point
        assert len(bench.containers()) == 4, point
        assert '"PASSWORD": "x"' in await tell(spec, "env"), point
        await second.stop(spec.group)
        assert bench.held() == set(), point
        point += 1

    assert point > 10


async def test_stop_of_a_start_that_was_broken_off(bench: DockerBench) -> None:
    for point in range(0, 12, 2):
        spec = rich_group(bench, f"shop-{point}")
        first = bench.open()
        die_at(first, point)
        with contextlib.suppress(KilledError):
            await first.start(spec)

        await bench.open().stop(spec.group)

        assert bench.held() == set(), point


async def test_stop_during_a_start_leaves_nothing(bench: DockerBench) -> None:
    runtime = bench.open()
    spec = bench.group(
        "shop-1", bench.listener("web"), init_containers=(bench.script("init", "sleep 1000"),)
    )
    start = asyncio.get_running_loop().create_task(runtime.start(spec))
    await eventually(lambda: len(bench.containers()) == 3)

    await runtime.stop("shop-1")

    with pytest.raises(RuntimeFailure, match="told to stop while it was starting"):
        await start
    assert bench.held() == set()


async def test_engine_that_is_away_is_unknown(bench: DockerBench, tmp_path: Path) -> None:
    runtime = DockerRuntime(
        base_url=f"unix://{tmp_path}/nobody.sock",
        instance="x",
        address_pool="198.18.0.0/24",
        state_dir=tmp_path,
        keep_logs_s=1.0,
        credentials=bench._credentials,
    )

    for attempt in (
        runtime.list,
        lambda: runtime.start(bench.spec("shop-1")),
        lambda: runtime.stop("shop-1"),
        lambda: runtime.exec("shop-1", "", ("true",)),
        lambda: runtime.stats("shop-1"),
        lambda: said(runtime, "shop-1"),
    ):
        with pytest.raises(RuntimeUnknownError, match="No such file or directory"):
            await attempt()
    await runtime.close()


async def test_engine_that_stops_and_starts_ends_groups_with_a_reason(bench: DockerBench) -> None:
    """Meanwhile nothing is known, and nothing has failed."""
    runtime = bench.open()
    spec = bench.spec("shop-1")
    await runtime.start(spec)
    await runtime.list()
    told = asyncio.get_running_loop().create_task(next_end(runtime))

    await asyncio.to_thread(bench.dockerd.stop)
    try:
        with pytest.raises(RuntimeUnknownError, match="can't be asked"):
            await runtime.list()
    finally:
        await asyncio.to_thread(bench.dockerd.start)

    async with asyncio.timeout(DEADLINE_S):
        status = await told
    assert (status.group, status.state) == ("shop-1", GroupState.exited)
    assert status.reason
    assert (await runtime.list())[0].state is GroupState.exited
    await runtime.stop("shop-1")
    await runtime.start(bench.spec("shop-2"))
    assert (await runtime.list())[0].state is GroupState.running


async def test_end_while_the_engine_is_dead_is_told_once_it_is_back(bench: DockerBench) -> None:
    runtime = bench.open()
    spec = bench.spec("shop-1")
    await runtime.start(spec)
    (before,) = await runtime.list()
    told = asyncio.get_running_loop().create_task(next_end(runtime))
    assert before.pid is not None

    await asyncio.to_thread(bench.dockerd.kill)
    os.kill(before.pid, 9)
    await asyncio.to_thread(bench.dockerd.start)

    async with asyncio.timeout(DEADLINE_S):
        assert (await told).state is GroupState.exited


async def test_engine_that_hangs_is_waited_for(bench: DockerBench) -> None:
    runtime = bench.open()
    await runtime.start(bench.spec("shop-1"))

    bench.dockerd.pause()
    try:
        listing = asyncio.get_running_loop().create_task(runtime.list())
        done, _ = await asyncio.wait([listing], timeout=0.5)
        assert not done
    finally:
        bench.dockerd.resume()

    assert [status.state for status in await listing] == [GroupState.running]


@pytest.mark.timeout(300)
async def test_a_hundred_starts_and_stops_leave_nothing(bench: DockerBench) -> None:
    runtime = bench.open()
    await runtime.start(bench.spec("warm-up"))
    await runtime.stop("warm-up")
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  pathlib opens one more
    threads = threading.active_count()

    async def several(lane: int) -> None:
        for number in range(25):
            spec = bench.spec(f"shop-{lane}-{number}")
            await runtime.start(spec)
            await runtime.stop(spec.group)

    await asyncio.gather(*(several(lane) for lane in range(4)))

    assert bench.held() == set()
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 8  # noqa: PTH208  pathlib opens one more
    assert threading.active_count() <= threads + 8
