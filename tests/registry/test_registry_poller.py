"""When tags are polled, and what is made of it. The source is a fake; the schedule is real."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from demo.builder import Image, Index, push
from trafficmgr.registry.errors import (
    NotFoundError,
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
)
from trafficmgr.registry.images import Images, Resolved
from trafficmgr.registry.poller import Poller

WEB = "registry.example.com/team/web"
FAST_S = 0.05
NEVER_S = 3600.0


def digest(name: str) -> str:
    return "sha256:" + name.encode().hex().ljust(64, "0")


class Registry:
    """A source that the test turns at will, and that counts what it is asked."""

    def __init__(self) -> None:
        self.now: dict[tuple[str, str], str] = {}
        self.error: RegistryError | None = None
        self.heads: Counter[tuple[str, str]] = Counter()
        self.gets: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()

    async def digest(self, repository: str, tag: str) -> str:
        self.heads[repository, tag] += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.now[repository, tag]

    async def resolve_digest(self, _repository: str, digest: str) -> Resolved:
        self.gets[digest] += 1
        return Resolved(digest=digest, platform_digest=f"platform of {digest}")


class Heard:
    """What the poller reported, to be awaited."""

    def __init__(self) -> None:
        self.seen: asyncio.Queue[tuple[str, str, Resolved]] = asyncio.Queue()
        self.trouble: asyncio.Queue[tuple[str, str, RegistryError]] = asyncio.Queue()

    async def on_seen(self, repository: str, tag: str, resolved: Resolved) -> None:
        self.seen.put_nowait((repository, tag, resolved))

    async def on_trouble(self, repository: str, tag: str, error: RegistryError) -> None:
        self.trouble.put_nowait((repository, tag, error))

    async def next_seen(self) -> str:
        return (await asyncio.wait_for(self.seen.get(), 20))[2].digest

    async def next_trouble(self) -> RegistryError:
        return (await asyncio.wait_for(self.trouble.get(), 20))[2]


@asynccontextmanager
async def polling(
    source: Registry | Images, now: Callable[[], float] | None = None
) -> AsyncIterator[tuple[Poller, Heard]]:
    heard = Heard()
    clock = {} if now is None else {"now": now}
    poller = Poller(source, on_seen=heard.on_seen, on_trouble=heard.on_trouble, **clock)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(poller.run())
        try:
            yield poller, heard
        finally:
            task.cancel()


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.now[WEB, "stable"] = digest("v1")
    return registry


async def test_the_first_poll_is_at_once(registry: Registry) -> None:
    async with polling(registry) as (poller, heard):
        poller.watch(WEB, "stable", NEVER_S)

        assert await heard.next_seen() == digest("v1")


async def test_what_was_watched_before_the_start_is_polled(registry: Registry) -> None:
    heard = Heard()
    poller = Poller(registry, on_seen=heard.on_seen, on_trouble=heard.on_trouble)
    poller.watch(WEB, "stable", NEVER_S)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(poller.run())
        assert await heard.next_seen() == digest("v1")
        task.cancel()


async def test_an_unchanged_digest_is_one_head_and_no_report(registry: Registry) -> None:
    async with polling(registry) as (poller, heard):
        poller.watch(WEB, "stable", FAST_S)
        await heard.next_seen()
        await until(lambda: registry.heads[WEB, "stable"] >= 4)

        assert heard.seen.empty()
        assert registry.gets == {digest("v1"): 1}


async def test_a_changed_digest_is_reported_once(registry: Registry) -> None:
    async with polling(registry) as (poller, heard):
        poller.watch(WEB, "stable", FAST_S)
        await heard.next_seen()
        registry.now[WEB, "stable"] = digest("v2")

        assert await heard.next_seen() == digest("v2")
        asked = registry.heads[WEB, "stable"]
        await until(lambda: registry.heads[WEB, "stable"] >= asked + 3)
        assert heard.seen.empty()


async def test_many_watchers_cost_one_head_each_time(registry: Registry) -> None:
    registry.gate.clear()
    async with polling(registry) as (poller, heard):
        for _ in range(20):
            poller.watch(WEB, "stable", NEVER_S)
        await until(lambda: registry.heads[WEB, "stable"] == 1)
        await turns()
        assert registry.heads[WEB, "stable"] == 1
        registry.gate.set()

        assert await heard.next_seen() == digest("v1")


async def test_a_later_watcher_is_told_what_is_known(registry: Registry) -> None:
    async with polling(registry) as (poller, heard):
        poller.watch(WEB, "stable", NEVER_S)
        await heard.next_seen()
        poller.watch(WEB, "stable", NEVER_S)

        assert await heard.next_seen() == digest("v1")


async def test_a_watcher_that_comes_during_a_poll_is_told_too(registry: Registry) -> None:
    registry.gate.clear()
    async with polling(registry) as (poller, heard):
        poller.watch(WEB, "stable", NEVER_S)
        await until(lambda: registry.heads[WEB, "stable"] == 1)
        poller.watch(WEB, "stable", NEVER_S)
        await turns()
        registry.gate.set()

        assert await heard.next_seen() == digest("v1")
        assert await heard.next_seen() == digest("v1")


async def test_the_last_watcher_ends_the_polls(registry: Registry) -> None:
    registry.now[WEB, "other"] = digest("v1")
    async with polling(registry) as (poller, heard):
        poller.watch(WEB, "stable", NEVER_S)
        poller.watch(WEB, "stable", FAST_S)
        await until(lambda: registry.heads[WEB, "stable"] >= 3)
        poller.unwatch(WEB, "stable", FAST_S)
        assert [status.tag for status in poller.status()] == ["stable"]
        poller.unwatch(WEB, "stable", NEVER_S)
        assert poller.status() == ()
        await turns()

        asked = registry.heads[WEB, "stable"]
        poller.watch(WEB, "other", FAST_S)
        await until(lambda: registry.heads[WEB, "other"] >= 4)
        assert registry.heads[WEB, "stable"] == asked
        assert heard.trouble.empty()


async def test_a_poke_polls_now_and_reports(registry: Registry) -> None:
    async with polling(registry) as (poller, heard):
        poller.watch(WEB, "stable", NEVER_S)
        await heard.next_seen()
        registry.now[WEB, "stable"] = digest("v2")
        poller.poke(WEB, "stable")
        assert await heard.next_seen() == digest("v2")
        poller.poke(WEB, "stable")
        assert await heard.next_seen() == digest("v2")
        poller.poke(WEB, "nobody watches this")


async def test_a_poke_during_a_poll_is_not_lost(registry: Registry) -> None:
    """The poll under way may have been answered before the push that the poke is about."""
    registry.gate.clear()
    async with polling(registry) as (poller, heard):
        poller.watch(WEB, "stable", NEVER_S)
        await until(lambda: registry.heads[WEB, "stable"] == 1)
        poller.poke(WEB, "stable")
        await turns()
        registry.gate.set()
        await heard.next_seen()
        await heard.next_seen()

        assert registry.heads[WEB, "stable"] == 2


# -- trouble --------------------------------------------------------------------------------------


async def test_trouble_is_no_change_and_is_shown_until_it_is_over(registry: Registry) -> None:
    async with polling(registry) as (poller, heard):
        poller.watch(WEB, "stable", FAST_S)
        await heard.next_seen()
        (before,) = poller.status()
        assert (before.digest, before.trouble, before.trouble_since) == (digest("v1"), "", None)
        assert before.checked_at is not None

        registry.error = NotFoundError("registry.example.com", "it answered 404")
        assert await heard.next_trouble() is registry.error
        poller.poke(WEB, "stable")
        await heard.next_trouble()
        (during,) = poller.status()
        assert during.digest == digest("v1")
        assert "Traffic stays as it is" in during.trouble
        assert during.trouble_since is not None
        assert during.checked_at is not None
        assert during.trouble_since >= during.checked_at

        registry.error = None
        poller.poke(WEB, "stable")
        assert await heard.next_seen() == digest("v1")
        (after,) = poller.status()
        assert (after.trouble, after.trouble_since) == ("", None)


async def test_a_failed_poll_is_tried_again_before_a_long_interval_is_over(
    registry: Registry,
) -> None:
    registry.error = RegistryUnreachableError("registry.example.com", "it can't be reached")
    async with polling(registry) as (poller, heard):
        poller.watch(WEB, "stable", NEVER_S)
        await heard.next_trouble()
        registry.error = None

        assert await heard.next_seen() == digest("v1")


async def test_a_registry_that_asks_for_rest_gets_it_for_all_its_images(
    registry: Registry,
) -> None:
    """The clock is the test's: after the wait that was asked for, polls go on."""
    now = [1000.0]
    registry.now[WEB, "other"] = digest("o1")
    other = "other.example.com/team/web"
    registry.now[other, "stable"] = digest("x1")
    async with polling(registry, lambda: now[0]) as (poller, heard):
        poller.watch(WEB, "stable", FAST_S)
        await heard.next_seen()
        registry.error = RateLimitedError("registry.example.com", "429", retry_after_s=30.0)
        await heard.next_trouble()
        registry.error = None

        asked = registry.heads.copy()
        poller.watch(WEB, "other", FAST_S)
        poller.watch(other, "stable", FAST_S)
        await until(lambda: registry.heads[other, "stable"] >= 5)
        assert registry.heads[WEB, "stable"] == asked[WEB, "stable"]
        assert registry.heads[WEB, "other"] == 0

        now[0] += 31.0
        poller.watch(WEB, "other", FAST_S)
        assert digest("o1") in {await heard.next_seen(), await heard.next_seen()}


