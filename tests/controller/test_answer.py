"""One request is sent once, waited for so long, read so far, and what went wrong is said safely."""

import asyncio
import socket

import pytest
from aiohttp import web
from support.web_support import Replies, nobody, serving, speaking

from trafficmgr.controller.answer import Answer, NoAnswerError, Trouble, answer_to

SECRET = "canary-3f9a"


async def asked(
    port: int, method: str = "GET", *, timeout_s: float = 20.0, most_bytes: int = 100
) -> Answer:
    url = f"http://127.0.0.1:{port}/?token={SECRET}"
    return await answer_to(method, url, timeout_s=timeout_s, most_bytes=most_bytes)


async def trouble_with(port: int, method: str = "GET", *, timeout_s: float = 20.0) -> NoAnswerError:
    with pytest.raises(NoAnswerError) as caught:
        await asked(port, method, timeout_s=timeout_s)
    assert SECRET not in str(caught.value)
    return caught.value


async def test_an_answer_has_status_headers_and_body() -> None:
    async with serving(Replies(201, "made", {"X-Made": "yes"})) as port:
        answer = await asked(port)

    assert (answer.status, answer.body, answer.headers["x-made"]) == (201, b"made", "yes")
    assert answer.is_ok
    assert not answer.is_cut


async def test_no_more_is_read_than_is_asked_for() -> None:
    async with serving(Replies(body=b"x" * 1_000_000)) as port:
        answer = await asked(port, most_bytes=10)
        whole = await asked(port, most_bytes=1_000_000)

    assert (answer.body, answer.is_cut) == (b"x" * 10, True)
    assert (len(whole.body), whole.is_cut) == (1_000_000, False)


async def test_a_body_without_end_is_read_no_further() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 1000)

    async with serving(endless) as port:
        answer = await asked(port, most_bytes=5000)

    assert (len(answer.body), answer.is_cut) == (5000, True)


async def test_a_redirect_is_an_answer() -> None:
    replies = Replies(302, headers={"Location": "/login"})
    async with serving(replies) as port:
        answer = await asked(port)

    assert answer.status == 302
    assert not answer.is_ok
    assert len(replies.asked) == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
async def test_a_request_whose_connection_breaks_off_is_sent_once(method: str) -> None:
    """An HTTP client may repeat what is idempotent; whoever is asked to do a thing once may not."""
    async with speaking(b"") as (port, heard):
        error = await trouble_with(port, method)

    assert (error.trouble, str(error)) == (Trouble.broken, "the connection broke off")
    assert len(heard) == 1


async def test_an_answer_that_breaks_off_is_none() -> None:
    async with speaking(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf") as (port, _):
        error = await trouble_with(port)

    assert error.trouble is Trouble.broken


async def test_a_refused_connection_is_told_from_one_that_breaks_off() -> None:
    with nobody() as port:
        error = await trouble_with(port)

    assert (error.trouble, str(error)) == (Trouble.refused, "connection refused")


async def test_what_is_no_http_is_not_repeated_in_words() -> None:
    async with speaking(f"220 {SECRET} ESMTP\r\n".encode()) as (port, _):
        error = await trouble_with(port)

    assert (error.trouble, str(error)) == (Trouble.garbled, "what came back is no HTTP")


async def test_an_answer_that_does_not_come_in_time_is_late() -> None:
    replies = Replies()
    replies.hangs = True
    async with serving(replies) as port:
        error = await trouble_with(port, timeout_s=0.05)

    assert (error.trouble, str(error)) == (Trouble.late, "no answer within 0.05s")


async def test_a_name_that_is_not_known_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, f"{SECRET} is not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)

    with pytest.raises(NoAnswerError) as caught:
        await answer_to("GET", "http://shop.test/", timeout_s=20.0, most_bytes=1)

    assert str(caught.value) == "its name can't be resolved"
    assert caught.value.trouble is Trouble.refused


async def test_each_request_has_a_connection_of_its_own() -> None:
    replies = Replies()
    async with serving(replies) as port:
        for _ in range(3):
            await asked(port)

    assert len(replies.peers) == 3
