"""Process mode with real processes: environment, lookups, adoption, and every kind of kill."""

import asyncio
import errno
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from conformance import next_end
from support.conformance_bench import said
from support.runtime_support import (
    INSTANCE,
    EmbeddedBench,
    Entry,
    app_image,
    directory,
    eventually,
    group_spec,
    image_of,
    layer_of,
    read_text,
    symlink,
    tar_of,
    tell,
)

from trafficmgr.core.template import ContainerTemplate, GroupTemplate
from trafficmgr.runtimes.contract import GroupState, LogQuery, RuntimeFailure, RuntimeUnknownError
from trafficmgr.runtimes.embedded import EmbeddedRuntime, identity, shimapp
from trafficmgr.runtimes.embedded.ending import end
from trafficmgr.runtimes.embedded.folders import KEPT_LOGS, ContainerFolder, GroupFolder
from trafficmgr.runtimes.embedded.identity import Identity
from trafficmgr.runtimes.embedded.launch import launch
from trafficmgr.wire.images import ImageConfig, LocalImage

pytestmark = pytest.mark.processes


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[EmbeddedBench]:
    bench = EmbeddedBench(tmp_path)
    yield bench
    await bench.close()


def container_of(bench: EmbeddedBench, group: str = "shop-1") -> ContainerFolder:
    return ContainerFolder(bench.state_dir / "groups" / group / "web")


def who(bench: EmbeddedBench, group: str = "shop-1") -> Identity:
    found = container_of(bench, group).identity()
    assert found is not None
    return found


def is_there(pid: int) -> bool:
    """Whether the process runs; how soon init reaps an orphan is not our affair."""
    try:
        return shimapp.stat_fields(pid)[0] != b"Z"
    except OSError:
        return False


async def descendant(bench: EmbeddedBench, group: str = "shop-1") -> int:
    """Return the pid that a child of the application has written to its log."""
    log = container_of(bench, group).path / "log"
    await eventually(lambda: "child " in log.read_text())
    return int(log.read_text().rpartition("child ")[2].split()[0])


# -- how an image becomes a process ---------------------------------------------------------------


