"""Watches tags: one HEAD per image and interval, however many endpoints use it.

APScheduler says when a poll is due (interval with jitter; the first at once); `run` owns the polls.
A digest other than the last one is resolved for this machine's platform and reported by `on_seen`;
so is the present one whenever somebody begins to watch, and by any poll that was asked for with
`poke`. A failure is reported by `on_trouble` and is never a change (promise 12).

A registry that can't be reached or asks for rest is left alone as a whole; a tag that is missing or
garbage only by itself. See `backoff`.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from trafficmgr.core.noun import Noun
from trafficmgr.registry import clock
from trafficmgr.registry.backoff import Backoff
from trafficmgr.registry.errors import (
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
    StoreError,
)
from trafficmgr.registry.images import Resolved

JITTER_SHARE = 0.1
"""Of the interval, so that images with the same interval don't stay in step."""

MAX_POLLS_PER_REGISTRY = 4

_OF_THE_REGISTRY = (RegistryUnreachableError, RateLimitedError)

Key = tuple[str, str]
OnSeen = Callable[[str, str, Resolved], Awaitable[None]]
OnTrouble = Callable[[str, str, RegistryError], Awaitable[None]]


class Source(Protocol):
    """What a poller asks; `Images` is one."""

    async def digest(self, repository: str, tag: str) -> str:
        """Return the digest that a tag names now."""
        ...

    async def resolve_digest(self, repository: str, digest: str) -> Resolved:
        """Return what a digest stands for on this machine."""
        ...


class ImageStatus(Noun):
    """What is known of a watched tag. Times are CLOCK_BOOTTIME; None: never.

    `checked_at` is when the registry last answered well; `trouble` is empty unless the last poll
    failed, and `trouble_since` when the first of the failures in a row did.
    """

    repository: str
    tag: str
    digest: str
    platform_digest: str
    checked_at: float | None
    trouble: str
    trouble_since: float | None


@dataclass
class _Watched:
    """A tag and its watchers, as the list of their intervals."""

    intervals_s: list[float]
    backoff: Backoff
    seen: Resolved | None = None
    is_report_due: bool = True
    is_polling: bool = False
    is_poked: bool = False
    checked_at: float | None = None
    trouble: str = ""
    trouble_since: float | None = None

    @property
    def every_s(self) -> float:
        return min(self.intervals_s)


@dataclass
class _Registry:
    backoff: Backoff
    turns: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(MAX_POLLS_PER_REGISTRY)
    )


