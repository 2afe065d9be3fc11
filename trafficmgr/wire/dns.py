"""DNS messages, as an authoritative server needs them: queries in, pre-encoded answers out.

Two halves, neither of which knows a socket, a clock or a zone:

* `read` takes a packet apart. It never follows a compression pointer (the one question of a query
  has nothing before it that it could point to, and records are only stepped over), so that its
  work is bounded by the packet's length. What can't be answered is a `QueryError`, which carries
  the twelve bytes to send back, or None if silence is the only safe answer.
* `Answer` is an answer encoded ahead, once for each way in which it may be asked for (`Manner`:
  RD and CD are copied, OPT is there if the query had one). `Answer.reply` joins it with the
  query's id and the very bytes of its question, which keeps a resolver's 0x20 case.

Records are encoded by dnslib, without compression but for `ASKED`, the pointer to the question:
their bytes are then right in any message. Addresses and queries, the hot path, don't touch it.

Sources: RFC 1035, 2181, 2308, 4035 section 3 (CD), 6891 (EDNS), 8482 (ANY), 9619 (one question).
"""

import ipaddress
import struct
from collections.abc import Iterator
from typing import NamedTuple

from dnslib import NS, RD, SOA, DNSBuffer, DNSLabel

A, NS_TYPE, SOA_TYPE, HINFO, AAAA, OPT = 1, 2, 6, 13, 28, 41
IXFR, AXFR, ANY = 251, 252, 255
CLASS_IN, CLASS_ANY = 1, 255

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

HEADER_BYTES = 12
MAX_NAME_BYTES = 255
MAX_LABEL_BYTES = 63
MIN_UDP_BYTES = 512
MAX_UDP_BYTES = 1232
"""What fits a packet that no path fragments (RFC 9715; gdnsd, BIND and Unbound agree)."""

MAX_TCP_BYTES = 65535
MAX_TTL_S = 2**31 - 1  # RFC 2181 section 8

ASKED = b"\xc0\x0c"
"""As the owner of a record: the name of the question, wherever that is from."""

_QR, _AA, _TC, _RD, _CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0010
_OPCODE = 0x7800
_DO = 0x8000

_HEADER = struct.Struct(">HHHHHH")
_HEAD = struct.Struct(">HHHHH")  # a header without its id
_PAIR = struct.Struct(">HH")
_FIXED = struct.Struct(">HHIH")  # type, class, ttl, length of a record

_NO_OPT, _PLAIN_OPT, _DO_OPT = 0, 1, 2
_VARIANTS = 12  # RD or not, CD or not, and three kinds of EDNS


class QueryError(ValueError):
    """A packet that gets no answer of ours.

    `reply` is a header with the reason, or None: drop it without a word. A header is all we send,
    because what follows the query's header is not to be trusted.
    """

    def __init__(self, message: str, reply: bytes | None) -> None:
        super().__init__(message)
        self.reply = reply


class Manner(NamedTuple):
    """How a query wants to be answered, whatever it asks.

    Attributes:
        variant: Index of the pre-encoded form: RD, CD and EDNS of the query.
        limit_bytes: The largest reply that it takes over UDP.
        is_bad_version: It asked for a version of EDNS that nobody knows.
    """

    variant: int
    limit_bytes: int = MIN_UDP_BYTES
    is_bad_version: bool = False


class Query(NamedTuple):
    """A well-formed query. `name` is lower case wire format, `end` is where its question ends."""

    name: bytes
    qtype: int
    qclass: int
    end: int
    manner: Manner


# -- queries in -----------------------------------------------------------------------------------


def read(packet: bytes) -> Query:
    """Take a query apart; bytes behind its last record are ignored.

    Raises:
        QueryError: It can't be answered; the caller sends the error's `reply`, if there is one.
    """
    if len(packet) < HEADER_BYTES:
        raise QueryError("shorter than a header", None)
    _, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(packet)
    if flags & _QR:
        raise QueryError("a response: answering it could start a loop", None)
    if flags & _OPCODE:
        raise QueryError("not a standard query", refusal(packet, NOTIMP))
    try:
        name_end = _question_name_end(packet, questions)
        qtype, qclass = _PAIR.unpack_from(packet, name_end)
        end = name_end + _PAIR.size
        manner = _manner(packet, end, flags, answers + authorities, additionals)
    except (_MalformedError, struct.error, IndexError) as error:
        raise QueryError(f"malformed: {error}", refusal(packet, FORMERR)) from error
    return Query(packet[HEADER_BYTES:name_end].lower(), qtype, qclass, end, manner)


