"""What every runtime promises of groups with more than one container (runtimes/contract.py).

A behaviour that a runtime names in its `gaps` is skipped there, with the reason that users read.
"""

import asyncio
import re
import time

import pytest
from support.conformance_bench import GroupBench, printed, run, said, shell
from support.runtime_support import DEADLINE_S, eventually

from trafficmgr.core.template import (
    EmptyDir,
    ExecCheck,
    HostPath,
    Mount,
    Resources,
    RestartPolicy,
    SecretFiles,
    Volume,
)
from trafficmgr.runtimes.contract import (
    ContainerState,
    GroupState,
    GroupStatus,
    Runtime,
    RuntimeFailure,
    Secrets,
)

FOR_EVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
CANARY = "canary-7f3a91c0"
MIB = 2**20


async def needs(runtime: Runtime, behaviour: str) -> None:
    """Skip the test where the runtime says that it can't give this."""
    await runtime.list()  # an engine says what it is when it is first asked
    if behaviour in runtime.gaps:
        pytest.skip(f"a gap of this runtime: {behaviour}: {runtime.gaps[behaviour]}")


async def ended(runtime: Runtime) -> GroupStatus:
    """Return the next group that ends or completes by itself."""
    async with asyncio.timeout(DEADLINE_S):
        return await anext(runtime.watch())


async def the_one(runtime: Runtime) -> GroupStatus:
    """Return the status of the only group."""
    (status,) = await runtime.list()
    return status