class Poller:
    """The watcher of all tags. `run` must be running for anything to happen.

    Args:
        source: What is asked.
        on_seen: Awaited with (repository, tag, what it names).
        on_trouble: Awaited with (repository, tag, why it can't be known), at each failure.
        now: Seconds on CLOCK_BOOTTIME.
        jitter: Random numbers in [0, 1).
    """

    def __init__(
        self,
        source: Source,
        *,
        on_seen: OnSeen,
        on_trouble: OnTrouble,
        now: Callable[[], float] = clock.boottime,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._on_seen = on_seen
        self._on_trouble = on_trouble
        self._now = now
        self._jitter = jitter
        self._watched: dict[Key, _Watched] = {}
        self._registries: dict[str, _Registry] = {}
        self._due: asyncio.Queue[Key] = asyncio.Queue()
        self._scheduler: Any = None

    async def run(self) -> None:
        """Poll until cancelled."""
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._scheduler.start()
        try:
            for key, watched in self._watched.items():
                self._schedule(key, watched)
            async with asyncio.TaskGroup() as polls:
                while True:
                    self._begin(polls, await self._due.get())
        finally:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None
            await asyncio.sleep(0)  # it ends in the loop's next turn, and must not outlive us

    def watch(self, repository: str, tag: str, every_s: float) -> None:
        """Watch a tag; what it names is reported soon, even if it is known already.

        Watching it again adds a watcher; the shortest interval counts.
        """
        key = (repository, tag)
        watched = self._watched.get(key)
        if watched is None:
            watched = self._watched[key] = _Watched([], Backoff(self._jitter))
        watched.intervals_s.append(every_s)
        watched.is_report_due = True
        self._schedule(key, watched)

    def unwatch(self, repository: str, tag: str, every_s: float) -> None:
        """Take one watcher away, by the interval that it wanted; the last one ends the polls."""
        key = (repository, tag)
        watched = self._watched.get(key)
        if watched is None or every_s not in watched.intervals_s:
            return
        watched.intervals_s.remove(every_s)
        if watched.intervals_s:
            self._schedule(key, watched)
            return
        del self._watched[key]
        self._unschedule(key)

    def poke(self, repository: str, tag: str) -> None:
        """Poll a tag now, whatever its schedule and its failures say, and report what it names."""
        watched = self._watched.get((repository, tag))
        if watched is not None:
            watched.is_poked = True
            watched.is_report_due = True
            self._due.put_nowait((repository, tag))

    def status(self) -> tuple[ImageStatus, ...]:
        """Return what is known of every watched tag."""
        return tuple(
            ImageStatus(
                repository=repository,
                tag=tag,
                digest=watched.seen.digest if watched.seen else "",
                platform_digest=watched.seen.platform_digest if watched.seen else "",
                checked_at=watched.checked_at,
                trouble=watched.trouble,
                trouble_since=watched.trouble_since,
            )
            for (repository, tag), watched in sorted(self._watched.items())
        )

    # -- schedule ---------------------------------------------------------------------------------

    def _schedule(self, key: Key, watched: _Watched) -> None:
        """Poll now and then at the interval; misfires are late, never lost."""
        if self._scheduler is None:
            return
        every_s = watched.every_s
        self._scheduler.add_job(
            self._due.put,
            IntervalTrigger(seconds=every_s, jitter=every_s * JITTER_SHARE, timezone=UTC),
            args=[key],
            id=_job(key),
            replace_existing=True,
            next_run_time=datetime.now(UTC),
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )

    def _unschedule(self, key: Key) -> None:
        if self._scheduler is not None:
            try:
                self._scheduler.remove_job(_job(key))
            except JobLookupError:  # pragma: no cover  it is there as long as it is watched
                return

    def _postpone(self, key: Key, until: float) -> None:
        """Let the next poll be at `until`, sooner or later than the interval says."""
        if self._scheduler is not None and key in self._watched:
            wait = timedelta(seconds=max(0.0, until - self._now()))
            self._scheduler.modify_job(_job(key), next_run_time=datetime.now(UTC) + wait)

    # -- polls ------------------------------------------------------------------------------------

    def _begin(self, polls: asyncio.TaskGroup, key: Key) -> None:
        """Start a poll that is due, unless one is under way or the registry is left alone."""
        watched = self._watched.get(key)
        if watched is None or watched.is_polling:
            return  # what was asked for meanwhile is kept in `watched`, for the end of the poll
        if watched.is_poked or not self._rests(key, watched):
            watched.is_polling = True
            polls.create_task(self._poll(key, watched))

    def _rests(self, key: Key, watched: _Watched) -> bool:
        """Whether it failed too lately; then its next poll is put off."""
        until = max(watched.backoff.until, self._registry(key).backoff.until)
        if until <= self._now():
            return False
        self._postpone(key, until)
        return True

    async def _poll(self, key: Key, watched: _Watched) -> None:
        began_at = self._now()
        is_poked, watched.is_poked = watched.is_poked, False
        try:
            async with self._registry(key).turns:
                # others may have failed while we waited for our turn
                if is_poked or not self._rests(key, watched):
                    await self._ask(key, watched, began_at)
        finally:
            watched.is_polling = False
        if watched.is_poked or watched.is_report_due or watched.trouble:
            self._due.put_nowait(key)  # after a failure it is put off by `_rests`

    async def _ask(self, key: Key, watched: _Watched, began_at: float) -> None:
        is_report_due, watched.is_report_due = watched.is_report_due, False
        try:
            seen = await self._look(key, watched.seen)
        except RegistryError as error:
            watched.is_report_due = watched.is_report_due or is_report_due
            if self._watched.get(key) is watched:
                await self._fail(key, watched, error, began_at)
            return
        is_report_due = is_report_due or seen != watched.seen
        watched.seen, watched.checked_at = seen, self._now()
        watched.trouble, watched.trouble_since = "", None
        watched.backoff.succeeded(started_at=began_at)
        self._registry(key).backoff.succeeded(started_at=began_at)
        if is_report_due and self._watched.get(key) is watched:
            await self._on_seen(*key, seen)

    async def _look(self, key: Key, seen: Resolved | None) -> Resolved:
        """Return what a tag names now; only a digest that is new costs more than a HEAD."""
        repository, tag = key
        digest = await self._source.digest(repository, tag)
        if seen is not None and seen.digest == digest:
            return seen
        return await self._source.resolve_digest(repository, digest)

    async def _fail(
        self, key: Key, watched: _Watched, error: RegistryError, began_at: float
    ) -> None:
        now, every_s = self._now(), watched.every_s
        registry = self._registry(key).backoff
        watched.backoff.failed(started_at=began_at, now=now, every_s=every_s)
        if isinstance(error, _OF_THE_REGISTRY):
            asked_s = error.retry_after_s
            registry.failed(started_at=began_at, now=now, every_s=every_s, asked_s=asked_s)
        elif not isinstance(error, StoreError):
            registry.succeeded(started_at=began_at)  # it answered
        watched.trouble = str(error)
        watched.trouble_since = now if watched.trouble_since is None else watched.trouble_since
        await self._on_trouble(*key, error)

    def _registry(self, key: Key) -> _Registry:
        host = key[0].partition("/")[0]
        known = self._registries.get(host)
        if known is None:
            known = self._registries[host] = _Registry(Backoff(self._jitter))
        return known


def _job(key: Key) -> str:
    return ":".join(key)
