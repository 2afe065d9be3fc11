"""The admin API: every verb, every kind of error, and streams that end when they should."""

import asyncio
import contextlib
import io
import json
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from support.admin_support import ROLLOUTS, STATUS, FakeHouse

from trafficmgr.admin import api
from trafficmgr.admin.address import reachable, socket_path
from trafficmgr.config.problems import ConfigError, Problem, Span
from trafficmgr.controller.files import MAX_SOCKET_PATH_BYTES
from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.runtimes.contract import RuntimeFailure, RuntimeUnknownError

DEADLINE_S = 20


@pytest.fixture
def house() -> FakeHouse:
    return FakeHouse()


@pytest.fixture
async def client(house: FakeHouse, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    path = socket_path(tmp_path)
    async with api.serve(house, path), _session(path) as session:
        yield session


def _session(path: Path) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
    connector = aiohttp.UnixConnector(str(path))
    return aiohttp.ClientSession("http://trafficmgr", connector=connector, timeout=timeout)


async def _get(client: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    async with client.get(path) as response:
        return response.status, await response.json()


async def _post(client: aiohttp.ClientSession, path: str, body: str = "") -> tuple[int, Any]:
    async with client.post(path, data=body) as response:
        return response.status, await response.json()


# -- answers --------------------------------------------------------------------------------------


async def test_status_and_rollouts_are_handed_on_as_they_are(client: aiohttp.ClientSession) -> None:
    assert await _get(client, "/v1/status") == (200, STATUS)
    assert await _get(client, "/v1/rollouts") == (200, ROLLOUTS)
    assert await _get(client, "/v1/rollouts?endpoint=blog") == (200, [])


async def test_events_are_the_last_ones_or_those_after_a_seq(
    client: aiohttp.ClientSession, house: FakeHouse
) -> None:
    house.observe(*["GroupReady"] * 5)
    house.observe("Woke", endpoint="blog")

    _, last = await _get(client, "/v1/events?limit=2")
    _, after = await _get(client, "/v1/events?after=2&limit=2&endpoint=shop")

    assert [event["seq"] for event in last] == [5, 6]
    assert [event["seq"] for event in after] == [3, 4]


async def test_events_are_without_checkpoints_unless_all_are_wanted(
    client: aiohttp.ClientSession, house: FakeHouse
) -> None:
    house.observe("GateJudged", "EvidenceKept", "Woke")

    _, some = await _get(client, "/v1/events")
    _, every = await _get(client, "/v1/events?all=1")

    assert [event["kind"] for event in some] == ["GateJudged", "Woke"]
    assert [event["kind"] for event in every] == ["GateJudged", "EvidenceKept", "Woke"]


async def test_orders_are_carried_out_and_answered_with_a_sentence(
    client: aiohttp.ClientSession, house: FakeHouse
) -> None:
    promoted = await _post(client, "/v1/endpoints/shop/promote")
    await _post(client, "/v1/endpoints/shop/promote", '{"full": true}')
    await _post(client, "/v1/endpoints/shop/scale", '{"replicas": 3}')
    await _post(client, "/v1/stop")
    await _post(client, "/v1/stop", '{"groups": true}')

    assert promoted == (200, {"says": "shop: promote is done."})
    assert house.asked == [
        ("promote", "shop"),
        ("promote --full", "shop"),
        ("scale", "shop", 3),
        ("stop", False),
        ("stop", True),
    ]


@pytest.mark.parametrize(
    "verb", ["pause", "resume", "abort", "rollback", "retry", "hold", "release"]
)
async def test_every_plain_order_has_an_address(
    client: aiohttp.ClientSession, house: FakeHouse, verb: str
) -> None:
    status, _ = await _post(client, f"/v1/endpoints/shop/{verb}")

    assert (status, house.asked) == (200, [(verb, "shop")])


async def test_why_is_answered_in_sentences(client: aiohttp.ClientSession) -> None:
    assert await _get(client, "/v1/endpoints/shop/why") == (
        200,
        {"endpoint": "shop", "says": ["9f2c0000 waits.", "Group shop-7 is not ready."]},
    )


@pytest.mark.parametrize("verb", ["plan", "apply"])
async def test_a_config_is_sent_as_path_and_text(
    client: aiohttp.ClientSession, house: FakeHouse, verb: str
) -> None:
    text = json.dumps({"path": "/etc/shop.yaml", "text": "a: \udcff"})

    status, _ = await _post(client, f"/v1/{verb}", text)

    assert status == 200
    assert house.asked == [(verb, Path("/etc/shop.yaml"), b"a: \xff")]


async def test_a_config_of_4_mib_arrives(client: aiohttp.ClientSession, house: FakeHouse) -> None:
    """It is the largest that the loader reads; aiohttp by itself takes 1 MiB."""
    body = json.dumps({"path": "/etc/shop.yaml", "text": "#\n" * 2 * 1024 * 1024})

    async with client.post("/v1/apply", data=io.BytesIO(body.encode())) as response:
        assert response.status == 200

    assert house.asked[0][2] == b"#\n" * 2 * 1024 * 1024


async def test_a_config_with_mistakes_is_422_and_all_its_text(
    client: aiohttp.ClientSession, house: FakeHouse
) -> None:
    house.failure = ConfigError([Problem(Path("shop.yaml"), Span(), "there is no endpoint")])

    answer = await _post(client, "/v1/apply", '{"path": "/shop.yaml", "text": ""}')

    assert answer == (422, {"error": "shop.yaml: there is no endpoint"})


async def test_logs_are_text_as_it_was_written(client: aiohttp.ClientSession) -> None:
    async with client.get("/v1/groups/shop-7/logs?tail=1") as response:
        assert response.content_type == "text/plain"
        assert await response.read() == b"second\n"


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/v1/endpoints/nobody/promote", 404, 'There is no endpoint "nobody".'),
        ("/v1/endpoints/blog/promote", 409, "blog: promote is not possible now."),
        (
            "/v1/endpoints/shop/explode",
            404,
            f"There is no order 'explode'; there are {', '.join(api.ORDERS)}.",
        ),
    ],
)
async def test_a_refused_order_says_why(
    client: aiohttp.ClientSession, path: str, status: int, sentence: str
) -> None:
    assert await _post(client, path) == (status, {"error": sentence})


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (TrafficmgrError("The journal is locked."), 503),
        (RuntimeUnknownError("The engine is away."), 503),
        (RuntimeFailure("Nothing is kept of it."), 404),
    ],
)
async def test_what_the_house_raises_becomes_a_status_and_its_sentence(
    client: aiohttp.ClientSession, house: FakeHouse, failure: Exception, status: int
) -> None:
    house.failure = failure

    assert await _get(client, "/v1/status") == (status, {"error": str(failure)})
    assert await _get(client, "/v1/groups/shop-7/logs") == (status, {"error": str(failure)})


