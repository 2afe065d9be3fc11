"""DNS as an authoritative server needs it: numbers, names and records.

`dns_query` takes queries apart, `dns_answer` puts answers together; none of the three knows a
socket, a clock or a zone.

Records are encoded by dnslib, without compression but for `ASKED`, the pointer to the question:
their bytes are then right in any message. Addresses and queries, the hot path, don't touch it.

Sources: RFC 1035, 2181, 8482 (ANY).
"""

import ipaddress
import struct
from collections.abc import Iterator

from dnslib import NS, RD, SOA, DNSBuffer, DNSLabel

A, NS_TYPE, CNAME, SOA_TYPE, HINFO, TXT, AAAA, OPT = 1, 2, 5, 6, 13, 16, 28, 41
TSIG, IXFR, AXFR, ANY = 250, 251, 252, 255
CLASS_IN, CLASS_CH, CLASS_ANY = 1, 3, 255

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, NOTAUTH = 0, 1, 2, 3, 4, 5, 9
BADVERS, BADKEY = 16, 17

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

QR, AA, TC, RD_FLAG, CD_FLAG = 0x8000, 0x0400, 0x0200, 0x0100, 0x0010
OPCODE_MASK = 0x7800
DO = 0x8000

_FIXED = struct.Struct(">HHIH")  # type, class, ttl, length of a record


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


def text_record(owner: bytes, ttl_s: int, text: str, rclass: int = CLASS_IN) -> bytes:
    """Return a TXT record of one string of at most 255 bytes."""
    data = text.encode()[:255]
    rdata = bytes((len(data),)) + data
    return owner + _FIXED.pack(TXT, rclass, ttl_s, len(rdata)) + rdata


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