class GroupConformance:
    # -- containers ---------------------------------------------------------------------------

    async def test_every_container_of_a_group_runs(self, bench: GroupBench) -> None:
        runtime = bench.open()
        spec = bench.group("shop-1", bench.listener("web"), bench.script("side", FOR_EVER))

        await runtime.start(spec)

        status = await the_one(runtime)
        assert [(c.name, c.state) for c in status.containers] == [
            ("web", ContainerState.running),
            ("side", ContainerState.running),
        ]
        assert all(c.pid and c.started_at for c in status.containers)

    async def test_containers_meet_on_localhost(self, bench: GroupBench) -> None:
        runtime = bench.open()
        web = bench.listener("web", env={"COLOUR": "green"})
        spec = bench.group("shop-1", web, bench.script("side", FOR_EVER))
        await runtime.start(spec)

        async with asyncio.timeout(DEADLINE_S):
            answer = ""
            while not answer:  # until it listens
                answer = (await run(runtime, "shop-1", "side", *bench.to_ask(web, "env"))).out

        assert "green" in answer

    async def test_a_member_that_ends_ends_its_group(self, bench: GroupBench) -> None:
        """A restart is a new group: nothing of the old one is started again."""
        runtime = bench.open()
        spec = bench.group("shop-1", bench.listener("web"), bench.script("side", "exit 3"))
        await runtime.start(spec)

        status = await ended(runtime)

        assert (status.group, status.state) == ("shop-1", GroupState.exited)
        assert status.reason == 'container "side": exit code 3'
        side = status.containers[1]
        assert (side.state, side.exit_code) == (ContainerState.terminated, 3)
        await runtime.stop("shop-1")

    async def test_a_member_that_is_killed_is_named_with_its_signal(
        self, bench: GroupBench
    ) -> None:
        runtime = bench.open()
        spec = bench.group("shop-1", bench.script("web", "kill -9 $$"), bench.listener("other"))
        await runtime.start(spec)

        status = await ended(runtime)

        assert status.reason == 'container "web": killed by SIGKILL'
        assert status.containers[0].exit_code == 128 + 9
        await runtime.stop("shop-1")

    async def test_on_failure_lets_success_be(self, bench: GroupBench) -> None:
        runtime = bench.open()
        puller = bench.script("puller", "echo done; exit 0")
        spec = bench.group(
            "shop-1", bench.listener("web"), puller, restart=RestartPolicy.on_failure
        )
        await runtime.start(spec)

        await printed(runtime, "shop-1", "puller", "done")
        async with asyncio.timeout(DEADLINE_S):
            while (status := await the_one(runtime)).containers[1].pid is not None:  # noqa: ASYNC110  another process ends
                await asyncio.sleep(0.05)

        assert status.state is GroupState.running
        assert status.containers[1].state is ContainerState.terminated
        assert (status.containers[1].exit_code, status.containers[1].reason) == (0, "Completed")

    @pytest.mark.parametrize(
        ("policy", "codes", "state"),
        [
            (RestartPolicy.on_failure, (0, 0), GroupState.completed),
            (RestartPolicy.on_failure, (0, 4), GroupState.exited),
            (RestartPolicy.never, (0, 4), GroupState.completed),
        ],
    )
    async def test_a_task_comes_to_its_end(
        self,
        bench: GroupBench,
        policy: RestartPolicy,
        codes: tuple[int, int],
        state: GroupState,
    ) -> None:
        runtime = bench.open()
        one, other = (bench.script(f"t{n}", f"exit {code}") for n, code in enumerate(codes))
        await runtime.start(bench.group("job-1", one, other, restart=policy))

        told = await ended(runtime)

        assert (told.group, told.state) == ("job-1", state)
        async with asyncio.timeout(DEADLINE_S):
            while None in [c.exit_code for c in (await the_one(runtime)).containers]:  # noqa: ASYNC110  another process ends
                await asyncio.sleep(0.05)
        kept = await the_one(bench.open())
        assert (kept.state, tuple(c.exit_code for c in kept.containers)) == (state, codes)

    # -- init containers ----------------------------------------------------------------------

    async def test_init_containers_run_in_order_and_first(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await needs(runtime, "init_containers")
        shared = Volume(name="shared", source=EmptyDir())
        mounts = (Mount(volume="shared", path="/shared"),)
        note = 'echo {} >> "${{VOLUME_SHARED:-/shared}}/order"'
        spec = bench.group(
            "shop-1",
            bench.script("web", f"{note.format('web')}; {FOR_EVER}", mounts=mounts),
            init_containers=(
                bench.script("first", f"sleep 0.3; {note.format('first')}", mounts=mounts),
                bench.script("second", note.format("second"), mounts=mounts),
            ),
            volumes=(shared,),
        )

        await runtime.start(spec)

        async with asyncio.timeout(DEADLINE_S):
            order = ""
            while "web" not in order:
                order = await shell(
                    runtime, "shop-1", "web", 'cat "${VOLUME_SHARED:-/shared}/order"'
                )
        assert order.split() == ["first", "second", "web"]
        assert (await the_one(runtime)).state is GroupState.running

    async def test_an_init_container_that_fails_keeps_the_group_from_starting(
        self, bench: GroupBench
    ) -> None:
        runtime = bench.open()
        await needs(runtime, "init_containers")
        spec = bench.group(
            "shop-1",
            bench.listener("web"),
            init_containers=(bench.script("migrate", "echo no such table; exit 5"),),
        )

        with pytest.raises(RuntimeFailure, match="migrate") as failure:
            await runtime.start(spec)

        assert "exit code 5" in str(failure.value)
        assert "no such table" in str(failure.value)
        assert await runtime.list() == ()

    # -- volumes ------------------------------------------------------------------------------

    async def test_an_empty_dir_is_shared_and_ends_with_the_group(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await needs(runtime, "empty_dir")
        shared = Volume(name="shared", source=EmptyDir())
        mounts = (Mount(volume="shared", path="/shared"),)
        spec = bench.group(
            "shop-1",
            bench.script("web", FOR_EVER, mounts=mounts),
            bench.script("side", FOR_EVER, mounts=mounts),
            bench.script("stranger", FOR_EVER),
            volumes=(shared,),
        )
        place = "${VOLUME_SHARED:-/shared}"
        await runtime.start(spec)
        await shell(runtime, "shop-1", "web", f'echo hello > "{place}/note"')

        seen = await shell(runtime, "shop-1", "side", f'cat "{place}/note"')
        strange = await run(runtime, "shop-1", "stranger", "sh", "-c", f'ls "{place}"')
        await runtime.stop("shop-1")
        await runtime.start(spec.but(group="shop-2"))
        again = await shell(runtime, "shop-2", "web", f'ls "{place}"')

        assert seen == "hello"
        assert strange.code != 0
        assert again == ""

    async def test_an_empty_dir_with_a_limit_is_full_at_some_point(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await needs(runtime, "empty_dir_size")
        spec = bench.group(
            "shop-1",
            bench.script("web", FOR_EVER, mounts=(Mount(volume="small", path="/small"),)),
            volumes=(Volume(name="small", source=EmptyDir(size_bytes=4 * MIB)),),
        )
        await runtime.start(spec)

        ran = await run(
            runtime,
            "shop-1",
            "web",
            "sh",
            "-c",
            'dd if=/dev/zero of="${VOLUME_SMALL:-/small}/big" bs=1024 count=8192',
        )

        assert ran.code != 0

    async def test_a_folder_of_the_host_is_mounted(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await needs(runtime, "host_path")
        folder = bench.host_folder()
        (folder / "page").write_text("from the host")
        spec = bench.group(
            "shop-1",
            bench.script("web", FOR_EVER, mounts=(Mount(volume="data", path="/data"),)),
            volumes=(Volume(name="data", source=HostPath(path=str(folder))),),
        )
        await runtime.start(spec)

        read = await shell(runtime, "shop-1", "web", 'cat "${VOLUME_DATA:-/data}/page"')
        await shell(runtime, "shop-1", "web", 'echo back > "${VOLUME_DATA:-/data}/answer"')
        await runtime.stop("shop-1")

        assert read == "from the host"
        assert (folder / "answer").read_text() == "back\n"

    async def test_a_read_only_mount_can_not_be_written_to(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await needs(runtime, "read_only_mounts")
        mount = Mount(volume="data", path="/data", is_read_only=True)
        spec = bench.group(
            "shop-1",
            bench.script("web", FOR_EVER, mounts=(mount,)),
            volumes=(Volume(name="data", source=HostPath(path=str(bench.host_folder()))),),
        )
        await runtime.start(spec)

        ran = await run(runtime, "shop-1", "web", "sh", "-c", "echo no > /data/new")

        assert ran.code != 0

    # -- secrets ------------------------------------------------------------------------------

    async def test_secrets_are_seen_by_their_container_and_by_nobody_else(
        self, bench: GroupBench
    ) -> None:
        runtime = bench.open()
        await needs(runtime, "secret_files")
        await needs(runtime, "secret_env")
        spec = bench.group(
            "shop-1",
            bench.script("web", FOR_EVER, mounts=(Mount(volume="keys", path="/keys"),)),
            bench.script("side", FOR_EVER),
            volumes=(Volume(name="keys", source=SecretFiles(files={"token": "t"})),),
        )
        secrets = Secrets(
            env={"web": {"PASSWORD": f"{CANARY}-env"}},
            files={"keys": {"token": f"{CANARY}-file".encode()}},
        )

        await runtime.start(spec, secrets)

        place = "${VOLUME_KEYS:-/keys}"
        env = await shell(runtime, "shop-1", "web", "tr '\\0' '\\n' < /proc/$PPID/environ; env")
        file = await shell(runtime, "shop-1", "web", f'cat "{place}/token"')
        mode = await shell(runtime, "shop-1", "web", f'stat -L -c %a "{place}/token"')
        other = await shell(runtime, "shop-1", "side", f'env; cat "{place}/token"')
        assert f"{CANARY}-env" in env
        assert file == f"{CANARY}-file"
        assert mode == "400"
        assert CANARY not in other
        assert CANARY.encode() not in bench.exposed()
        assert CANARY not in repr(secrets)
        await runtime.stop("shop-1")
        assert CANARY.encode() not in bench.exposed()

    async def test_a_new_controller_adopts_a_group_without_its_secrets(
        self, bench: GroupBench
    ) -> None:
        old = bench.open()
        await needs(old, "secret_env")
        spec = bench.group("shop-1", bench.script("web", FOR_EVER))
        await old.start(spec, Secrets(env={"web": {"PASSWORD": CANARY}}))

        new = bench.open()
        await new.start(spec)

        assert CANARY in await shell(new, "shop-1", "web", "env")

    # -- limits -------------------------------------------------------------------------------

    async def test_a_memory_hog_is_ended_and_named(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await needs(runtime, "memory_limit")
        hog = "x=0123456789abcdef; while :; do x=$x$x; done"
        web = bench.script("web", hog, resources=Resources(memory_bytes=32 * MIB))
        await runtime.start(bench.group("shop-1", web))

        status = await ended(runtime)

        assert status.containers[0].reason == "OOMKilled"
        assert status.reason.startswith("OOMKilled")
        assert (await runtime.list()) != ()
        await runtime.stop("shop-1")

    async def test_a_group_has_no_more_memory_than_it_may(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await needs(runtime, "group_limits")
        hog = "x=0123456789abcdef; while :; do x=$x$x; done"
        spec = bench.group(
            "shop-1",
            bench.script("web", FOR_EVER),
            bench.script("side", hog),
            resources=Resources(memory_bytes=48 * MIB),
        )
        await runtime.start(spec)

        status = await ended(runtime)

        assert "OOMKilled" in status.reason
        await runtime.stop("shop-1")

    async def test_a_fork_bomb_ends_in_its_container(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await needs(runtime, "process_limit")
        bomb = "while :; do sleep 1000 & done 2>/dev/null; sleep 1000"
        await runtime.start(bench.group("shop-1", bench.script("web", bomb)))
        await runtime.start(bench.group("shop-2", bench.script("web", FOR_EVER)))

        async with asyncio.timeout(DEADLINE_S):
            answer = await shell(runtime, "shop-2", "web", "echo still here")
            await runtime.stop("shop-1")

        assert answer == "still here"
        assert [s.group for s in await runtime.list()] == ["shop-2"]

    async def test_a_container_runs_as_the_user_it_is_given(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await needs(runtime, "user")
        web = bench.script("web", FOR_EVER, user="1234:2345")
        await runtime.start(bench.group("shop-1", web))

        assert await shell(runtime, "shop-1", "web", "id -u; id -g") == "1234\n2345"

    async def test_a_limited_container_does_not_get_a_whole_cpu(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await needs(runtime, "cpu_limit")
        busy = bench.script("web", "while :; do :; done", resources=Resources(cpu=0.2))
        await runtime.start(bench.group("shop-1", busy))

        used = []
        for _ in range(2):
            (stats,) = await runtime.stats("shop-1")
            used.append((time.monotonic(), stats.cpu_s or 0.0))
            await asyncio.sleep(2.0)  # a rate is measured over time

        (begun, before), (end, after) = used
        assert (after - before) / (end - begun) < 0.6

    # -- stopping -----------------------------------------------------------------------------

    async def test_pre_stop_comes_before_the_signal_and_the_last_container_goes_first(
        self, bench: GroupBench
    ) -> None:
        runtime = bench.open()
        folder = bench.host_folder()
        mounts = (Mount(volume="data", path="/data"),)
        note = 'echo {} >> "${{VOLUME_DATA:-/data}}/order"'

        def goes(name: str) -> str:
            return f"trap '{note.format(name)}; exit 0' TERM; while :; do sleep 0.05; done"

        before = ExecCheck(command=("sh", "-c", note.format("before")))
        spec = bench.group(
            "shop-1",
            bench.script("web", goes("web"), mounts=mounts, pre_stop=before),
            bench.script("side", goes("side"), mounts=mounts),
            volumes=(Volume(name="data", source=HostPath(path=str(folder))),),
        )
        await runtime.start(spec)

        await runtime.stop("shop-1")

        assert (folder / "order").read_text().split() == ["side", "before", "web"]

    async def test_a_container_that_ignores_the_signal_is_killed_after_its_grace(
        self, bench: GroupBench
    ) -> None:
        runtime = bench.open()
        deaf = "trap '' TERM; echo deaf; while :; do sleep 0.1; done"
        await runtime.start(bench.group("shop-1", bench.script("web", deaf, stop_grace_s=1.0)))
        await printed(runtime, "shop-1", "web", "deaf")

        async with asyncio.timeout(DEADLINE_S):
            await runtime.stop("shop-1")

        assert await runtime.list() == ()

    # -- exec, logs, stats --------------------------------------------------------------------

    async def test_exec_has_arguments_input_and_an_exit_code(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await needs(runtime, "exec")
        await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER, env={"A": "1"})))

        words = await run(runtime, "shop-1", "web", "sh", "-c", 'echo "$1|$A"; exit 7', "x", "a b")
        piped = await run(runtime, "shop-1", "", "sh", "-c", "cat; echo no >&2", stdin=b"hello\n")

        assert (words.code, words.out) == (7, "a b|1\n")
        assert (piped.out, piped.err) == ("hello\n", "no\n")

    async def test_exec_has_a_terminal_if_asked_for(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await needs(runtime, "exec")
        await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))
        text = "test -t 0 && test -t 1 && echo a terminal"

        with_tty = await run(runtime, "shop-1", "web", "sh", "-c", text, has_tty=True)
        without = await run(runtime, "shop-1", "web", "sh", "-c", text)

        assert (with_tty.code, with_tty.out.strip()) == (0, "a terminal")
        assert without.code == 1

    async def test_exec_of_nothing_is_refused(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await needs(runtime, "exec")
        await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))

        with pytest.raises(RuntimeFailure):
            await run(runtime, "shop-1", "nobody", "true")
        with pytest.raises(RuntimeFailure):
            await run(runtime, "never-was", "web", "true")

    async def test_logs_are_told_apart(self, bench: GroupBench) -> None:
        runtime = bench.open()
        spec = bench.group(
            "shop-1",
            bench.script("web", f"echo one; {FOR_EVER}"),
            bench.script("side", f"echo two >&2; {FOR_EVER}"),
        )
        await runtime.start(spec)
        await printed(runtime, "shop-1", "web", "one")
        await printed(runtime, "shop-1", "side", "two")

        both = await said(runtime, "shop-1")

        assert sorted(both.splitlines()) == ["[side] two", "[web] one"]
        assert await said(runtime, "shop-1", "side") == "two\n"
        with pytest.raises(RuntimeFailure):
            await said(runtime, "shop-1", "nobody")

    async def test_logs_know_when(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await needs(runtime, "logs_timestamps")
        web = bench.script("web", f"echo early; sleep 1.2; echo late; {FOR_EVER}")
        await runtime.start(bench.group("shop-1", web))
        await printed(runtime, "shop-1", "web", "late")

        stamped = await said(runtime, "shop-1", "web", has_timestamps=True)
        times = re.findall(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+)Z? ?\w", stamped, re.MULTILINE)
        status = await the_one(runtime)
        started_at = status.containers[0].started_at or 0.0

        assert len(times) == 2, stamped
        assert times == sorted(times)
        assert "late" in await said(runtime, "shop-1", "web", since=started_at + 0.7)
        assert "early" not in await said(runtime, "shop-1", "web", since=started_at + 0.7)

    async def test_logs_of_every_container_outlive_the_group(self, bench: GroupBench) -> None:
        runtime = bench.open()
        spec = bench.group(
            "shop-1",
            bench.script("web", f"echo one; {FOR_EVER}"),
            bench.script("side", f"echo two; {FOR_EVER}"),
        )
        await runtime.start(spec)
        await printed(runtime, "shop-1", "web", "one")
        await printed(runtime, "shop-1", "side", "two")

        await runtime.stop("shop-1")

        kept = await said(bench.open(), "shop-1")
        assert set(kept.splitlines()) >= {"[side] two", "[web] one"}

    async def test_stats_grow_with_what_is_used(self, bench: GroupBench) -> None:
        runtime = bench.open()
        busy = bench.script("web", "while :; do :; done", resources=Resources(cpu=0.5))
        await runtime.start(bench.group("shop-1", busy, bench.script("side", FOR_EVER)))

        async with asyncio.timeout(DEADLINE_S):
            while True:
                web, side = await runtime.stats("shop-1")
                if (web.cpu_s or 0.0) > 0.1:
                    break
                await asyncio.sleep(0.1)

        assert [web.name, side.name] == ["web", "side"]
        assert (web.memory_bytes or 0) > 0
        if "stats_network" not in runtime.gaps:
            assert web.received_bytes is not None
        with pytest.raises(RuntimeFailure):
            await runtime.stats("never-was")

    # -- many ---------------------------------------------------------------------------------

    async def test_two_groups_have_the_same_port(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await needs(runtime, "isolated_network")
        web = bench.listener("web")

        await runtime.start(bench.group("shop-1", web))
        await runtime.start(bench.group("shop-2", web))

        assert [s.state for s in await runtime.list()] == [GroupState.running] * 2

    async def test_twenty_groups_start_at_once_and_leave_nothing(self, bench: GroupBench) -> None:
        runtime = bench.open()
        await runtime.start(bench.group("warm-up", bench.script("web", FOR_EVER)))
        await runtime.stop("warm-up")
        before = bench.held()
        specs = [bench.group(f"g-{n}", bench.script("web", FOR_EVER)) for n in range(20)]

        await asyncio.gather(*(runtime.start(spec) for spec in specs))
        running = len(await runtime.list())
        await asyncio.gather(*(runtime.stop(spec.group) for spec in specs))

        assert running == 20
        await eventually(lambda: bench.held() <= before)
