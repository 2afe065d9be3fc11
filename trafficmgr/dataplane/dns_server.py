"""The DNS server of a worker: its sockets, and what keeps a bad packet from ending it.

`dns_answers` decides what is answered, `dns_udp` and `dns_tcp` move bytes. Per query there is no
task, timer, await or log call (DESIGN 7). Nothing that a client sends may end the worker: what
goes wrong in a way that nobody thought of is counted, kept for the sweep to report, and answered
with SERVFAIL.
"""

import asyncio
import socket
import time
from collections.abc import Callable

from trafficmgr.dataplane.book import Book
from trafficmgr.dataplane.dns_answers import Answers
from trafficmgr.dataplane.dns_tcp import TcpConnections
from trafficmgr.dataplane.dns_udp import UdpSocket
from trafficmgr.wire import dns, dns_query


class DnsServer:
    """Answers DNS queries out of a book, on any number of sockets.

    Made inside the worker's running loop. `surprises` counts queries that ran into an error of
    ours, `last_surprise` is the newest of these errors.

    Args:
        book: What there is to answer; `Upstream.answered_at` and `Tally.dns` are kept in it.
        rand: Numbers in [0, 1), for the choice by weight.
        clock: CLOCK_BOOTTIME in seconds.
    """

    def __init__(
        self, book: Book, *, rand: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._answers = Answers(book, rand=rand, clock=clock, loop_time=self._loop.time, wall=_wall)
        self._udp: list[UdpSocket] = []
        self._tcp = TcpConnections(self._answer_over_tcp, self._loop)
        self.surprises = 0
        self.last_surprise: Exception | None = None

    @property
    def unsent(self) -> int:
        """How many UDP replies the kernel did not take; those clients ask again."""
        return sum(udp.unsent for udp in self._udp)

    @property
    def tcp_connections(self) -> int:
        """How many clients are connected over TCP."""
        return len(self._tcp)

    def serve_udp(self, sock: socket.socket) -> None:
        """Answer on a bound, non-blocking UDP socket, and own it from now on."""
        udp = UdpSocket(sock, self.answer)
        self._udp.append(udp)
        self._loop.add_reader(sock, udp.readable)

    async def serve_tcp(self, sock: socket.socket, backlog: int) -> None:
        """Answer on a bound TCP socket, which may be listening already, and own it from now on."""
        server = await self._loop.create_server(self._tcp.protocol, sock=sock, backlog=backlog)
        self._tcp.add_server(server)

    def answer(self, packet: bytes, client: str, *, over_tcp: bool = False) -> bytes | None:
        """Return the reply to a client's packet, None if it deserves none; never raises.

        `answered_at` of a group whose address is in the reply is set when this returns.
        """
        try:
            return self._answers.answer(packet, client, over_tcp=over_tcp)
        except Exception as error:  # noqa: BLE001  the worker serves on, the sweep reports it
            self.surprises += 1
            self.last_surprise = error
            return dns_query.refusal(packet, dns.SERVFAIL)

    def close(self) -> None:
        """Answer nothing more. Our copies of the sockets are closed; the slot keeps its own."""
        for udp in self._udp:
            if udp.sock.fileno() >= 0:  # may be called again
                self._loop.remove_reader(udp.sock)
                udp.sock.close()
        self._tcp.close()

    async def closed(self) -> None:
        """Wait, after `close`, until TCP clients have the answers that were made for them."""
        await self._tcp.closed()

    def sweep(self) -> None:
        """Renew what must not grow old; called once a minute or so."""
        self._answers.sweep()

    def _answer_over_tcp(self, message: bytes, client: str) -> bytes | None:
        return self.answer(message, client, over_tcp=True)


def _wall() -> float:
    return time.clock_gettime(time.CLOCK_REALTIME)
