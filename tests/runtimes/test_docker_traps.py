"""What goes wrong with groups on Docker, each of it seen in the field (DESIGN 8, trap by trap)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from conformance_groups import needs
from support.conformance_bench import printed, run, said, shell
from support.docker_bench import DockerBench
from support.docker_images import ImageShelf
from support.dockerd import Dockerd
from support.runtime_support import DEADLINE_S, tell

from trafficmgr.core.template import (
    EmptyDir,
    ExecCheck,
    HttpCheck,
    ImageDigest,
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
    RuntimeUnknownError,
    Secrets,
)
from trafficmgr.runtimes.docker.images import pin
from trafficmgr.runtimes.docker.names import container_name, stem

pytestmark = [pytest.mark.docker, pytest.mark.processes]

FOR_EVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
MIB = 2**20


@pytest.fixture
async def bench(
    dockerd: Dockerd, image_shelf: ImageShelf, app_digest: ImageDigest, tmp_path: Path
) -> AsyncIterator[DockerBench]:
    bench = DockerBench(dockerd, image_shelf, app_digest, tmp_path)
    yield bench
    await bench.close()


async def ended(runtime: Runtime) -> GroupStatus:
    async with asyncio.timeout(DEADLINE_S):
        return await anext(runtime.watch())


def inspected(bench: DockerBench, name: str) -> dict[str, Any]:
    found: dict[str, Any] = bench.client.inspect_container(name)  # type: ignore[no-untyped-call, unused-ignore]  # as its stubs have it
    return found


async def new_image(bench: DockerBench, name: str) -> ImageDigest:
    """Return an image that the engine has never seen."""
    made = await asyncio.to_thread(bench.shelf.app, name, Labels={"name": bench.instance})
    return made.but(container="web")


# -- the pause container --------------------------------------------------------------------------


async def test_killed_pause_ends_the_group_and_nothing_looks_running(bench: DockerBench) -> None:
    """The members would run on in a network that nobody can reach, and look healthy."""
    runtime = bench.open()
    spec = bench.group("shop-1", bench.listener("web"), bench.script("side", FOR_EVER))
    await runtime.start(spec)

    bench.client.kill(stem(bench.instance, "shop-1"))
    status = await ended(runtime)

    assert status.state is GroupState.exited
    assert status.reason == "the pause container ended (killed by SIGKILL)"
    assert [one.state for one in status.containers] == [ContainerState.terminated] * 2
    assert status.pid is None
    await runtime.stop("shop-1")
    assert bench.containers() == []


async def test_only_the_pause_has_network_and_hostname_and_nothing_is_restarted(
    bench: DockerBench,
) -> None:
    runtime = bench.open()
    spec = bench.group("shop-1", bench.listener("web"), bench.script("side", FOR_EVER))

    await runtime.start(spec)

    pause, *members = (inspected(bench, name) for name in bench.containers())
    host = [one["HostConfig"] for one in (pause, *members)]
    assert bench.containers() == [
        stem(bench.instance, "shop-1"),
        container_name(spec, "side"),
        container_name(spec, "web"),
    ]
    assert {one["RestartPolicy"]["Name"] for one in host} == {"no"}
    assert {one["PidsLimit"] for one in host} == {1024}
    assert {one["LogConfig"]["Config"]["max-size"] for one in host} == {str(10 * MIB)}
    assert pause["Config"]["Hostname"] == "shop-1"
    assert {one["HostConfig"]["NetworkMode"] for one in members} == {f"container:{pause['Id']}"}
    assert all(one["HostConfig"]["Init"] for one in members)
    assert await shell(runtime, "shop-1", "side", "hostname") == "shop-1"


async def test_a_container_without_a_handler_stops_at_once(bench: DockerBench) -> None:
    """As process 1 it would ignore SIGTERM, and take its whole grace."""
    runtime = bench.open()
    web = bench.listener("web", command=("sleep", "1000"), stop_grace_s=DEADLINE_S)
    await runtime.start(bench.group("shop-1", web))

    async with asyncio.timeout(DEADLINE_S / 2):
        await runtime.stop("shop-1")

    assert bench.containers() == []


async def test_another_pause_image_can_be_named(bench: DockerBench) -> None:
    app = f"{bench.app.repository}@{bench.app.digest}"
    runtime = bench.open(pause_image=app)

    await runtime.start(bench.spec("shop-1"))

    assert inspected(bench, stem(bench.instance, "shop-1"))["Config"]["Image"] == app


async def test_ours_takes_the_place_of_a_pause_image_that_is_not_to_be_had(
    bench: DockerBench,
) -> None:
    runtime = bench.open(pause_image=f"{bench.shelf.host}/no/such:pause")

    await runtime.start(bench.spec("shop-1"))

    image = inspected(bench, stem(bench.instance, "shop-1"))["Config"]["Image"]
    assert image.startswith("trafficmgr.local/pause:")


# -- images ---------------------------------------------------------------------------------------


async def test_dangling_prune_does_not_lose_what_is_pinned(bench: DockerBench) -> None:
    """A rollback must start with the registry switched off."""
    bench.app = await new_image(bench, "rollback")
    runtime = bench.open()
    spec = bench.spec("shop-1")
    await runtime.start(spec)
    await runtime.stop("shop-1")

    bench.client.prune_images(filters={"dangling": True})  # type: ignore[no-untyped-call, unused-ignore]  # as its stubs have it
    bench._gate = asyncio.Event()  # nobody answers a pull from now on
    again = bench.open()
    await again.start(spec.but(group="shop-2"))

    assert (await again.list())[0].state is GroupState.running


async def test_image_that_was_removed_by_hand_is_pulled_again(bench: DockerBench) -> None:
    bench.app = await new_image(bench, "removed")
    runtime = bench.open()
    spec = bench.spec("shop-1")
    await runtime.start(spec)
    await runtime.stop("shop-1")
    bench.client.remove_image(pin(bench.instance, "shop", bench.app), force=True)
    bench.client.remove_image(f"{bench.app.repository}@{bench.app.digest}", force=True)

    with pytest.raises(RuntimeUnknownError, match="is tried again"):
        await runtime.start(spec)
    await runtime.start(spec)

    assert (await runtime.list())[0].state is GroupState.running


async def test_digest_that_the_registry_does_not_have_is_refused(bench: DockerBench) -> None:
    runtime = bench.open()
    bench.app = bench.app.but(platform_digest=f"sha256:{'0' * 64}")

    with pytest.raises(RuntimeFailure, match=r"sha256:0+ can't be pulled: .*") as failure:
        await runtime.start(bench.spec("shop-1"))

    assert not isinstance(failure.value, RuntimeUnknownError)
    assert bench.containers() == []


async def test_registry_that_is_away_is_unknown(bench: DockerBench) -> None:
    runtime = bench.open()
    bench.app = bench.app.but(
        repository="127.0.0.1:9/shop/web", platform_digest=f"sha256:{'1' * 64}"
    )

    with pytest.raises(RuntimeUnknownError, match="can't be pulled now"):
        await runtime.start(bench.spec("shop-1"))


# -- memory ---------------------------------------------------------------------------------------


async def test_process_that_is_ended_for_its_memory_is_named_though_the_main_one_lives(
    bench: DockerBench,
) -> None:
    runtime = bench.open()
    limit = Resources(memory_bytes=24 * MIB)
    spec = bench.group(
        "shop-1", bench.script("web", f"tail /dev/zero; echo survived; {FOR_EVER}", resources=limit)
    )
    told = asyncio.get_running_loop().create_task(ended(runtime))
    await runtime.start(spec)

    await printed(runtime, "shop-1", "web", "survived")
    async with asyncio.timeout(DEADLINE_S):
        while (status := (await runtime.list())[0]).containers[0].reason != "OOMKilled":  # noqa: ASYNC110  another process dies
            await asyncio.sleep(0.05)

    assert status.state is GroupState.running
    bench.client.kill(container_name(spec, "web"))
    assert (await told).reason.startswith("OOMKilled: ")


async def test_limits_of_a_group_leave_no_cgroup_behind(bench: DockerBench) -> None:
    runtime = bench.open()
    await needs(runtime, "group_limits")
    spec = bench.group(
        "shop-1", bench.script("web", FOR_EVER), resources=Resources(memory_bytes=64 * MIB, cpu=0.5)
    )
    await runtime.start(spec)
    made = {path for path in bench.held() if path.startswith("/sys/fs/cgroup")}

    await runtime.stop("shop-1")

    assert made
    assert not bench.held()


# -- other people's things ------------------------------------------------------------------------


async def test_containers_of_others_are_never_touched(bench: DockerBench) -> None:
    runtime = bench.open()
    spec = bench.spec("shop-1")
    await runtime.start(spec)  # brings the image
    config = {
        "Image": pin(bench.instance, "shop", bench.app),
        "HostConfig": {"NetworkMode": "none"},
    }
    theirs = f"{stem(bench.instance, 'shop-2')}.web"
    bench.client.create_container_from_config(config, theirs)  # type: ignore[no-untyped-call, unused-ignore]  # as its stubs have it
    try:
        with pytest.raises(RuntimeFailure, match="a container of somebody else has the name"):
            await runtime.start(bench.spec("shop-2"))
        await runtime.stop("shop-2")

        assert [status.group for status in await runtime.list()] == ["shop-1"]
        assert inspected(bench, theirs)["State"]["Status"] == "created"
    finally:
        bench.client.remove_container(theirs, force=True)


async def test_two_installations_on_one_engine_do_not_see_each_other(
    bench: DockerBench, tmp_path: Path
) -> None:
    other = DockerBench(bench.dockerd, bench.shelf, bench.app, tmp_path / "other")
    one, two = bench.open(), other.open()
    await one.start(bench.spec("shop-1"))
    try:
        await two.start(other.spec("shop-1"))
        await two.stop("shop-1")

        assert [status.state for status in await one.list()] == [GroupState.running]
        assert await two.list() == ()
    finally:
        await other.close()


async def test_two_installations_with_one_address_pool_are_refused(
    bench: DockerBench, tmp_path: Path
) -> None:
    other = DockerBench(bench.dockerd, bench.shelf, bench.app, tmp_path / "other")
    other.pool = bench.pool
    one, two = bench.open(), other.open()
    await one.start(bench.spec("shop-1"))
    try:
        with pytest.raises(RuntimeFailure, match="belongs to another trafficmgr"):
            await two.start(other.spec("shop-1"))
    finally:
        await other.close()


async def test_network_of_the_operator_is_used_and_left(bench: DockerBench) -> None:
    """So that trafficmgr itself can run beside the engine, on the network of its groups."""
    name = f"operator-{bench.instance}"
    bench.client.create_network(
        name,
        ipam={"Driver": "default", "Config": [{"Subnet": str(bench.pool)}]},  # type: ignore[arg-type]
    )
    try:
        runtime = bench.open()
        spec = bench.spec("shop-1")
        await runtime.start(spec)
        await tell(spec, "say hello")
        await runtime.stop("shop-1")

        assert [one["Name"] for one in bench.client.networks(names=[name])] == [name]
    finally:
        bench.client.remove_network(name)


async def test_network_that_was_removed_by_hand_is_made_again(bench: DockerBench) -> None:
    runtime = bench.open()
    spec = bench.spec("shop-1")
    await runtime.start(spec)
    (network,) = [name for name in bench.held() if "-198.1" in name]
    for container in reversed(bench.containers()):
        bench.client.remove_container(container, force=True)
    bench.client.remove_network(network)

    with pytest.raises(RuntimeUnknownError, match="is tried again"):
        await runtime.start(spec)
    await runtime.start(spec)

    assert (await runtime.list())[0].state is GroupState.running


async def test_container_that_was_removed_by_hand_ends_the_group(bench: DockerBench) -> None:
    runtime = bench.open()
    spec = bench.group("shop-1", bench.listener("web"), bench.script("side", FOR_EVER))
    await runtime.start(spec)
    watch = runtime.watch()

    bench.client.remove_container(container_name(spec, "side"), force=True)
    async with asyncio.timeout(DEADLINE_S):
        status = await anext(watch)

    assert status.state is GroupState.exited
    assert (await runtime.list())[0].state is GroupState.exited


# -- volumes and secrets --------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["1234:2345", "app", ""])
async def test_secrets_belong_to_the_user_of_their_container(bench: DockerBench, user: str) -> None:
    runtime = bench.open()
    mounts = (Mount(volume="keys", path="/keys"),)
    spec = bench.group(
        "shop-1",
        bench.script("web", FOR_EVER, user=user, mounts=mounts),
        bench.script("root", FOR_EVER, user="0", mounts=mounts),
        volumes=(Volume(name="keys", source=SecretFiles(files={"token": "t"})),),
    )
    secrets = Secrets(env={"web": {"A": "a b\nc"}}, files={"keys": {"token": b"hush"}})

    await runtime.start(spec, secrets)

    look = 'cat /keys/token; stat -c " %a %u" /keys/token; id -u; echo "$A"'
    uid = {"1234:2345": "1234", "app": "1000", "": "0"}[user]
    assert (await shell(runtime, "shop-1", "web", look)).split() == [
        *("hush", "400", uid, uid, "a", "b", "c"),
    ]
    assert (await run(runtime, "shop-1", "web", "touch", "/keys/new")).code != 0
    volumes = await asyncio.to_thread(bench.client.volumes, {"name": f"tm-{bench.instance[:8]}"})
    assert {one["Options"]["type"] for one in volumes["Volumes"]} == {"tmpfs"}


async def test_empty_dir_can_be_written_to_by_any_user(bench: DockerBench) -> None:
    runtime = bench.open()
    mounts = (Mount(volume="shared", path="/shared"), Mount(volume="small", path="/small"))
    spec = bench.group(
        "shop-1",
        bench.script("web", FOR_EVER, user="1000", mounts=mounts),
        volumes=(
            Volume(name="shared", source=EmptyDir()),
            Volume(name="small", source=EmptyDir(size_bytes=MIB)),
        ),
    )
    await runtime.start(spec)

    both = await shell(
        runtime, "shop-1", "web", "echo a > /shared/a && echo b > /small/b && ls /small"
    )

    assert both == "b"


async def test_program_that_an_init_container_brings_can_be_the_command(bench: DockerBench) -> None:
    runtime = bench.open()
    mounts = (Mount(volume="code", path="/code"),)
    pull = "printf '#!/bin/sh\\necho pulled; sleep 1000\\n' > /code/run; chmod +x /code/run"
    spec = bench.group(
        "shop-1",
        bench.script("web", "", command=("/code/run",), mounts=mounts),
        init_containers=(bench.script("puller", pull, mounts=mounts),),
        volumes=(Volume(name="code", source=EmptyDir()),),
    )

    await runtime.start(spec)

    await printed(runtime, "shop-1", "web", "pulled")


# -- commands and the end -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [("/no/such",), ("no-such",), ("/etc/passwd",), ("/etc",), ("./nothing",)]
)
async def test_command_that_does_not_exist_fails_the_start(
    bench: DockerBench, command: tuple[str, ...]
) -> None:
    """The engine's init would start, and end with 127: a typing error would look like a crash."""
    runtime = bench.open()

    with pytest.raises(RuntimeFailure, match="there is no executable"):
        await runtime.start(bench.group("shop-1", bench.listener("web", command=command)))

    assert bench.held() == set()