async def test_a_defect_is_said_to_be_one_and_the_api_goes_on(
    client: aiohttp.ClientSession, house: FakeHouse
) -> None:
    house.failure = KeyError("oops")
    status, answer = await _get(client, "/v1/status")
    house.failure = None

    assert status == 500
    assert "KeyError('oops')" in answer["error"]
    assert (await _get(client, "/v1/status"))[0] == 200


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/v1/events?after=-1", "after='-1' is not possible: it must be a whole number"),
        ("/v1/events?limit=10001", "at most 10000"),
        ("/v1/events?limit=ten", "limit='ten'"),
        ("/v1/groups/shop-7/logs?tail=x", "tail='x'"),
    ],
)
async def test_a_bad_parameter_is_named(
    client: aiohttp.ClientSession, path: str, sentence: str
) -> None:
    status, answer = await _get(client, path)

    assert status == 400
    assert sentence in answer["error"]


@pytest.mark.parametrize("body", ["{", "[]", '{"groups": "yes"}'])
async def test_a_bad_body_stops_nothing(
    client: aiohttp.ClientSession, house: FakeHouse, body: str
) -> None:
    status, answer = await _post(client, "/v1/stop", body)

    assert status == 400
    assert answer["error"]
    assert house.asked == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/endpoints/shop/promote", '{"full": 1}'),
        ("/v1/endpoints/shop/scale", ""),
        ("/v1/endpoints/shop/scale", '{"replicas": true}'),
        ("/v1/endpoints/shop/scale", '{"replicas": 0}'),
        ("/v1/endpoints/shop/scale", '{"replicas": 1001}'),
        ("/v1/apply", '{"path": "relative.yaml", "text": ""}'),
        ("/v1/apply", '{"path": "/shop.yaml"}'),
    ],
)
async def test_an_order_that_makes_no_sense_does_nothing(
    client: aiohttp.ClientSession, house: FakeHouse, path: str, body: str
) -> None:
    status, answer = await _post(client, path, body)

    assert status == 400
    assert answer["error"]
    assert house.asked == []


