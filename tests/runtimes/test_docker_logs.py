"""Logs on Docker: nothing twice, nothing lost, whole lines, and kept."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.conformance_bench import printed, said
from support.docker_bench import DockerBench
from support.docker_images import ImageShelf
from support.dockerd import Dockerd
from support.runtime_support import DEADLINE_S

from trafficmgr.core.template import ImageDigest
from trafficmgr.runtimes.contract import LogQuery, Runtime, RuntimeFailure
from trafficmgr.runtimes.docker.kept import KEPT_GROUPS, KeptLogs
from trafficmgr.runtimes.docker.lines import Line, Position, lines

FOR_EVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


@pytest.fixture
async def bench(
    dockerd: Dockerd, image_shelf: ImageShelf, app_digest: ImageDigest, tmp_path: Path
) -> AsyncIterator[DockerBench]:
    bench = DockerBench(dockerd, image_shelf, app_digest, tmp_path)
    yield bench
    await bench.close()


async def follow(runtime: Runtime, group: str, **query: object) -> bytes:
    wanted = LogQuery(is_followed=True).but(**query)
    async with asyncio.timeout(DEADLINE_S):
        return b"".join([chunk async for chunk in runtime.logs(group, wanted)])


@pytest.mark.docker
@pytest.mark.processes
class TestOnTheEngine:
    async def test_long_line_is_one_line(self, bench: DockerBench) -> None:
        runtime = bench.open()
        text = f"head -c 50000 /dev/zero | tr '\\0' x; echo; echo end; {FOR_EVER}"
        await runtime.start(bench.group("shop-1", bench.script("web", text)))
        await printed(runtime, "shop-1", "web", "end")

        running = await said(runtime, "shop-1", tail=2)
        stamped = await said(runtime, "shop-1", has_timestamps=True)
        await runtime.stop("shop-1")

        assert running == "x" * 50000 + "\nend\n"
        assert len(stamped.splitlines()) == 2
        assert await said(runtime, "shop-1") == running
        assert await said(runtime, "shop-1", has_timestamps=True) == stamped

    async def test_follower_sees_all_lines_once_though_the_group_is_stopped(
        self, bench: DockerBench
    ) -> None:
        runtime = bench.open()
        count = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; sleep 1000"
        spec = bench.group("shop-1", bench.script("web", count), bench.script("side", FOR_EVER))
        await runtime.start(spec)
        reader = asyncio.get_running_loop().create_task(follow(runtime, "shop-1", container="web"))
        await printed(runtime, "shop-1", "web", "line 1999")

        await runtime.stop("shop-1")

        expected = "".join(f"line {number}\n" for number in range(2000))
        assert (await reader).decode() == expected

    async def test_follower_of_several_ends_with_the_group(self, bench: DockerBench) -> None:
        runtime = bench.open()
        spec = bench.group(
            "shop-1",
            bench.script("web", f"echo here; {FOR_EVER}"),
            bench.script("side", "sleep 1; echo gone; exit 3"),
        )
        await runtime.start(spec)

        seen = await follow(runtime, "shop-1")

        assert sorted(seen.decode().splitlines()) == ["[side] gone", "[web] here"]

    async def test_containers_are_told_in_the_order_of_time(self, bench: DockerBench) -> None:
        runtime = bench.open()
        spec = bench.group(
            "shop-1",
            bench.script("web", f"sleep 0.5; echo second; {FOR_EVER}"),
            bench.script("side", f"echo first; sleep 1; echo third; {FOR_EVER}"),
        )
        await runtime.start(spec)
        await printed(runtime, "shop-1", "side", "third")

        assert await said(runtime, "shop-1") == "[side] first\n[web] second\n[side] third\n"
        await runtime.stop("shop-1")
        assert await said(runtime, "shop-1", tail=1) == "[side] third\n"

    async def test_logs_of_a_failed_init_container_are_kept(self, bench: DockerBench) -> None:
        runtime = bench.open()
        spec = bench.group(
            "shop-1",
            bench.script("web", FOR_EVER),
            init_containers=(bench.script("migrate", "echo no table; exit 1"),),
        )

        with pytest.raises(Exception, match="no table"):
            await runtime.start(spec)

        assert await said(runtime, "shop-1", "migrate") == "no table\n"

    async def test_no_room_for_its_logs_keeps_no_group(self, bench: DockerBench) -> None:
        runtime = bench.open()
        await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))
        bench.state_dir.mkdir()
        (bench.state_dir / "logs").write_text("no folder can be made here")

        await runtime.stop("shop-1")

        assert await runtime.list() == ()
        with pytest.raises(RuntimeFailure, match="no logs of it are kept"):
            await said(runtime, "shop-1")

    @pytest.mark.parametrize("group", ["../logs", "", ".", "/"])
    async def test_logs_are_read_from_nowhere_else(self, bench: DockerBench, group: str) -> None:
        runtime = bench.open()
        await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))
        await runtime.stop("shop-1")

        with pytest.raises(RuntimeFailure, match="there is no group"):
            await said(runtime, group)


# -- the parts ------------------------------------------------------------------------------------


def frame(stream: int, text: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(text).to_bytes(4, "big") + text


async def in_pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [1, 3, 8, 1000])
async def test_frames_may_arrive_in_any_pieces(size: int) -> None:
    data = (
        frame(1, b"T1 out-")
        + frame(2, b"T2 err\n")
        + frame(1, b"T1 put\n")
        + frame(1, b"T3 without an end")
    )

    found = [line async for line in lines(in_pieces(data, size))]
    whole = [line async for line in lines(in_pieces(data, size), is_last=False)]

    assert found == [(b"T2", b"err"), (b"T1", b"out-put"), (b"T3", b"without an end")]
    assert whole == found[:2]


def test_position_passes_each_line_once() -> None:
    stamps = [b"2026-01-02T03:04:05.%09dZ" % n for n in (1, 2, 2, 2, 3)]
    written = [Line(stamp, str(number).encode()) for number, stamp in enumerate(stamps)]
    position = Position()
    position.begin()

    first = [line.text for line in written[:3] if position.passes(line)]
    since = position.begin()
    again = [line.text for line in written[1:] if position.passes(line)]

    assert first == [b"0", b"1", b"2"]
    assert since == "1767323045.000000002"
    assert again == [b"3", b"4"]


def test_old_logs_are_removed(tmp_path: Path) -> None:
    kept = KeptLogs(tmp_path, 100.0)
    for number in range(KEPT_GROUPS + 5):
        kept.write(f"g-{number}", "web", [Line(b"T", b"x")])
    old = tmp_path / "g-7"
    then = old.stat().st_mtime - 200
    os.utime(old, (then, then))

    kept.tidy(f"g-{KEPT_GROUPS + 4}")

    assert not old.exists()
    assert len(list(tmp_path.iterdir())) <= KEPT_GROUPS
    assert kept.read(f"g-{KEPT_GROUPS + 4}", "web") == [(b"T", b"x")]
    assert kept.containers("never-was") == ()
