"""Answers of DNS that are encoded ahead.

An `Answer` has its head ready for each way in which it may be asked for: RD and CD are copied, an
OPT record is counted if the query had one. `reply` joins it with the query's id, the very bytes of
its question, which keeps a resolver's 0x20 case, and the OPT record of its manner.

Sources: RFC 1035, 2181, 2308, 6891 (EDNS).
"""

import struct
from functools import cache

from trafficmgr.wire import dns
from trafficmgr.wire.dns_query import Manner

_HEAD = struct.Struct(">HHHHH")  # a header without its id
_VARIANTS = 8  # RD or not, CD or not, OPT or not
_RCODE_AT = 5  # of the extended bits, in an OPT record whose owner is the root


class Answer:
    """An answer, encoded ahead. Never changed, so it may be shared.

    Args:
        rcode: May be an extended one (BADVERS).
        is_authoritative: Sets AA: whether this is our own knowledge and no refusal.
        answers: Records of the answer section; likewise the other two.
        has_question: Whether the question is echoed, as all but a cookie's have one.
    """

    __slots__ = ("_body", "_cut", "_extended", "_heads")

    def __init__(
        self,
        rcode: int = dns.NOERROR,
        *,
        is_authoritative: bool = True,
        answers: tuple[bytes, ...] = (),
        authorities: tuple[bytes, ...] = (),
        additionals: tuple[bytes, ...] = (),
        has_question: bool = True,
    ) -> None:
        flags = dns.QR | (rcode & 0xF) | (dns.AA if is_authoritative else 0)
        counts = (len(answers), len(authorities), len(additionals))
        self._body = b"".join(answers + authorities + additionals)
        self._heads = _heads(flags, has_question, counts)
        self._cut = _heads(flags | dns.TC, has_question, (0, 0, 0))
        self._extended = rcode >> 4

    def reply(self, packet: bytes, end: int, manner: Manner, limit_bytes: int) -> bytes:
        """Return the reply to a query.

        Args:
            packet: The query, of which the id and the question up to `end` are echoed.
            end: Where its question ends.
            manner: The query's.
            limit_bytes: Beyond this, the reply is empty and says that there is more over TCP.
        """
        opt = manner.opt
        if self._extended and opt:
            opt = opt[:_RCODE_AT] + bytes((self._extended,)) + opt[_RCODE_AT + 1 :]
        head = self._heads[manner.variant]
        message = b"".join((packet[:2], head, packet[12:end], self._body, opt))
        if len(message) > limit_bytes:
            return self.cut(packet, end, manner)
        return message

    def cut(self, packet: bytes, end: int, manner: Manner) -> bytes:
        """Return the reply that says to ask again over TCP."""
        return packet[:2] + self._cut[manner.variant] + packet[12:end] + manner.opt


@cache
def _heads(flags: int, has_question: bool, counts: tuple[int, int, int]) -> tuple[bytes, ...]:
    """Return for each variant what stands before the question, without the id.

    Ten thousand names have a few dozen of them between them.
    """
    heads = []
    for variant in range(_VARIANTS):
        copied = (dns.RD_FLAG if variant & 1 else 0) | (dns.CD_FLAG if variant & 2 else 0)
        additionals = counts[2] + bool(variant & 4)
        heads.append(_HEAD.pack(flags | copied, has_question, *counts[:2], additionals))
    return tuple(heads)
