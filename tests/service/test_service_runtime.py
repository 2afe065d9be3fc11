"""The engine that the config names is opened with what it needs, and hears its own errors."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.config_support import GOOD, loaded
from support.story import TEMPLATE

from trafficmgr.config.settings import Settings
from trafficmgr.controller.configuring import registry_access
from trafficmgr.core.template import ImageDigest
from trafficmgr.registry.errors import (
    NotFoundError,
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
    StoreError,
)
from trafficmgr.registry.images import Images
from trafficmgr.registry.store import BlobStore
from trafficmgr.runtimes.contract import GroupSpec, RuntimeFailure, RuntimeUnknownError
from trafficmgr.runtimes.embedded import EmbeddedRuntime
from trafficmgr.runtimes.embedded.pool import locked
from trafficmgr.service.runtime import opened_runtime
from trafficmgr.wire.images import LocalImage

POOL = f"127.242.{os.getpid() % 256}.0/24"
"""Test runs side by side seldom meet."""

DIGEST = f"sha256:{'0' * 64}"
IMAGE = ImageDigest(
    container="web",
    repository="registry.test/shop/web",
    digest=DIGEST,
    platform_digest=DIGEST,
)

SPEC = GroupSpec(
    group="shop-1",
    instance="test",
    endpoint="shop",
    revision="v1",
    address=POOL.replace(".0/24", ".1"),
    port=8080,
    template=TEMPLATE,
    images=(IMAGE,),
)


class NoImages(Images):
    """Images of which none can be had."""

    failure: RegistryError

    async def pull(self, image: ImageDigest) -> LocalImage:
        assert image == IMAGE
        raise self.failure


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return loaded(tmp_path, f"state_dir: {tmp_path}\naddress_pool: {POOL}\n{GOOD}")


@pytest.fixture
async def images(settings: Settings) -> AsyncIterator[NoImages]:
    store = BlobStore(settings.state_dir / "store")
    opened = NoImages(store, registry_access(settings))
    yield opened
    await opened.close()
    store.close()


async def test_the_embedded_runtime_holds_its_pool_while_it_is_open(
    settings: Settings, images: Images
) -> None:
    async with opened_runtime(settings, instance="test", images=images) as runtime:
        assert isinstance(runtime, EmbeddedRuntime)
        with pytest.raises(RuntimeFailure, match=r"another trafficmgr .* 127\.242"), locked(POOL):
            pass

    with locked(POOL):
        pass


async def test_a_pool_that_another_one_holds_is_refused(settings: Settings, images: Images) -> None:
    with locked(POOL), pytest.raises(RuntimeFailure, match="address_pool"):
        async with opened_runtime(settings, instance="test", images=images):
            pass


@pytest.mark.parametrize("kind", [RegistryUnreachableError, RateLimitedError, StoreError])
async def test_an_image_that_cannot_be_had_now_is_unknown(
    settings: Settings, images: NoImages, kind: type[RegistryError]
) -> None:
    """Promise 12: the start is tried again for as long as it takes."""
    images.failure = kind("registry.test", "not now")

    async with opened_runtime(settings, instance="test", images=images) as runtime:
        with pytest.raises(RuntimeUnknownError, match="not now"):
            await runtime.start(SPEC)


async def test_an_image_that_there_is_none_of_is_failed(
    settings: Settings, images: NoImages
) -> None:
    images.failure = NotFoundError("registry.test", "no such image")

    async with opened_runtime(settings, instance="test", images=images) as runtime:
        with pytest.raises(RuntimeFailure, match="no such image") as caught:
            await runtime.start(SPEC)

    assert not isinstance(caught.value, RuntimeUnknownError)
