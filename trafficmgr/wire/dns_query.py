"""Takes DNS queries apart: what is asked, and how the answer is wanted.

`read` never follows a compression pointer (the one question of a query has nothing before it that
it could point to, and records are only stepped over), so that its work is bounded by the packet's
length. What can't be answered is a `QueryError`, which carries the bytes to send back, or None if
silence is the only safe answer.

Sources: RFC 1035, 2181, 4035 section 3 (CD), 6891 (EDNS), 9619 (one question), 7871 (client
subnet), 7873 (cookies), 5001 (NSID), 7828 (keep-alive over TCP), 8945 (TSIG).
"""

import struct
from typing import NamedTuple

from trafficmgr.wire import dns

NSID, CLIENT_SUBNET, COOKIE, KEEPALIVE = 3, 8, 10, 11
"""Options of EDNS that are understood; all others are ignored."""

_HEADER = struct.Struct(">HHHHHH")
_PAIR = struct.Struct(">HH")
_FIXED = struct.Struct(">HHIH")  # type, class, ttl, length of a record
_POINTER = struct.Struct(">H")
_SUBNET = struct.Struct(">HBB")  # family, source and scope prefix length
_FAMILY_BITS = {1: 32, 2: 128}
_TSIG_TIMES_BYTES = 8  # when it was signed, and how far clocks may differ


class QueryError(ValueError):
    """A packet that gets no answer of ours.

    `reply` says why, or is None: drop it without a word. But for TSIG it is a header alone, because
    what follows the query's header is not to be trusted.
    """

    def __init__(self, message: str, reply: bytes | None) -> None:
        super().__init__(message)
        self.reply = reply


class Subnet(NamedTuple):
    """The client for whom a resolver asks, as far as it says (RFC 7871).

    Attributes:
        family: 1 is IPv4, 2 is IPv6.
        prefix_bits: How much of the address it says.
        address: So many bytes as the prefix needs; unused bits are 0.
    """

    family: int
    prefix_bits: int
    address: bytes

    def option(self, scope_bits: int) -> bytes:
        """Return it as an option of the reply; the scope is for whom the answer holds."""
        data = _SUBNET.pack(self.family, self.prefix_bits, scope_bits) + self.address
        return _PAIR.pack(CLIENT_SUBNET, len(data)) + data


class Options(NamedTuple):
    """What a query asks for beside its question, by options of EDNS."""

    subnet: Subnet | None = None
    cookie: bytes | None = None
    wants_nsid: bool = False
    wants_keepalive: bool = False


NO_OPTIONS = Options()


class Manner(NamedTuple):
    """How a query wants to be answered, whatever it asks.

    Attributes:
        variant: Which of the answer's heads: RD, CD and EDNS of the query.
        opt: Our OPT record for it; empty if the query had none.
        limit_bytes: The largest reply that it takes over UDP.
        is_bad_version: It asked for a version of EDNS that nobody knows.
        options: What it asked for by options.
        is_proven: The client showed that its address is its own.
    """

    variant: int
    opt: bytes = b""
    limit_bytes: int = dns.MIN_UDP_BYTES
    is_bad_version: bool = False
    options: Options = NO_OPTIONS
    is_proven: bool = False

    def with_options(self, options: bytes) -> "Manner":
        """Return it with options in the reply's OPT record."""
        size = _PAIR.pack(0, len(options))[2:]
        return self._replace(opt=self.opt[:-2] + size + options)


class Query(NamedTuple):
    """A well-formed query. `name` is lower case wire format, `end` is where its question ends.

    A query without a question has no name: it asks for nothing but a cookie (RFC 7873 section 5.4).
    """

    name: bytes
    qtype: int
    qclass: int
    end: int
    manner: Manner


