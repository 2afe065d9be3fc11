"""Several processes as one group: init containers, who ends it and how, their logs in one."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from conformance import next_end
from conformance_groups import FOR_EVER
from support.conformance_bench import EmbeddedGroups, printed, said
from support.runtime_support import DEADLINE_S, INSTANCE, eventually, read_text

from trafficmgr.core.template import EmptyDir, FromSecret, HostPath, Mount, RestartPolicy, Volume
from trafficmgr.runtimes.contract import ContainerState, GroupState, RuntimeFailure
from trafficmgr.runtimes.embedded import EmbeddedRuntime, identity
from trafficmgr.runtimes.embedded.folders import ContainerFolder, GroupFolder

pytestmark = pytest.mark.processes

MOUNTS = (Mount(volume="data", path="/data"),)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[EmbeddedGroups]:
    bench = EmbeddedGroups(tmp_path)
    yield bench
    await bench.close()


def folder_of(bench: EmbeddedGroups, group: str = "shop-1") -> GroupFolder:
    return GroupFolder(bench.state_dir / "groups" / group)


def host_volume(bench: EmbeddedGroups) -> tuple[Volume, ...]:
    return (Volume(name="data", source=HostPath(path=str(bench.host_folder()))),)


def until(name: str) -> str:
    """Return a script that waits for a file in the volume `data`."""
    return f'until [ -e "$VOLUME_DATA/{name}" ]; do sleep 0.02; done'


# -- init containers ------------------------------------------------------------------------------


async def test_init_container_that_fails_leaves_its_logs_and_nothing_else(
    bench: EmbeddedGroups,
) -> None:
    runtime = bench.open()
    spec = bench.group(
        "shop-1",
        bench.listener("web"),
        init_containers=(
            bench.script("first", "echo fine"),
            bench.script("migrate", "echo no such table; exit 5"),
            bench.script("never", "echo never"),
        ),
    )

    with pytest.raises(RuntimeFailure, match=r'"migrate" ended: exit code 5.* no such table '):
        await runtime.start(spec)

    assert not folder_of(bench).path.exists()
    assert await said(runtime, "shop-1") == "[first] fine\n[migrate] no such table\n"
    assert await said(runtime, "shop-1", "migrate") == "no such table\n"


async def test_start_interrupted_in_an_init_container_is_completed(bench: EmbeddedGroups) -> None:
    """The one that is done is not run again, the one that runs is waited for."""
    host = bench.host_folder()
    note = 'echo {} >> "$VOLUME_DATA/order"'
    spec = bench.group(
        "shop-1",
        bench.script("web", f"{note.format('web')}; {FOR_EVER}", mounts=MOUNTS),
        init_containers=(
            bench.script("first", note.format("first"), mounts=MOUNTS),
            bench.script("second", f"{note.format('begun')}; {until('go')}", mounts=MOUNTS),
        ),
        volumes=host_volume(bench),
    )
    old = bench.open()
    async with asyncio.TaskGroup() as tasks:
        start = tasks.create_task(old.start(spec))
        await eventually(lambda: "begun" in read_text(host / "order"))
        start.cancel()

    new = bench.open()
    seen = await new.list()
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(new.start(spec))
        (host / "go").touch()

    await eventually(lambda: "web" in read_text(host / "order"))
    assert seen == ()
    assert read_text(host / "order").split() == ["first", "begun", "web"]


async def test_stop_ends_a_start_that_waits_for_an_init_container(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    spec = bench.group(
        "shop-1", bench.listener("web"), init_containers=(bench.script("slow", FOR_EVER),)
    )
    slow = ContainerFolder(folder_of(bench).path / "slow")

    async def start() -> None:
        with pytest.raises(RuntimeFailure, match="told to stop"):
            await runtime.start(spec)

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(start())
        await eventually(lambda: slow.identity() is not None)
        known = slow.identity()
        await runtime.stop("shop-1")

    assert known is not None
    assert not identity.is_alive(known.app)
    assert not folder_of(bench).path.exists()


async def test_init_container_of_another_boot_is_run_again(bench: EmbeddedGroups) -> None:
    """Nobody knows how far it came; that is no fault of the revision."""
    runtime = bench.open()
    once = bench.script("once", "echo once")
    spec = bench.group("shop-1", bench.script("web", FOR_EVER), init_containers=(once,))
    await runtime.start(spec)
    file = folder_of(bench).path / "once" / "identity.json"
    before = msgspec.json.decode(file.read_bytes(), type=identity.Identity)
    await runtime.stop("shop-1")
    file.parent.mkdir(parents=True)
    file.write_bytes(msgspec.json.encode(before.but(boot_id="another boot")))
    record = msgspec.json.encode({"spec": spec, "spec_hash": ""})
    (file.parent.parent / "group.json").write_bytes(record)

    await bench.open().start(spec)

    (status,) = await runtime.list()
    assert status.state is GroupState.running
    assert [c.reason for c in status.containers if c.is_init] == ["Completed"]


async def test_start_that_can_not_be_completed_leaves_nothing_running(
    bench: EmbeddedGroups,
) -> None:
    old = bench.open()
    spec = bench.group(
        "shop-1", bench.script("web", "true"), init_containers=(bench.script("slow", FOR_EVER),)
    )
    slow = ContainerFolder(folder_of(bench).path / "slow")
    async with asyncio.TaskGroup() as tasks:
        start = tasks.create_task(old.start(spec))
        await eventually(lambda: slow.identity() is not None)
        start.cancel()
    known = slow.identity()
    web = spec.template.containers[0].but(env_from={"TOKEN": FromSecret(name="token")})

    with pytest.raises(RuntimeFailure, match="TOKEN was given no value"):
        await bench.open().start(spec.but(template=spec.template.but(containers=(web,))))

    assert known is not None
    assert not identity.is_alive(known.app)
    assert not folder_of(bench).path.exists()


# -- ends -----------------------------------------------------------------------------------------


async def test_killed_shim_ends_a_task_group_whatever_its_policy(bench: EmbeddedGroups) -> None:
    """Nobody knows how its container ended, so it is not completed."""
    runtime = bench.open()
    spec = bench.group("job-1", bench.script("web", FOR_EVER), restart=RestartPolicy.never)
    await runtime.start(spec)
    (container,) = folder_of(bench, "job-1").containers()
    known = container.identity()
    assert known is not None

    identity.send(known.shim, signal.SIGKILL)
    told = await next_end(runtime.watch())
    await runtime.stop("job-1")

    assert (told.state, told.reason) == (GroupState.exited, "shim lost")
    await eventually(lambda: not identity.is_alive(known.app))


async def test_start_of_a_completed_group_changes_nothing(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    spec = bench.group("job-1", bench.script("web", "echo done"), restart=RestartPolicy.on_failure)
    await runtime.start(spec)
    await next_end(runtime.watch())

    assert await bench.open().start(spec) == spec.address

    (status,) = await runtime.list()
    assert (status.state, status.reason) == (GroupState.completed, "exit code 0")
    assert await said(runtime, "job-1") == "done\n"


async def test_the_first_to_end_is_blamed(bench: EmbeddedGroups) -> None:
    """In the order of their ends, not of the template: what follows is mostly its doing."""
    runtime = bench.open()
    spec = bench.group(
        "shop-1",
        bench.script("web", f"{until('down')}; sleep 0.3; exit 2", mounts=MOUNTS),
        bench.script("db", 'touch "$VOLUME_DATA/down"; exit 7', mounts=MOUNTS),
        volumes=(Volume(name="data", source=EmptyDir()),),
    )
    await runtime.start(spec)

    async with asyncio.timeout(DEADLINE_S):
        while True:
            (status,) = await runtime.list()
            if None not in [c.exit_code for c in status.containers]:
                break
            await asyncio.sleep(0.02)

    assert [c.exit_code for c in status.containers] == [2, 7]
    assert status.reason == 'container "db": exit code 7'
    assert all((c.finished_at or 0) >= (c.started_at or 1) for c in status.containers)


async def test_status_has_times_and_pids(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    spec = bench.group(
        "shop-1", bench.script("web", FOR_EVER), init_containers=(bench.script("one", "true"),)
    )
    await runtime.start(spec)

    (status,) = await runtime.list()

    init, web = status.containers
    assert (init.is_init, init.state, init.exit_code) == (True, ContainerState.terminated, 0)
    assert (web.is_init, web.state) == (False, ContainerState.running)
    assert status.pid == web.pid
    assert (init.finished_at or 0) <= (web.started_at or 0)


# -- logs -----------------------------------------------------------------------------------------


async def test_lines_of_several_containers_come_in_the_order_of_their_times(
    bench: EmbeddedGroups,
) -> None:
    runtime = bench.open()
    names = ("web", "side")
    await runtime.start(bench.group("shop-1", *(bench.script(name, FOR_EVER) for name in names)))
    for n in range(6):
        with (folder_of(bench).path / names[n % 2] / "log").open("a") as file:
            file.write(f"2026-05-04T03:02:0{n}.000000000Z line {n}\n")

    text = await said(runtime, "shop-1")
    newest = await said(runtime, "shop-1", tail=2, has_timestamps=True)

    assert text == "".join(f"[{names[n % 2]}] line {n}\n" for n in range(6))
    assert newest == (
        "2026-05-04T03:02:04.000000000Z [web] line 4\n"
        "2026-05-04T03:02:05.000000000Z [side] line 5\n"
    )


async def test_long_lines_are_put_together_again(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    script = "head -c 50000 /dev/zero | tr '\\0' x; echo; printf unfinished"
    task = bench.script("web", script)
    await runtime.start(bench.group("job-1", task, restart=RestartPolicy.never))
    await next_end(runtime.watch())

    assert await said(runtime, "job-1") == "x" * 50000 + "\nunfinished\n"
    assert await said(runtime, "job-1", tail=2) == "x" * 50000 + "\nunfinished\n"
    assert await said(runtime, "job-1", tail=1) == "unfinished\n"


async def test_lines_without_a_time_are_read_all_the_same(bench: EmbeddedGroups) -> None:
    """An older version wrote them, or half of a record was lost with the power."""
    runtime = bench.open()
    await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))
    records = "old\n2026-05-04T03:02:00.000000000Z new\n3:02:00.000000000Z half\n"
    (folder_of(bench).path / "web" / "log").write_text(records)

    assert await said(runtime, "shop-1") == "old\nnew\n3:02:00.000000000Z half\n"
    assert await said(runtime, "shop-1", since=1.0) == "new\n3:02:00.000000000Z half\n"


async def test_logs_of_the_gone_are_kept_for_so_long(bench: EmbeddedGroups) -> None:
    runtime = EmbeddedRuntime(
        state_dir=bench.state_dir, instance=INSTANCE, pull=bench.images.pull, keep_logs_s=1000.0
    )
    for group in ("shop-1", "shop-2"):
        await runtime.start(bench.group(group, bench.script("web", f"echo hi; {FOR_EVER}")))
        await printed(runtime, group, "web", "hi")
        await runtime.stop(group)
    kept = bench.state_dir / "logs" / "shop-1"
    aged = kept.stat().st_mtime - 1001
    os.utime(kept, (aged, aged))

    with pytest.raises(RuntimeFailure, match="no logs of it are kept"):
        await said(runtime, "shop-1")

    assert "hi" in await said(runtime, "shop-2")
    assert not kept.exists()
    runtime.keep_logs(0.0)
    await runtime.list()
    assert list((bench.state_dir / "logs").iterdir()) == []
    await runtime.close()


async def test_logs_are_followed_while_init_containers_run(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    first = bench.script("one", f"echo waiting; {until('go')}; echo done", mounts=MOUNTS)
    spec = bench.group(
        "job-1",
        bench.script("web", "echo work"),
        init_containers=(first,),
        volumes=host_volume(bench),
        restart=RestartPolicy.never,
    )
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(runtime.start(spec))
        await eventually(lambda: folder_of(bench, "job-1").record() is not None)
        follow = tasks.create_task(said(runtime, "job-1", is_followed=True))
        await printed(runtime, "job-1", "one", "waiting")
        (bench.host_folder() / "go").touch()
        text = await follow

    assert text == "[one] waiting\n[one] done\n[web] work\n"
