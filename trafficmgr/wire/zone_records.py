"""What a zone file says, as plain data: records, RRsets, and the problems of a file.

Names are in wire format and in lower case where they own something (`wire.dns.wire_name`). Rdata is
in wire format without compression, and names in it keep the case in which they were written; to
look one up, lower it: no length byte of a name is a letter (labels end at 63, "A" is 65).

`zone_file` makes this data, `zone_checks` judges it, `zone_tree` answers from it. All of it can be
sent over the control link as it stands.

Sources: RFC 1035, 2181 section 5 (RRsets).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.core.noun import Noun
from trafficmgr.wire import dns

PTR, MX, SRV, DS, CAA = 12, 15, 33, 43, 257

_TYPE_NAMES = {
    dns.A: "A", dns.NS_TYPE: "NS", dns.CNAME: "CNAME", dns.SOA_TYPE: "SOA", PTR: "PTR",
    MX: "MX", dns.TXT: "TXT", dns.AAAA: "AAAA", SRV: "SRV", CAA: "CAA",
}  # fmt: skip
_TARGET_AT = {dns.NS_TYPE: 0, dns.CNAME: 0, PTR: 0, MX: 2, SRV: 6}
"""Type -> where in its rdata the name of another host begins."""

_PRINTABLE = range(0x21, 0x7F)
_ESCAPED = frozenset(b'.\\"();@$')


class Record(NamedTuple):
    """One resource record of class IN."""

    owner: bytes
    rtype: int
    ttl_s: int
    rdata: bytes


class RRset(Noun):
    """All records of one owner and type, in the order of the file; they share a TTL."""

    ttl_s: int
    rdatas: tuple[bytes, ...]


class ZoneText(Noun):
    """A zone as its file has it, checked.

    `origin` is the apex; `rrsets` goes from owner to type number to RRset, and is never changed.
    """

    origin: bytes
    rrsets: Mapping[bytes, Mapping[int, RRset]]


class Written(NamedTuple):
    """A record and the line, counted from 1, on which it begins."""

    record: Record
    line: int


class Problem(NamedTuple):
    """One thing that is wrong with a zone file, and what to write instead."""

    line: int
    text: str


class ZoneFileError(TrafficmgrError):
    """The file can't be served. `problems` has what is wrong, as `file:line: text`, from the top.

    A file that can't be read to its end has what was wrong up to there, and that.
    """

    def __init__(self, name: str, problems: Iterable[Problem]) -> None:
        self.problems = tuple(f"{name}:{line}: {text}" for line, text in sorted(set(problems)))
        super().__init__("\n".join(self.problems))


def target_of(record: Record) -> bytes | None:
    """Return the host that a record points to, in lower case; None if it points to none."""
    at = _TARGET_AT.get(record.rtype)
    return None if at is None else record.rdata[at:].lower()


def parents(name: bytes, origin: bytes) -> Iterator[bytes]:
    """Yield the names above one in a zone, closest first, the origin last; none outside of it."""
    above = list(dns.suffixes(name))
    if origin in above:
        yield from above[1 : above.index(origin) + 1]


def is_wildcard(name: bytes) -> bool:
    """Whether the name stands for all that are missing beside it (RFC 4592 section 2.1.1)."""
    return name.startswith(b"\x01*")


def labels(name: bytes) -> list[bytes]:
    """Return the labels of a wire name, without the root's."""
    return [part[1 : 1 + part[0]] for part in dns.suffixes(name) if part[0]]


def readable(name: bytes) -> str:
    """Return a wire name as a zone file has it, with its last dot."""
    return ".".join("".join(map(_letter, label)) for label in labels(name)) + "."


def type_name(rtype: int) -> str:
    """Return a type's name, of a rare one the form that works for all (RFC 3597 section 5)."""
    return _TYPE_NAMES.get(rtype, f"TYPE{rtype}")


def _letter(byte: int) -> str:
    if byte not in _PRINTABLE:
        return f"\\{byte:03d}"
    return f"\\{chr(byte)}" if byte in _ESCAPED else chr(byte)