def read(packet: bytes) -> Query:
    """Take a query apart; bytes behind its last record are ignored.

    Raises:
        QueryError: It can't be answered; the caller sends the error's `reply`, if there is one.
    """
    if len(packet) < dns.HEADER_BYTES:
        raise QueryError("shorter than a header", None)
    _, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(packet)
    if flags & dns.QR:
        raise QueryError("a response: answering it could start a loop", None)
    if flags & dns.OPCODE_MASK:
        raise QueryError("not a standard query", refusal(packet, dns.NOTIMP))
    before = answers + authorities
    try:
        if questions == 0:
            return _read_cookie(packet, flags, before, additionals)
        name_end = _question_name_end(packet, questions)
        qtype, qclass = _PAIR.unpack_from(packet, name_end)
        end = name_end + _PAIR.size
        manner = _manner(packet, end, flags, before, additionals)
    except (_MalformedError, struct.error, IndexError) as error:
        raise QueryError(f"malformed: {error}", refusal(packet, dns.FORMERR)) from error
    return Query(packet[dns.HEADER_BYTES : name_end].lower(), qtype, qclass, end, manner)


def refusal(packet: bytes, rcode: int) -> bytes:
    """Return a reply of a header alone, which echoes id, opcode, RD and CD of the query."""
    ident, flags = _PAIR.unpack_from(packet)
    copied = flags & (dns.OPCODE_MASK | dns.RD_FLAG | dns.CD_FLAG)
    return _HEADER.pack(ident, dns.QR | copied | rcode, 0, 0, 0, 0)


class _MalformedError(ValueError):
    """The packet is not what RFC 1035 describes."""


# -- the question ---------------------------------------------------------------------------------


def _question_name_end(packet: bytes, questions: int) -> int:
    """Return the offset behind the one question's name; no pointers, no extended labels."""
    if questions != 1:
        raise _MalformedError("not exactly one question")
    offset = dns.HEADER_BYTES
    while (length := packet[offset]) != 0:
        if length > dns.MAX_LABEL_BYTES:
            raise _MalformedError("a pointer or an unknown kind of label in the question")
        offset += 1 + length
        if offset - dns.HEADER_BYTES >= dns.MAX_NAME_BYTES:
            raise _MalformedError("a name of more than 255 bytes")
    return offset + 1


def _read_cookie(packet: bytes, flags: int, before: int, additionals: int) -> Query:
    """Take a query without a question apart."""
    manner = _manner(packet, dns.HEADER_BYTES, flags, before, additionals)
    if manner.options.cookie is None:
        raise _MalformedError("no question")
    return Query(b"", 0, 0, dns.HEADER_BYTES, manner)


# -- EDNS -----------------------------------------------------------------------------------------


def _manner(packet: bytes, offset: int, flags: int, before: int, additionals: int) -> Manner:
    """Return how the query wants to be answered: step over its records, and look at the OPT."""
    copied = bool(flags & dns.RD_FLAG) | bool(flags & dns.CD_FLAG) << 1
    question_end = offset
    found: Manner | None = None
    for number in range(before + additionals):
        owner = offset
        offset = _skip_name(packet, offset)
        rtype, rclass, ttl, length = _FIXED.unpack_from(packet, offset)
        offset += _FIXED.size + length
        if offset > len(packet):
            raise _MalformedError("a record that is cut off")
        if rtype == dns.OPT:
            if found is not None or number < before or packet[owner] != 0:
                raise _MalformedError("an OPT that is not the one and only, or not the root's")
            options = _options(packet[offset - length : offset])
            found = _edns(copied, options, size_bytes=rclass, extended=ttl)
        elif rtype == dns.TSIG and number >= before:
            _check_is_last(number, before + additionals)
            reply = _bad_key(packet, question_end, owner, offset - length, offset)
            raise QueryError("signed with a key that nobody here knows", reply)
    return found or Manner(copied)


def _edns(copied: int, options: Options, *, size_bytes: int, extended: int) -> Manner:
    """Return what an OPT asks for; its class is a size and its TTL a version and flags."""
    opt = b"\0" + _FIXED.pack(dns.OPT, dns.MAX_UDP_BYTES, extended & dns.DO, 0)
    return Manner(
        variant=copied | 4,
        opt=opt,
        limit_bytes=max(dns.MIN_UDP_BYTES, min(size_bytes, dns.MAX_UDP_BYTES)),
        is_bad_version=bool(extended >> 16 & 0xFF),
        options=options,
    )


def _skip_name(packet: bytes, offset: int) -> int:
    """Return the offset behind a record's owner; where a pointer leads does not matter."""
    while (length := packet[offset]) != 0:
        if length >= 0xC0:  # noqa: PLR2004  a pointer: two bytes, and the name ends
            return offset + 2
        if length > dns.MAX_LABEL_BYTES:
            raise _MalformedError("an unknown kind of label")
        offset += 1 + length
    return offset + 1


