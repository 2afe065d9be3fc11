"""Which engine runs the groups: the one that the config names (`runtime`, config/shape.py).

Another engine is another case, and a function that opens it, here and nowhere else.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from trafficmgr.config.settings import Settings
from trafficmgr.core.template import ImageDigest
from trafficmgr.registry.errors import (
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
    StoreError,
)
from trafficmgr.registry.images import Images
from trafficmgr.runtimes.contract import Runtime, RuntimeFailure, RuntimeUnknownError
from trafficmgr.runtimes.embedded import EmbeddedRuntime, pool
from trafficmgr.wire.images import LocalImage


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
    match settings.runtime:
        case "embedded":
            return _embedded(settings, instance, images)
        case unknown:
            raise AssertionError(f"config/shape.py lets no runtime {unknown!r} through")


@asynccontextmanager
async def _embedded(settings: Settings, instance: str, images: Images) -> AsyncIterator[Runtime]:
    with pool.locked(settings.address_pool):
        runtime = EmbeddedRuntime(
            state_dir=settings.state_dir, instance=instance, pull=_Pull(images)
        )
        try:
            yield runtime
        finally:
            await runtime.close()


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
