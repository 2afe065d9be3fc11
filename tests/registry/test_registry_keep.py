"""What nobody needs goes from the store, and nothing else, whatever is pulled meanwhile."""

import asyncio
import random
from pathlib import Path

import aiohttp.web
import pytest
from support.registry_support import serving

from demo.builder import Image, Index, Layer, push, sha256
from trafficmgr.core.template import ImageDigest
from trafficmgr.registry.errors import StoreError
from trafficmgr.registry.images import BlobsRemoved, Images
from trafficmgr.registry.store import BlobStore
from trafficmgr.wire.images import LocalImage

BASE = Layer.of_files({"base": b"of all"})


def image(version: str) -> Image:
    return Image(files={"version": version.encode()}, layers=(BASE,), config={"Cmd": [version]})


def blobs(*images: Image) -> frozenset[str]:
    """Return the digests of all that images are made of."""
    return frozenset(sha256(b) for one in images for b in (one.manifest, *one.blobs))


def is_whole(local: LocalImage) -> bool:
    return all(Path(layer.path).exists() for layer in local.layers)


def wanted(host: str, name: str, digest: str, platform_digest: str = "") -> ImageDigest:
    return ImageDigest(
        container="web",
        repository=f"{host}/{name}",
        digest=digest,
        platform_digest=platform_digest or digest,
    )


class Shelf:
    """A registry of several images, that may take its time."""

    def __init__(self, *images: Image) -> None:
        self.content = {
            sha256(body): (one.media_type if body == one.manifest else "", body)
            for one in images
            for body in (one.manifest, *one.blobs)
        }
        self.delay: asyncio.Event | None = None

    async def __call__(self, request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        if self.delay is not None:
            await self.delay.wait()
        media_type, body = self.content[request.path.rpartition("/")[2]]
        kind = media_type or "application/octet-stream"
        return aiohttp.web.Response(body=body, headers={"Content-Type": kind})


async def pulled(images: Images, host: str, *some: Image) -> None:
    """Have images, pulled so long ago that nobody reads them any more."""
    for one in some:
        await images.pull(wanted(host, "team/web", one.digest))
    await images.keep(frozenset(one.digest for one in some))


async def test_what_is_not_kept_goes_with_its_layers_but_for_those_that_are_shared(
    images: Images, store: BlobStore
) -> None:
    old, kept = image("1"), image("2")
    async with serving(Shelf(old, kept)) as server:
        await pulled(images, server.host, old, kept)

        removed = await images.keep(frozenset({kept.digest}))

    gone = blobs(old) - blobs(kept)
    sizes = {sha256(b): len(b) for b in (old.manifest, *old.blobs)}
    assert await store.digests() == blobs(kept)
    assert removed == BlobsRemoved(blobs=len(gone), size_bytes=sum(sizes[d] for d in gone))
    assert await images.keep(frozenset({kept.digest})) == BlobsRemoved()


async def test_an_index_is_kept_and_what_is_kept_is_pulled_without_a_registry(
    demo_host: str, images: Images, store: BlobStore
) -> None:
    index = Index((image("kept"),))
    digest = await push(f"http://{demo_host}", "team/keep", "stable", index)
    resolved = await images.resolve(f"{demo_host}/team/keep", "stable")
    asked = wanted(demo_host, "team/keep", digest, resolved.platform_digest)
    first = await images.pull(asked)
    both = frozenset({digest, resolved.platform_digest})
    await images.keep(both)

    await images.keep(both)

    again = await images.pull(asked.but(repository="127.0.0.1:1/team/keep"))
    assert again == first
    assert is_whole(again)
    assert await store.digests() == blobs(*index.images) | {digest}


async def test_what_was_just_pulled_is_spared_once(images: Images, store: BlobStore) -> None:
    """Whoever pulled it may still be unpacking it."""
    new = image("1")
    async with serving(Shelf(new)) as server:
        await images.pull(wanted(server.host, "team/web", new.digest))

    await images.keep(frozenset())
    assert await store.digests() == blobs(new)
    await images.keep(frozenset())
    assert await store.digests() == frozenset()


async def test_a_pull_keeps_what_it_has_and_downloads_what_it_finds_gone(
    images: Images, store: BlobStore
) -> None:
    """It waits for its config; meanwhile all that was there of it is removed, twice."""
    old, new = image("1"), image("2")
    shelf = Shelf(old, new)
    async with serving(shelf) as server:
        await pulled(images, server.host, old)
        shelf.delay = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            pull = tasks.create_task(images.pull(wanted(server.host, "team/web", new.digest)))
            server.was_asked.clear()
            await asyncio.wait_for(server.was_asked.wait(), 20)  # for its manifest
            await images.keep(frozenset())
            await images.keep(frozenset())
            assert await store.digests() == frozenset()
            shelf.delay.set()

        assert is_whole(pull.result())
    assert await store.digests() == blobs(new)


async def test_a_pull_that_waits_for_its_last_layer_loses_none_of_the_others(
    images: Images, store: BlobStore
) -> None:
    new = image("1")
    last = sha256(new.all_layers[-1].blob)
    shelf = Shelf(new)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        if request.path.endswith(last):
            reached.set()
            await go_on.wait()
        return await shelf(request)

    async with serving(slow) as server, asyncio.TaskGroup() as tasks:
        pull = tasks.create_task(images.pull(wanted(server.host, "team/web", new.digest)))
        await asyncio.wait_for(reached.wait(), 20)
        async with asyncio.timeout(20):
            while sha256(BASE.blob) not in await store.digests():  # noqa: ASYNC110  a thread writes
                await asyncio.sleep(0.01)
        for _ in range(3):
            await images.keep(frozenset())
        go_on.set()

    assert is_whole(pull.result())


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_that_is_to_be_kept_is_ever_removed(
    images: Images, store: BlobStore, seed: int
) -> None:
    """Pulls and keeps in any order, at once: what was kept stays whole, and so is each pull."""
    dice = random.Random(seed)  # noqa: S311  the order of a test
    several = [image(str(number)) for number in range(4)]
    kept = several[:2]
    digests = frozenset(one.digest for one in kept)
    async with serving(Shelf(*several)) as server:
        await pulled(images, server.host, *several)

        async def pull() -> None:
            asked = wanted(server.host, "team/web", dice.choice(several).digest)
            for _ in range(dice.randrange(20)):
                await asyncio.sleep(0)
            await images.pull(asked)

        for _ in range(10):
            async with asyncio.TaskGroup() as tasks:
                pulls = [tasks.create_task(pull()) for _ in range(3)]
                await images.keep(digests)
            assert all(one.exception() is None for one in pulls)
            assert blobs(*kept) <= await store.digests()
        wanted_now = [wanted("127.0.0.1:1", "team/web", one.digest) for one in kept]
        assert all([is_whole(await images.pull(one)) for one in wanted_now])


async def test_one_that_is_to_be_kept_and_cannot_be_read_keeps_everything(
    images: Images, store: BlobStore
) -> None:
    damaged, other = image("1"), image("2")
    async with serving(Shelf(damaged, other)) as server:
        await pulled(images, server.host, damaged, other)
        store.path(damaged.digest).write_bytes(b"{}")

        with pytest.raises(StoreError, match="can't be used"):
            await images.keep(frozenset({damaged.digest}))

    assert await store.digests() == blobs(damaged, other)