def _options(data: bytes) -> Options:
    """Return the options that are understood; all must fill their record exactly."""
    if not data:
        return NO_OPTIONS
    offset, found = 0, NO_OPTIONS
    while offset < len(data):
        code, length = _PAIR.unpack_from(data, offset)
        offset += _PAIR.size
        value = data[offset : offset + length]
        offset += length
        if code == CLIENT_SUBNET and found.subnet is None:
            found = found._replace(subnet=_subnet(value))
        elif code == COOKIE and found.cookie is None:  # only the first counts (RFC 7873 section 5)
            found = found._replace(cookie=value)
        elif code == NSID:
            found = found._replace(wants_nsid=True)
        elif code == KEEPALIVE:
            found = found._replace(wants_keepalive=True)
    if offset != len(data):
        raise _MalformedError("an EDNS option that is cut off")
    return found


def _subnet(value: bytes) -> Subnet:
    """Return a client subnet; what is against RFC 7871 section 6 is malformed."""
    family, prefix_bits, scope_bits = _SUBNET.unpack_from(value)
    address = value[_SUBNET.size :]
    if scope_bits or prefix_bits > _FAMILY_BITS.get(family, -1):
        raise _MalformedError("a client subnet of an unknown family, or with a wrong prefix")
    unused = len(address) * 8 - prefix_bits
    if not 0 <= unused < 8 or (address and address[-1] & ((1 << unused) - 1)):  # noqa: PLR2004  bits
        raise _MalformedError("a client subnet with another address than its prefix says")
    return Subnet(family, prefix_bits, address)


def nsid(name: str) -> bytes:
    """Return the option that tells this server apart from others with its address (RFC 5001)."""
    data = name.encode()
    return _PAIR.pack(NSID, len(data)) + data


def keepalive(idle_s: float) -> bytes:
    """Return the option that says how long an idle TCP connection is kept (RFC 7828)."""
    return _PAIR.pack(KEEPALIVE, 2) + _PAIR.pack(0, int(idle_s * 10))[2:]


# -- TSIG -----------------------------------------------------------------------------------------


def _check_is_last(number: int, records: int) -> None:
    if number != records - 1:
        raise _MalformedError("a TSIG that is not the last record")


def _bad_key(packet: bytes, question_end: int, owner: int, start: int, end: int) -> bytes:
    """Return the reply to a signed query: no key is known here (RFC 8945 section 5.2.1)."""
    algorithm, times_at = _whole_name(packet, start), _skip_name(packet, start)
    times = packet[times_at : times_at + _TSIG_TIMES_BYTES]
    if times_at + _TSIG_TIMES_BYTES > end or times_at != start + len(algorithm):
        raise _MalformedError("a TSIG that is cut off, or whose algorithm is compressed")
    data = algorithm + times + b"\0\0" + packet[:2] + _PAIR.pack(dns.BADKEY, 0)
    record = _whole_name(packet, owner) + _FIXED.pack(dns.TSIG, dns.CLASS_ANY, 0, len(data)) + data
    header = bytearray(refusal(packet, dns.NOTAUTH))
    header[4:6] = packet[4:6]
    header[11] = 1
    return bytes(header) + packet[dns.HEADER_BYTES : question_end] + record


def _whole_name(packet: bytes, offset: int) -> bytes:
    """Return a name without compression; pointers lead backwards only, so that there is an end."""
    labels, bound = b"", offset
    while (length := packet[offset]) != 0:
        if length >= 0xC0:  # noqa: PLR2004  a pointer
            offset = _POINTER.unpack_from(packet, offset)[0] & 0x3FFF
            if not dns.HEADER_BYTES <= offset < bound:
                raise _MalformedError("a pointer that does not lead backwards")
            bound = offset
            continue
        labels += packet[offset : offset + 1 + length]
        offset += 1 + length
        if length > dns.MAX_LABEL_BYTES or len(labels) >= dns.MAX_NAME_BYTES:
            raise _MalformedError("a label of more than 63 bytes, or a name of more than 255")
    return labels + b"\0"
