"""Journaled events as operators ask for them: without checkpoints, unless they want these too.

While gates judge, a checkpoint of their evidence is journaled every 10 s, for the next controller
and for nobody else. A page that leaves them out is as long as one that doesn't, so this reads on.
"""

from trafficmgr.controller.ports import Journal
from trafficmgr.core.events import EvidenceKept
from trafficmgr.journal.entries import Stored

CHECKPOINTS = frozenset({EvidenceKept.__name__})


async def page(
    journal: Journal, endpoint: str | None, after: int, limit: int, *, has_checkpoints: bool
) -> list[Stored]:
    """Return events, oldest first.

    Args:
        journal: Where they are.
        endpoint: Only what concerns this endpoint; None is everything.
        after: With 0 the last `limit` events; else the first `limit` after this seq.
        limit: At most so many.
        has_checkpoints: Whether checkpoints are among them.
    """
    if has_checkpoints:
        return await journal.events(
            endpoint=endpoint, after=after, limit=limit, from_end=after == 0
        )
    read = _first if after else _last
    return await read(journal, endpoint, after, limit)


async def _first(journal: Journal, endpoint: str | None, after: int, limit: int) -> list[Stored]:
    found: list[Stored] = []
    while True:
        stored = await journal.events(endpoint=endpoint, after=after, limit=limit)
        found += _without_checkpoints(stored)
        if len(found) >= limit or len(stored) < limit:
            return found[:limit]
        after = stored[-1].seq


async def _last(journal: Journal, endpoint: str | None, after: int, limit: int) -> list[Stored]:
    asked = limit
    while True:
        stored = await journal.events(endpoint=endpoint, after=after, limit=asked, from_end=True)
        found = _without_checkpoints(stored)
        if len(found) >= limit or len(stored) < asked:
            return found[len(found) - limit :] if len(found) > limit else found
        asked *= 2


def _without_checkpoints(stored: list[Stored]) -> list[Stored]:
    return [one for one in stored if one.entry.kind not in CHECKPOINTS]
