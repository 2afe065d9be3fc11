"""The access log: what it says, and that nobody waits for it."""

import asyncio
import json
import os
import re
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from support.front_support import publish, take_front
from support.proxy_support import DEADLINE_S, Rig, read_head, until, with_proxy

from trafficmgr.core.traffic import AccessLog, Front
from trafficmgr.dataplane import access_log
from trafficmgr.dataplane.access_log import AccessLogWriter, Entry

GET = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"


def entry(target: str = "/") -> Entry:
    return Entry(status=200, bytes=2, seconds=0.5, client="192.0.2.7", method="GET", target=target)


async def written(rig: Rig, path: Path, count: int) -> list[dict[str, Any]]:
    """Return the lines once there are so many."""

    def is_there() -> bool:
        rig.server.sweep(rig.server.now())
        return path.exists() and path.read_bytes().count(b"\n") >= count

    await until(is_there)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == count
    return lines


async def shop(rig: Rig, path: Path, format_: str = "json") -> None:
    take_front(rig, Front(access_log=AccessLog(path=str(path), format=format_)))
    publish(rig, "shop", ("shop.test",), [await rig.app("shop-1")])


@with_proxy
async def test_a_request_is_one_line_that_says_who_asked_what_and_who_answered(
    rig: Rig, tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    await shop(rig, path)
    client = await rig.client()

    first = await client.get("/a?b=c")
    await client.get("/second")
    lines = await written(rig, path, 2)

    line = lines[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert 0 < line.pop("seconds") < DEADLINE_S
    names = {line.pop("request_id"), lines[1]["request_id"]}
    assert len(names) == 2
    assert line == {
        "client": "127.0.0.1",
        "method": "GET",
        "host": "shop.test",
        "target": "/a?b=c",
        "status": 200,
        "bytes": len(first.raw + first.body),
        "endpoint": "shop",
        "revision": "r0",
        "group": "shop-1",
    }
    assert lines[1]["bytes"] == line["bytes"]


@with_proxy
async def test_what_we_answer_ourselves_is_written_with_its_reason(
    rig: Rig, tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    await shop(rig, path)
    app = await rig.app("bad-1", b"garbage\r\n\r\n")
    publish(rig, "bad", ("bad.test",), [app])
    publish(rig, "none", ("none.test",), [])
    client = await rig.client()

    for host in ("bad.test", "none.test", "unknown.test"):
        await client.get(host=host)
    client.send(b"garbage\r\n\r\n")
    await client.rest()
    lines = await written(rig, path, 4)

    told = [(line["status"], line.get("endpoint"), line.get("reason")) for line in lines]
    assert told == [
        (502, "bad", "bad_response"),
        (503, "none", "no_target"),
        (404, None, None),
        (400, None, None),
    ]
    assert lines[0]["group"] == "bad-1"
    assert "target" not in lines[3]


@with_proxy
async def test_who_leaves_and_what_breaks_off_is_written(rig: Rig, tmp_path: Path) -> None:
    go = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        if "/half" in head.start:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
            return
        await go.wait()

    path = tmp_path / "access.log"
    await shop(rig, path)
    publish(rig, "slow", ("slow.test",), [await rig.app("slow-1", script=slow)])
    broken, leaving = await rig.client(), await rig.client()

    broken.send(b"GET /half HTTP/1.1\r\nHost: slow.test\r\n\r\n")
    await broken.rest()
    leaving.send(b"GET / HTTP/1.1\r\nHost: slow.test\r\n\r\n")
    await until(lambda: rig.upstream("slow-1").requests == 1)
    sock = leaving.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    leaving.writer.transport.abort()
    lines = await written(rig, path, 2)
    go.set()

    assert [(line["status"], line["reason"]) for line in lines] == [
        (200, "upstream_closed"),
        (499, "client_left"),
    ]


@with_proxy
async def test_a_tunnel_is_written_when_it_is_over(rig: Rig, tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: raw\r\nConnection: Upgrade\r\n\r\n"
        )
        while data := await reader.read(65536):
            writer.write(data)

    path = tmp_path / "access.log"
    await shop(rig, path)
    publish(rig, "raw", ("raw.test",), [await rig.app("raw-1", script=echo)])
    client = await rig.client()
    client.send(b"GET /t HTTP/1.1\r\nHost: raw.test\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
    head = await read_head(client.reader)
    client.send(b"x" * 1000)
    await client.reader.readexactly(1000)
    client.writer.write_eof()
    await client.rest()

    (line,) = await written(rig, path, 1)
    assert (line["status"], line["group"], line["target"]) == (101, "raw-1", "/t")
    assert line["bytes"] == 1000 + len(head.raw)


@with_proxy
async def test_combined_is_what_apache_calls_so(rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    await shop(rig, path, "combined")
    client = await rig.client()
    answer = await client.ask(
        b"GET /a?b=%22 HTTP/1.1\r\nHost: shop.test\r\nReferer: http://x.test/\r\n"
        b'User-Agent: a "quoted" \\ one \xc3\xa9\r\n\r\n'
    )

    rig.server.sweep(rig.server.now())
    await until(lambda: path.exists() and path.read_bytes().endswith(b"\n"))

    size = len(answer.raw + answer.body)
    assert re.fullmatch(
        r"127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "
        rf'"GET /a\?b=%22 HTTP/1\.1" 200 {size} "http://x\.test/" '
        r'"a \\x22quoted\\x22 \\x5C one \\xC3\\xA9"\n',
        path.read_text(),
    )


@with_proxy
async def test_the_log_comes_and_goes_with_the_front(rig: Rig, tmp_path: Path) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    await shop(rig, first)
    client = await rig.client()
    await client.get("/1")
    await shop(rig, second)
    await client.get("/2")
    await written(rig, second, 1)
    take_front(rig, Front())
    await client.get("/3")

    assert [line["target"] for line in await written(rig, first, 1)] == ["/1"]
    assert [line["target"] for line in await written(rig, second, 1)] == ["/2"]
    assert rig.server.access_log is None


async def test_a_file_that_was_moved_away_is_followed_by_a_new_one(tmp_path: Path) -> None:
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    log = AccessLogWriter(AccessLog(path=str(path)))
    log.add(entry("/1"))
    log.flush()
    await until(lambda: path.exists() and b"/1" in path.read_bytes())

    path.rename(moved)
    log.add(entry("/2"))
    log.close(DEADLINE_S)

    assert b"/2" in path.read_bytes()
    assert moved.read_bytes().count(b"\n") == path.read_bytes().count(b"\n") == 1


async def test_a_disk_that_hangs_holds_up_nobody_and_what_is_lost_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe that nobody reads is a disk that hangs."""
    monkeypatch.setattr(access_log, "LIMIT_BYTES", 1000)
    path = tmp_path / "access.log"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLogWriter(AccessLog(path=str(path)))
    log.add(entry("/" + "x" * 1_000_000))
    log.flush()

    for _ in range(100):
        log.add(entry("/waits"))
    log.flush()

    dropped = re.search(r"access_log_dropped .*lines=(\d+)", capsys.readouterr().err)
    assert dropped is not None
    assert 80 < int(dropped[1]) < 100
    os.set_blocking(reading, True)
    text = b""
    while text.count(b"\n") < 1:
        text += os.read(reading, 65536)
    log.flush()
    log.close(DEADLINE_S)
    while text.count(b"/waits") < 100 - int(dropped[1]):
        text += os.read(reading, 65536)
    os.close(reading)


async def test_a_file_that_can_not_be_written_is_told_once_and_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "missing" / "access.log"
    log = AccessLogWriter(AccessLog(path=str(path)))
    for _ in range(3):
        log.add(entry())
        log.flush()
        await until(lambda: not log._is_busy.is_set())
    path.parent.mkdir()

    log.add(entry())
    log.close(DEADLINE_S)

    assert path.read_bytes().count(b"\n") == 1
    told = capfd.readouterr().err
    assert told.count("access_log_failed") == 1
    assert told.count("access_log_restored") == 1
