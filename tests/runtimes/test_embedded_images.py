"""Trees that nobody needs go; those that are to be kept, that run, or are about to, never do."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.runtime_support import (
    EmbeddedBench,
    app_image,
    eventually,
    group_spec,
    read_text,
    tell,
)

from trafficmgr.core.template import ImageDigest
from trafficmgr.runtimes.contract import (
    GroupState,
    ImagesRemoved,
    RuntimeFailure,
    RuntimeUnknownError,
)
from trafficmgr.runtimes.embedded.trees import Trees
from trafficmgr.wire.images import ImageConfig, LocalImage

pytestmark = pytest.mark.processes


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[EmbeddedBench]:
    bench = EmbeddedBench(tmp_path)
    yield bench
    await bench.close()


def revision(bench: EmbeddedBench, version: str) -> LocalImage:
    """Return another image of the obedient application."""
    config = bench.app.config.but(env={"VERSION": version})
    return bench.images.add(app_image(bench.images.folder, config=config))


def digest(image: LocalImage) -> ImageDigest:
    name = image.platform_digest
    return ImageDigest(
        container="web", repository="registry.test/x", digest=name, platform_digest=name
    )


def keep(*images: LocalImage) -> frozenset[str]:
    return frozenset(image.platform_digest for image in images)


def trees(bench: EmbeddedBench) -> set[str]:
    """Return all that is in the folder of trees, as digests if it is one."""
    folder = bench.state_dir / "store" / "trees"
    return {f"sha256:{path.name}" for path in folder.iterdir()}


async def unpacked(bench: EmbeddedBench, *images: LocalImage) -> None:
    for image in images:
        runtime = bench.open()
        await runtime.start(group_spec("unpacks", image))
        await runtime.stop("unpacks")


async def test_of_three_revisions_two_are_kept_and_start_without_a_registry(
    bench: EmbeddedBench,
) -> None:
    first, second, third = (revision(bench, version) for version in "123")
    await unpacked(bench, first, second, third)
    runtime = bench.open()

    removed = await runtime.keep_images(keep(first, third))

    assert trees(bench) == keep(first, third)
    assert removed.images == 1
    assert removed.size_bytes
    pulls = len(bench.images.pulls)
    await runtime.start(group_spec("rollback", first))
    assert (await runtime.list())[0].state is GroupState.running
    assert len(bench.images.pulls) == pulls
    await runtime.start(group_spec("again", second))
    assert bench.images.pulls[pulls:] == [second.platform_digest]
    assert await runtime.keep_images(keep(first, second, third)) == ImagesRemoved(size_bytes=0)


async def test_nothing_is_there_to_remove_before_the_first_start(bench: EmbeddedBench) -> None:
    assert await bench.open().keep_images(frozenset()) == ImagesRemoved(size_bytes=0)


async def test_what_a_group_runs_in_stays_until_it_is_stopped(bench: EmbeddedBench) -> None:
    runtime = bench.open()
    spec = bench.spec("shop-1")
    await runtime.start(spec)

    await bench.open().keep_images(frozenset())  # of a controller that did not start it

    assert trees(bench) == keep(bench.app)
    assert await tell(spec, "cwd")
    await tell(spec, "exit 1")
    await eventually((bench.state_dir / "groups/shop-1/web/exit.json").exists)
    await runtime.keep_images(frozenset())
    assert trees(bench) == keep(bench.app)
    await runtime.stop("shop-1")
    await runtime.keep_images(frozenset())
    assert trees(bench) == set()


async def test_a_group_that_cannot_be_read_keeps_everything(bench: EmbeddedBench) -> None:
    await unpacked(bench, bench.app)
    record = bench.state_dir / "groups" / "from-the-future" / "group.json"
    record.parent.mkdir()
    record.write_text('{"spec": 2}')

    with pytest.raises(RuntimeUnknownError, match=r"from-the-future/group.json can't be read"):
        await bench.open().keep_images(frozenset())

    assert trees(bench) == keep(bench.app)


async def test_a_start_that_has_its_tree_but_no_group_yet_does_not_lose_it(
    bench: EmbeddedBench,
) -> None:
    """Its second image takes its time; the first one is there, and nobody has written it down."""
    slow = revision(bench, "slow")
    await unpacked(bench, bench.app)
    runtime = bench.open()
    spec = group_spec("shop-1", bench.app)
    side = spec.template.containers[0].but(name="side", command=("/bin/sleep", "1000"))
    spec = spec.but(
        template=spec.template.but(containers=(*spec.template.containers, side)),
        images=(*spec.images, digest(slow).but(container="side")),
    )
    bench.images.gate = asyncio.Event()
    bench.images.asked.clear()
    async with asyncio.TaskGroup() as tasks:
        start = tasks.create_task(runtime.start(spec))
        await bench.images.asked.wait()

        await runtime.keep_images(frozenset())

        assert trees(bench) >= keep(bench.app)
        bench.images.gate.set()
    assert start.result() == spec.address
    assert trees(bench) == keep(bench.app, slow)
    assert await tell(spec, "cwd")


async def test_a_start_that_failed_holds_nothing(bench: EmbeddedBench) -> None:
    runtime = bench.open()
    with pytest.raises(RuntimeFailure):
        await runtime.start(bench.spec("shop-1", fails=True))

    await runtime.keep_images(frozenset())

    assert trees(bench) == set()


async def test_starts_at_any_moment_of_a_removal_run(bench: EmbeddedBench) -> None:
    dice = random.Random(4)  # noqa: S311  the order of a test
    runtime = bench.open()
    for number in range(6):
        spec = bench.spec(f"shop-{number}")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(runtime.keep_images(frozenset()))
            for _ in range(dice.randrange(6)):
                await asyncio.sleep(0)
            await runtime.start(spec)
            tasks.create_task(runtime.keep_images(frozenset()))

        assert await tell(spec, "cwd")
        await runtime.stop(spec.group)


async def test_a_tree_that_a_killed_controller_has_put_aside_is_removed(
    bench: EmbeddedBench,
) -> None:
    await unpacked(bench, bench.app)
    folder = bench.state_dir / "store" / "trees"
    half = folder / ".gone-0"
    (half / "rootfs").mkdir(parents=True)
    (half / "rootfs" / "file").write_text("left")
    (half / "rootfs").chmod(0o500)

    removed = await bench.open().keep_images(keep(bench.app))

    assert trees(bench) == keep(bench.app)
    assert removed.images == 1


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_that_is_to_be_kept_or_held_is_ever_removed(
    tmp_path: Path, seed: int
) -> None:
    """Any order of getting, holding and keeping; a tree that is held or kept is whole all along."""
    dice = random.Random(seed)  # noqa: S311  the order of a test
    bench = EmbeddedBench(tmp_path)
    images = [
        bench.images.add(app_image(bench.images.folder, config=ImageConfig(env={"N": str(number)})))
        for number in range(4)
    ]
    folder = tmp_path / "trees"
    store = Trees(folder, bench.images.pull)

    async def hold() -> None:
        image = digest(dice.choice(images))
        with store.in_use([image]):
            tree = await store.get(image)
            for _ in range(dice.randrange(5)):
                await asyncio.sleep(0.001)
                assert "started" in read_text(Path(tree.rootfs, "app/app.py"))

    for image in images:
        await store.get(digest(image))
    for _ in range(20):
        kept = keep(*dice.sample(images, 2))
        there = {f"sha256:{path.name}" for path in folder.iterdir()}
        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(hold())
            await asyncio.sleep(0.001 * dice.randrange(3))
            await store.keep(kept, frozenset)
        assert {f"sha256:{path.name}" for path in folder.iterdir()} >= kept & there
    await bench.close()