async def test_unknown_paths_and_methods_are_answered_in_json(
    client: aiohttp.ClientSession,
) -> None:
    assert await _get(client, "/v2/status") == (404, {"error": "404: Not Found"})
    assert (await _post(client, "/v1/status"))[0] == 405


# -- streams --------------------------------------------------------------------------------------


async def test_followed_events_begin_with_the_last_and_go_on(
    client: aiohttp.ClientSession, house: FakeHouse
) -> None:
    house.observe("GroupStarted", "GroupReady", "Woke")

    async with client.get("/v1/events?follow=1&limit=2") as response:
        seen = [json.loads(await response.content.readline()) for _ in range(2)]
        house.observe("GroupEnded")
        seen.append(json.loads(await response.content.readline()))

    assert [event["seq"] for event in seen] == [2, 3, 4]


async def test_a_follower_who_leaves_ends_the_stream(
    client: aiohttp.ClientSession, house: FakeHouse
) -> None:
    """Nothing is written any more, so only looking tells that nobody reads."""
    async with client.get("/v1/groups/shop-7/logs?follow=1") as response:
        assert await response.content.readline() == b"first\n"
        assert await response.content.readline() == b"second\n"
        assert not house.log_ended.is_set()

    assert await asyncio.to_thread(house.log_ended.wait, DEADLINE_S)


async def test_a_stop_ends_followed_streams_in_order(house: FakeHouse, tmp_path: Path) -> None:
    path = socket_path(tmp_path)
    async with _session(path) as session:
        async with api.serve(house, path):
            response = await session.get("/v1/groups/shop-7/logs?follow=1")
            assert await response.content.readline() == b"first\n"

        rest = await response.read()

    assert rest == b"second\n"
    assert house.log_ended.is_set()


async def test_a_log_that_fails_midway_breaks_off(
    client: aiohttp.ClientSession, house: FakeHouse
) -> None:
    """An orderly end would say that this was all."""
    house.log_failure = RuntimeFailure("The log file vanished.")

    async with client.get("/v1/groups/shop-7/logs") as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_defect_in_a_stream_is_an_error_before_its_first_byte(
    client: aiohttp.ClientSession, house: FakeHouse
) -> None:
    house.failure = KeyError("oops")

    status, answer = await _get(client, "/v1/events?follow=1")

    assert status == 500
    assert "KeyError('oops')" in answer["error"]


# -- the socket -----------------------------------------------------------------------------------


async def test_only_the_owner_may_open_the_socket(house: FakeHouse, tmp_path: Path) -> None:
    path = socket_path(tmp_path)

    async with api.serve(house, path):
        mode = path.stat().st_mode

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert list(tmp_path.iterdir()) == []


async def test_a_socket_that_was_left_behind_is_replaced(house: FakeHouse, tmp_path: Path) -> None:
    path = socket_path(tmp_path)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))

    async with api.serve(house, path), _session(path) as session:
        assert (await _get(session, "/v1/status"))[0] == 200


async def test_ending_leaves_the_socket_of_a_successor_alone(
    house: FakeHouse, tmp_path: Path
) -> None:
    path = socket_path(tmp_path)
    async with contextlib.AsyncExitStack() as successor:
        async with api.serve(FakeHouse(), path):
            await successor.enter_async_context(api.serve(house, path))

        async with _session(path) as session:
            assert (await _get(session, "/v1/status"))[0] == 200


def test_it_works_on_uvloop_which_the_controller_runs_on(house: FakeHouse, tmp_path: Path) -> None:
    async def ask() -> tuple[int, Any]:
        path = socket_path(tmp_path)
        async with api.serve(house, path), _session(path) as session:
            return await _get(session, "/v1/status")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask()) == (200, STATUS)


async def test_a_path_too_long_for_af_unix_works(house: FakeHouse, tmp_path: Path) -> None:
    state_dir = tmp_path / ("long" * 20) / ("longer" * 10)
    state_dir.mkdir(parents=True)
    path = socket_path(state_dir)
    assert len(str(path)) > MAX_SOCKET_PATH_BYTES

    async with api.serve(house, path):
        assert path.is_socket()
        with reachable(path) as name:
            async with _session(Path(name)) as session:
                assert await _get(session, "/v1/status") == (200, STATUS)


async def test_a_socket_that_cannot_be_made_is_one_sentence(
    house: FakeHouse, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(TrafficmgrError, match=r"cannot listen on .*: Not a directory\. Traffic"):
        async with api.serve(house, tmp_path / "file" / "admin.sock"):
            pass