async def test_environment_is_the_images_the_templates_and_ours(
    bench: EmbeddedBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTROLLER_SECRET", "hunter2")
    monkeypatch.setenv("HOME", "/home/someone")
    spec = group_spec("shop-1", bench.app, env={"GREETING": "hello", "PORT": "1"})
    await bench.open().start(spec)

    env = json.loads(await tell(spec, "env"))

    mark = env.pop("TRAFFICMGR_CONTAINER")
    assert mark.startswith(f"{INSTANCE}/shop-1/web/")
    env.pop("LC_CTYPE", None)  # Python itself sets it when LANG is C
    assert env == {
        "COLOUR": "green",
        "GREETING": "hello",
        "HOST": spec.address,
        "LOCALHOST": spec.address,
        "PORT": str(spec.port),
        "PATH": os.environ["PATH"],
        "HOME": "/home/someone",
        "LANG": os.environ.get("LANG", "C.UTF-8"),
    }


async def test_working_directory_is_inside_the_unpacked_tree(bench: EmbeddedBench) -> None:
    spec = bench.spec("shop-1")
    await bench.open().start(spec)

    cwd = await tell(spec, "cwd")

    digest = bench.app.platform_digest.removeprefix("sha256:")
    assert cwd == str(bench.state_dir / "store" / "trees" / digest / "rootfs" / "app")


async def test_absolute_symlink_means_the_images_own_program(bench: EmbeddedBench) -> None:
    """`/bin/sh -> /bin/busybox`, the shape of every small image."""
    program = Path(shutil.which("busybox") or "/bin/sh").read_bytes()
    tar = tar_of(
        [
            directory("bin"),
            Entry("bin/busybox", program, mode=0o755),
            symlink("bin/sh", "/bin/busybox"),
        ]
    )
    config = ImageConfig(
        entrypoint=("/bin/sh", "-c"), cmd=("readlink /proc/$$/exe; echo by $0; exec sleep 1000",)
    )
    image = bench.images.add(image_of(config, layer_of(bench.images.folder, tar)))
    runtime = bench.open()

    await runtime.start(group_spec("shop-1", image))

    log = container_of(bench).path / "log"
    await eventually(lambda: "by " in read_text(log))
    assert read_text(log).splitlines()[0].endswith("/rootfs/bin/busybox")
    assert read_text(log).splitlines()[1].endswith("Z by /bin/sh")


@pytest.mark.parametrize(
    ("command", "env", "expected"),
    [
        (("tool",), {"PATH": "/opt:/bin"}, "/opt/tool"),
        (("tool",), {"PATH": "/bin:/opt"}, "/bin/tool"),
        (("/opt/tool",), {}, "/opt/tool"),
        (("./tool",), {}, "/srv/tool"),
        (("linked",), {"PATH": "/opt"}, "/bin/tool"),
    ],
    ids=["path", "path-order", "absolute", "relative", "symlink"],
)
async def test_command_is_looked_up_in_the_image(
    bench: EmbeddedBench, command: tuple[str, ...], env: dict[str, str], expected: str
) -> None:
    def tool(name: str) -> Entry:
        return Entry(name, b'#!/bin/sh\necho "$0"\nexec /bin/sleep 1000\n', mode=0o755)

    tar = tar_of(
        [tool("opt/tool"), tool("bin/tool"), tool("srv/tool"), symlink("opt/linked", "/bin/tool")]
    )
    layer = layer_of(bench.images.folder, tar)
    image = bench.images.add(image_of(ImageConfig(env={"PATH": "/nowhere"}), layer))

    runtime = bench.open()
    await runtime.start(group_spec("shop-1", image, command=command, env=env, working_dir="/srv"))

    log = container_of(bench).path / "log"
    await eventually(lambda: bool(log.read_text()))
    assert log.read_text().strip().endswith(f"/rootfs{expected}")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (ImageConfig(), "neither its image nor the config names a command"),
        (ImageConfig(cmd=("no-such-program",)), 'there is no executable "no-such-program"'),
        (ImageConfig(cmd=("../../../../bin/sh",)), "there is no executable"),
        (ImageConfig(cmd=("out",), env={"PATH": "/"}), 'there is no executable "out"'),
        (ImageConfig(cmd=("sh",), working_dir="/missing"), 'has no directory "/missing"'),
        (ImageConfig(cmd=("sh",), stop_signal="SIGNONE"), 'unknown signal "SIGNONE"'),
        (ImageConfig(cmd=("/broken",)), "not execute .*/broken: No such file .*interpreter"),
        (ImageConfig(cmd=("/empty",)), "Exec format error .*another machine"),
    ],
    ids=["none", "missing", "escape", "link-out", "workdir", "signal", "interpreter", "format"],
)
async def test_what_cannot_run_is_said_in_a_sentence(
    bench: EmbeddedBench, config: ImageConfig, why: str
) -> None:
    tar = tar_of(
        [
            Entry("broken", b"#!/no/such/interpreter\n", mode=0o755),
            Entry("empty", b"\0\0\0", mode=0o755),
            symlink("out", "../../../../../../../../../../../bin/sh"),
        ]
    )
    image = bench.images.add(image_of(config, layer_of(bench.images.folder, tar)))
    runtime = bench.open()

    with pytest.raises(RuntimeFailure, match=why) as info:
        await runtime.start(group_spec("shop-1", image))

    assert str(info.value).startswith('embedded: cannot start group shop-1: container "web"')
    assert await runtime.list() == ()
    assert not (bench.state_dir / "groups" / "shop-1").exists()


async def test_name_that_would_leave_the_folder_is_refused(bench: EmbeddedBench) -> None:
    runtime = bench.open()

    with pytest.raises(RuntimeFailure, match="may only have letters"):
        await runtime.start(bench.spec("../evil"))
    await runtime.stop("../evil")

    assert await runtime.list() == ()


