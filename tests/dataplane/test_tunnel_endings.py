"""How tunnels end: idle, with their group, with the worker; WebSockets in their own words."""

import asyncio
import math
from contextlib import suppress

import pytest
from support.front_support import publish
from support.proxy_support import App, Client, Rig, read_head, until, with_proxy

from trafficmgr.core.traffic import HttpPolicy
from trafficmgr.dataplane.tunnel import BOUNDARY_S, FAREWELL_S, Tunnel
from trafficmgr.dataplane.websocket import close_frame

GOODBYE = close_frame(1001, is_masked=False)
HELLO = b"\x81\x05hello"
MASKED_HELLO = b"\x81\x85\x00\x00\x00\x00hello"
ANSWER = b"\x88\x82\x00\x00\x00\x00\x03\xe9"
DRAIN_S = 100.0
LAST_S = DRAIN_S - 2


class Group:
    """A group that takes WebSockets; what it gets and what it sends is up to the test."""

    def __init__(self, protocol: bytes = b"websocket", ahead: bytes = b"") -> None:
        self.protocol = protocol
        self.ahead = ahead
        self.readers: list[asyncio.StreamReader] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n"
            % self.protocol
            + self.ahead
        )
        self.readers.append(reader)
        self.writers.append(writer)
        await self.over.wait()

    async def app(self, rig: Rig) -> App:
        app = await rig.app("chat-1", script=self.serve)
        table(rig, app)
        return app

    async def open(self, rig: Rig) -> Client:
        client = await rig.client()
        client.send(
            b"GET / HTTP/1.1\r\nHost: chat.test\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n"
            % self.protocol
        )
        assert (await read_head(client.reader)).status == 101
        await until(lambda: len(rig.server.tunnels) == len(self.readers))
        return client

    async def got(self, size: int) -> bytes:
        async with asyncio.timeout(20):
            return await self.readers[-1].readexactly(size)


def table(rig: Rig, *apps: App) -> None:
    http = HttpPolicy(drain_websocket_s=DRAIN_S, tunnel_idle_s=1000.0)
    publish(rig, "chat", ("chat.test",), list(apps), http=http)


async def withdrawn(rig: Rig) -> None:
    """Put another group in the place of all."""
    table(rig, await rig.app("chat-2"))
    rig.server.sweep(rig.server.now())


def the_tunnel(rig: Rig) -> Tunnel:
    (tunnel,) = rig.server.tunnels
    return tunnel


@with_proxy
async def test_a_websocket_of_a_withdrawn_group_is_told_goodbye_on_both_sides(rig: Rig) -> None:
    group = Group()
    await group.app(rig)
    client = await group.open(rig)
    client.send(MASKED_HELLO)
    assert await group.got(len(MASKED_HELLO)) == MASKED_HELLO
    began = rig.server.now()

    await withdrawn(rig)
    rig.server.sweep(began + DRAIN_S / 2)
    group.writers[0].write(HELLO)
    assert await client.reader.readexactly(len(HELLO)) == HELLO
    rig.server.sweep(began + LAST_S - BOUNDARY_S - FAREWELL_S + 1)

    assert await client.reader.readexactly(4) == GOODBYE
    masked = await group.got(8)
    assert masked[:2] == b"\x88\x82"
    tunnel = the_tunnel(rig)
    client.send(ANSWER)
    assert await client.rest() == b""
    await until(lambda: tunnel._open == 1)
    assert not tunnel.ends[1].transport.is_closing(), "the group has not answered yet"
    group.writers[0].write(b"\x88\x02\x03\xe9")
    await rig.settled()
    assert await group.readers[0].read(1) == b""
    assert not rig.server.tunnels
    group.over.set()


@with_proxy
async def test_a_close_frame_waits_for_the_end_of_the_frame_under_way(rig: Rig) -> None:
    group = Group()
    await group.app(rig)
    client = await group.open(rig)
    group.writers[0].write(HELLO[:3])
    assert await client.reader.readexactly(3) == HELLO[:3]
    client.send(MASKED_HELLO[:7])
    await group.got(7)
    await withdrawn(rig)

    rig.server.sweep(rig.server.now() + LAST_S - 1)
    assert the_tunnel(rig).is_parting
    group.writers[0].write(HELLO[3:] + HELLO)
    client.send(MASKED_HELLO[7:] + MASKED_HELLO + ANSWER)

    assert await client.reader.readexactly(4 + 4) == HELLO[3:] + GOODBYE
    assert (await group.got(4 + 8))[:6] == MASKED_HELLO[7:] + b"\x88\x82"
    assert await client.rest() == b""
    group.writers[0].write(GOODBYE)
    await rig.settled()
    group.over.set()


@with_proxy
async def test_what_was_sent_ahead_counts_as_part_of_the_stream(rig: Rig) -> None:
    """Half a frame came with the 101; a close frame behind it would be part of its content."""
    group = Group(ahead=HELLO[:3])
    await group.app(rig)
    client = await group.open(rig)
    assert await client.reader.readexactly(3) == HELLO[:3]
    await withdrawn(rig)

    rig.server.sweep(rig.server.now() + LAST_S - 1)
    group.writers[0].write(HELLO[3:])

    assert await client.reader.readexactly(4 + 4) == HELLO[3:] + GOODBYE
    client.writer.transport.abort()
    group.over.set()


