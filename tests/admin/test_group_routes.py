"""The admin API looks into groups: logs by every query, show, stats, and commands inside them."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import ClientWebSocketResponse, WSMsgType
from support.admin_support import SHOWN, STATS, FakeHouse
from support.controller_support import eventually

from trafficmgr.admin import api
from trafficmgr.admin.address import socket_path
from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.runtimes.contract import LogQuery

DEADLINE_S = 20
EXEC = "/v1/groups/shop-7/exec"


@pytest.fixture
def house() -> FakeHouse:
    return FakeHouse()


@pytest.fixture
async def client(house: FakeHouse, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    path = socket_path(tmp_path)
    async with api.serve(house, path), session(path) as made:
        yield made


def session(path: Path) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
    connector = aiohttp.UnixConnector(str(path))
    return aiohttp.ClientSession("http://trafficmgr", connector=connector, timeout=timeout)


async def get(client: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    async with client.get(path) as response:
        return response.status, await response.json()


# -- show, stats, logs ----------------------------------------------------------------------------


async def test_show_and_stats_are_of_an_endpoint_or_one_group(
    client: aiohttp.ClientSession,
) -> None:
    assert await get(client, "/v1/endpoints/shop/show") == (200, SHOWN)
    assert await get(client, "/v1/endpoints/shop/stats") == (200, STATS)
    _, one = await get(client, "/v1/endpoints/shop/stats?group=shop-8")
    assert [group["id"] for group in one["groups"]] == ["shop-8"]
    _, none = await get(client, "/v1/endpoints/shop/show?group=shop-8")
    assert none["groups"] == []
    assert (await get(client, "/v1/endpoints/nobody/show"))[0] == 404


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", (LogQuery(), None, False)),
        ("?container=web&tail=3", (LogQuery(container="web", tail=3), None, False)),
        ("?timestamps=1&since_s=300", (LogQuery(has_timestamps=True), 300.0, False)),
        ("?previous=1", (LogQuery(), None, True)),
    ],
)
async def test_logs_are_asked_for_as_the_query_says(
    client: aiohttp.ClientSession,
    house: FakeHouse,
    query: str,
    asked: tuple[LogQuery, float | None, bool],
) -> None:
    async with client.get(f"/v1/groups/shop-7/logs{query}") as response:
        assert response.status == 200

    assert house.groups.queries == [asked]


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan", ""])
async def test_a_time_that_is_none_is_refused(client: aiohttp.ClientSession, text: str) -> None:
    status, answer = await get(client, f"/v1/groups/shop-7/logs?since_s={text}")

    assert status == 400
    assert "since_s=" in answer["error"]


# -- exec -----------------------------------------------------------------------------------------


async def begin(socket: ClientWebSocketResponse, *command: str, **more: Any) -> None:
    await socket.send_json({"command": command, **more})


async def rest(socket: ClientWebSocketResponse) -> tuple[bytes, bytes, dict[str, Any]]:
    """Return all output, all errors, and the last message."""
    written, last = {1: b"", 2: b""}, {}
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            written[message.data[0]] += message.data[1:]
        else:
            assert message.type is WSMsgType.TEXT
            last = json.loads(message.data)
    return written[1], written[2], last


async def test_output_errors_and_exit_code_come_back(client: aiohttp.ClientSession) -> None:
    async with client.ws_connect(EXEC) as socket:
        await begin(socket, "sh", "-c", "echo out; echo err >&2; exit 7")

        assert await rest(socket) == (b"out\n", b"err\n", {"exit_code": 7})


async def test_standard_input_reaches_it_until_it_is_closed(client: aiohttp.ClientSession) -> None:
    async with client.ws_connect(EXEC) as socket:
        await begin(socket, "sort")
        await socket.send_bytes(b"\0b\n")
        await socket.send_bytes(b"\0a\n")
        await socket.send_bytes(b"\0")

        assert await rest(socket) == (b"a\nb\n", b"", {"exit_code": 0})


async def test_much_goes_both_ways_at_once(client: aiohttp.ClientSession) -> None:
    chunk = b"0123456789abcdef" * 2048
    async with client.ws_connect(EXEC) as socket, asyncio.TaskGroup() as tasks:
        await begin(socket, "cat")
        reading = tasks.create_task(rest(socket))
        for _ in range(64):
            await socket.send_bytes(b"\0" + chunk)
        await socket.send_bytes(b"\0")

    assert reading.result() == (chunk * 64, b"", {"exit_code": 0})


async def test_a_script_of_many_kilobytes_is_no_too_long_address(
    client: aiohttp.ClientSession,
) -> None:
    async with client.ws_connect(EXEC) as socket:
        await begin(socket, "sh", "-c", ": " + "x" * 60_000 + "\necho done")

        assert (await rest(socket))[0] == b"done\n"


async def test_a_terminal_has_the_size_that_was_said(client: aiohttp.ClientSession) -> None:
    until = "until [ '{}' = \"$(stty size)\" ]; do sleep 0.02; done; echo {};"
    script = until.format("5 7", "first") + until.format("50 120", "second")
    async with client.ws_connect(EXEC) as socket:
        await begin(socket, "sh", "-c", script, tty=True, rows=5, columns=7)
        first = await socket.receive_bytes()
        await socket.send_json({"rows": 50, "columns": 120})

        assert first == b"\x01first\r\n"
        assert await rest(socket) == (b"second\r\n", b"", {"exit_code": 0})


@pytest.mark.parametrize(
    ("first", "sentence"),
    [
        ('{"command": ["true"], "container": "nobody"}', 'has no container "nobody"'),
        ('{"command": ["/no/such/program"]}', "There is no program '/no/such/program'."),
        ('{"command": []}', "There is no command to run."),
        ('{"command": "ls"}', "The first message must say what to run"),
        ("ls", "The first message must say what to run"),
    ],
)
async def test_what_cannot_be_run_is_said_in_a_sentence(
    client: aiohttp.ClientSession, first: str, sentence: str
) -> None:
    async with client.ws_connect(EXEC) as socket:
        await socket.send_str(first)

        out, err, last = await rest(socket)

    assert (out, err) == (b"", b"")
    assert sentence in last["error"]


async def test_a_group_that_there_is_none_of_is_said(client: aiohttp.ClientSession) -> None:
    async with client.ws_connect("/v1/groups/nobody/exec") as socket:
        await begin(socket, "true")

        assert (await rest(socket))[2] == {"error": 'There is no group "nobody".'}


async def test_a_plain_get_is_told_what_it_takes(client: aiohttp.ClientSession) -> None:
    status, answer = await get(client, EXEC)

    assert status == 400
    assert "exec is a WebSocket" in answer["error"]


@pytest.mark.parametrize("stuffed", [False, True])
async def test_a_client_that_leaves_ends_the_command(
    client: aiohttp.ClientSession, house: FakeHouse, *, stuffed: bool
) -> None:
    """Also when so much input waits for a command that does not read that nobody reads us."""
    socket = await client.ws_connect(EXEC)
    await begin(socket, "sleep", "600")
    await eventually(lambda: house.groups.sessions)
    if stuffed:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while True:
                    await socket.send_bytes(b"\0" + bytes(65536))

    transport = socket._response.connection.transport if socket._response.connection else None
    assert transport is not None
    transport.abort()

    (running,) = house.groups.sessions
    await eventually(lambda: running.is_closed)
    assert running.process.returncode == -9
    await socket.close()


async def test_a_service_that_stops_ends_the_command_and_says_so(
    house: FakeHouse, tmp_path: Path
) -> None:
    path = socket_path(tmp_path)
    async with session(path) as client, asyncio.TaskGroup() as tasks, api.serve(house, path):
        socket = await client.ws_connect(EXEC)
        await begin(socket, "sh", "-c", "echo here; sleep 600")
        assert await socket.receive_bytes() == b"\x01here\n"
        reading = tasks.create_task(rest(socket))

    _, _, last = reading.result()
    assert "The service stops" in last["error"]
    assert house.groups.sessions[0].is_closed


async def test_an_error_of_the_engine_midway_is_said(
    client: aiohttp.ClientSession, house: FakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_self: object) -> int:
        raise TrafficmgrError("The engine went away.")

    monkeypatch.setattr("support.exec_support.LocalExec.exit_code", broken)

    async with client.ws_connect(EXEC) as socket:
        await begin(socket, "true")

        assert (await rest(socket))[2] == {"error": "The engine went away."}
    assert house.groups.sessions[0].is_closed


def test_it_works_on_uvloop_which_the_controller_runs_on(house: FakeHouse, tmp_path: Path) -> None:
    async def ask() -> tuple[bytes, bytes, dict[str, Any]]:
        path = socket_path(tmp_path)
        async with (
            api.serve(house, path),
            session(path) as client,
            client.ws_connect(EXEC) as socket,
        ):
            await begin(socket, "cat")
            await socket.send_bytes(b"\0" + os.urandom(1000))
            await socket.send_bytes(b"\0")
            return await rest(socket)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        out, _, last = runner.run(ask())

    assert (len(out), last) == (1000, {"exit_code": 0})