async def test_sidecar_gets_its_own_port(bench: EmbeddedBench) -> None:
    spec = bench.spec("shop-1")
    (web,) = spec.template.containers
    sidecar = ContainerTemplate(
        name="side", image=web.image, command=("sh", "-c", "echo $PORT; sleep 1000"), ports=(99,)
    )
    images = (*spec.images, spec.images[0].but(container="side"))
    both = spec.but(template=GroupTemplate(containers=(web, sidecar)), images=images)
    runtime = bench.open()

    await runtime.start(both)

    log = bench.state_dir / "groups" / "shop-1" / "side" / "log"
    await eventually(lambda: read_text(log).endswith(" 99\n"))
    await tell(both, "say hello")
    text = await said(runtime, "shop-1")
    assert "[side] 99\n" in text
    assert "[web] started\n" in text
    assert len(bench.images.pulls) == 1


async def test_group_ends_with_any_of_its_containers(bench: EmbeddedBench) -> None:
    spec = bench.spec("shop-1")
    (web,) = spec.template.containers
    sidecar = ContainerTemplate(name="side", image=web.image, command=("sh", "-c", "exit 9"))
    images = (*spec.images, spec.images[0].but(container="side"))
    runtime = bench.open()

    await runtime.start(spec.but(template=GroupTemplate(containers=(web, sidecar)), images=images))
    told = await next_end(runtime.watch())
    app = who(bench).app
    await runtime.stop("shop-1")

    assert told.reason == 'container "side": exit code 9'
    assert not is_there(app.pid)


# -- images ---------------------------------------------------------------------------------------


async def test_image_is_pulled_and_unpacked_once_for_all_replicas(bench: EmbeddedBench) -> None:
    runtime = bench.open()

    await asyncio.gather(*(runtime.start(bench.spec(f"shop-{n}")) for n in range(3)))
    await bench.open().start(bench.spec("shop-3"))

    assert bench.images.pulls == [bench.app.platform_digest]


async def test_replicas_that_wait_go_on_when_the_first_is_stopped(bench: EmbeddedBench) -> None:
    runtime = bench.open()
    bench.images.gate = asyncio.Event()

    async def first() -> None:
        with pytest.raises(RuntimeFailure, match="told to stop"):
            await runtime.start(bench.spec("shop-1"))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(first())
        await bench.images.asked.wait()
        second = tasks.create_task(runtime.start(bench.spec("shop-2")))
        await runtime.stop("shop-1")
        bench.images.gate.set()
        await second

    assert [status.group for status in await runtime.list()] == ["shop-2"]


async def test_image_that_cannot_be_unpacked_leaves_nothing(bench: EmbeddedBench) -> None:
    bad = image_of(
        ImageConfig(cmd=("sh",)),
        layer_of(bench.images.folder, tar_of([Entry("fine"), Entry("../evil")])),
    )
    bench.images.add(bad)
    runtime = bench.open()

    with pytest.raises(RuntimeFailure, match=r'entry "\.\./evil": "\.\." in the name'):
        await runtime.start(group_spec("shop-1", bad))

    assert list((bench.state_dir / "store" / "trees").iterdir()) == []
    assert await runtime.list() == ()


async def test_leftovers_of_a_killed_unpacker_are_swept(bench: EmbeddedBench) -> None:
    trees = bench.state_dir / "store" / "trees"
    (trees / ".unpacking-4194305-abc" / "rootfs").mkdir(parents=True)

    await bench.open().start(bench.spec("shop-1"))

    assert [path.name[0] for path in trees.iterdir()] != ["."]
    assert len(list(trees.iterdir())) == 1


async def test_errors_of_pull_pass_through(tmp_path: Path) -> None:
    async def pull(_: object) -> LocalImage:
        raise RuntimeUnknownError("the registry does not answer")

    runtime = EmbeddedRuntime(state_dir=tmp_path, instance=INSTANCE, pull=pull)

    with pytest.raises(RuntimeUnknownError, match="does not answer"):
        await runtime.start(group_spec("shop-1", app_image(tmp_path / "blobs")))
    assert await runtime.list() == ()


