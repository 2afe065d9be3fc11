"""A resolver as careful clients have it: one question over UDP, patience, and respect for the TTL.

Only what the demo asks for: A records, class IN. Written by hand so that the demo does not test
trafficmgr's DNS server with the library that the server itself is made of (RFC 1035, section 4).
"""

import asyncio
import random
import struct
from dataclasses import dataclass
from typing import cast

TRIES = 3
PATIENCE_S = 2.0
"""How long one try waits for its answer: glibc's resolver takes 5 s, dig 5 s, browsers 1 s."""

_HEADER = struct.Struct(">HHHHHH")
_RECORD = struct.Struct(">HHIH")
_A, _IN = 1, 1
_RESPONSE, _RECURSE, _RCODE, _TRUNCATED = 0x8000, 0x0100, 0x000F, 0x0200
_POINTER = 0xC0


class NameNotResolvedError(Exception):
    """There was no usable answer; the text says why."""


@dataclass(frozen=True)
class Resolved:
    """An answer: where the name points, and for how many seconds that may be believed."""

    address: str
    ttl_s: int


def question(name: str, number: int) -> bytes:
    """Return a query for the name's A records; `number` comes back in the answer."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.rstrip(".").split("."))
    return _HEADER.pack(number, _RECURSE, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", _A, _IN)


def read_answer(packet: bytes) -> Resolved:
    """Return the first A record of a response.

    Raises:
        NameNotResolvedError: The packet is garbage, an error, or has no A record.
    """
    try:
        _, flags, questions, answers, _, _ = _HEADER.unpack_from(packet)
        at = _HEADER.size
        for _ in range(questions):
            at = _after_name(packet, at) + 4
        if flags & _RCODE or flags & _TRUNCATED:
            raise NameNotResolvedError(f"dns: rcode {flags & _RCODE}, flags {flags:#06x}")
        for _ in range(answers):
            at = _after_name(packet, at)
            kind, family, ttl_s, length = _RECORD.unpack_from(packet, at)
            at += _RECORD.size
            if (kind, family, length) == (_A, _IN, 4):
                return Resolved(".".join(map(str, packet[at : at + 4])), ttl_s)
            at += length
    except (struct.error, IndexError) as error:
        raise NameNotResolvedError(f"dns: a packet of {len(packet)} bytes is garbage") from error
    raise NameNotResolvedError("dns: an answer without an address")


def _after_name(packet: bytes, at: int) -> int:
    while packet[at]:
        if packet[at] >= _POINTER:
            return at + 2
        at += 1 + packet[at]
    return at + 1


class Resolver(asyncio.DatagramProtocol):
    """One client's socket to the name server; it asks one question at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._waiter: asyncio.Future[bytes] | None = None
        self._number = 0
        self._gone = asyncio.Event()
        self.retries = 0

    @classmethod
    async def to(cls, server: tuple[str, int]) -> "Resolver":
        """Return a resolver that asks the server at this address and port."""
        loop = asyncio.get_running_loop()
        _, resolver = await loop.create_datagram_endpoint(cls, remote_addr=server)
        return resolver

    async def resolve(self, name: str) -> Resolved:
        """Return where the name points.

        Raises:
            NameNotResolvedError: No answer in all tries, or an unusable one.
        """
        for attempt in range(TRIES):
            self.retries += attempt > 0
            try:
                return read_answer(await self._ask(name))
            except TimeoutError:
                continue
        raise NameNotResolvedError(f"dns: no answer in {TRIES} tries of {PATIENCE_S:g} s")

    async def _ask(self, name: str) -> bytes:
        assert self._transport is not None  # noqa: S101  `to` connected it
        self._number = random.randrange(0x10000)
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.sendto(question(name, self._number))
        return await asyncio.wait_for(self._waiter, PATIENCE_S)

    async def close(self) -> None:
        """Close the socket; returns once it is closed."""
        if self._transport is not None:
            self._transport.close()
            await self._gone.wait()

    # -- asyncio.DatagramProtocol -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the socket."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:  # noqa: ARG002  asyncio's signature
        """Take the answer to the question asked last; anything else is late or forged."""
        is_ours = len(data) >= _HEADER.size and data[:2] == self._number.to_bytes(2, "big")
        if is_ours and data[2] & (_RESPONSE >> 8) and self._waiter and not self._waiter.done():
            self._waiter.set_result(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """Note that the socket is closed."""
        self._gone.set()

    def error_received(self, exc: Exception) -> None:
        """Let the try run into its deadline: a refused datagram is a server that restarts."""