async def test_user_that_does_not_exist_fails_the_start(bench: DockerBench) -> None:
    runtime = bench.open()

    with pytest.raises(RuntimeFailure, match="unable to find user nobody-9"):
        await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER, user="nobody-9")))

    assert bench.held() == set()


@pytest.mark.parametrize(
    ("pre_stop", "complaint"),
    [
        (ExecCheck(command=("sh", "-c", "echo ouch; exit 4")), "ended with exit code 4: ouch"),
        (ExecCheck(command=("/no/such",)), "no such file"),
        (ExecCheck(command=("sleep", "1000")), "took longer than stop_grace (1 s)"),
        (HttpCheck(port=9999, path="/bye"), "GET /bye on port 9999 failed"),
    ],
)
async def test_pre_stop_that_fails_is_said_in_the_log_and_keeps_nobody(
    bench: DockerBench, pre_stop: ExecCheck | HttpCheck, complaint: str
) -> None:
    runtime = bench.open()
    web = bench.script("web", FOR_EVER, pre_stop=pre_stop, stop_grace_s=1.0)
    await runtime.start(bench.group("shop-1", web))

    await runtime.stop("shop-1")

    assert complaint in await said(runtime, "shop-1")
    assert bench.containers() == []


async def test_completed_group_is_not_started_again_and_is_no_failure(bench: DockerBench) -> None:
    """The controller may have died before it wrote down that the start had succeeded."""
    runtime = bench.open()
    spec = bench.group("job-1", bench.script("job", "exit 0"), restart=RestartPolicy.never)
    await runtime.start(spec)
    assert (await ended(runtime)).state is GroupState.completed

    await runtime.start(spec)

    (status,) = await runtime.list()
    assert (status.state, status.reason) == (GroupState.completed, "exit code 0")
