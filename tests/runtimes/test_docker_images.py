"""Images that nobody needs go from the engine, and nothing else does."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from docker.errors import ImageNotFound
from support.docker_bench import DockerBench
from support.docker_images import ImageShelf
from support.dockerd import Dockerd
from support.runtime_support import DEADLINE_S, tell

from trafficmgr.core.template import ImageDigest
from trafficmgr.runtimes.contract import GroupSpec, GroupState, ImagesRemoved, RuntimeUnknownError
from trafficmgr.runtimes.docker import DockerRuntime
from trafficmgr.runtimes.docker.images import pin
from trafficmgr.runtimes.docker.names import stem

pytestmark = [pytest.mark.docker, pytest.mark.processes]


@pytest.fixture
async def bench(
    dockerd: Dockerd, image_shelf: ImageShelf, app_digest: ImageDigest, tmp_path: Path
) -> AsyncIterator[DockerBench]:
    bench = DockerBench(dockerd, image_shelf, app_digest, tmp_path)
    yield bench
    await bench.close()


async def new_image(bench: DockerBench) -> ImageDigest:
    """Return an image that the engine has never seen."""
    made = await asyncio.to_thread(bench.shelf.app, "tidy", Labels={"id": secrets.token_hex(8)})
    return made.but(container="web")


def spec_of(
    bench: DockerBench, group: str, image: ImageDigest, endpoint: str = "shop"
) -> GroupSpec:
    return bench.spec(group).but(images=(image,), endpoint=endpoint)


async def used(bench: DockerBench, runtime: DockerRuntime, *images: ImageDigest) -> None:
    """Have images pulled and pinned, with no container left."""
    for image in images:
        await runtime.start(spec_of(bench, "pulls", image))
        await runtime.stop("pulls")


def is_there(bench: DockerBench, reference: str) -> bool:
    try:
        bench.client.inspect_image(reference)  # type: ignore[no-untyped-call, unused-ignore]  # as its stubs have it
    except ImageNotFound:
        return False
    return True


def by_digest(image: ImageDigest) -> str:
    return f"{image.repository}@{image.platform_digest}"


def keep(*images: ImageDigest) -> frozenset[str]:
    return frozenset(image.platform_digest for image in images)


async def test_of_three_revisions_two_are_kept_and_start_without_a_registry(
    bench: DockerBench,
) -> None:
    """The third loses its pin, and with it its place on the disk."""
    first, second, third = [await new_image(bench) for _ in range(3)]
    runtime = bench.open()
    await used(bench, runtime, first, second, third)

    removed = await runtime.keep_images(keep(first, third))

    assert removed == ImagesRemoved(images=1)
    there = [is_there(bench, pin(bench.instance, "shop", one)) for one in (first, second, third)]
    assert there == [True, False, True]
    assert not is_there(bench, by_digest(second))
    gate, bench._gate = bench._gate, asyncio.Event()  # nobody answers a pull from now on
    again = bench.open()
    async with asyncio.timeout(DEADLINE_S):
        await again.start(spec_of(bench, "rollback", first))
    assert (await again.list())[0].state is GroupState.running
    bench._gate = gate
    await runtime.start(spec_of(bench, "retried", second))  # it is pulled anew, memory or not


async def test_an_image_that_a_container_is_made_of_stays(bench: DockerBench) -> None:
    image, runtime = await new_image(bench), bench.open()
    await runtime.start(spec_of(bench, "shop-1", image))

    assert await runtime.keep_images(frozenset()) == ImagesRemoved()

    assert is_there(bench, pin(bench.instance, "shop", image))
    await runtime.stop("shop-1")
    assert await runtime.keep_images(frozenset()) == ImagesRemoved(images=1)
    assert not is_there(bench, by_digest(image))


async def test_an_image_with_a_tag_of_others_loses_ours_only(bench: DockerBench) -> None:
    image, runtime = await new_image(bench), bench.open()
    await used(bench, runtime, image)
    theirs = f"theirs.test/{bench.instance}"
    bench.client.tag(by_digest(image), theirs, "mine")

    await runtime.keep_images(frozenset())

    assert not is_there(bench, pin(bench.instance, "shop", image))
    assert is_there(bench, f"{theirs}:mine")
    bench.client.remove_image(f"{theirs}:mine")


async def test_images_of_others_and_the_pause_image_are_never_touched(
    bench: DockerBench, tmp_path: Path
) -> None:
    """Another installation may need what this one does not; so may people."""
    image, pulled = await new_image(bench), await new_image(bench)
    other = DockerBench(bench.dockerd, bench.shelf, bench.app, tmp_path / "other")
    runtime, others = bench.open(), other.open()
    await used(bench, runtime, image)
    await others.start(spec_of(other, "pulls", image))
    pause = other.client.inspect_container(stem(other.instance, "pulls"))["Config"]["Image"]
    await others.stop("pulls")
    bench.client.pull(pulled.repository, tag=pulled.platform_digest)

    await runtime.keep_images(frozenset())

    assert not is_there(bench, pin(bench.instance, "shop", image))
    assert is_there(bench, pin(other.instance, "shop", image))
    assert is_there(bench, by_digest(pulled))
    assert is_there(bench, pause)
    assert await others.keep_images(frozenset()) == ImagesRemoved(images=1)
    await other.close()


async def test_pins_of_several_endpoints_are_one_image(bench: DockerBench) -> None:
    image, runtime = await new_image(bench), bench.open()
    await used(bench, runtime, image)
    await runtime.start(spec_of(bench, "pulls", image, endpoint="pause"))
    await runtime.stop("pulls")

    assert await runtime.keep_images(keep(image)) == ImagesRemoved()
    assert is_there(bench, pin(bench.instance, "pause", image))
    assert await runtime.keep_images(frozenset()) == ImagesRemoved(images=1)

    assert not is_there(bench, by_digest(image))


async def test_starts_at_any_moment_of_a_removal_run(bench: DockerBench) -> None:
    image, runtime = await new_image(bench), bench.open()
    await used(bench, runtime, image)
    for number in range(3):
        spec = spec_of(bench, f"shop-{number}", image)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(runtime.keep_images(frozenset()))
            await asyncio.sleep(0.01 * number)
            start = tasks.create_task(runtime.start(spec))
            while not start.done():
                await runtime.keep_images(frozenset())

        assert is_there(bench, pin(bench.instance, "shop", image))
        await tell(spec, "cwd")
        await runtime.stop(spec.group)
        assert await runtime.keep_images(frozenset()) == ImagesRemoved(images=1)


async def test_an_engine_that_is_away_is_unknown(tmp_path: Path, bench: DockerBench) -> None:
    nowhere = DockerRuntime(
        base_url=f"unix://{tmp_path}/no.sock",
        instance=bench.instance,
        address_pool=str(bench.pool),
        state_dir=tmp_path,
        keep_logs_s=1.0,
        credentials=bench._credentials,
    )

    with pytest.raises(RuntimeUnknownError, match="can't be asked"):
        await nowhere.keep_images(frozenset())

    await nowhere.close()