async def test_a_failure_between_two_intervals_is_tried_again_soon(registry: Registry) -> None:
    """As the one before, but in the steady state, when nobody waits for a first report."""
    async with polling(registry) as (poller, heard):
        poller.watch(WEB, "stable", NEVER_S)
        await heard.next_seen()
        registry.error = RegistryUnreachableError("registry.example.com", "it can't be reached")
        poller._due.put_nowait((WEB, "stable"))  # as the schedule does
        await heard.next_trouble()
        registry.error = None
        registry.now[WEB, "stable"] = digest("v2")

        assert await heard.next_seen() == digest("v2")


async def test_a_missing_tag_does_not_delay_its_neighbours() -> None:
    """The clock stands still, so that whoever has to wait waits for ever."""
    registry = Stubborn("gone", NotFoundError("registry.example.com", "404"))
    registry.now[WEB, "stable"] = digest("v1")
    async with polling(registry, lambda: 1000.0) as (poller, heard):
        poller.watch(WEB, "gone", FAST_S)
        await heard.next_trouble()
        poller.watch(WEB, "stable", FAST_S)
        await until(lambda: registry.heads[WEB, "stable"] >= 4)


async def test_an_image_that_always_fails_is_asked_for_less_and_less() -> None:
    """Also when the registry serves its neighbours well, which ends the registry's own wait."""
    now = [1000.0]
    registry = Stubborn("bad", RegistryUnreachableError("registry.example.com", "503"))
    registry.now[WEB, "stable"] = digest("v1")
    async with polling(registry, lambda: now[0]) as (poller, heard):
        poller.watch(WEB, "bad", NEVER_S)
        poller.watch(WEB, "stable", NEVER_S)
        for longer in range(5):
            await heard.next_trouble()
            poller.poke(WEB, "stable")
            await heard.next_seen()
            wait_s = poller._watched[WEB, "bad"].backoff.until - now[0]
            assert 2**longer / 2 <= wait_s <= 2**longer
            now[0] += wait_s
            poller._due.put_nowait((WEB, "bad"))


