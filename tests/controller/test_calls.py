"""The call of a hook: journaled before it is made, made once, and its answer kept for a while."""

import json

import pytest
from aiohttp import web
from support.controller_support import NAME, Clock
from support.web_support import Replies, nobody, serving, speaking

from trafficmgr.controller import calls
from trafficmgr.controller.answer import answer_to
from trafficmgr.controller.calls import Calls
from trafficmgr.core.commands import CallHook
from trafficmgr.core.events import Event, HookEnded, HookStarted
from trafficmgr.core.gating import HttpCall

SECRET = "canary-3f9a"


class Notes:
    """Remembers what is told."""

    def __init__(self) -> None:
        self.told: list[Event] = []

    async def tell(self, event: Event) -> None:
        self.told.append(event)


def command(port: int, *, method: str = "POST", timeout_s: float = 20.0) -> CallHook:
    return CallHook(
        endpoint=NAME,
        rollout="shop-r2",
        hook="announce",
        call=HttpCall(url=f"http://127.0.0.1:{port}/hook?token={SECRET}", method=method),
        revision="v2",
        timeout_s=timeout_s,
    )


async def made(port: int, *, timeout_s: float = 20.0) -> tuple[HookEnded, Calls]:
    """Make a call; return how it ended, and who made it."""
    notes = Notes()
    caller = Calls(tell=notes.tell, clock=Clock())
    await caller.make(command(port, timeout_s=timeout_s))
    started, ended = notes.told
    assert isinstance(started, HookStarted)
    assert isinstance(ended, HookEnded)
    assert (started.endpoint, started.rollout, started.hook) == (NAME, "shop-r2", "announce")
    assert (ended.endpoint, ended.rollout, ended.hook) == (NAME, "shop-r2", "announce")
    assert SECRET not in ended.reason
    return ended, caller


async def test_it_is_journaled_before_anything_is_sent() -> None:
    """A journal that takes as long as several calls: by then a hasty one would have been made."""
    order: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        order.append(request.path)
        return web.Response()

    async with serving(answer) as port:

        async def slow_journal(event: Event) -> None:
            for _ in range(3):
                url = f"http://127.0.0.1:{port}/journal"
                await answer_to("GET", url, timeout_s=20.0, most_bytes=1)
            order.append(type(event).__name__)

        await Calls(tell=slow_journal, clock=Clock()).make(command(port))

    journaling = ["/journal"] * 3
    assert order == [*journaling, "HookStarted", "/hook", *journaling, "HookEnded"]


async def test_a_post_says_what_it_is_about() -> None:
    replies = Replies()
    async with serving(replies) as port:
        ended, _ = await made(port)

    ((method, path, body),) = replies.asked
    assert (method, path) == ("POST", f"/hook?token={SECRET}")
    assert json.loads(body) == {
        "endpoint": NAME,
        "revision": "v2",
        "rollout": "shop-r2",
        "hook": "announce",
    }
    assert (ended.is_success, ended.reason) == (True, "")


async def test_a_get_has_no_body() -> None:
    replies, notes = Replies(), Notes()
    async with serving(replies) as port:
        await Calls(tell=notes.tell, clock=Clock()).make(command(port, method="GET"))

    assert [(method, body) for method, _, body in replies.asked] == [("GET", b"")]


@pytest.mark.parametrize(("status", "is_success"), [(204, True), (302, False), (500, False)])
async def test_any_2xx_is_success(status: int, *, is_success: bool) -> None:
    replies = Replies(status, SECRET if status != 204 else "")
    async with serving(replies) as port:
        ended, _ = await made(port)

    assert ended.is_success is is_success
    assert ended.reason == ("" if is_success else f"it answered {status}")


async def test_nobody_there_is_a_failure_by_which_nothing_was_done() -> None:
    with nobody() as port:
        ended, caller = await made(port)

    assert (ended.is_success, ended.reason) == (False, "connection refused")
    assert caller.output("shop-r2", "announce") is None


async def test_a_call_that_breaks_off_may_have_done_something() -> None:
    async with speaking(b"") as (port, heard):
        ended, _ = await made(port)

    assert not ended.is_success
    assert ended.reason == "the connection broke off; whether it did anything is not known"
    assert len(heard) == 1


async def test_a_call_that_hangs_has_its_timeout() -> None:
    replies = Replies()
    replies.hangs = True
    async with serving(replies) as port:
        ended, _ = await made(port, timeout_s=0.05)

    assert not ended.is_success
    assert ended.reason == "no answer within 0.05s; whether it did anything is not known"


async def test_the_answer_is_kept_as_far_as_a_receipt_wants_it() -> None:
    async with serving(Replies(500, "é" + "x" * 5000)) as port:
        _, caller = await made(port)

    output = caller.output("shop-r2", "announce")
    assert output is not None
    assert output.startswith("éxxx")
    assert len(output.encode()) == calls.OUTPUT_BYTES
    assert caller.output("shop-r2", "other") is None


async def test_only_the_last_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MOST_OUTPUTS", 2)
    notes = Notes()
    caller = Calls(tell=notes.tell, clock=Clock())
    async with serving(Replies(body="done")) as port:
        for rollout in ("r1", "r2", "r3"):
            await caller.make(command(port).but(rollout=rollout))

    kept = [caller.output(rollout, "announce") for rollout in ("r1", "r2", "r3")]
    assert kept == [None, "done", "done"]


async def test_the_points_at_which_a_kill_matters_are_passed_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replies, notes, seen = Replies(), Notes(), list[tuple[str, int, int]]()
    monkeypatch.setattr(
        "trafficmgr.controller.faults.passed",
        lambda point: seen.append((point, len(notes.told), len(replies.asked))),
    )
    async with serving(replies) as port:
        await Calls(tell=notes.tell, clock=Clock()).make(command(port))

    assert seen == [("after hook started", 1, 0), ("after hook called", 1, 1)]