@with_proxy
async def test_a_frame_that_never_ends_is_cut(rig: Rig) -> None:
    group = Group()
    await group.app(rig)
    client = await group.open(rig)
    group.writers[0].write(HELLO[:3])
    await client.reader.readexactly(3)
    await withdrawn(rig)
    parting_at = rig.server.now() + LAST_S - BOUNDARY_S - 1

    rig.server.sweep(parting_at)
    rig.server.sweep(parting_at + BOUNDARY_S - 0.1)
    assert not the_tunnel(rig).ends[0].transport.is_closing()
    rig.server.sweep(parting_at + BOUNDARY_S + 0.1)

    assert await client.rest() == b""
    await rig.settled()
    group.over.set()


@with_proxy
async def test_who_does_not_answer_a_close_frame_is_cut(rig: Rig) -> None:
    group = Group()
    await group.app(rig)
    client = await group.open(rig)
    await withdrawn(rig)
    rig.server.sweep(rig.server.now() + LAST_S - 1)
    assert await client.reader.readexactly(4) == GOODBYE

    rig.server.sweep(rig.server.now() + FAREWELL_S - 0.5)
    assert rig.server.tunnels
    rig.server.sweep(rig.server.now() + FAREWELL_S + 0.5)

    assert await client.rest() == b""
    await rig.settled()
    group.over.set()


@with_proxy
async def test_sides_that_say_goodbye_themselves_get_no_second_one(rig: Rig) -> None:
    group = Group()
    await group.app(rig)
    client = await group.open(rig)
    group.writers[0].write(close_frame(1000, is_masked=False))
    assert await client.reader.readexactly(4) == close_frame(1000, is_masked=False)
    await withdrawn(rig)

    rig.server.sweep(rig.server.now() + LAST_S - 1)
    assert (await group.got(2)) == b"\x88\x82", "the group does not know whether it was heard"
    group.writers[0].close()

    assert await client.rest() == b""
    client.writer.close()
    await rig.settled()
    group.over.set()


@with_proxy
async def test_no_tunnel_outlives_the_deadline(rig: Rig) -> None:
    """A frame that drips on never comes to its end; the group is stopped at the deadline."""
    group = Group()
    await group.app(rig)
    client = await group.open(rig)
    group.writers[0].write(b"\x82\x7f" + (1 << 40).to_bytes(8, "big") + b"x")
    await client.reader.readexactly(11)
    began = rig.server.now()
    await withdrawn(rig)

    for second in range(int(DRAIN_S)):
        rig.server.sweep(began + second)
        if rig.upstream("chat-1").tunnels:
            group.writers[0].write(b"x")

    with suppress(ConnectionError):
        await client.rest()
    await rig.settled()
    group.over.set()


@with_proxy
async def test_tunnels_are_spread_over_the_last_part_of_the_time_to_drain(rig: Rig) -> None:
    group = Group()
    await group.app(rig)
    for _ in range(40):
        await group.open(rig)
    began = rig.server.now()
    await withdrawn(rig)

    at = sorted(tunnel._close_at - began for tunnel in rig.server.tunnels)

    assert DRAIN_S * 0.7 < at[0] < at[-1] < DRAIN_S - 9 + 1
    assert len(set(at)) == 40
    assert at[-1] - at[0] > DRAIN_S * 0.1
    assert all(tunnel._cut_at <= began + LAST_S + 1 for tunnel in rig.server.tunnels)
    group.over.set()


@with_proxy
async def test_tunnels_of_a_group_that_comes_back_stay(rig: Rig) -> None:
    group = Group()
    app = await group.app(rig)
    client = await group.open(rig)
    await withdrawn(rig)
    assert the_tunnel(rig).is_leaving

    table(rig, app)
    rig.server.sweep(rig.server.now() + 1)
    rig.server.sweep(rig.server.now() + DRAIN_S * 2)

    assert the_tunnel(rig)._close_at == math.inf
    client.send(MASKED_HELLO)
    assert await group.got(len(MASKED_HELLO)) == MASKED_HELLO
    group.over.set()


@with_proxy
async def test_other_protocols_are_closed_without_words(rig: Rig) -> None:
    group = Group(b"raw")
    await group.app(rig)
    client = await group.open(rig)
    group.writers[0].write(b"some")
    assert await client.reader.readexactly(4) == b"some"
    await withdrawn(rig)

    rig.server.sweep(rig.server.now() + LAST_S - 1)

    assert await client.rest() == b""
    assert await group.readers[0].read(1) == b""
    await rig.settled()
    group.over.set()


@with_proxy
async def test_an_endpoint_says_how_long_a_tunnel_may_be_idle(rig: Rig) -> None:
    group = Group()
    await group.app(rig)
    client = await group.open(rig)

    rig.server.sweep(rig.server.now() + 999)
    client.send(MASKED_HELLO)
    await group.got(len(MASKED_HELLO))
    rig.server.sweep(rig.server.now() + 999)
    assert rig.server.tunnels
    rig.server.sweep(rig.server.now() + 1001)

    assert await client.rest() == b""
    await rig.settled()
    group.over.set()


@pytest.mark.parametrize(("answers", "leaves"), [(True, False), (False, False), (True, True)])
@with_proxy
async def test_a_worker_that_ends_tells_websockets_goodbye(
    rig: Rig, answers: bool, leaves: bool
) -> None:
    """Also those that have more time because their group was withdrawn."""
    group = Group()
    await group.app(rig)
    client = await group.open(rig)
    if leaves:
        await withdrawn(rig)
    rig.server.close()

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        closing = tasks.create_task(rig.server.closed(20))
        assert await client.reader.readexactly(4) == GOODBYE
        await group.got(8)
        if answers:
            client.send(ANSWER)
            group.writers[0].write(GOODBYE)
        assert await client.rest() == b""

    assert closing.result() is True
    assert not rig.server.tunnels
    group.over.set()