def refusal(packet: bytes, rcode: int) -> bytes:
    """Return a reply of a header alone, which echoes id, opcode, RD and CD of the query."""
    ident, flags = _PAIR.unpack_from(packet)
    return _HEADER.pack(ident, _QR | flags & (_OPCODE | _RD | _CD) | rcode, 0, 0, 0, 0)


class _MalformedError(ValueError):
    """The packet is not what RFC 1035 describes."""


def _question_name_end(packet: bytes, questions: int) -> int:
    """Return the offset behind the one question's name; no pointers, no extended labels."""
    if questions != 1:
        raise _MalformedError("not exactly one question")
    offset = HEADER_BYTES
    while (length := packet[offset]) != 0:
        if length > MAX_LABEL_BYTES:
            raise _MalformedError("a pointer or an unknown kind of label in the question")
        offset += 1 + length
        if offset - HEADER_BYTES >= MAX_NAME_BYTES:
            raise _MalformedError("a name of more than 255 bytes")
    return offset + 1


def _manner(packet: bytes, offset: int, flags: int, before: int, additionals: int) -> Manner:
    """Return how the query wants to be answered: step over its records, and look at the OPT."""
    copied = bool(flags & _RD) | bool(flags & _CD) << 1
    found: Manner | None = None
    for number in range(before + additionals):
        owner = offset
        offset = _skip_name(packet, offset)
        rtype, rclass, ttl, length = _FIXED.unpack_from(packet, offset)
        offset += _FIXED.size + length
        if offset > len(packet):
            raise _MalformedError("a record that is cut off")
        if rtype == OPT:
            if found is not None or number < before or packet[owner] != 0:
                raise _MalformedError("an OPT that is not the one and only, or not the root's")
            _check_options(packet[offset - length : offset])
            found = _edns(copied, size_bytes=rclass, extended=ttl)
    return found or Manner(copied)


def _edns(copied: int, *, size_bytes: int, extended: int) -> Manner:
    """Return what an OPT asks for; its class is a size and its TTL a version and flags."""
    kind = _DO_OPT if extended & _DO else _PLAIN_OPT
    return Manner(
        variant=copied | kind << 2,
        limit_bytes=max(MIN_UDP_BYTES, min(size_bytes, MAX_UDP_BYTES)),
        is_bad_version=bool(extended >> 16 & 0xFF),
    )


def _skip_name(packet: bytes, offset: int) -> int:
    """Return the offset behind a record's owner; where a pointer leads does not matter."""
    while (length := packet[offset]) != 0:
        if length >= 0xC0:  # noqa: PLR2004  a pointer: two bytes, and the name ends
            return offset + 2
        if length > MAX_LABEL_BYTES:
            raise _MalformedError("an unknown kind of label")
        offset += 1 + length
    return offset + 1


def _check_options(data: bytes) -> None:
    """Raise _MalformedError unless the options fill their record exactly; none is obeyed."""
    offset = 0
    while offset < len(data):
        _, length = _PAIR.unpack_from(data, offset)
        offset += _PAIR.size + length
    if offset != len(data):
        raise _MalformedError("an EDNS option that is cut off")


# -- names ----------------------------------------------------------------------------------------


def wire_name(name: str) -> bytes:
    """Return a name in wire format, in lower case.

    Args:
        name: Labels with dots between them, with or without the last dot; "" is the root.

    Raises:
        ValueError: No query could ever carry this name.
    """
    text = name.removesuffix(".").lower()
    return _joined([label.encode("ascii") for label in text.split(".")] if text else [])


def mailbox_name(mailbox: str) -> bytes:
    """Return a mail address as the SOA wants it: what stands before the @ is one label."""
    local, at, domain = mailbox.partition("@")
    return _joined([local.encode("ascii")])[:-1] + wire_name(domain) if at else wire_name(mailbox)


def suffixes(name: bytes) -> Iterator[bytes]:
    """Yield a wire name and all names above it, longest first, the root last."""
    offset = 0
    while True:
        yield name[offset:]
        if name[offset] == 0:
            return
        offset += 1 + name[offset]


def _joined(labels: list[bytes]) -> bytes:
    if not all(1 <= len(label) <= MAX_LABEL_BYTES for label in labels):
        raise ValueError(f"a label of a DNS name has 1 to 63 bytes: {labels!r}")
    name = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(name) > MAX_NAME_BYTES:
        raise ValueError(f"a DNS name has at most 255 bytes: {labels!r}")
    return name


# -- records --------------------------------------------------------------------------------------


