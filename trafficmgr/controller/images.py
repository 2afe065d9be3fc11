"""An ear: what the registry shows becomes revisions.

Every image of an endpoint is watched by repository and tag. As soon as the digests of all of them
are known, template and digests make a revision; whenever one changes, they make the next. What
can't be read is shown and changes nothing (promise 12).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from trafficmgr.controller.ports import Clock, Tell
from trafficmgr.core.events import RevisionSeen
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import EndpointSettings
from trafficmgr.core.template import ImageDigest, Revision, revision_id

log = structlog.get_logger()


class Resolved(Protocol):
    """What a tag points to: an index or manifest, and this platform's manifest."""

    @property
    def digest(self) -> str:
        """What the registry answers for the tag."""
        ...

    @property
    def platform_digest(self) -> str:
        """The manifest for this machine."""
        ...


Key = tuple[str, str]
"""Repository (with its registry) and tag."""


class ImageWatch:
    """Knows the newest digest of every watched image, and which endpoints run it."""

    def __init__(self, *, tell: Tell, clock: Clock) -> None:
        self._tell = tell
        self._clock = clock
        self._endpoints: dict[str, EndpointSettings] = {}
        self._seen: dict[Key, Resolved] = {}
        self._told: dict[str, str] = {}

    def watch(self, settings: EndpointSettings) -> frozenset[Key]:
        """Make revisions of an endpoint from now on; return the images to poll for it."""
        self._endpoints[settings.name] = settings
        return frozenset((c.image, c.tag) for c in settings.template.every_container())

    def unwatch(self, endpoint: str) -> None:
        """Make no more revisions of an endpoint; if it comes back, its first is told again."""
        self._endpoints.pop(endpoint, None)
        self._told.pop(endpoint, None)

    async def tell_newest(self, endpoint: str) -> None:
        """Tell what follows from what was seen already, now that the endpoint wants another."""
        await self._tell_newest(self._endpoints[endpoint])

    def know(self, fleet: Fleet) -> None:
        """Start from what was seen before, so that only changes are told."""
        self._told = {name: state.newest for name, state in fleet.endpoints.items()}

    async def on_seen(self, repository: str, tag: str, resolved: Resolved) -> None:
        """Take note of what a tag points to, and tell what follows from it."""
        self._seen[repository, tag] = resolved
        async with asyncio.TaskGroup() as telling:
            for settings in self._endpoints.values():
                if any(
                    (c.image, c.tag) == (repository, tag)
                    for c in settings.template.every_container()
                ):
                    telling.create_task(self._tell_newest(settings))

    async def _tell_newest(self, settings: EndpointSettings) -> None:
        images = []
        for container in settings.template.every_container():
            seen = self._seen.get((container.image, container.tag))
            if seen is None:
                return
            images.append(
                ImageDigest(
                    container=container.name,
                    repository=container.image,
                    digest=seen.digest,
                    platform_digest=seen.platform_digest,
                )
            )
        found = tuple(images)
        identity = revision_id(settings.template, found)
        if self._told.get(settings.name) == identity:
            return
        self._told[settings.name] = identity
        revision = Revision(id=identity, template=settings.template, images=found)
        await self._tell(RevisionSeen(at=self._clock(), endpoint=settings.name, revision=revision))


OnSeen = Callable[[str, str, Resolved], Awaitable[None]]
