"""The Docker runtime beyond the contract's suite: what it costs, sees, signs in to and lets in."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support.conformance_bench import run, said
from support.docker_bench import DockerBench
from support.docker_images import ImageShelf, app_image
from support.dockerd import Dockerd
from support.registry_support import PASSWORD, USER, docker_registry, htpasswd_auth
from support.runtime_support import DEADLINE_S, eventually, tell

from trafficmgr.core.template import ImageDigest
from trafficmgr.runtimes.contract import (
    ContainerState,
    ExecSession,
    GroupState,
    Runtime,
    RuntimeFailure,
    RuntimeUnknownError,
)
from trafficmgr.runtimes.docker import DockerRuntime
from trafficmgr.runtimes.docker.names import stem

pytestmark = [pytest.mark.docker, pytest.mark.processes]

FOR_EVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


@pytest.fixture
async def bench(
    dockerd: Dockerd, image_shelf: ImageShelf, app_digest: ImageDigest, tmp_path: Path
) -> AsyncIterator[DockerBench]:
    bench = DockerBench(dockerd, image_shelf, app_digest, tmp_path)
    yield bench
    await bench.close()


async def status_of(runtime: Runtime, group: str) -> Any:
    return next(status for status in await runtime.list() if status.group == group)


# -- starting -------------------------------------------------------------------------------------


async def test_another_group_of_a_revision_takes_five_calls(bench: DockerBench) -> None:
    """Look, create and start the pause, create and start the member: dockerd is the bottleneck."""
    runtime = bench.open()
    await runtime.start(bench.spec("shop-1"))
    engine: Any = runtime._engine
    call, calls = engine.call, []

    async def counted(work: Callable[[Any], Any]) -> Any:
        calls.append(work)
        return await call(work)

    engine.call = counted
    await runtime.start(bench.spec("shop-2"))

    assert len(calls) == 5


async def test_containers_get_the_images_environment_ours_and_the_templates(
    bench: DockerBench,
) -> None:
    runtime = bench.open()
    web = bench.listener("web", env={"GREETING": "hello", "HOST": "mine"})
    spec = bench.group("shop-1", web)
    await runtime.start(spec)

    seen = json.loads(await tell(spec, "env"))

    wanted = {"COLOUR": "green", "GREETING": "hello", "HOST": "0.0.0.0", "PORT": "8080"}
    assert {key: seen.get(key) for key in wanted} == wanted
    assert seen["LOCALHOST"] == "127.0.0.1"


async def test_group_waits_while_its_init_container_runs(bench: DockerBench) -> None:
    runtime = bench.open()
    spec = bench.group(
        "shop-1",
        bench.listener("web"),
        init_containers=(bench.script("init", "until [ -e /tmp/go ]; do sleep 0.1; done"),),
    )
    start = asyncio.get_running_loop().create_task(runtime.start(spec))
    await eventually(lambda: len(bench.containers()) == 3)
    async with asyncio.timeout(DEADLINE_S):
        while (await status_of(runtime, "shop-1")).containers[0].pid is None:  # noqa: ASYNC110  the engine starts it
            await asyncio.sleep(0.05)

    status = await status_of(runtime, "shop-1")
    await run(runtime, "shop-1", "init", "touch", "/tmp/go")
    await start
    after = await status_of(runtime, "shop-1")

    assert status.state is GroupState.running
    assert [(one.state, one.reason) for one in status.containers] == [
        (ContainerState.running, ""),
        (ContainerState.waiting, "PodInitializing"),
    ]
    assert [(one.state, one.reason) for one in after.containers] == [
        (ContainerState.terminated, "Completed"),
        (ContainerState.running, ""),
    ]


async def test_the_images_stop_signal_is_used(bench: DockerBench) -> None:
    app = app_image(StopSignal="SIGUSR1")
    bench.app = (await asyncio.to_thread(bench.shelf.push, app, repository="test/usr1")).but(
        container="web"
    )
    runtime = bench.open()
    script = "trap 'echo usr1; exit 0' USR1; trap '' TERM; echo up; while :; do sleep 0.1; done"
    await runtime.start(bench.group("shop-1", bench.script("web", script, stop_grace_s=20.0)))
    async with asyncio.timeout(DEADLINE_S):
        while "up" not in await said(runtime, "shop-1"):  # noqa: ASYNC110  another process writes
            await asyncio.sleep(0.05)

    await runtime.stop("shop-1")

    assert "usr1" in await said(runtime, "shop-1")


async def test_last_group_takes_the_network_with_it(bench: DockerBench) -> None:
    runtime = bench.open()
    await asyncio.gather(*(runtime.start(bench.spec(f"shop-{n}")) for n in (1, 2)))

    await runtime.stop("shop-1")
    with_one = bench.held()
    await runtime.stop("shop-2")

    assert any("-198.1" in name for name in with_one)
    assert bench.held() == set()


async def test_address_that_is_taken_fails_the_start(bench: DockerBench) -> None:
    runtime = bench.open()
    first = bench.spec("shop-1")
    await runtime.start(first)

    with pytest.raises(RuntimeFailure, match=r"(?i)address already in use") as failure:
        await runtime.start(bench.spec("shop-2").but(address=first.address))

    assert first.address in str(failure.value)
    assert [status.group for status in await runtime.list()] == ["shop-1"]


# -- registries -----------------------------------------------------------------------------------


async def test_private_image_is_pulled_with_its_credentials(
    bench: DockerBench, tmp_path: Path
) -> None:
    who = (USER, PASSWORD)

    with docker_registry(tmp_path, auth=htpasswd_auth(tmp_path)) as host:
        shelf = ImageShelf(host, auth=who)
        private = app_image(Labels={"of": bench.instance})
        bench.app = await asyncio.to_thread(shelf.push, private, repository="private/web")
        stranger = bench.open()
        with pytest.raises(RuntimeFailure, match="credentials") as failure:
            await stranger.start(bench.spec("shop-1"))
        bench.credentials = who
        await stranger.start(bench.spec("shop-2"))

    assert not isinstance(failure.value, RuntimeUnknownError)
    assert [status.group for status in await stranger.list()] == ["shop-2"]
    assert PASSWORD.encode() not in bench.exposed()


# -- exec -----------------------------------------------------------------------------------------


async def until(session: ExecSession, text: bytes) -> bytes:
    """Read a session's output until a text has come."""
    seen = b""
    async with asyncio.timeout(DEADLINE_S):
        async for _, data in session.output():
            seen += data
            if text in seen:
                break
    return seen