def address_type(address: str) -> int:
    """Return A or AAAA; raises ValueError if this is no IP address."""
    return A if ipaddress.ip_address(address).version == 4 else AAAA  # noqa: PLR2004  IPv4


def address_record(owner: bytes, ttl_s: int, address: str) -> bytes:
    """Return an A or AAAA record; raises ValueError if this is no IP address."""
    return _record(owner, address_type(address), ttl_s, RD(ipaddress.ip_address(address).packed))


def ns_record(owner: bytes, ttl_s: int, server: bytes) -> bytes:
    """Return an NS record."""
    return _record(owner, NS_TYPE, ttl_s, NS(_label(server)))


def soa_record(
    owner: bytes, ttl_s: int, *, server: bytes, mailbox: bytes, serial: int, negative_ttl_s: int
) -> bytes:
    """Return an SOA record.

    Refresh, retry and expire speak to secondaries, which we have none of (RIPE-203's values).
    """
    times = (serial % 2**32, 86400, 7200, 3600000, negative_ttl_s)
    return _record(owner, SOA_TYPE, ttl_s, SOA(_label(server), _label(mailbox), times))


def hinfo_record() -> bytes:
    """Return what ANY is answered with, so that it amplifies nothing (RFC 8482 section 4.2)."""
    return _record(ASKED, HINFO, 3600, RD(b"\x07RFC8482\x00"))


def _record(owner: bytes, rtype: int, ttl_s: int, rdata: RD) -> bytes:
    buffer = DNSBuffer()
    buffer.encode_name = buffer.encode_name_nocompress
    rdata.pack(buffer)
    data = bytes(buffer.data)
    return owner + _FIXED.pack(rtype, CLASS_IN, min(ttl_s, MAX_TTL_S), len(data)) + data


def _label(name: bytes) -> DNSLabel:
    """Return a wire name as dnslib's; from labels, because its text form guesses at IDNA."""
    return DNSLabel([part[1 : 1 + part[0]] for part in suffixes(name) if part != b"\0"])


# -- answers out ----------------------------------------------------------------------------------


class Answer:
    """An answer, encoded ahead in all its variants. Never changed, so it may be shared.

    Args:
        rcode: May be an extended one (BADVERS).
        is_authoritative: Sets AA: whether this is our own knowledge and no refusal.
        answers: Records of the answer section; likewise the other two.
    """

    __slots__ = ("_cut", "_whole")

    def __init__(
        self,
        rcode: int = NOERROR,
        *,
        is_authoritative: bool = True,
        answers: tuple[bytes, ...] = (),
        authorities: tuple[bytes, ...] = (),
        additionals: tuple[bytes, ...] = (),
    ) -> None:
        flags = _QR | (rcode & 0xF) | (_AA if is_authoritative else 0)
        counts = (len(answers), len(authorities), len(additionals))
        body = b"".join(answers + authorities + additionals)
        self._whole = _encoded(flags, rcode, counts, body)
        self._cut = _encoded(flags | _TC, rcode, (0, 0, 0), b"")

    def reply(self, packet: bytes, end: int, variant: int, limit_bytes: int) -> bytes:
        """Return the reply to a query.

        Args:
            packet: The query, of which the id and the question up to `end` are echoed.
            end: Where its question ends.
            variant: From the query's `Manner`.
            limit_bytes: Beyond this, the reply is empty and says that there is more over TCP.
        """
        head, tail = self._whole[variant]
        message = packet[:2] + head + packet[12:end] + tail
        if len(message) > limit_bytes:
            head, tail = self._cut[variant]
            return packet[:2] + head + packet[12:end] + tail
        return message


def _encoded(
    flags: int, rcode: int, counts: tuple[int, int, int], body: bytes
) -> tuple[tuple[bytes, bytes], ...]:
    """Return for each variant what stands before the question, without the id, and behind it."""
    parts = []
    for variant in range(_VARIANTS):
        copied = (_RD if variant & 1 else 0) | (_CD if variant & 2 else 0)
        opt = _opt(variant >> 2, rcode)
        head = _HEAD.pack(flags | copied, 1, counts[0], counts[1], counts[2] + bool(opt))
        parts.append((head, body + opt))
    return tuple(parts)


def _opt(kind: int, rcode: int) -> bytes:
    """Return our OPT record: version 0, our own size, DO as it was asked."""
    if kind == _NO_OPT:
        return b""
    extended = rcode >> 4 << 24 | (_DO if kind == _DO_OPT else 0)
    return b"\0" + _FIXED.pack(OPT, MAX_UDP_BYTES, extended, 0)
