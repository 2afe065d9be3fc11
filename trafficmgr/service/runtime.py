"""Which engine runs the groups: the one that the config names (`runtime`, config/shape.py).

Another engine is another case, and a function that opens it, here and nowhere else.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from trafficmgr.config.settings import Settings
from trafficmgr.core.template import ImageDigest
from trafficmgr.registry.errors import (
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
    StoreError,
)
from trafficmgr.registry.images import Images
from trafficmgr.registry.store import BlobStore
from trafficmgr.runtimes.contract import Runtime, RuntimeFailure, RuntimeUnknownError
from trafficmgr.runtimes.embedded import EmbeddedRuntime, pool
from trafficmgr.wire.images import LocalImage

DOCKER_SOCKET = "unix:///var/run/docker.sock"
"""Where Docker listens if neither the config nor DOCKER_HOST says otherwise."""


def opened_runtime(
    settings: Settings, *, instance: str, images: Images
) -> AbstractAsyncContextManager[Runtime]:
    """Return the runtime of the config, open for as long as the context lasts.

    Args:
        settings: What `runtime` says there, and what that engine needs.
        instance: The name of this installation.
        images: Where an engine gets images that does not pull them itself.

    Raises:
        RuntimeFailure: At its begin, if this installation can't use the engine at all.
    """
    match settings.runtime.kind:
        case "embedded":
            return _embedded(settings, instance, images)
        case "docker":
            return _docker(settings, instance, images)
        case unknown:
            assert_never(unknown)


def gaps_of(settings: Settings) -> Mapping[str, str]:
    """Open the runtime of a config for a moment; return behaviour -> why not here.

    Raises:
        RuntimeFailure: It can't be used, or does not answer.
    """

    async def asked() -> Mapping[str, str]:
        with tempfile.TemporaryDirectory() as folder:
            store = BlobStore(Path(folder) / "store")
            passing = replace(settings, state_dir=Path(folder))
            try:
                async with opened_runtime(
                    passing, instance="doctor", images=Images(store, {})
                ) as runtime:
                    await runtime.list()
                    return dict(runtime.gaps)
            finally:
                store.close()

    return asyncio.run(asked())


@asynccontextmanager
async def _embedded(settings: Settings, instance: str, images: Images) -> AsyncIterator[Runtime]:
    with pool.locked(settings.address_pool):
        runtime = EmbeddedRuntime(
            state_dir=settings.state_dir,
            instance=instance,
            pull=_Pull(images),
            keep_logs_s=settings.keep_logs_s,
        )
        try:
            yield runtime
        finally:
            await runtime.close()


@asynccontextmanager
async def _docker(settings: Settings, instance: str, images: Images) -> AsyncIterator[Runtime]:
    from trafficmgr.runtimes.docker import DockerRuntime  # noqa: PLC0415  180 ms, only if wanted

    engine = settings.runtime
    runtime = DockerRuntime(
        base_url=engine.host or os.environ.get("DOCKER_HOST") or DOCKER_SOCKET,
        instance=instance,
        address_pool=settings.address_pool,
        state_dir=settings.state_dir,
        keep_logs_s=settings.keep_logs_s,
        credentials=_Credentials(images),
        pause_image=engine.pause_image,
    )
    try:
        yield runtime
    finally:
        await runtime.close()


class _Credentials:
    """Who to log in as, as a runtime wants it that pulls by itself."""

    def __init__(self, images: Images) -> None:
        self._images = images

    async def __call__(self, repository: str) -> tuple[str, str] | None:
        try:
            found = await self._images.credentials(repository)
        except RegistryError as error:
            raise RuntimeFailure(str(error)) from error
        return None if found is None else (found.username, found.password)


class _Pull:
    """Images as a runtime wants them: its own errors, and unknown told apart from failed."""

    def __init__(self, images: Images) -> None:
        self._images = images

    async def __call__(self, image: ImageDigest) -> LocalImage:
        try:
            return await self._images.pull(image)
        except (RegistryUnreachableError, RateLimitedError, StoreError) as error:
            raise RuntimeUnknownError(str(error)) from error
        except RegistryError as error:
            raise RuntimeFailure(str(error)) from error
