"""Commands inside a container that runs: exec, terminals, pre_stop."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop
from conformance import next_end
from conformance_groups import FOR_EVER
from support.conformance_bench import EmbeddedGroups, run, said, shell
from support.runtime_support import ADDRESS, DEADLINE_S, tell

from trafficmgr.core.template import ExecCheck, HttpCheck
from trafficmgr.runtimes.contract import RuntimeFailure, Secrets
from trafficmgr.runtimes.embedded import shimapp

pytestmark = pytest.mark.processes

CANARY = "canary-51d0aa77"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[EmbeddedGroups]:
    bench = EmbeddedGroups(tmp_path)
    yield bench
    await bench.close()


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


# -- exec -----------------------------------------------------------------------------------------


async def test_command_has_what_the_container_has(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    web = bench.script("web", FOR_EVER, env={"GREETING": "hello"})
    secrets = Secrets(env={"web": {"PASSWORD": CANARY, "HOST": "not yours"}})
    await runtime.start(bench.group("shop-1", web), secrets)

    text = 'echo "$GREETING $PASSWORD $HOST $LOCALHOST"; pwd'
    words, cwd = (await shell(runtime, "shop-1", "", text)).splitlines()

    assert words == f"hello {CANARY} {ADDRESS} {ADDRESS}"
    assert cwd.endswith("/rootfs/app")


async def test_commands_end_with_their_group(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))
    session = await runtime.exec("shop-1", "web", ("sh", "-c", "trap '' TERM; sleep 1000"))

    await runtime.stop("shop-1")

    async with asyncio.timeout(DEADLINE_S):
        assert await session.exit_code() == 128 + signal.SIGKILL
    await session.close()


async def test_output_that_nobody_takes_stops_the_command_and_is_whole(
    bench: EmbeddedGroups,
) -> None:
    runtime = bench.open()
    await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))

    session = await runtime.exec("shop-1", "web", ("head", "-c", "8000000", "/dev/zero"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await session.exit_code()
    size = 0
    async for _, data in session.output():
        size += len(data)

    assert size == 8_000_000
    assert await session.exit_code() == 0
    await session.close()


async def test_input_that_is_not_read_waits_and_then_is_whole(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))
    session = await runtime.exec("shop-1", "web", ("sh", "-c", "read -r line; wc -c"))
    out = b""

    async def feed() -> None:
        await session.send(b"x" * 200_000)
        await session.send(b"\n" + b"y" * 1_000_000)
        await session.send(b"")

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(feed())
        async for _, data in session.output():
            out += data

    assert out.split() == [b"1000000"]
    await session.close()


async def test_input_to_a_command_that_has_ended_is_no_error(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))
    session = await runtime.exec("shop-1", "web", ("sh", "-c", "exit 4"))

    async with asyncio.timeout(DEADLINE_S):
        await session.send(b"x" * 1_000_000)
        code = await session.exit_code()
        await session.send(b"more")

    assert code == 4
    await session.close()


async def test_who_keeps_its_output_open_does_not_keep_the_command(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))

    ran = await run(runtime, "shop-1", "web", "sh", "-c", "sleep 1000 & echo done")

    assert (ran.code, ran.out) == (0, "done\n")


async def test_terminal_has_a_size_and_takes_a_line_at_a_time(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))
    script = "stty size; read line; stty size; echo got $line; tty >/dev/null && cat"
    session = await runtime.exec("shop-1", "web", ("sh", "-c", script), has_tty=True)
    seen = b""

    async with asyncio.timeout(DEADLINE_S):
        async for stream, data in session.output():
            assert stream == 1
            seen += data
            if seen.endswith(b"24 80\r\n"):
                await session.resize(40, 120)
                await session.send(b"word\n")
            if seen.endswith(b"got word\r\n"):
                await session.send(b"")

    assert b"40 120" in seen
    assert await session.exit_code() == 0
    await session.close()


async def test_session_that_is_closed_ends_its_command(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))
    before = open_descriptors()
    session = await runtime.exec("shop-1", "web", ("sh", "-c", "echo $$; sleep 1000 & wait"))
    _, first = await anext(session.output())

    await session.close()

    assert not Path(f"/proc/{int(first)}").exists()
    assert await session.exit_code() == 128 + signal.SIGKILL
    assert open_descriptors() <= before


async def test_command_in_a_group_that_ended_is_refused(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    await runtime.start(bench.group("shop-1", bench.script("web", "exit 1")))
    await next_end(runtime.watch())

    with pytest.raises(RuntimeFailure, match="it does not run"):
        await runtime.exec("shop-1", "web", ("true",))


async def test_command_that_does_not_exist_is_refused(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))

    with pytest.raises(RuntimeFailure, match='no executable "no-such-thing"'):
        await runtime.exec("shop-1", "web", ("no-such-thing",))


async def test_hundred_commands_leave_no_descriptor_and_no_process(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))
    await run(runtime, "shop-1", "web", "true")
    before, children = open_descriptors(), set(shimapp.children())

    for _ in range(10):
        await asyncio.gather(*(run(runtime, "shop-1", "web", "true") for _ in range(10)))

    assert open_descriptors() <= before
    assert set(shimapp.children()) <= children


def test_commands_work_under_the_event_loop_of_the_service(tmp_path: Path) -> None:
    """Which is uvloop: another implementation of all that a session asks of its loop."""

    async def talk() -> tuple[str, str]:
        bench = EmbeddedGroups(tmp_path)
        runtime = bench.open()
        try:
            await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))
            piped = await run(runtime, "shop-1", "web", "cat", stdin=b"hello")
            typed = await run(runtime, "shop-1", "web", "sh", "-c", "tty; exit 3", has_tty=True)
            assert typed.code == 3
        finally:
            await bench.close()
        return piped.out, typed.out

    piped, typed = uvloop.run(talk())

    assert piped == "hello"
    assert typed.startswith("/dev/pts/")


# -- pre_stop -------------------------------------------------------------------------------------


async def test_pre_stop_by_http_asks_the_groups_address(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, ADDRESS, 0) as server:
        hook = HttpCheck(port=server.sockets[0].getsockname()[1], path="/drain")
        web = bench.script("web", FOR_EVER, pre_stop=hook)
        await runtime.start(bench.group("shop-1", web))

        await runtime.stop("shop-1")

    assert asked == [b"GET /drain HTTP/1.1\r\n"]
    assert "pre_stop" not in await said(runtime, "shop-1")


@pytest.mark.parametrize(
    ("hook", "complaint"),
    [
        (ExecCheck(command=("sh", "-c", "echo not now; exit 3")), "exit code 3: not now"),
        (ExecCheck(command=("no-such-command",)), 'there is no executable "no-such-command"'),
        (ExecCheck(command=("sleep", "1000")), "not done within the grace of 0.5 s"),
        (HttpCheck(port=1), f"http://{ADDRESS}:1/: "),
    ],
    ids=["fails", "missing", "hangs", "refused"],
)
async def test_pre_stop_that_fails_is_said_in_the_log_and_keeps_nothing(
    bench: EmbeddedGroups, hook: ExecCheck | HttpCheck, complaint: str
) -> None:
    runtime = bench.open()
    web = bench.script("web", FOR_EVER, pre_stop=hook, stop_grace_s=0.5)
    await runtime.start(bench.group("shop-1", web))

    await runtime.stop("shop-1")

    lines = (await said(runtime, "shop-1")).splitlines()
    assert [line for line in lines if "trafficmgr: pre_stop failed: " in line and complaint in line]
    assert await runtime.list() == ()


async def test_pre_stop_of_what_has_ended_is_not_done(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    web = bench.listener("web", pre_stop=ExecCheck(command=("false",)))
    spec = bench.group("shop-1", web)
    await runtime.start(spec)
    await tell(spec, "exit 3")
    await next_end(runtime.watch())

    await runtime.stop("shop-1")

    assert "pre_stop" not in await said(runtime, "shop-1")
