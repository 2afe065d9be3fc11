"""Images that nobody needs any more are removed, or a disk fills with every push.

Needed is what a revision is made of that an endpoint's state still knows (`core.replicas.forget`):
newest, stable, candidate, the ways back, and those of groups that still run. One in quarantine that
has no such role is not tried again by itself; `retry` pulls it anew.

This is housekeeping: it waits for a quiet moment, and whatever goes wrong with it is only said.
"""

import asyncio
from collections.abc import Iterable
from typing import Protocol

import structlog

from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import ImageDigest
from trafficmgr.registry.images import Images
from trafficmgr.runtimes.contract import Runtime

FIRST_S = 600.0
"""After a start, so that groups are adopted and starts that were broken off are done again; and how
soon it is looked again whether the moment is a quiet one."""
EVERY_S = 6 * 3600.0
"""Kubelet looks every 5 minutes but waits for a disk that is 85 % full; a few pushes' images more
do no harm, and a pull may take its time before what it brought can be taken for left behind."""

log = structlog.get_logger()


class HasFleet(Protocol):
    """Who has the newest state: the loop."""

    @property
    def fleet(self) -> Fleet:
        """What is known now."""
        ...


async def run(
    loop: HasFleet,
    runtime: Runtime,
    images: Images,
    *,
    first_s: float = FIRST_S,
    every_s: float = EVERY_S,
) -> None:
    """Tidy up now and then, until cancelled.

    Args:
        loop: Has the state that says what is needed.
        runtime: Has images that groups can be made of.
        images: Has what was downloaded for that.
        first_s: How long to wait at first, and after a moment that was not quiet.
        every_s: How long to wait after it was done.
    """
    wait_s = first_s
    while True:
        await asyncio.sleep(wait_s)
        is_quiet = not any(_is_busy(state) for state in loop.fleet.endpoints.values())
        if is_quiet:
            await tidy(loop.fleet, runtime, images)
        wait_s = every_s if is_quiet else first_s


async def tidy(fleet: Fleet, runtime: Runtime, images: Images) -> None:
    """Remove what this state does not need; raises nothing."""
    needed = needed_images(fleet)
    try:
        removed = await runtime.keep_images(frozenset(one.platform_digest for one in needed))
        manifests = frozenset(d for one in needed for d in (one.digest, one.platform_digest))
        blobs = await images.keep(manifests)
    except TrafficmgrError as error:
        log.warning("images_not_tidied", reason=str(error))
    except Exception as error:  # noqa: BLE001  no defect here is worth the controller
        log.warning("images_not_tidied", reason=repr(error))
    else:
        if removed.images or blobs.blobs:
            known = {"bytes": (removed.size_bytes or 0) + blobs.size_bytes}
            log.info(
                "images_tidied",
                images=removed.images,
                blobs=blobs.blobs,
                **({} if removed.size_bytes is None else known),
            )


def needed_images(fleet: Fleet) -> frozenset[ImageDigest]:
    """Return the images of all revisions that may have groups again without being asked for."""
    return frozenset(_images(fleet.endpoints.values()))


def _images(states: Iterable[EndpointState]) -> Iterable[ImageDigest]:
    for state in states:
        for name, revision in state.revisions.items():
            if name not in state.quarantined or name in _with_role(state):
                yield from revision.images


def _with_role(state: EndpointState) -> frozenset[str]:
    roles = (state.stable, state.candidate, state.previous, state.last_good)
    return frozenset(roles) | {group.revision for group in state.groups}


def _is_busy(state: EndpointState) -> bool:
    rollout = state.rollout
    return state.is_engine_away or (rollout is not None and not rollout.is_over)
