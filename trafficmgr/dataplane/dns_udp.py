"""DNS over UDP: a batch of datagrams per wake-up, each answered before the next is read.

asyncio's datagram transport costs a callback and a buffer per packet; a reader of our own costs
two system calls. On a wildcard bind the kernel is asked for each datagram's destination
(IP_PKTINFO), because the reply has to leave from the very address that was asked, or the client
takes it for a forgery (RFC 2181 section 4).
"""

import socket
import struct
from collections.abc import Callable

BATCH = 64
"""Datagrams per wake-up, some milliseconds of work; then HTTP has its turn (gdnsd takes 16)."""

MAX_QUERY_BYTES = 4096
"""A query is one name and an OPT; what is longer is cut off by the kernel and then malformed."""

RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
"""Asked for; the kernel grants twice net.core.rmem_max at most. Its default holds 193 queries, and
what arrives while a slot's worker is replaced has to wait here."""

_IP_PKTINFO = 8  # linux/in.h; Python names it from 3.12 on
_IPV4_INFO = struct.Struct("=i4s4s")  # in_pktinfo: interface, local address, destination
_IPV6_INFO = struct.Struct("=16si")  # in6_pktinfo: address, interface

_Ancillary = list[tuple[int, int, bytes]]


class UdpSocket:
    """One bound, non-blocking UDP socket and what becomes of its datagrams.

    Args:
        sock: Whoever calls `readable` watches it; it is not closed here.
        answer: Datagram and address of the client -> reply, None if it deserves none. Never raises.
    """

    __slots__ = ("_answer", "_space", "readable", "sock", "unsent")

    def __init__(self, sock: socket.socket, answer: Callable[[bytes, str], bytes | None]) -> None:
        self.sock = sock
        self.unsent = 0
        self._answer = answer
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self._space = _ask_for_destination(sock)
        self.readable = self._serve_wildcard if self._space else self._serve

    def _serve(self) -> None:
        """Answer what is there, from the socket's own address."""
        sock, answer = self.sock, self._answer
        for _ in range(BATCH):
            try:
                packet, client = sock.recvfrom(MAX_QUERY_BYTES)
            except OSError:  # nothing more to read; or an ICMP error, after which there is
                return
            reply = answer(packet, client[0])
            if reply is not None:
                try:
                    sock.sendto(reply, client)
                except OSError:  # full buffers, port 0, unreachable: the client will ask again
                    self.unsent += 1

    def _serve_wildcard(self) -> None:
        """Answer what is there, each from the address that it was sent to."""
        sock, answer = self.sock, self._answer
        for _ in range(BATCH):
            try:
                packet, ancillary, _flags, client = sock.recvmsg(MAX_QUERY_BYTES, self._space)
            except OSError:
                return
            reply = answer(packet, client[0])
            if reply is not None:
                try:
                    sock.sendmsg((reply,), _reply_from(ancillary), 0, client)
                except OSError:
                    self.unsent += 1


def _ask_for_destination(sock: socket.socket) -> int:
    """Return the room that a datagram's destination takes; 0 if the socket has but one address."""
    host = sock.getsockname()[0]
    if host == "0.0.0.0":  # noqa: S104  a comparison, no bind
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        return socket.CMSG_SPACE(_IPV4_INFO.size)
    if host == "::":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        return socket.CMSG_SPACE(_IPV6_INFO.size)
    return 0


def _reply_from(ancillary: _Ancillary) -> _Ancillary:
    """Turn a datagram's destination into its reply's source; routing picks the interface."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            _, local, _ = _IPV4_INFO.unpack(data)
            return [(level, kind, _IPV4_INFO.pack(0, local, bytes(4)))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            address, _ = _IPV6_INFO.unpack(data)
            return [(level, kind, _IPV6_INFO.pack(address, 0))]
    return []
