"""The DNS server on real sockets, on uvloop as in a worker and on asyncio's own loop."""

import asyncio
import socket
import struct
from contextlib import AsyncExitStack
from typing import cast

import dns.asyncquery
import dns.message
import dns.rcode
import pytest
from support.dns_support import (
    DEADLINE_S,
    Clock,
    addresses,
    book,
    connected,
    exchange,
    framed,
    on_both_loops,
    packet,
    read_framed,
    running,
    shares,
    table,
    texts,
    udp_socket,
    until,
    within,
    zones,
)

from trafficmgr.core.model import Publish
from trafficmgr.dataplane import dns_tcp
from trafficmgr.dataplane.book import Book
from trafficmgr.dataplane.dns_server import DnsServer
from trafficmgr.dataplane.dns_udp import RECEIVE_BUFFER_BYTES


def shop(*addresses: str, generation: int = 1, endpoint: str = "shop") -> Book:
    """Return a book that answers shop.apps.test with these addresses."""
    return book(
        table(
            endpoint=endpoint,
            generation=generation,
            shares=shares({"blue": 100}, {"blue": addresses or ("127.77.0.1",)}),
        )
    )


def answered(reply: bytes) -> list[str]:
    """Return the addresses in a reply."""
    return addresses(dns.message.from_wire(reply))