async def test_terminal_can_be_resized(bench: DockerBench) -> None:
    runtime = bench.open()
    await runtime.start(bench.spec("shop-1"))
    session = await runtime.exec("shop-1", "", ("sh",), has_tty=True)
    try:
        await session.resize(41, 137)
        await session.send(b"stty size\n")

        assert b"41 137" in await until(session, b"41 137")
    finally:
        await session.close()


async def test_first_output_of_a_command_is_not_lost(bench: DockerBench) -> None:
    runtime = bench.open()
    await runtime.start(bench.spec("shop-1"))

    several = await asyncio.gather(*(run(runtime, "shop-1", "", "echo", "hi") for _ in range(20)))

    assert {(ran.code, ran.out) for ran in several} == {(0, "hi\n")}


async def test_much_goes_in_and_comes_out(bench: DockerBench) -> None:
    runtime = bench.open()
    await runtime.start(bench.spec("shop-1"))
    data = b"0123456789abcde\n" * 2**16

    async with asyncio.timeout(DEADLINE_S):
        session = await runtime.exec("shop-1", "", ("cat",))

        async def put() -> None:
            await session.send(data)
            await session.send(b"")

        writer = asyncio.get_running_loop().create_task(put())
        out = b"".join([chunk async for _, chunk in session.output()])
        await writer
        await session.close()

    assert out == data


@pytest.mark.parametrize("has_tty", [True, False])
async def test_command_that_is_not_there_is_refused(bench: DockerBench, has_tty: bool) -> None:
    runtime = bench.open()
    await runtime.start(bench.spec("shop-1"))
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  pathlib opens one more

    for _ in range(5):
        with pytest.raises(RuntimeFailure, match="no such file"):
            await runtime.exec("shop-1", "", ("/no/such",), has_tty=has_tty)

    assert len(os.listdir("/proc/self/fd")) <= descriptors + 3  # noqa: PTH208  pathlib opens one more


async def test_killed_command_has_its_signals_code(bench: DockerBench) -> None:
    runtime = bench.open()
    await runtime.start(bench.spec("shop-1"))

    assert (await run(runtime, "shop-1", "", "sh", "-c", "kill -9 $$")).code == 128 + 9


# -- figures --------------------------------------------------------------------------------------


async def test_network_bytes_are_those_of_the_group(bench: DockerBench) -> None:
    runtime = bench.open()
    spec = bench.group("shop-1", bench.listener("web"), bench.script("side", FOR_EVER))
    await runtime.start(spec)
    await tell(spec, "say hello")

    web, side = await runtime.stats("shop-1")

    assert web.received_bytes
    assert web.received_bytes == side.received_bytes
    assert web.sent_bytes


async def test_adopted_group_ends_for_the_new_controller(bench: DockerBench) -> None:
    old = bench.open()
    spec = bench.spec("shop-1")
    await old.start(spec)
    await old.close()
    new = bench.open()
    (adopted,) = await new.list()

    bench.client.kill(stem(bench.instance, "shop-1"))
    async with asyncio.timeout(DEADLINE_S):
        told = await anext(new.watch())

    assert adopted.state is GroupState.running
    assert (told.group, told.endpoint, told.state) == ("shop-1", "shop", GroupState.exited)


async def test_runtime_that_is_closed_leaves_nothing_open(bench: DockerBench) -> None:
    await bench.open().start(bench.spec("shop-1"))
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  pathlib opens one more

    for _ in range(5):
        runtime: DockerRuntime = bench.open()
        await runtime.list()
        await runtime.close()

    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)  # noqa: PTH208  pathlib opens one more