async def test_full_disk_is_not_the_images_failure(
    bench: EmbeddedBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown is not failed (promise 12): the revision must not be quarantined for it."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)

    with pytest.raises(RuntimeUnknownError, match="No space left"):
        await bench.open().start(bench.spec("shop-1"))

    assert list((bench.state_dir / "store" / "trees").iterdir()) == []


async def test_state_dir_that_cannot_be_written_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bench = EmbeddedBench(tmp_path)
    runtime = EmbeddedRuntime(
        state_dir=tmp_path / "file" / "state", instance=INSTANCE, pull=bench.images.pull
    )

    with pytest.raises(RuntimeUnknownError, match="Not a directory"):
        await runtime.start(bench.spec("shop-1"))


# -- starting -------------------------------------------------------------------------------------


async def test_two_controllers_starting_at_once_give_one_process(bench: EmbeddedBench) -> None:
    spec = bench.spec("shop-1")
    await bench.open().start(bench.spec("warm-up"))

    await asyncio.gather(*(bench.open().start(spec) for _ in range(4)))

    await bench.say(spec, "all up")
    assert await said(bench.open(), "shop-1") == "started\nall up\n"


async def test_interrupted_start_is_not_listed_and_can_be_completed(bench: EmbeddedBench) -> None:
    record = (await interrupted(bench)).record()
    runtime = bench.open()
    assert record is not None

    before = await runtime.list()
    await runtime.start(record.spec)

    assert before == ()
    assert [status.state for status in await runtime.list()] == [GroupState.running]


async def test_interrupted_start_can_be_stopped(bench: EmbeddedBench) -> None:
    folder = await interrupted(bench)

    await bench.open().stop("shop-1")

    assert not folder.path.exists()
    assert not (bench.state_dir / "groups" / "shop-1").exists()


async def interrupted(bench: EmbeddedBench) -> GroupFolder:
    """Return a group's folder as a controller leaves it that is killed before the shim starts."""
    spec = bench.spec("shop-1")
    runtime = bench.open()
    await runtime.start(spec)
    process = container_of(bench).process()
    assert process is not None
    await runtime.stop("shop-1")
    folder = GroupFolder(bench.state_dir / "groups" / "shop-1")
    folder.create(spec, (process,))
    return folder


async def test_stop_of_a_start_that_was_killed_before_its_first_file_leaves_nothing(
    bench: EmbeddedBench,
) -> None:
    folder = bench.state_dir / "groups" / "shop-1"
    folder.mkdir(parents=True)
    (folder / ".group.json.half").write_bytes(b"{")

    await bench.open().stop("shop-1")

    assert list(folder.parent.iterdir()) == []


async def test_stop_that_was_killed_while_it_removed_the_folder_is_completed(
    bench: EmbeddedBench,
) -> None:
    half_gone = bench.state_dir / "groups" / ".gone-shop-1" / "web"
    half_gone.mkdir(parents=True)

    await bench.open().stop("shop-1")

    assert list(half_gone.parent.parent.iterdir()) == []


async def test_group_that_cannot_be_read_is_left_alone(bench: EmbeddedBench) -> None:
    """A newer version may have written it, and its processes may run."""
    folder = bench.state_dir / "groups" / "shop-1"
    folder.mkdir(parents=True)
    (folder / "group.json").write_bytes(b"{")

    await bench.open().stop("shop-1")

    assert folder.is_dir()


async def test_completed_start_keeps_the_process_that_was_written_down(
    bench: EmbeddedBench,
) -> None:
    """A shim of the interrupted start may have read it; its mark must stay findable."""
    folder = await interrupted(bench)
    before = container_of(bench).process()
    record = folder.record()
    assert record is not None

    await bench.open().start(record.spec)

    assert container_of(bench).process() == before


async def test_ended_container_cannot_be_started_by_a_late_shim(bench: EmbeddedBench) -> None:
    await interrupted(bench)
    container = container_of(bench)

    await end(container)

    with pytest.raises(RuntimeFailure, match="stopped before it started"):
        launch("shop-1", container, {})
    assert container.identity() is None


async def test_stop_waits_for_a_shim_that_has_not_decided_yet(bench: EmbeddedBench) -> None:
    await interrupted(bench)
    container = container_of(bench)
    with (container.path / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        async with asyncio.TaskGroup() as tasks:
            stop = tasks.create_task(end(container))
            await asyncio.wait([stop], timeout=0.1)
            was_done = stop.done()
            (container.path / "exit.json").write_bytes(b"{}")

    assert not was_done


async def test_end_is_told_once_even_if_it_is_seen_running_late(bench: EmbeddedBench) -> None:
    """A list that began before the end comes to watch the group after it."""
    spec = bench.spec("shop-1")
    runtime = bench.open()
    await runtime.start(spec)
    await bench.exit(spec, 3)
    await next_end(runtime.watch())

    runtime._watch.add(GroupFolder(bench.state_dir / "groups" / "shop-1"))

    assert runtime._watch.ended.empty()


async def test_cancelled_start_can_be_completed(bench: EmbeddedBench) -> None:
    spec = bench.spec("shop-1")
    runtime = bench.open()
    bench.images.gate = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        start = tasks.create_task(runtime.start(spec))
        await bench.images.asked.wait()
        start.cancel()

    bench.images.gate.set()

    assert await runtime.start(spec) == spec.address
    assert len(await runtime.list()) == 1


async def test_groups_of_another_instance_are_never_touched(bench: EmbeddedBench) -> None:
    spec = bench.spec("shop-1")
    runtime = bench.open()
    await runtime.start(spec)
    other = EmbeddedRuntime(state_dir=bench.state_dir, instance="other", pull=bench.images.pull)

    seen = await other.list()
    await other.stop("shop-1")

    assert seen == ()
    assert identity.is_alive(who(bench).app)


# -- kills ----------------------------------------------------------------------------------------


async def test_stop_leaves_no_process(bench: EmbeddedBench) -> None:
    """Neither the group's nor a daemon's that left the group and the session."""
    spec = bench.spec("shop-1")
    runtime = bench.open()
    await runtime.start(spec)
    await tell(spec, "child")
    child = await descendant(bench)
    log = container_of(bench).path / "log"
    await tell(spec, "child daemon")
    await eventually(lambda: log.read_text().count("child ") == 2)
    daemon = await descendant(bench)
    known = who(bench)

    await runtime.stop("shop-1")

    assert child != daemon
    assert not [pid for pid in (child, daemon, known.app.pid, known.shim.pid) if is_there(pid)]


async def test_application_that_ignores_sigterm_is_killed(bench: EmbeddedBench) -> None:
    spec = group_spec("shop-1", bench.app, grace_s=0.1)
    runtime = bench.open()
    await runtime.start(spec)
    await tell(spec, "ignore")
    app = who(bench).app

    await runtime.stop("shop-1")

    assert not is_there(app.pid)
    assert await runtime.list() == ()


async def test_killed_application_is_told(bench: EmbeddedBench) -> None:
    spec = bench.spec("shop-1")
    runtime = bench.open()
    await runtime.start(spec)

    await tell(spec, "kill 9")

    assert (await next_end(runtime.watch())).reason == "killed by SIGKILL"


async def test_killed_shim_ends_the_group_and_stop_the_application(bench: EmbeddedBench) -> None:
    spec = bench.spec("shop-1")
    runtime = bench.open()
    await runtime.start(spec)
    await tell(spec, "child daemon")
    daemon = await descendant(bench)
    known = who(bench)

    identity.send(known.shim, signal.SIGKILL)
    told = await next_end(runtime.watch())
    was_alive = identity.is_alive(known.app)
    listed = await bench.open().list()
    await runtime.stop("shop-1")

    assert (told.state, told.reason) == (GroupState.exited, "shim lost")
    assert listed == (told,)
    assert was_alive
    await eventually(lambda: not is_there(known.app.pid) and not is_there(daemon))


async def test_stuck_shim_is_killed_with_its_application(
    bench: EmbeddedBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trafficmgr.runtimes.embedded.ending.MARGIN_S", 0.1)
    spec = group_spec("shop-1", bench.app, grace_s=0.1)
    runtime = bench.open()
    await runtime.start(spec)
    known = who(bench)
    identity.send(known.shim, signal.SIGSTOP)

    await runtime.stop("shop-1")

    await eventually(lambda: not is_there(known.app.pid) and not is_there(known.shim.pid))


async def test_pids_of_another_boot_are_never_touched(bench: EmbeddedBench) -> None:
    spec = bench.spec("shop-1")
    runtime = bench.open()
    await runtime.start(spec)
    known = who(bench)
    file = container_of(bench).path / "identity.json"
    truth = file.read_bytes()
    file.write_bytes(msgspec.json.encode(known.but(boot_id="another boot")))

    (status,) = await runtime.list()
    await runtime.stop("shop-1")
    was_spared = identity.is_alive(known.app)
    file.parent.mkdir(parents=True)
    file.write_bytes(truth)
    identity.send(known.shim, signal.SIGTERM)
    await eventually(lambda: not is_there(known.shim.pid))
    shutil.rmtree(file.parent.parent)  # what else it has is swept at the end

    assert (status.state, status.reason) == (GroupState.exited, "the machine was restarted")
    assert was_spared


async def test_groups_run_on_without_their_controller(bench: EmbeddedBench) -> None:
    """A controller in a process of its own is killed; the next one finds the group and its end."""
    spec = bench.spec("shop-1")
    await bench.open().start(bench.spec("warm-up"))
    (bench.state_dir / "spec").write_bytes(msgspec.json.encode(spec))
    program = (
        "import asyncio, msgspec, os, signal, sys\n"
        "from pathlib import Path\n"
        "from trafficmgr.runtimes.contract import GroupSpec\n"
        "from trafficmgr.runtimes.embedded import EmbeddedRuntime\n"
        "state = Path(sys.argv[1])\n"
        "spec = msgspec.json.decode((state / 'spec').read_bytes(), type=GroupSpec)\n"
        "runtime = EmbeddedRuntime(state_dir=state, instance='test', pull=None)\n"
        "asyncio.run(runtime.start(spec))\n"
        "os.killpg(0, signal.SIGKILL)\n"
    )
    controller = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(bench.state_dir), start_new_session=True
    )
    assert await controller.wait() == -signal.SIGKILL

    runtime = bench.open()
    listed = {status.group: status.state for status in await runtime.list()}
    await bench.exit(spec, 8)

    assert listed == {"shop-1": GroupState.running, "warm-up": GroupState.running}
    assert (await next_end(runtime.watch())).reason == "exit code 8"


# -- logs -----------------------------------------------------------------------------------------


async def test_rotation_is_invisible_to_followers_and_readers(
    bench: EmbeddedBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trafficmgr.runtimes.embedded.process.LOG_BYTES", 300)
    spec = bench.spec("shop-1")
    runtime = bench.open()
    await runtime.start(spec)
    seen: list[bytes] = []

    async def follow() -> None:
        async for chunk in runtime.logs("shop-1", LogQuery(is_followed=True)):
            seen.append(chunk)  # noqa: PERF401  it is looked at meanwhile

    async def until_seen(word: str) -> None:
        await eventually(lambda: word in b"".join(seen).decode())

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(follow())
        for n in range(12):
            await bench.say(spec, f"word {n} {'x' * 40}")
            if n % 4 == 0:  # a follower may lose what is rotated away twice between two looks
                await until_seen(f"word {n} ")
        await bench.exit(spec, 0)

    words = [line.split()[1] for line in b"".join(seen).decode().splitlines() if "word" in line]
    assert words == [str(n) for n in range(12)]
    assert (container_of(bench).path / "log.1").exists()
    kept = [line.split()[1] for line in (await said(runtime, "shop-1")).splitlines()[-8:]]
    assert kept == words[-8:]


async def test_only_the_newest_logs_are_kept(bench: EmbeddedBench) -> None:
    logs, now = bench.state_dir / "logs", time.clock_gettime(time.CLOCK_REALTIME)
    for n in range(KEPT_LOGS + 5):
        (logs / f"old-{n}" / "web").mkdir(parents=True)
        os.utime(logs / f"old-{n}", (now - 1000 + n, now - 1000 + n))
    runtime = bench.open()
    spec = bench.spec("shop-1")
    await runtime.start(spec)
    await bench.say(spec, "hello")

    await runtime.stop("shop-1")

    names = {path.name for path in logs.iterdir()}
    assert len(names) == KEPT_LOGS
    assert {"shop-1", "old-54"} <= names
    assert "old-0" not in names