@pytest.fixture(autouse=True)
def _swept_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait a second for the sweep."""
    monkeypatch.setattr(dns_tcp, "SWEEP_EVERY_S", 0.05)


# -- UDP ------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_stub_resolver_gets_answers_over_udp_and_tcp() -> None:
    async with running(shop()) as at:
        query = dns.message.make_query("shop.apps.test", "A", use_edns=0)

        over_udp = await dns.asyncquery.udp(query, at.udp[0], DEADLINE_S, at.udp[1])
        over_tcp = await dns.asyncquery.tcp(query, at.tcp[0], DEADLINE_S, at.tcp[1])

    assert texts(over_udp) == texts(over_tcp) == ["shop.apps.test. 7 IN A 127.77.0.1"]


@on_both_loops
async def test_a_cut_off_answer_is_fetched_over_tcp() -> None:
    many = zones(advertise=tuple(f"192.0.2.{n}" for n in range(100)))
    async with running(book(served=many)) as at:
        query = dns.message.make_query("ns1.apps.test", "A")
        with pytest.raises(dns.message.Truncated):
            await dns.asyncquery.udp(
                query, at.udp[0], DEADLINE_S, at.udp[1], raise_on_truncation=True
            )

        whole = await dns.asyncquery.tcp(query, at.tcp[0], DEADLINE_S, at.tcp[1])

    assert len(addresses(whole)) == 100


@on_both_loops
async def test_more_datagrams_than_one_batch_are_all_answered() -> None:
    async with running(shop()) as at:
        with udp_socket() as client:
            for ident in range(150):
                client.sendto(packet(ident=ident), at.udp)
            loop = asyncio.get_running_loop()
            replies = [await within(loop.sock_recv(client, 4096)) for _ in range(150)]

    assert {int.from_bytes(reply[:2]) for reply in replies} == set(range(150))


@on_both_loops
async def test_bad_packets_get_formerr_or_silence_and_the_next_client_an_answer() -> None:
    async with running(shop()) as at:
        with udp_socket() as client:
            for bad in (b"", b"x", packet()[:11], packet(flags=0x8100)):
                client.sendto(bad, at.udp)

            formerr = await exchange(client, packet(b"\xc0\x0c"), at.udp)
            good = await exchange(client, packet(), at.udp)

        assert formerr == struct.pack(">HHHHHH", 0x1234, 0x8101, 0, 0, 0, 0)
        assert answered(good) == ["127.77.0.1"]
        assert at.server.surprises == 0


@on_both_loops
async def test_an_error_of_ours_is_servfail_and_counted_and_the_server_goes_on() -> None:
    healthy = True

    def rand() -> float:
        if not healthy:
            raise ZeroDivisionError("a bug")
        return 0.5

    async with running(shop(), rand=rand) as at:
        with udp_socket() as client:
            healthy = False
            broken = dns.message.from_wire(await exchange(client, packet(), at.udp))
            healthy = True
            good = await exchange(client, packet(), at.udp)

        assert broken.rcode() == dns.rcode.SERVFAIL
        assert answered(good) == ["127.77.0.1"]
        assert at.server.surprises == 1
        assert isinstance(at.server.last_surprise, ZeroDivisionError)


@on_both_loops
async def test_no_answer_carries_a_withdrawn_address_once_apply_returned() -> None:
    served, clock = shop("127.77.0.1"), Clock(50.0)
    async with running(served, clock=clock) as at:
        with udp_socket() as client:
            before = await exchange(client, packet(), at.udp)
            for ident in range(40):
                client.sendto(packet(ident=ident), at.udp)  # waiting in the kernel
            clock.now = 60.0
            served.apply(
                table(generation=2, shares=shares({"green": 100}, {"green": ["127.77.0.2"]}))
            )
            loop = asyncio.get_running_loop()
            after = [answered(await within(loop.sock_recv(client, 4096))) for _ in range(40)]

    assert answered(before) == ["127.77.0.1"]
    assert after == [["127.77.0.2"]] * 40
    assert served.applied("shop").answered == {"group-127.77.0.1": 50.0}
    assert served.bye().answered["shop"]["group-127.77.0.2"] == 60.0


@on_both_loops
async def test_a_wildcard_socket_replies_from_the_address_that_was_asked() -> None:
    async with running(shop(), host="0.0.0.0") as at:
        for asked in ("127.0.0.1", "127.0.0.9", "127.1.2.3"):
            with udp_socket() as client:
                reply = await exchange(client, packet(), (asked, at.udp[1]))

                assert answered(reply) == ["127.77.0.1"]


@on_both_loops
async def test_a_wildcard_socket_of_ipv6_serves_both_families() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 on this machine's loopback")
    async with running(shop(), host="::") as at:
        with udp_socket("::1") as client:
            six = await exchange(client, packet(), ("::1", at.udp[1]))
        with udp_socket() as client:
            four = await exchange(client, packet(), ("127.0.0.9", at.udp[1]))

    assert answered(six) == answered(four) == ["127.77.0.1"]


@on_both_loops
async def test_a_reply_that_cannot_be_sent_is_counted_and_forgotten() -> None:
    class Stuffed:
        """A socket whose send buffer is full."""

        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.recvfrom, self.fileno = sock.recvfrom, sock.fileno
            self.getsockname, self.close = sock.getsockname, sock.close
            self.setsockopt = sock.setsockopt
            self.refusals = 3

        def sendto(self, data: bytes, to: tuple[str, int]) -> int:
            if self.refusals > 0:
                self.refusals -= 1
                raise BlockingIOError
            return self.sock.sendto(data, to)

    server = DnsServer(shop(), rand=lambda: 0.0, clock=Clock())
    sock = udp_socket()
    address = sock.getsockname()
    server.serve_udp(cast("socket.socket", Stuffed(sock)))
    with udp_socket() as client:
        for _ in range(3):
            client.sendto(packet(), address)
        reply = await exchange(client, packet(ident=9), address)
    server.close()
    await within(server.closed())

    assert int.from_bytes(reply[:2]) == 9
    assert server.unsent == 3


@on_both_loops
async def test_the_queue_for_a_busy_or_replaced_worker_is_as_long_as_the_kernel_allows() -> None:
    with udp_socket() as plain:
        default = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**24)
        most = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    async with running(shop()) as at:
        granted = at.server._udp[0].sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    assert min(most, 2 * RECEIVE_BUFFER_BYTES) == granted >= default


# -- TCP ------------------------------------------------------------------------------------------


@on_both_loops
async def test_pipelined_queries_are_answered_in_order() -> None:
    async with running(shop()) as at, connected(at.tcp) as (reader, writer):
        writer.write(framed(*(packet(ident=ident) for ident in range(50))))

        idents = [int.from_bytes((await read_framed(reader))[:2]) for _ in range(50)]

    assert idents == list(range(50))


@on_both_loops
async def test_a_query_may_arrive_byte_by_byte() -> None:
    async with running(shop()) as at, connected(at.tcp) as (reader, writer):
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in framed(packet(), packet(ident=7)):
            writer.write(bytes((byte,)))
            await asyncio.sleep(0)

        first, second = await read_framed(reader), await read_framed(reader)

    assert answered(first) == ["127.77.0.1"]
    assert int.from_bytes(second[:2]) == 7


@on_both_loops
async def test_a_client_that_has_finished_sending_still_gets_its_answers() -> None:
    async with running(shop()) as at, connected(at.tcp) as (reader, writer):
        writer.write(framed(packet(), packet()) + b"\0")
        writer.write_eof()

        everything = await within(reader.read())

    assert len(everything) == 2 * (2 + len(packet()) + 16)


@on_both_loops
async def test_a_message_without_an_answer_ends_its_connection_only() -> None:
    async with running(shop()) as at:
        for bad in (b"\0\0", framed(packet(flags=0x8000)), framed(b"short")):
            async with connected(at.tcp) as (reader, writer):
                writer.write(framed(packet()) + bad + framed(packet()))

                assert answered(await read_framed(reader)) == ["127.77.0.1"]
                assert await within(reader.read()) == b""


@on_both_loops
async def test_a_client_that_does_not_read_stops_being_answered_until_it_does() -> None:
    served = shop()
    tally = served.by_endpoint["shop"].lanes[0].tally
    total = 30_000
    async with running(served) as at, connected(at.tcp) as (reader, writer):
        writer.write(framed(packet()) * total)
        seen = -1
        while seen != tally.dns or seen == 0:
            seen = tally.dns
            await asyncio.sleep(0.2)  # long enough to see whether anything moves

        assert 0 < seen < total
        (connection,) = at.server._tcp._open
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() < 2 * dns_tcp.MAX_UNSENT_BYTES
        assert len(connection._inbox) < 400_000  # one read of 256 KiB, and what was there

        length = 2 + len(packet()) + 16
        await within(reader.readexactly(total * length))

    assert tally.dns == total


@on_both_loops
async def test_when_all_places_are_taken_the_longest_idle_gives_way() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dns_tcp, "MAX_CONNECTIONS", 3)
        async with running(shop()) as at, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected(at.tcp)) for _ in range(3)]
            for reader, writer in (*clients, clients[0]):
                writer.write(framed(packet()))
                await read_framed(reader)

            reader, writer = await stack.enter_async_context(connected(at.tcp))
            writer.write(framed(packet()))

            assert answered(await read_framed(reader)) == ["127.77.0.1"]
            assert await within(clients[1][0].read()) == b""
            assert at.server.tcp_connections == 3


@on_both_loops
async def test_a_client_that_drips_bytes_is_idle_all_the_same() -> None:
    async with running(shop()) as at, connected(at.tcp) as (reader, writer):
        writer.write(framed(packet()))
        await read_framed(reader)
        (connection,) = at.server._tcp._open
        at.server._tcp._open[connection] -= dns_tcp.IDLE_S + 1

        writer.write(b"\0")

        assert await within(reader.read()) == b""


# -- the end --------------------------------------------------------------------------------------


@on_both_loops
async def test_closing_answers_nothing_more_and_lets_go_of_idle_clients() -> None:
    served = shop()
    tally = served.by_endpoint["shop"].lanes[0].tally
    server = DnsServer(served, rand=lambda: 0.0, clock=Clock())
    udp, tcp = udp_socket(), socket.create_server(("127.0.0.1", 0))
    kept, at = udp.dup(), tcp.getsockname()  # the supervisor's
    server.serve_udp(udp)
    await server.serve_tcp(tcp, 16)
    async with connected(at) as (reader, writer):
        writer.write(framed(packet()))
        await read_framed(reader)

        server.close()
        await within(server.closed())
        with kept, udp_socket() as client:
            client.sendto(packet(), kept.getsockname())
            left_for_the_successor = await within(asyncio.get_running_loop().sock_recv(kept, 4096))

        assert await within(reader.read()) == b""
    assert left_for_the_successor == packet()
    assert tally.dns == 1


@on_both_loops
async def test_closing_does_not_wait_for_ever_for_a_client_that_does_not_read() -> None:
    async with running(shop()) as at, connected(at.tcp) as (_, writer):
        writer.write(framed(packet()) * 30_000)
        (connection,) = await until(lambda: at.server._tcp._open)
        await until(lambda: connection._is_paused)

        at.server.close()
        at.server._tcp._open[connection] -= dns_tcp.IDLE_S + 1

        await within(at.server.closed())


@on_both_loops
async def test_several_sockets_serve_the_same_book() -> None:
    served = book(table(publish=Publish.proxy))
    async with running(served) as at:
        second = udp_socket()
        port = second.getsockname()
        at.server.serve_udp(second)
        with udp_socket() as client:
            replies = [await exchange(client, packet(), to) for to in (at.udp, port)]

    assert [answered(reply) for reply in replies] == [["192.0.2.10"]] * 2