async def test_a_slow_answer_is_waited_for_and_not_asked_for_twice() -> None:
    registry = Stubborn("slow", None)
    registry.now[WEB, "stable"] = digest("v1")
    async with polling(registry) as (poller, _):
        poller.watch(WEB, "slow", FAST_S)
        await until(lambda: registry.heads[WEB, "slow"] == 1)
        poller.watch(WEB, "stable", FAST_S)
        await until(lambda: registry.heads[WEB, "stable"] >= 6)

        assert registry.heads[WEB, "slow"] == 1


class Stubborn(Registry):
    """A source with one tag that is always an error, or is never answered."""

    def __init__(self, tag: str, answer: RegistryError | None) -> None:
        super().__init__()
        self._tag = tag
        self._answer = answer

    async def digest(self, repository: str, tag: str) -> str:
        if tag != self._tag:
            return await super().digest(repository, tag)
        self.heads[repository, tag] += 1
        if self._answer is None:
            await asyncio.Event().wait()
            raise AssertionError
        raise self._answer


# -- the real thing -------------------------------------------------------------------------------


async def test_a_push_is_seen_with_its_platform(any_host: str, images: Images) -> None:
    """A new index around the same image is reported as such; the consumer compares platforms."""
    url, repository = f"http://{any_host}", f"{any_host}/team/polled"
    ours = Image(files={"a": b"1"})
    other = Image(files={"a": b"2"}, architecture="s390x")
    await push(url, "team/polled", "stable", Index((ours,)))

    async with polling(images) as (poller, heard):
        poller.watch(repository, "stable", FAST_S)
        first = (await asyncio.wait_for(heard.seen.get(), 20))[2]
        await push(url, "team/polled", "stable", Index((ours, other)))
        second = (await asyncio.wait_for(heard.seen.get(), 20))[2]

    assert first.digest != second.digest
    assert first.platform_digest == second.platform_digest == ours.digest


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0.005)


async def turns() -> None:
    """Let everything run that can run now."""
    for _ in range(10):
        await asyncio.sleep(0)
